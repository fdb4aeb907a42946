/// @file
/// When and how often the ids of a table were seen, and whose rows go first.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/store/table/slot_map.hpp>
#include <pushpull/store/table/table_options.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// When an id was last named, and in how many steps. Calls are numbered from 1.
struct id_usage {
  std::int64_t last = 0;
  std::int64_t seen = 0;

  /// Call number `now` of a step that began with call number `step` names the id.
  void see(std::int64_t now, std::int64_t step) {
    seen += std::int64_t{last < step};
    last = now;
  }
};

/// The ids of the slots, and their usage. A slot that is used has an id.
class row_usage {
 public:
  std::int64_t size() const { return used_; }
  /// One more than the largest slot ever used.
  std::int64_t slots() const { return static_cast<std::int64_t>(ids_.size()); }
  bool is_used(std::int64_t slot) const { return is_used_[index(slot)] != 0; }
  std::int64_t id(std::int64_t slot) const { return ids_[index(slot)]; }
  id_usage const& usage(std::int64_t slot) const { return usage_[index(slot)]; }

  /// f(slot) for each used slot, ascending.
  template <class F>
  void for_each(F const& f) const {
    for (std::int64_t slot = 0; slot < slots(); ++slot)
      if (is_used(slot)) f(slot);
  }

  /// The `count` lowest slots that are free when those of `freed` are too; some of them perhaps new. Nothing changes.
  /// @throws std::bad_alloc
  std::vector<std::int64_t> lowest_free(std::int64_t count, std::span<std::int64_t const> freed) const {
    auto const few = static_cast<std::size_t>(count);
    std::vector<std::int64_t> result;
    if (freed.empty()) {
      result.assign(free_.rbegin(), free_.rbegin() + static_cast<std::ptrdiff_t>(std::min(few, free_.size())));
    } else {
      result = free_;
      result.insert(result.end(), freed.begin(), freed.end());
      std::sort(result.begin(), result.end());
      result.resize(std::min(few, result.size()));
    }
    for (std::int64_t slot = slots(); result.size() < few; ++slot) result.push_back(slot);
    return result;
  }
  /// Room for slots below `count`. @throws std::bad_alloc, out_of_memory
  void reserve(std::int64_t count) {
    auto const wanted = static_cast<std::size_t>(count);
    if (wanted > ids_.capacity()) {
      std::size_t const room = std::max(wanted, 2 * ids_.capacity());
      usage_.reserve(room);
      is_used_.reserve(room);
      ids_.reserve(room);  // last: its capacity says that the others have room too
    }
    free_.reserve(ids_.capacity());
  }
  /// Uses slots that are free, or new, for which there is room, and frees those of `freed`. They are the lowest ones, or ascend in a
  /// list without free ones.
  void change(std::span<std::int64_t const> freed, std::span<std::int64_t const> taken,
              std::span<std::int64_t const> ids, std::span<id_usage const> usages) noexcept {
    for (std::int64_t const slot : freed) {
      is_used_[index(slot)] = 0;
      free_.push_back(slot);
    }
    for (std::size_t i = 0; i < taken.size(); ++i) {
      std::int64_t const slot = taken[i];
      for (; slots() <= slot; ids_.push_back(0), usage_.emplace_back(), is_used_.push_back(0))
        if (slots() < slot) free_.push_back(slots());
      ids_[index(slot)] = ids[i];
      usage_[index(slot)] = usages[i];
      is_used_[index(slot)] = 1;
    }
    used_ += static_cast<std::int64_t>(taken.size()) - static_cast<std::int64_t>(freed.size());
    if (!std::is_sorted(free_.rbegin(), free_.rend())) std::sort(free_.rbegin(), free_.rend());
    while (!free_.empty() && is_used(free_.back())) free_.pop_back();
  }

