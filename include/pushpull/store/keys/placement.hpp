/// @file
/// Which owner holds which elements.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/step_control.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Policies for who owns what. Results do not depend on them.
namespace placement {

/// The keys of one init follow one another in memory and are cut into slices of whole leaves (1,024 elements), one per device:
/// the default. Slices differ by at most one leaf, and those that hold least have it: so an init of fewer leaves than devices goes
/// to some of them.
struct slices {
  using policy_kind = placement_tag;
  static constexpr bool whole_keys = false;
};

/// Every key has one owner: of the keys of one init the largest first, each is given to the device that owns least; with a
/// rule that multiplies matrices (muon), the dearest first, to the device whose products cost least. For thousands of small keys
/// that travel between devices whole.
struct owners {
  using policy_kind = placement_tag;
  static constexpr bool whole_keys = true;
};

/// MXNet's placement of keys on servers, with every owner as a server: each device, or over ranks each device of each rank.
/// Of N owners, number * 9973 mod N holds a key of fewer than `bound` elements whole. A larger key is cut: owner i begins
/// at element round(size / N * i), halves away from zero; a key that init has given rows to is cut between rows. A key's
/// number is the integer key itself, or the place of a string key in the order of init. For runs whose owners must be those
/// of MXNet's servers; keys are balanced worse than by `owners`, and each large key has passes of its own.
///
/// Three differences: cuts are moved to the nearest multiple of 1,024 elements, by at most 512, where leaves of norms, codes
/// of compressors and aligned memory begin. Compressors do not move them. Keys of Factored rules are never cut. Norms are of
/// whole keys, not per server.
struct mxnet {
  using policy_kind = placement_tag;
  static constexpr bool whole_keys = false;
  std::int64_t bound = 1'000'000;  ///< MXNET_KVSTORE_BIGARRAY_BOUND.

  /// @throws invalid_argument on a negative bound
  void validate() const {
    detail::expects<invalid_argument>(bound >= 0, [&] {
      return "placement::mxnet: a bound of at least 0 elements expected, got " + std::to_string(bound);
    });
  }
};

}  // namespace placement

namespace detail {

/// How a store places its keys.
struct placement_rule {
  bool whole_keys = false;                 ///< Keys are not cut: see placement::owners.
  std::optional<std::int64_t> bound = {};  ///< See placement::mxnet; none where keys are placed otherwise.
  std::int64_t padding = pass::padding;    ///< Each key takes a multiple of so many elements.
  /// What a key's step costs its owner, where the elements do not say it. Null: they do.
  std::int64_t (*cost)(shape const&) = nullptr;

