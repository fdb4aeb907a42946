/// @file
/// The arenas of a store, and where new keys lie in them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/store/keys/arena.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/keys/topology.hpp>
#include <pushpull/store/memory_report.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// @tparam Arena  A key_arena.
template <class Arena>
class arena_list {
  using D = typename Arena::device_type;

  /// An arena that has room for further keys, after its first `used` elements.
  struct open_arena {
    Arena* arena = nullptr;
    std::int64_t used = 0;
    std::size_t owner = 0;
  };

 public:
  /// Where the keys of one init lie. Dropped before `commit`, it leaves no trace.
  class place {
   public:
    /// Key i's.
    Arena& arena(std::size_t i = 0) const { return *pieces_[piece_of_[i]].arena; }
    /// Key i's first element in its arena.
    std::int64_t offset(std::size_t i) const { return offsets_[i]; }
    /// Key i's first element, counted over the keys of the init wherever they lie.
    std::int64_t first_element(std::size_t i) const { return numbers_.offsets[i]; }
    /// Elements so counted.
    std::int64_t elements() const { return numbers_.size; }
    /// Elements between the last boundary of a norm's leaf and key i.
    std::int32_t leaf_phase(std::size_t i) const {
      return static_cast<std::int32_t>(begins_leaves_ ? 0 : numbers_.offsets[i] % pass::leaf_size);
    }
    /// f(arena, slice) for each arena that has keys of the init: their elements, padding included.
    template <class F>
    void for_each_range(F const& f) const {
      for (piece const& x : pieces_) f(*x.arena, x.range);
    }

   private:
    friend arena_list;

    struct piece {
      Arena* arena;
      slice range;
      std::unique_ptr<Arena> made;  // null: an arena of the list
    };

    std::vector<piece> pieces_;
    std::vector<std::size_t> piece_of_;  // of each key
    std::vector<std::int64_t> offsets_;  // of each key, in its arena
    layout numbers_;
    bool begins_leaves_ = false;
    open_arena* open_ = nullptr;  // null: no arena has further room
    open_arena opened_;           // its state after the commit
    std::vector<std::int64_t> loads_;
  };

  /// @param states, ranks  See key_arena.
  arena_list(topology const& all, std::size_t states, placement_rule const& rule, rank_group* ranks = nullptr)
      : topology_(all), states_(states), ranks_(ranks), rule_(rule), loads_(all.owners()), open_(3 * all.owners()) {}

