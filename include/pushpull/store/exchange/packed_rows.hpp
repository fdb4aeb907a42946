/// @file
/// The parts of rows that ranks hold, and rows on their way between them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/store/exchange/mirror_exchange.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/staging.hpp>
#include <pushpull/tensor/row_sparse.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The elements of a key that each rank holds, as parts of its rows. A row may be cut: then several ranks hold it.
class row_parts {
 public:
  template <class Table>
  void take(Table const& table, typename Table::record const& key) {
    row_length_ = row_length_of(key.shape);
    parts_.clear();
    holders_.clear();
    for (std::size_t rank = 0; rank < table.owners().ranks(); ++rank) {
      parts_.push_back(part_of_rank(table, key, rank));
      if (parts_.back().size() > 0) holders_.push_back(rank);
    }
  }

  std::int64_t row_length() const { return row_length_; }
  /// The ranks that hold elements.
  std::vector<std::size_t> const& holders() const { return holders_; }
  bool holds(std::size_t rank) const { return parts_[rank].size() > 0; }
  /// The elements of a row that the rank holds, counted from the row's first; of no positive size if there are none.
  slice columns(std::size_t rank, std::int64_t id) const {
    std::int64_t const start = id * row_length_;
    return common({0, row_length_}, {parts_[rank].begin - start, parts_[rank].end - start});
  }
  bool is_whole(slice const& columns) const { return columns.size() == row_length_; }
  /// f(rank, columns) for each rank that holds elements of the row.
  template <class F>
  void for_each_holder(std::int64_t id, F const& f) const {
    std::int64_t const start = id * row_length_;
    auto rank =
        std::partition_point(holders_.begin(), holders_.end(), [&](std::size_t r) { return parts_[r].end <= start; });
    for (; rank != holders_.end(); ++rank) {
      slice const cut = columns(*rank, id);
      if (cut.size() <= 0) return;
      f(*rank, cut);
    }
  }
  /// The rows [begin, end) that the rank holds elements of.
  slice rows(std::size_t rank) const {
    return {parts_[rank].begin / row_length_, (parts_[rank].end + row_length_ - 1) / row_length_};
  }

 private:
  std::int64_t row_length_ = 0;
  std::vector<slice> parts_;          // of the key, by rank
  std::vector<std::size_t> holders_;  // in the order of their parts
};

/// Rows on their way: their ids, and those of their elements that one rank holds, without gaps. Kept from call to call.
template <class T, Device D>
class packed_rows {
 public:
  explicit packed_rows(staged_bytes const& count) : ids_(count), values_(count) {}

  /// Makes room. What was there is lost.
  void resize(D const& device, std::int64_t rows, std::int64_t elements) {
    rows_ = static_cast<std::int64_t*>(ids_.take(device, static_cast<std::size_t>(rows) * sizeof(std::int64_t)));
    elements_ = static_cast<T*>(values_.take(device, static_cast<std::size_t>(elements) * sizeof(T)));
    row_count_ = rows;
    element_count_ = elements;
    rows_filled_ = elements_filled_ = 0;
  }
  void add(std::int64_t id, T const* values, std::int64_t count) {
    add(id, count, [&](T* to) { std::copy_n(values, count, to); });
  }
  /// @param write  write(first): the elements.
  template <class Write>
  void add(std::int64_t id, std::int64_t count, Write const& write) {
    rows_[rows_filled_++] = id;
    write(elements_ + elements_filled_);
    elements_filled_ += count;
  }
  void send(messages& to, std::size_t rank) const {
    to.send(rows_, static_cast<std::size_t>(row_count_) * sizeof(std::int64_t), static_cast<int>(rank));
    to.send(elements_, static_cast<std::size_t>(element_count_) * sizeof(T), static_cast<int>(rank));
  }
  void receive(messages& from, std::size_t rank) {
    from.receive(rows_, static_cast<std::size_t>(row_count_) * sizeof(std::int64_t), static_cast<int>(rank));
    from.receive(elements_, static_cast<std::size_t>(element_count_) * sizeof(T), static_cast<int>(rank));
  }

  std::span<std::int64_t const> ids() const { return {rows_, static_cast<std::size_t>(row_count_)}; }
  T const* values() const { return elements_; }

 private:
  staged_buffer<D> ids_, values_;
  std::int64_t* rows_ = nullptr;
  T* elements_ = nullptr;
  std::int64_t row_count_ = 0, element_count_ = 0, rows_filled_ = 0, elements_filled_ = 0;
};

}  // namespace pushpull::detail
