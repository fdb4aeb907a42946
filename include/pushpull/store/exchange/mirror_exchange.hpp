/// @file
/// New slices on their way from their owners to the mirrors of all ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/control.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/keys/topology.hpp>
#include <pushpull/store/reach.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The part of the key, counted from its first element, that a rank's owners hold.
template <class Table>
slice part_of_rank(Table const& table, typename Table::record const& key, std::size_t rank) {
  slice const part = common(key.range(), key.arena->part_of_rank(table.owners(), rank));
  return {part.begin - key.offset, part.end - key.offset};
}

/// f(rank, part) for each other rank that holds elements of the key.
template <class Table, class F>
void for_each_distant_rank(Table const& table, typename Table::record const& key, F const& f) {
  for (std::size_t rank = 0; rank < table.owners().ranks(); ++rank) {
    if (rank == table.owners().rank()) continue;
    slice const part = part_of_rank(table, key, rank);
    if (part.size() > 0) f(rank, part);
  }
}

/// The mirrors of keys that a pass changes. Keys that follow one another in memory share the messages. An owner's pass
/// writes all mirrors that it reaches; the others are gathered, and where slices travel between nodes each rank spreads
/// what comes over its node.
template <class Table>
class mirror_exchange {
  using T = typename Table::T;
  using record = typename Table::record;
  using arena_type = typename Table::arena_type;
  using device_type = typename Table::device_type;

 public:
  /// Forgets the keys.
  void clear() {
    arena_ = nullptr;
    spread_.clear();
    part_ = 0;
  }

  /// A key that the pass changes. One without mirrors needs nothing.
  void add(Table const& table, record const& key, messages& to) {
    if (!key.arena->resident()) return;
    if (table.ranks().shares_memory() && !table.ranks().has_levels()) return;
    if (key.arena != arena_ || key.offset != range_.end) {
      flush(table, to);
      arena_ = key.arena;
      range_ = {key.offset, key.offset};
    }
    range_.end = key.padded_range().end;
  }
  /// After the last key.
  void flush(Table const& table, messages& to) {
    if (arena_ == nullptr) return;
    if (table.ranks().has_levels()) {
      exchange_with_partners(table, to);
    } else {
      gather(table, to);
    }
    arena_ = nullptr;
  }

  /// After the pass, again and again: the next part. @returns  What it waits for; null when all mirrors are complete.
  awaited* advance(Table const& table, messages& of) {
    switch (part_++) {
      case 0: of.start_gathers(); return &of;
      case 1:
        if (!spread_.empty()) join(table.devices());  // a mirror may be read, by work that no pass here has waited for
        copy_behind(table.devices(), spread_);
        if (table.ranks().has_levels()) {
          of.start_arrival();
          return &of;
        }
        break;
      default: break;
    }
    part_ = 0;
    return nullptr;
  }

 private:
  static std::size_t bytes(std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(T); }

  void gather(Table const& table, messages& to) {
    topology const& all = table.owners();
    if constexpr (HostDevice<device_type>)
      return gather(table, to, 0, [&](std::size_t rank) { return arena_->part_of_rank(all, rank); });
    for (std::size_t n = 0; n < all.devices(); ++n)  // each device has the slices of its number
      gather(table, to, n, [&](std::size_t rank) { return arena_->parts()[all.first_owner(rank) + n]; });
  }
  /// @param part_of  part_of(rank): what comes from a rank to the mirror of this rank's device number n.
  template <class PartOf>
  void gather(Table const& table, messages& to, std::size_t n, PartOf const& part_of) {
    ranges_.clear();
    for (std::size_t rank = 0; rank < table.owners().ranks(); ++rank) {
      slice const part = common(range_, part_of(rank));
      ranges_.push_back(part.size() > 0 ? comm::byte_range{bytes(part.begin), bytes(part.end)} : comm::byte_range{});
      if (part.size() > 0 && rank != table.owners().rank()) spread(table, part, n, table.owners().rank());
    }
    to.gather(arena_->mirror(n), ranges_, n);
  }

  void exchange_with_partners(Table const& table, messages& to) {
    node_layout const& nodes = table.ranks().nodes();
    std::size_t const own = table.owners().rank(), first = nodes.first_of_node(own);
    slice const mine = common(range_, arena_->part_of_rank(table.owners(), own));
    for (std::size_t node = 0; node < nodes.nodes; ++node) {
      std::size_t const partner = nodes.partner(own, node);
      if (partner == own) continue;
      if (mine.size() > 0)
        to.send_result(arena_->mirror(0) + mine.begin, bytes(mine.size()), static_cast<int>(partner));
      slice const theirs = common(range_, arena_->part_of_rank(table.owners(), partner));
      if (theirs.size() <= 0) continue;
      to.receive_result(arena_->mirror(0) + theirs.begin, bytes(theirs.size()), static_cast<int>(partner));
      for (std::size_t rank = first; rank < first + nodes.ranks_per_node; ++rank) spread(table, theirs, 0, rank);
    }
  }

  /// Copies from this rank's mirror number `from`, on its device, to all others of a rank that it reaches.
  void spread(Table const& table, slice const& part, std::size_t from, std::size_t rank) {
    bool const is_own = rank == table.owners().rank();
    for (std::size_t n = 0; n < table.devices().size(); ++n) {
      if (is_own && n == from) continue;
      T* const to = is_own ? arena_->mirror(n) : arena_->mirror(rank, n);
      spread_.push_back({from, to + part.begin, arena_->mirror(from) + part.begin, bytes(part.size())});
    }
  }

  arena_type* arena_ = nullptr;
  slice range_;
  std::vector<comm::byte_range> ranges_;
  std::vector<staged_copy> spread_;
  int part_ = 0;
};

}  // namespace pushpull::detail