  /// Room for keys of `sizes` elements. All that may fail; one at a time until `commit`.
  /// @param has_gradient  Whether a resident key has a gradient: the gradient arrays cover no other keys.
  /// @param placed        The keys for placement::mxnet and for whole keys, which alone read them.
  place prepare(std::vector<D> const& devices, std::span<std::size_t const> sizes,
                std::vector<bool> const& has_gradient, bool resident, std::span<placed_key const> placed = {}) {
    place result;
    result.begins_leaves_ = rule_.begins_leaves_with_keys();
    result.numbers_ = lie_together(sizes, has_gradient, rule_.padding);
    result.loads_ = loads_;
    result.offsets_.resize(sizes.size());
    result.piece_of_.resize(sizes.size());
    key_group together;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (rule_.bound && static_cast<std::int64_t>(sizes[i]) >= *rule_.bound) {
        key_group alone;
        alone.add(i, sizes[i], has_gradient[i]);
        auto parts = mxnet_parts(sizes[i], placed[i].unit, topology_.owners(), rule_.padding);
        make_arena(result, devices, alone, {{0}, std::move(parts), padded(sizes[i], rule_.padding)}, resident);
      } else {
        together.add(i, sizes[i], has_gradient[i]);
        if (rule_.whole_keys) together.costs.push_back(placed[i].cost);
        if (rule_.bound) together.owners.push_back(mxnet_owner(placed[i].number, topology_.owners()));
      }
    }
    if (!together.keys.empty()) place_together(result, devices, together, resident);
    result.for_each_range([&](Arena& arena, slice const& range) { arena.clear(devices, range.begin, range.end); });
    std::size_t const count = arenas_.size() + result.pieces_.size();
    if (count > arenas_.capacity()) arenas_.reserve(2 * count);
    return result;
  }

  void commit(place& made) noexcept {
    for (auto& piece : made.pieces_)
      if (piece.made != nullptr) arenas_.push_back(std::move(piece.made));
    if (made.open_ != nullptr) {
      shared_elements_ += made.opened_.used - (made.open_->arena == made.opened_.arena ? made.open_->used : 0);
      *made.open_ = made.opened_;
    }
    loads_ = std::move(made.loads_);
  }

  /// The bytes on local device n.
  memory_use use(std::size_t n) const {
    memory_use total;
    for (auto const& arena : arenas_) total += arena->use(n);
    return total;
  }

 private:
  /// Keys of an init that share an arena.
  struct key_group {
    std::vector<std::size_t> keys;  // their places in the init's list
    std::vector<std::size_t> sizes;
    std::vector<bool> gradients;      // whether each has one
    std::vector<std::size_t> owners;  // where they are given
    std::vector<std::int64_t> costs;  // where they decide about owners

    void add(std::size_t key, std::size_t size, bool has_gradient) {
      keys.push_back(key);
      sizes.push_back(size);
      gradients.push_back(has_gradient);
    }
    bool alike() const {
      return std::adjacent_find(gradients.begin(), gradients.end(), std::not_equal_to<>()) == gradients.end();
    }
  };

  void place_together(place& result, std::vector<D> const& devices, key_group const& group, bool resident) {
    bool const cuts = !rule_.whole_keys && !rule_.bound;
    if (cuts || group.keys.size() == 1) {
      layout const packed = lie_together(group.sizes, group.gradients, rule_.padding);
      if (packed.size <= pass::leaf_size && group.alike()) return share(result, devices, group, packed, resident);
    }
    if (rule_.bound) {
      make_arena(result, devices, group, lay_out_by_owner(group.sizes, group.owners, topology_.owners(), rule_.padding),
                 resident);
    } else if (rule_.whole_keys) {
      make_arena(result, devices, group, lay_out_owners(group.sizes, group.costs, result.loads_, rule_.padding),
                 resident);
    } else {
      make_arena(result, devices, group, lay_out_slices(group.sizes, group.gradients, result.loads_, rule_.padding),
                 resident);
    }
  }

  /// An arena that has room for these keys only.
  void make_arena(place& result, std::vector<D> const& devices, key_group const& group, layout const& where,
                  bool resident) {
    std::int64_t gradients = 0;
    for (std::size_t i = 0; i < group.keys.size(); ++i)
      if (group.gradients[i]) gradients = std::max(gradients, where.offsets[i] + padded(group.sizes[i], rule_.padding));
    auto made = new_arena(result, devices, where.size, where.parts, resident, gradients);
    Arena* const arena = made.get();
    add_piece(result, group, {arena, {0, where.size}, std::move(made)}, where);
  }

  /// Room for a few elements of one owner in an arena that further keys will share: keys that come one by one would else
  /// have pages each. Such arenas grow with the elements that they hold, so that their number and their free room stay
  /// small.
  void share(place& result, std::vector<D> const& devices, key_group const& group, layout const& packed,
             bool resident) {
    bool const gradients = group.gradients.front();
    std::size_t const kind = resident ? (gradients ? 2 : 1) : 0;
    auto const least = static_cast<std::size_t>(std::min_element(loads_.begin(), loads_.end()) - loads_.begin());
    // Where keys are cut, one arena is open: neighbours stay neighbours, which passes and messages take as one.
    std::size_t const number = rule_.bound ? group.owners.front() : rule_.whole_keys ? least : 0;
    open_arena& open = open_[kind * topology_.owners() + number];
    result.open_ = &open;
    result.opened_ = open;
    std::unique_ptr<Arena> made;
    if (open.arena == nullptr || open.arena->size() - open.used < packed.size) {
      std::size_t const owner = rule_.bound ? number : least;
      auto const owners = static_cast<std::int64_t>(topology_.owners());
      std::int64_t const room = std::clamp(shared_elements_ / (2 + 2 * owners), pass::leaf_size, std::int64_t{1} << 20);
      std::int64_t const whole = padded(static_cast<std::size_t>(room), rule_.padding);
      made = new_arena(result, devices, whole, whole_part(whole, owner, topology_.owners()), resident,
                       gradients ? whole : 0);
      result.opened_ = {made.get(), 0, owner};
    }
    auto& load = result.loads_[result.opened_.owner];
    if (!rule_.whole_keys) load += packed.size;
    for (std::int64_t const cost : group.costs) load += cost;
    slice const range{result.opened_.used, result.opened_.used + packed.size};
    result.opened_.used = range.end;
    add_piece(result, group, {result.opened_.arena, range, std::move(made)}, packed);
  }

  std::unique_ptr<Arena> new_arena(place const& result, std::vector<D> const& devices, std::int64_t size,
                                   std::vector<slice> parts, bool resident, std::int64_t gradients) const {
    return std::make_unique<Arena>(devices, topology_, states_, size, std::move(parts), resident, gradients, ranks_,
                                   arenas_.size() + result.pieces_.size());
  }
  static void add_piece(place& result, key_group const& group, typename place::piece piece, layout const& where) {
    for (std::size_t i = 0; i < group.keys.size(); ++i) {
      result.piece_of_[group.keys[i]] = result.pieces_.size();
      result.offsets_[group.keys[i]] = piece.range.begin + where.offsets[i];
    }
    result.pieces_.push_back(std::move(piece));
  }

  topology topology_;
  std::size_t states_;
  rank_group* ranks_;
  placement_rule rule_;
  std::vector<std::int64_t> loads_;  // of each owner: the costs of its keys, or where keys are cut its elements
  std::vector<std::unique_ptr<Arena>> arenas_;
  std::vector<open_arena> open_;      // by kind and owner
  std::int64_t shared_elements_ = 0;  // in such arenas
};

}  // namespace pushpull::detail
