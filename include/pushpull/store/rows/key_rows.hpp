/// @file
/// Rows of a key in the memory of its owners, read and replaced one at a time on a host.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <pushpull/concepts/factored.hpp>
#include <pushpull/config.hpp>
#include <pushpull/registers/state_codec.hpp>
#include <pushpull/store/keys/record.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/tensor/row_sparse.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The rows of a key without mirrors in a store of one process: weights and states. Several threads may read, and may replace
/// different rows. An operation of the key uses it.
template <class Rule, class Table>
class key_rows {
  using W = typename Table::W;
  using S = typename Table::state_type;
  static_assert(!CodedStates<typename Table::stored_state>,
                "key_rows: states that are codes have units that several rows share");

 public:
  static constexpr std::size_t state_count = all_state_names<Rule>.size();

  /// @throws std::bad_alloc
  key_rows(Table const& table, typename Table::record& r) : length_(row_length_of(r.shape)) {
    for_each_shard(table, r, [&](auto const& shard) { shards_.push_back(shard); });
    if constexpr (factor_state_count<Rule> != 0)
      if (!shards_.empty()) numbers_ = factor_states<Rule, S>(shards_.front().device(), r);
  }

  /// Elements of a row.
  std::int64_t length() const { return length_; }
  /// Elements of a row of state number `s`: one where the rule keeps a number per row.
  std::int64_t state_length(std::size_t s) const { return s < element_states ? length_ : 1; }

  /// Where a row's weights are, or their first part: to be prefetched.
  W const* address(std::int64_t row) const {
    for (shard_type const& shard : shards_)
      if (std::int64_t const at = row * length_ - shard.offset(); at >= 0 && at < shard.size())
        return shard.master() + at;
    return nullptr;
  }
  /// f(first, count, offset) for each part of a row's weights: `count` elements from `first` on are those from number `offset`
  /// of the row on.
  template <class F>
  void read(std::int64_t row, F const& f) const {
    for_each_part(row, [&](auto const& shard, std::int64_t at, std::int64_t count, std::int64_t offset) {
      f(static_cast<W const*>(shard.master() + at), count, offset);
    });
  }
  /// Copies a row of state number `s`.
  void read_state(std::int64_t row, std::size_t s, S* to) const {
    if (s >= element_states) {
      *to = numbers_[row];
      return;
    }
    for_each_part(row, [&](auto const& shard, std::int64_t at, std::int64_t count, std::int64_t offset) {
      std::copy_n(shard.state(s) + at, count, to + offset);
    });
  }
  void write(std::int64_t row, W const* from) const {
    for_each_part(row, [&](auto const& shard, std::int64_t at, std::int64_t count, std::int64_t offset) {
      std::copy_n(from + offset, count, shard.master() + at);
    });
  }
  /// @param from  Null for zeros.
  void write_state(std::int64_t row, std::size_t s, S const* from) const {
    if (s >= element_states) {
      numbers_[row] = from == nullptr ? S{} : *from;
      return;
    }
    for_each_part(row, [&](auto const& shard, std::int64_t at, std::int64_t count, std::int64_t offset) {
      if (from == nullptr) {
        std::fill_n(shard.state(s) + at, count, S{});
      } else {
        std::copy_n(from + offset, count, shard.state(s) + at);
      }
    });
  }

 private:
  static constexpr std::size_t element_states = detail::state_count<Rule>;
  using shard_type = typename Table::shard_type;

  /// f(shard, first element in it, elements, elements of the row before them)
  template <class F>
  void for_each_part(std::int64_t row, F const& f) const {
    std::int64_t const begin = row * length_, end = begin + length_;
    for (shard_type const& shard : shards_) {
      std::int64_t const from = std::max(begin, shard.offset()), to = std::min(end, shard.offset() + shard.size());
      if (from < to) f(shard, from - shard.offset(), to - from, from - begin);
    }
  }

  std::int64_t length_;
  std::vector<shard_type> shards_;
  S* numbers_ = nullptr;  // one per row, of a rule that keeps such
};

}  // namespace pushpull::detail