  /// Whether norms' leaves begin with each key, not with the keys of an init, which follow one another on their owners.
  bool begins_leaves_with_keys() const { return whole_keys || bound; }
};

/// @param whole_keys  Whether the policy or the rule forbids to cut keys.
/// @param padding     See placement_rule.
template <class Placement>
placement_rule rule_of(Placement const& policy, bool whole_keys, std::int64_t padding = pass::padding) {
  placement_rule result{.whole_keys = whole_keys, .padding = padding};
  if constexpr (requires { policy.bound; }) {
    policy.validate();
    result.bound = whole_keys ? std::numeric_limits<std::int64_t>::max() : policy.bound;
  }
  return result;
}

/// Elements from the first of a key to the first of the next: whole blocks.
inline std::int64_t padded(std::size_t size, std::int64_t padding = pass::padding) {
  return (static_cast<std::int64_t>(size) + padding - 1) / padding * padding;
}

/// Elements since the last boundary of a norm's leaf, `elements` after an element where there are `phase`.
inline std::int64_t leaf_phase_after(std::int64_t phase, std::int64_t elements) {
  return (phase + elements) % pass::leaf_size;
}

/// Elements [begin, end) of an arena.
struct slice {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};

/// The elements that both have; of negative size if there are none.
inline slice common(slice const& a, slice const& b) { return {std::max(a.begin, b.begin), std::min(a.end, b.end)}; }

/// A key as placements see it.
struct placed_key {
  std::int64_t number = 0;  ///< For placement::mxnet.
  std::int64_t unit = 1;    ///< Elements that stay together: of a row, if init has given rows.
  std::int64_t cost = 0;    ///< For whole keys: what its step costs.
};

/// Of `owners` owners the one that holds a key below MXNet's bound.
inline std::size_t mxnet_owner(std::int64_t number, std::size_t owners) {
  auto const count = static_cast<std::int64_t>(owners);
  std::int64_t const remainder = (number % count + count) % count;  // no product overflows
  return static_cast<std::size_t>(remainder * 9973 % count);
}

/// The slices of a key that is not below the bound, which lies alone in an arena: MXNet's cuts, moved to leaves.
inline std::vector<slice> mxnet_parts(std::size_t size, std::int64_t unit, std::size_t owners,
                                      std::int64_t padding = pass::padding) {
  std::int64_t const end = padded(size, padding);
  auto const units = static_cast<double>(static_cast<std::int64_t>(size) / std::max<std::int64_t>(unit, 1));
  auto const cut = [&](std::size_t i) {
    if (i == owners) return end;
    double const exact = std::round(units / static_cast<double>(owners) * static_cast<double>(i));
    std::int64_t const element = static_cast<std::int64_t>(exact) * unit;
    return std::min(end, (element + pass::leaf_size / 2) / pass::leaf_size * pass::leaf_size);
  };
  std::vector<slice> parts;
  for (std::size_t owner = 0; owner < owners; ++owner) parts.push_back({cut(owner), cut(owner + 1)});
  return parts;
}

/// Where the keys of one init lie in their arena, and the part of the arena that each owner holds.
struct layout {
  std::vector<std::int64_t> offsets;  ///< Of each key.
  std::vector<slice> parts;           ///< Of each owner.
  std::int64_t size = 0;              ///< Of the arena, padding between keys included.
};

/// One after the other: keys that come first, then the others.
inline layout lie_together(std::span<std::size_t const> sizes, std::vector<bool> const& comes_first,
                           std::int64_t padding = pass::padding) {
  layout result;
  result.offsets.resize(sizes.size());
  for (bool const first : {true, false})
    for (std::size_t i = 0; i < sizes.size(); ++i)
      if (comes_first[i] == first) {
        result.offsets[i] = result.size;
        result.size += padded(sizes[i], padding);
      }
  return result;
}

/// `lie_together`, cut into parts of equally many leaves; where one leaf more is left over, owners with least have it.
/// @param loads  The elements that each owner holds, which grow.
inline layout lay_out_slices(std::span<std::size_t const> sizes, std::vector<bool> const& comes_first,
                             std::vector<std::int64_t>& loads, std::int64_t padding = pass::padding) {
  layout result = lie_together(sizes, comes_first, padding);
  auto const owners = static_cast<std::int64_t>(loads.size());
  std::int64_t const leaves = (result.size + pass::leaf_size - 1) / pass::leaf_size;
  std::vector<std::int64_t> part(loads.size(), leaves / owners * pass::leaf_size);
  std::vector<std::size_t> order(loads.size());
  for (std::size_t owner = 0; owner < order.size(); ++owner) order[owner] = owner;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return loads[a] < loads[b]; });
  for (std::int64_t i = 0; i < leaves % owners; ++i) part[order[static_cast<std::size_t>(i)]] += pass::leaf_size;
  std::int64_t begin = 0;
  for (std::size_t owner = 0; owner < part.size(); ++owner) {
    result.parts.push_back({begin, std::min(begin + part[owner], result.size)});  // the last leaf may be a part of one
    begin = result.parts.back().end;
    loads[owner] += result.parts.back().size();
  }
  return result;
}

/// Each owner's keys lie together, in the order of the list.
inline layout lay_out_by_owner(std::span<std::size_t const> sizes, std::span<std::size_t const> owner_of,
                               std::size_t owners, std::int64_t padding = pass::padding) {
  layout result;
  result.offsets.resize(sizes.size());
  for (std::size_t owner = 0; owner < owners; ++owner) {
    std::int64_t const begin = result.size;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      if (owner_of[i] == owner) {
        result.offsets[i] = result.size;
        result.size += padded(sizes[i], padding);
      }
    result.parts.push_back({begin, result.size});
  }
  return result;
}

/// The dearest first, each key goes to the owner with least.
/// @param costs  Of each key's step.
/// @param loads  The costs of the keys that each owner holds, which grow.
inline layout lay_out_owners(std::span<std::size_t const> sizes, std::span<std::int64_t const> costs,
                             std::vector<std::int64_t>& loads, std::int64_t padding = pass::padding) {
  std::vector<std::size_t> order(sizes.size()), owner_of(sizes.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return costs[a] > costs[b]; });
  for (std::size_t const i : order) {
    auto const least = std::min_element(loads.begin(), loads.end());
    owner_of[i] = static_cast<std::size_t>(least - loads.begin());
    *least += costs[i];
  }
  return lay_out_by_owner(sizes, owner_of, loads.size(), padding);
}

/// An arena of `size` elements that one owner holds whole.
inline std::vector<slice> whole_part(std::int64_t size, std::size_t holder, std::size_t owners) {
  std::vector<slice> parts;
  for (std::size_t owner = 0; owner < owners; ++owner)
    parts.push_back({owner > holder ? size : 0, owner < holder ? 0 : size});
  return parts;
}

}  // namespace detail
}  // namespace pushpull
