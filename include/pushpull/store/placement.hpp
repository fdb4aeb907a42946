/// @file
/// Which device owns which elements.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/step_control.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Policies for who owns what. Results do not depend on them.
namespace placement {

/// The keys of one init lie one behind the other and are cut into equal parts, one per device: the default. Every device
/// has the same work, whatever the sizes of the keys.
struct slices {
  using policy_kind = placement_tag;
  static constexpr bool whole_keys = false;
};

/// Every key has one owner: of the keys of one init the largest first, each is given to the device that owns least. For
/// thousands of small keys that travel between devices whole.
struct owners {
  using policy_kind = placement_tag;
  static constexpr bool whole_keys = true;
};

}  // namespace placement

namespace detail {

/// Elements from the first of a key to the first of the next: whole blocks.
inline std::int64_t padded(std::size_t size) {
  return (static_cast<std::int64_t>(size) + pass::padding - 1) / pass::padding * pass::padding;
}

/// Elements [begin, end) of a group.
struct slice {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};

/// The slice of device `n` of `devices`: equal parts of whole leaves, the last ones shorter.
inline slice slice_of(std::int64_t size, std::size_t n, std::size_t devices) {
  auto const count = static_cast<std::int64_t>(devices);
  std::int64_t const leaves = (size + pass::leaf_size - 1) / pass::leaf_size;
  std::int64_t const part = (leaves + count - 1) / count * pass::leaf_size;
  auto const index = static_cast<std::int64_t>(n);
  return {std::min(size, index * part), std::min(size, (index + 1) * part)};
}

/// Where the keys of one init lie in their group, and the part of the group that each device owns.
struct layout {
  std::vector<std::int64_t> offsets;  ///< Of each key.
  std::vector<slice> parts;           ///< Of each device.
  std::int64_t size = 0;              ///< Of the group, padding between keys included.
};

/// Keys that come first lie first, one behind the other; parts are equal.
inline layout lay_out_slices(std::span<std::size_t const> sizes, std::vector<bool> const& comes_first,
                             std::size_t devices) {
  layout result;
  result.offsets.resize(sizes.size());
  for (bool const first : {true, false})
    for (std::size_t i = 0; i < sizes.size(); ++i)
      if (comes_first[i] == first) {
        result.offsets[i] = result.size;
        result.size += padded(sizes[i]);
      }
  for (std::size_t n = 0; n < devices; ++n) result.parts.push_back(slice_of(result.size, n, devices));
  return result;
}

/// Each device's keys lie together, in the order of the list.
/// @param loads  Elements that each device owns, which grow.
inline layout lay_out_owners(std::span<std::size_t const> sizes, std::vector<std::int64_t>& loads) {
  std::vector<std::size_t> order(sizes.size()), owner(sizes.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return sizes[a] > sizes[b]; });
  for (std::size_t const i : order) {
    auto const least = std::min_element(loads.begin(), loads.end());
    owner[i] = static_cast<std::size_t>(least - loads.begin());
    *least += static_cast<std::int64_t>(sizes[i]);
  }
  layout result;
  result.offsets.resize(sizes.size());
  for (std::size_t n = 0; n < loads.size(); ++n) {
    std::int64_t const begin = result.size;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      if (owner[i] == n) {
        result.offsets[i] = result.size;
        result.size += padded(sizes[i]);
      }
    result.parts.push_back({begin, result.size});
  }
  return result;
}

}  // namespace detail
}  // namespace pushpull
