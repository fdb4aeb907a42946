/// @file
/// Maps from ids to slots, the row numbers of a table.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/host_memory.hpp>
#include <pushpull/device/cpu_device.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The slot of an id that has none.
inline constexpr std::int64_t no_slot = -1;

/// A map from 64-bit ids to slots. Its calls take whole batches, so that a map in GPU memory, such as cuco::static_map, can model
/// it: each call is one of that map's.
/// Needs:  default construction;
///         find(device, ids, slots): slots[i] = the slot of ids[i], or no_slot. Several threads may call it at once;
///         insert(device, ids, slots): ids that the map does not have, each once; erase(device, ids): of them those that it has;
///         reserve(count): room for as many ids. Nothing else runs during these three.
/// `device` is the one that runs the work, and reaches ids and slots. Model: flat_slot_map.
template <class M, class D>
concept SlotMap = std::default_initializable<M> && Device<D> &&
                  requires(M& map, M const& constant, D const& device, std::span<std::int64_t const> ids,
                           std::span<std::int64_t> slots, std::size_t count) {
                    constant.find(device, ids, slots);
                    map.insert(device, ids, std::span<std::int64_t const>(slots));
                    map.erase(device, ids);
                    map.reserve(count);
                  };

namespace detail {

/// f(first, last) for ranges of [0, n), in parallel.
template <Device D, class F>
void for_each_range(D const& device, std::size_t n, F const& f) {
  constexpr std::size_t grain = 1024;
  device.for_each(static_cast<std::int64_t>((n + grain - 1) / grain), [&f, n](std::int64_t task) {
    auto const first = static_cast<std::size_t>(task) * grain;
    f(first, std::min(first + grain, n));
  });
}

/// Memory for large arrays that are read in any order: on huge pages where the system gives them.
template <class T>
struct huge_page_allocator {
  using value_type = T;

  huge_page_allocator() = default;
  template <class U>
  huge_page_allocator(huge_page_allocator<U> const&) noexcept {}

  /// @throws out_of_memory
  T* allocate(std::size_t count) { return static_cast<T*>(allocate_host_memory(count * sizeof(T))); }
  void deallocate(T* p, std::size_t) noexcept { deallocate_host_memory(p); }
  friend bool operator==(huge_page_allocator const&, huge_page_allocator const&) noexcept { return true; }
};
template <class T>
using huge_page_vector = std::vector<T, huge_page_allocator<T>>;

/// f(i) for each i of [first, last), with the memory that address(i) names asked for some calls ahead: a look-up in a large array then
/// waits for memory less than once. @tparam writes  f writes there. @param bytes  From there on, that f needs
template <bool writes = false, class Address, class F>
void for_each_prefetched(std::size_t first, std::size_t last, Address const& address, F const& f,
                         std::size_t bytes = 1) {
  constexpr std::size_t ahead = 16, line = 64;
  std::size_t const most = std::min<std::size_t>(bytes, 8 * line);
  auto const prefetch = [&](std::size_t i) {
    auto const* const at = reinterpret_cast<char const*>(address(i));
    for (std::size_t offset = 0; offset < most; offset += line) __builtin_prefetch(at + offset, writes);
  };
  for (std::size_t i = first; i < std::min(first + ahead, last); ++i) prefetch(i);
  for (std::size_t i = first; i < last; ++i) {
    if (i + ahead < last) prefetch(i + ahead);
    f(i);
  }
}

}  // namespace detail

/// A SlotMap for host devices, with open addresses as those of cuco::static_map: 26 to 51 bytes per id. oneTBB's
/// concurrent_hash_map locks in each look-up, so that the processor waits for one after the other.
class flat_slot_map {
 public:
  template <HostDevice D>
  void find(D const& device, std::span<std::int64_t const> ids, std::span<std::int64_t> slots) const {
    if (entries_.empty()) {
      std::fill(slots.begin(), slots.end(), no_slot);
      return;
    }
    detail::for_each_range(device, ids.size(), [&](std::size_t first, std::size_t last) {
      detail::for_each_prefetched(
          first, last, [&](std::size_t i) { return &entries_[home(ids[i])]; },
          [&](std::size_t i) { slots[i] = entries_[place_of(ids[i])].slot; });
    });
  }
  /// @throws out_of_memory; then nothing has changed
  template <HostDevice D>
  void insert(D const&, std::span<std::int64_t const> ids, std::span<std::int64_t const> slots) {
    reserve(size_ + ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) entries_[place_of(ids[i])] = {ids[i], slots[i]};
    size_ += ids.size();
  }
  template <HostDevice D>
  void erase(D const&, std::span<std::int64_t const> ids) noexcept {
    for (std::int64_t const id : ids) {
      if (entries_.empty()) return;
      std::size_t hole = place_of(id);
      if (entries_[hole].slot == no_slot) continue;
      --size_;
      // Moves back those that a search would no longer find behind the hole (Knuth, vol. 3, 6.4, algorithm R).
      for (std::size_t i = next(hole); entries_[i].slot != no_slot; i = next(i))
        if (distance(home(entries_[i].id), i) >= distance(hole, i)) entries_[std::exchange(hole, i)] = entries_[i];
      entries_[hole].slot = no_slot;
    }
  }
  /// @throws out_of_memory
  void reserve(std::size_t count) {
    if (count * 8 <= entries_.size() * 5) return;
    auto const before = std::exchange(
        entries_, detail::huge_page_vector<entry>(std::bit_ceil(std::max<std::size_t>(count * 8 / 5 + 1, 16))));
    for (entry const& e : before)
      if (e.slot != no_slot) entries_[place_of(e.id)] = e;
  }

 private:
  struct entry {
    std::int64_t id = 0, slot = no_slot;  // all ids are ordinary ones
  };

  /// The finalizer of SplitMix64 (Steele et al. 2014) spreads ids that are close together.
  std::size_t home(std::int64_t id) const {
    auto x = static_cast<std::uint64_t>(id);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return (x ^ (x >> 31)) & (entries_.size() - 1);
  }
  std::size_t next(std::size_t place) const { return (place + 1) & (entries_.size() - 1); }
  std::size_t distance(std::size_t from, std::size_t to) const { return (to - from) & (entries_.size() - 1); }
  /// Where the id is, or would be.
  std::size_t place_of(std::int64_t id) const {
    std::size_t place = home(id);
    while (entries_[place].slot != no_slot && entries_[place].id != id) place = next(place);
    return place;
  }

  detail::huge_page_vector<entry> entries_;  // 2^n of them, at most 5/8 filled
  std::size_t size_ = 0;
};

static_assert(SlotMap<flat_slot_map, cpu_device<>>);

}  // namespace pushpull
