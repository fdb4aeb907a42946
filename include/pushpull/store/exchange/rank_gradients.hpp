/// @file
/// The resident gradients of all ranks, for keys that follow one another in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/operands.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// This rank's part of every other rank's gradients: where it lies in shared memory; else it comes, while the others' parts
/// of this rank's gradients go. The order of the sources is that of the ranks and, within a rank, of its devices.
template <class Table, Device D>
class rank_gradients {
  using T = typename Table::T;
  using record = typename Table::record;

 public:
  /// @param to        Null: there is one rank.
  /// @param received  Memory for gradients that come.
  rank_gradients(Table const& table, std::span<record* const> keys, messages* to, staging<D>& received) {
    if (to == nullptr) return;
    record const& first = *keys.front();
    slice const range{first.offset, keys.back()->padded_range().end};
    own_rank_ = table.owners().rank();
    slice const own = common(range, first.arena->part_of_rank(table.owners(), own_rank_));
    begin_ = own.begin - range.begin;
    for (std::size_t rank = 0; rank < table.owners().ranks(); ++rank) {
      if (rank == own_rank_) continue;
      slice const theirs = common(range, first.arena->part_of_rank(table.owners(), rank));
      for (std::size_t m = 0; m < table.devices().size(); ++m) {
        if (first.arena->is_shared() && !first.has_own_gradient()) {
          received_.push_back({rank, first.arena->gradient(rank, m) + first.offset + begin_});
          continue;
        }
        void* const memory = own.size() > 0 ? received.take(table.devices().front(), bytes(own)) : nullptr;
        to->receive(memory, bytes(own), static_cast<int>(rank));
        received_.push_back({rank, static_cast<T const*>(memory)});
        to->send(Table::gradient(first, m) + (theirs.begin - range.begin), bytes(theirs), static_cast<int>(rank));
      }
    }
  }

  /// Appends the gradients of the ranks before this one, from an element of the keys on that this rank has.
  void before(std::vector<T const*>& gradients, std::int64_t offset) const {
    for (source const& x : received_)
      if (x.rank < own_rank_) gradients.push_back(x.memory + (offset - begin_));
  }
  /// Same, of the ranks behind it.
  void behind(std::vector<T const*>& gradients, std::int64_t offset) const {
    for (source const& x : received_)
      if (x.rank > own_rank_) gradients.push_back(x.memory + (offset - begin_));
  }

 private:
  static std::size_t bytes(slice const& part) {
    return part.size() > 0 ? static_cast<std::size_t>(part.size()) * sizeof(T) : 0;
  }

  struct source {
    std::size_t rank;
    T const* memory;
  };

  std::size_t own_rank_ = 0;
  std::int64_t begin_ = 0;  // this rank's part, counted from the first key's first element
  std::vector<source> received_;
};

}  // namespace pushpull::detail