  /// A call names slots. Several threads may call it at once. @param slots  no_slot is skipped
  void see(std::span<std::int64_t const> slots, std::int64_t now, std::int64_t step) {
    for_each_prefetched<true>(
        0, slots.size(), [&](std::size_t i) { return usage_.data() + std::max<std::int64_t>(slots[i], 0); },
        [&](std::size_t i) {
          if (slots[i] == no_slot) return;
          id_usage& u = usage_[index(slots[i])];
          std::atomic_ref const at(u.last);
          std::int64_t before = at.load(std::memory_order_relaxed);
          while (before < now && !at.compare_exchange_weak(before, now, std::memory_order_relaxed)) {
          }
          if (before < step) std::atomic_ref(u.seen).fetch_add(1, std::memory_order_relaxed);
        });
  }

  /// The `count` rows that go first, or as many as may go. Ids of the present step go last.
  /// @param kept  Slots that stay. @throws std::bad_alloc
  std::vector<std::int64_t> victims(eviction how, std::int64_t count, std::span<std::int64_t const> kept,
                                    std::int64_t step) const {
    std::vector<char> stays(ids_.size());
    for (std::int64_t const slot : kept)
      if (slot != no_slot) stays[index(slot)] = 1;
    std::vector<std::int64_t> result;
    for_each([&](std::int64_t slot) {
      if (stays[index(slot)] == 0) result.push_back(slot);
    });
    auto const rank = [&](std::int64_t slot) {
      id_usage const& u = usage(slot);
      return std::tuple{u.last >= step, how == eviction::least_frequently_used ? u.seen : 0, u.last, slot};
    };
    auto const few = static_cast<std::size_t>(count);
    if (few >= result.size()) return result;
    std::nth_element(result.begin(), result.begin() + static_cast<std::ptrdiff_t>(few), result.end(),
                     [&](std::int64_t a, std::int64_t b) { return rank(a) < rank(b); });
    result.resize(few);
    return result;
  }

 private:
  static std::size_t index(std::int64_t slot) { return static_cast<std::size_t>(slot); }

  std::vector<std::int64_t> ids_;
  huge_page_vector<id_usage> usage_;
  std::vector<char> is_used_;
  std::vector<std::int64_t> free_;  // descending
  std::int64_t used_ = 0;
};

/// Ids that have no row yet, and their usage. Two generations: where the newer one is full, the older one is forgotten.
class candidate_list {
 public:
  /// @param most  Ids in both generations.
  explicit candidate_list(std::int64_t most) : half_(static_cast<std::size_t>(most / 2)) {}

  id_usage usage(std::int64_t id) const {
    for (auto const* const generation : {&newer_, &older_})
      if (auto const found = generation->find(id); found != generation->end()) return found->second;
    return {};
  }
  /// @throws std::bad_alloc
  void set(std::int64_t id, id_usage const& usage) {
    if (auto const found = newer_.find(id); found != newer_.end()) {
      found->second = usage;
      return;
    }
    if (newer_.size() >= half_) {
      map_type next;
      next.emplace(id, usage);  // may throw: nothing is forgotten then
      older_ = std::exchange(newer_, std::move(next));
    } else {
      newer_.emplace(id, usage);
    }
    older_.erase(id);
  }
  void erase(std::int64_t id) noexcept {
    newer_.erase(id);
    older_.erase(id);
  }
  /// Ids, their usage, and whether they are of the newer generation: by ascending ids.
  std::vector<std::tuple<std::int64_t, id_usage, bool>> list() const {
    std::vector<std::tuple<std::int64_t, id_usage, bool>> result;
    for (auto const& [id, usage] : older_) result.emplace_back(id, usage, false);
    for (auto const& [id, usage] : newer_) result.emplace_back(id, usage, true);
    std::sort(result.begin(), result.end(),
              [](auto const& a, auto const& b) { return std::get<0>(a) < std::get<0>(b); });
    return result;
  }
  /// As `list` gave it.
  void restore(std::int64_t id, id_usage const& usage, bool newer) { (newer ? newer_ : older_).emplace(id, usage); }

 private:
  using map_type = std::unordered_map<std::int64_t, id_usage>;
  std::size_t half_;
  map_type newer_, older_;
};

}  // namespace pushpull::detail
