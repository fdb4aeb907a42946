/// @file
/// The messages of a pull of rows of a key without mirrors: ids to the owners of the rows, and rows back.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/exchange/row_exchange.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/staging.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Between all ranks, which make the same calls, each with as many lists of ids as it likes: `begin`, `add` for each list,
/// `start_counts`, `start_ids`, `start_values`. Each `start` is to be waited for. Kept from call to call.
/// @tparam Table  The store's key_table, of host devices.
template <class Table>
class row_requests {
  using T = typename Table::T;
  using D = typename Table::device_type;
  using record = typename Table::record;

 public:
  /// Forgets earlier lists.
  void begin(Table const& table, record const& key) {
    if (messages_ == nullptr) messages_ = table.ranks().make_messages();
    parts_.take(table, key);
    own_rank_ = table.owners().rank();
    while (ranks_.size() < table.owners().ranks()) ranks_.emplace_back(table.staged().front());
    for (rank_rows& x : ranks_) {
      x.asked.clear();
      x.lengths.clear();
      x.places.clear();
    }
  }
  /// Row ids, ascending, each once. @param values  Where the rows go, one after the other; of rows that this rank holds
  /// elements of, those of the other ranks only.
  void add(std::span<std::int64_t const> ids, T* values) {
    for (std::size_t const rank : parts_.holders()) {
      if (rank == own_rank_) continue;
      slice const rows = parts_.rows(rank);
      auto const first = std::lower_bound(ids.begin(), ids.end(), rows.begin);
      auto const last = std::lower_bound(first, ids.end(), rows.end);
      if (first == last) continue;
      rank_rows& x = ranks_[rank];
      x.asked.insert(x.asked.end(), first, last);
      x.lengths.push_back(last - first);
      slice const elements = elements_of(rank, {first, last});
      x.places.push_back({values + (first - ids.begin()) * parts_.row_length() + elements.begin, elements.size()});
    }
  }

  /// How many lists and ids go to each rank.
  awaited& start_counts() {
    return start([&](std::size_t rank, rank_rows& x) {
      x.sent = {static_cast<std::int64_t>(x.lengths.size()), static_cast<std::int64_t>(x.asked.size())};
      if (parts_.holds(rank)) messages_->send(&x.sent, sizeof(x.sent), static_cast<int>(rank));
      x.received = {};
      if (parts_.holds(own_rank_)) messages_->receive(&x.received, sizeof(x.received), static_cast<int>(rank));
    });
  }
  /// The ids.
  awaited& start_ids() {
    return start([&](std::size_t rank, rank_rows& x) {
      send(x.lengths, rank);
      send(x.asked, rank);
      receive(x.given_lengths, x.received.lists, rank);
      receive(x.given, x.received.ids, rank);
    });
  }
  /// The rows that this rank's owners hold of what was asked for, and those that it has asked for.
  /// @param read  read(ids, rows): the owners' elements of the rows, at their places in rows that lie one after the other.
  template <class Read>
  awaited& start_values(Table const& table, Read const& read) {
    return start([&](std::size_t rank, rank_rows& x) {
      auto const bytes = [](std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(T); };
      std::int64_t const length = parts_.row_length();
      T* rows = static_cast<T*>(x.answer.take(table.devices().front(), bytes(x.received.ids * length)));
      std::span<std::int64_t const> left(x.given);
      for (std::int64_t const count : x.given_lengths) {
        auto const ids = left.first(static_cast<std::size_t>(count));
        left = left.subspan(ids.size());
        read(ids, rows);
        slice const elements = elements_of(own_rank_, ids);
        messages_->send(rows + elements.begin, bytes(elements.size()), static_cast<int>(rank));
        rows += count * length;
      }
      for (auto const& [memory, size] : x.places) messages_->receive(memory, bytes(size), static_cast<int>(rank));
    });
  }

 private:
  struct counts {
    std::int64_t lists = 0, ids = 0;
  };
  struct place {
    T* memory;
    std::int64_t size;
  };
  struct rank_rows {
    explicit rank_rows(staged_bytes const& count) : answer(count) {}

    std::vector<std::int64_t> asked, lengths;        // ids that it is asked for, and those of each list
    std::vector<std::int64_t> given, given_lengths;  // those that it asks for
    std::vector<place> places;                       // of the rows of each list
    counts sent, received;
    staged_buffer<D> answer;
  };

  /// What a rank holds of the rows, if they lie one after the other without gaps: only the first and the last may be cut.
  slice elements_of(std::size_t rank, std::span<std::int64_t const> ids) const {
    auto const before = static_cast<std::int64_t>(ids.size() - 1) * parts_.row_length();
    return {parts_.columns(rank, ids.front()).begin, before + parts_.columns(rank, ids.back()).end};
  }
  template <class F>
  awaited& start(F const& f) {
    messages_->clear();
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
      if (rank != own_rank_) f(rank, ranks_[rank]);
    messages_->start_exchange();
    return *messages_;
  }
  void send(std::vector<std::int64_t> const& numbers, std::size_t rank) {
    messages_->send(numbers.data(), numbers.size() * sizeof(std::int64_t), static_cast<int>(rank));
  }
  void receive(std::vector<std::int64_t>& numbers, std::int64_t count, std::size_t rank) {
    numbers.resize(static_cast<std::size_t>(count));
    messages_->receive(numbers.data(), numbers.size() * sizeof(std::int64_t), static_cast<int>(rank));
  }

  std::unique_ptr<messages> messages_;
  row_parts parts_;
  std::size_t own_rank_ = 0;
  std::vector<rank_rows> ranks_;
};

}  // namespace pushpull::detail
