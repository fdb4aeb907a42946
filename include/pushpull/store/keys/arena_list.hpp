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

namespace pushpull::inline PUSHPULL_ABI::detail {

/// @tparam Arena  A key_arena.
template <class Arena>
class arena_list {
  using D = typename Arena::device_type;

  /// An arena that has room for further keys, after its first `used` elements.
  struct open_arena {
    Arena* arena = nullptr;
    std::int64_t used = 0;
  };

 public:
  /// Where the keys of one init lie. Dropped before `commit`, it leaves no trace.
  class place {
   public:
    Arena& arena() const { return *arena_; }
    /// The keys' elements in the arena, padding included.
    slice range() const { return {begin_, begin_ + layout_.size}; }
    /// Key i's first element in the arena.
    std::int64_t offset(std::size_t i) const { return begin_ + layout_.offsets[i]; }
    /// Key i's first element, counted over the keys of the init wherever they lie.
    std::int64_t first_element(std::size_t i) const { return numbers_.offsets[i]; }
    /// Elements so counted.
    std::int64_t elements() const { return numbers_.size; }
    /// Elements between the last boundary of a norm's leaf and key i.
    std::int32_t leaf_phase(std::size_t i) const {
      // Where keys are not cut, leaves begin with the key; else with the keys of an init.
      return static_cast<std::int32_t>(whole_keys_ ? 0 : layout_.offsets[i] % pass::leaf_size);
    }

   private:
    friend arena_list;

    Arena* arena_ = nullptr;
    std::int64_t begin_ = 0;
    layout layout_, numbers_;
    bool whole_keys_ = false;
    std::unique_ptr<Arena> made_;  // null: the keys lie in an arena of the list
    open_arena* open_ = nullptr;   // null: the arena has no further room
    open_arena opened_;            // its state after the commit
    std::vector<std::int64_t> loads_;
  };

  /// @param whole_keys  Whether keys are not cut: see placement::owners. @param ranks  See key_arena.
  arena_list(topology const& all, bool whole_keys, rank_group* ranks = nullptr)
      : topology_(all), ranks_(ranks), whole_keys_(whole_keys), loads_(all.owners()), open_(3 * all.owners()) {}

  /// Room for keys of `sizes` elements. All that may fail; one at a time until `commit`.
  /// @param has_gradient  Whether a resident key has a gradient: the gradient arrays cover no other keys.
  place prepare(std::vector<D> const& devices, std::span<std::size_t const> sizes,
                std::vector<bool> const& has_gradient, bool resident) {
    place result;
    result.whole_keys_ = whole_keys_;
    result.numbers_ = lay_out_slices(sizes, has_gradient, 1);
    result.loads_ = loads_;
    std::int64_t const size = result.numbers_.size;
    bool const alike =
        std::adjacent_find(has_gradient.begin(), has_gradient.end(), std::not_equal_to<>()) == has_gradient.end();
    if (size <= pass::leaf_size && alike && (!whole_keys_ || sizes.size() == 1)) {
      result.layout_ = result.numbers_;
      share(result, devices, size, resident, has_gradient.front());
      result.begin_ = result.opened_.used - size;
    } else {
      result.layout_ =
          whole_keys_ ? lay_out_owners(sizes, result.loads_) : lay_out_slices(sizes, has_gradient, topology_.owners());
      std::int64_t gradients = 0;
      for (std::size_t i = 0; i < sizes.size(); ++i)
        if (has_gradient[i]) gradients = std::max(gradients, result.layout_.offsets[i] + padded(sizes[i]));
      result.made_ = std::make_unique<Arena>(devices, topology_, result.layout_.size, result.layout_.parts, resident,
                                             gradients, ranks_);
      result.arena_ = result.made_.get();
    }
    result.arena_->clear(devices, result.range().begin, result.range().end);
    if (arenas_.size() == arenas_.capacity()) arenas_.reserve(2 * arenas_.size() + 1);
    return result;
  }

  void commit(place& made) noexcept {
    if (made.made_ != nullptr) arenas_.push_back(std::move(made.made_));
    if (made.open_ != nullptr) {
      shared_elements_ += made.opened_.used - (made.open_->arena == made.opened_.arena ? made.open_->used : 0);
      *made.open_ = made.opened_;
    }
    loads_ = std::move(made.loads_);
  }

  /// Bytes on local device n.
  std::size_t bytes(std::size_t n) const {
    std::size_t total = 0;
    for (auto const& arena : arenas_) total += arena->bytes(n);
    return total;
  }

 private:
  /// Room for a few elements of one owner in an arena that further keys will share: keys that come one by one would else
  /// have pages each. Such arenas grow with the elements that they hold, so that their number and their free room stay
  /// small.
  void share(place& result, std::vector<D> const& devices, std::int64_t size, bool resident, bool gradients) {
    std::size_t const kind = resident ? (gradients ? 2 : 1) : 0;
    std::size_t const owner =
        whole_keys_ ? static_cast<std::size_t>(std::min_element(loads_.begin(), loads_.end()) - loads_.begin()) : 0;
    if (whole_keys_) result.loads_[owner] += size;
    open_arena& open = open_[kind * topology_.owners() + owner];
    result.open_ = &open;
    result.opened_ = open;
    if (open.arena == nullptr || open.arena->size() - open.used < size) {
      std::int64_t const room = std::clamp(shared_elements_ / 4, pass::leaf_size, std::int64_t{1} << 20);
      std::int64_t const whole = padded(static_cast<std::size_t>(room));
      result.made_ = std::make_unique<Arena>(devices, topology_, whole, whole_part(whole, owner, topology_.owners()),
                                             resident, gradients ? whole : 0, ranks_);
      result.opened_ = {result.made_.get(), 0};
    }
    result.opened_.used += size;
    result.arena_ = result.opened_.arena;
  }

  topology topology_;
  rank_group* ranks_;
  bool whole_keys_;
  std::vector<std::int64_t> loads_;  // elements that each owner holds, counted where keys are not cut
  std::vector<std::unique_ptr<Arena>> arenas_;
  std::vector<open_arena> open_;      // by kind and owner
  std::int64_t shared_elements_ = 0;  // in such arenas
};

}  // namespace pushpull::detail
