/// @file
/// The messages of a push of row-sparse gradients: rows to those who own them, and changed rows to all.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/pass/row_order.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/store/exchange/mirror_exchange.hpp>
#include <pushpull/store/exchange/packed_rows.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/store/staging.hpp>
#include <pushpull/tensor/row_sparse.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Between all ranks, which make the same calls: `start_counts`, `start_rows`, `take_sources`; then the pass; then
/// `start_gather`, or `start_changed_counts`, `start_changed_rows` and `store_changed_rows`. Each `start` is to be waited
/// for. Rows of GPUs travel through memory of the host, which packs them.
template <class Table>
class row_exchange {
  using T = typename Table::T;
  using D = typename Table::device_type;
  using record = typename Table::record;
  using source_type = row_source<T, D>;

 public:
  /// How many rows go where. @param own  This rank's sources, as many as every rank has.
  awaited& start_counts(Table const& table, record const& key, std::span<source_type const> own, std::int64_t given) {
    if (messages_ == nullptr) messages_ = table.ranks().make_host_messages();
    parts_.take(table, key);
    own = on_host(own);
    while (ranks_.size() < table.owners().ranks()) ranks_.emplace_back(table.staged().front());
    own_rank_ = table.owners().rank();
    for (rank_rows& x : ranks_) {
      x.sent.assign(first_count + own.size(), 0);
      x.received.assign(first_count + own.size(), 0);
      x.sent[given_rows] = given;
    }
    for_each_row(own, [&](std::size_t k, std::int64_t, std::size_t rank, slice const& columns) {
      ranks_[rank].sent[elements] += columns.size();
      ++ranks_[rank].sent[first_count + k];
    });
    return start([&] {
      for_each_other([&](std::size_t rank, rank_rows& x) {
        send(x.sent, rank);
        receive(x.received, rank);
      });
    });
  }
  /// The rows that were given on all ranks.
  std::int64_t given() const {
    std::int64_t sum = 0;
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
      auto const& counts = rank == own_rank_ ? ranks_[rank].sent : ranks_[rank].received;
      sum += counts[given_rows];
    }
    return sum;
  }

  /// The rows themselves.
  awaited& start_rows(Table const& table, std::span<source_type const> own) {
    if constexpr (!HostDevice<D>) own = own_;
    auto const device = packing_device(table);
    for_each_other([&](std::size_t, rank_rows& x) {
      x.out.resize(device, rows_in(x.sent), x.sent[elements]);
      x.in.resize(device, rows_in(x.received), x.received[elements]);
    });
    for_each_row(own, [&](std::size_t k, std::int64_t i, std::size_t rank, slice const& columns) {
      if (rank == own_rank_) return;
      ranks_[rank].out.add(own[k].ids[i], own[k].values + i * parts_.row_length() + columns.begin, columns.size());
    });
    return start([&] {
      for_each_other([&](std::size_t rank, rank_rows& x) {
        x.out.send(*messages_, rank);
        x.in.receive(*messages_, rank);
      });
    });
  }
  /// The rows of the sources of all ranks, in the order of the ranks: of this rank's all, of the others' those of which
  /// this rank holds elements.
  void take_sources(std::span<source_type const> own, std::vector<source_type>& all) {
    all.clear();
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
      if (rank == own_rank_) {
        all.insert(all.end(), own.begin(), own.end());
        continue;
      }
      if constexpr (!HostDevice<D>) {
        all.push_back(whole_rows(ranks_[rank]));
        continue;
      }
      auto const ids = ranks_[rank].in.ids();
      T const* values = ranks_[rank].in.values();
      // Rows that are whole lie in memory as those of a source do; one that is cut is a source of its own.
      for (std::size_t i = 0, last = 0; i < ids.size(); i = last) {
        slice const columns = parts_.columns(own_rank_, ids[i]);
        for (last = i + 1; last < ids.size() && parts_.is_whole(columns); ++last)
          if (!parts_.is_whole(parts_.columns(own_rank_, ids[last]))) break;
        auto const rows = static_cast<std::int64_t>(last - i);
        all.push_back({values - columns.begin, ids.data() + i, rows, {}});
        values += rows * columns.size();
      }
    }
  }

  /// Where rows come by way of the host, and the pass writes mirrors in memory of other ranks' devices: until these have
  /// done all that they did before. @returns  Null elsewhere.
  awaited* start_arrival(Table const& table, record const& key) {
    if (HostDevice<D> || !key.arena->is_shared()) return nullptr;
    messages& to = of_mirrors(table);
    to.clear();
    to.start_arrival();
    return &to;
  }
  /// The mirrors of a key of which all rows have changed; if ranks share them, until all have written them.
  awaited& start_gather(Table const& table, record const& key) {
    messages& to = of_mirrors(table);
    to.clear();
    mirrors_.clear();
    mirrors_.add(table, key, to);
    mirrors_.flush(table, to);
    return *mirrors_.advance(table, to);
  }
  /// When it has come, again and again. @returns  What it waits for; null when all mirrors are complete.
  awaited* advance_gather(Table const& table) { return mirrors_.advance(table, of_mirrors(table)); }

  /// How many rows each rank has changed. @param changed  Rows that this rank's pass read.
  awaited& start_changed_counts([[maybe_unused]] row_tables<T, D> const& changed) {
    changed_.clear();
    if (parts_.holds(own_rank_)) {
      slice const rows = parts_.rows(own_rank_);
      if constexpr (HostDevice<D>) {
        changed.append_distinct(changed_, rows.begin, rows.end);
      } else {
        append_distinct(rows);
      }
    }
    ranks_[own_rank_].sent.assign(first_count, 0);
    auto& sent = ranks_[own_rank_].sent;
    sent[given_rows] = static_cast<std::int64_t>(changed_.size());
    for (std::int64_t const id : changed_) sent[elements] += parts_.columns(own_rank_, id).size();
    return start([&] {
      for_each_other([&](std::size_t rank, rank_rows& x) {
        x.received.resize(first_count);
        if (parts_.holds(own_rank_)) send(sent, rank);
        if (parts_.holds(rank)) receive(x.received, rank);
      });
    });
  }
  /// The changed rows, from this rank's mirrors.
  awaited& start_changed_rows(Table const& table, record const& key) {
    auto const device = packing_device(table);
    auto& own = ranks_[own_rank_];
    own.out.resize(device, own.sent[given_rows], own.sent[elements]);
    for (std::int64_t const id : changed_) {
      slice const columns = parts_.columns(own_rank_, id);
      T const* const from = Table::mirror(key, 0) + id * parts_.row_length() + columns.begin;
      own.out.add(id, columns.size(), [&](T* to) { copy_row(table.devices().front(), to, from, columns.size()); });
    }
    if constexpr (!HostDevice<D>) table.devices().front().synchronize();
    return start([&] {
      for_each_other([&](std::size_t rank, rank_rows& x) {
        if (parts_.holds(own_rank_)) own.out.send(*messages_, rank);
        if (!parts_.holds(rank)) return;
        x.in.resize(device, x.received[given_rows], x.received[elements]);
        x.in.receive(*messages_, rank);
      });
    });
  }
  /// Into the mirrors of all of this rank's devices.
  void store_changed_rows(Table const& table, record const& key) const {
    for (std::size_t const rank : parts_.holders()) {
      if (rank == own_rank_) continue;
      T const* values = ranks_[rank].in.values();
      for (std::int64_t const id : ranks_[rank].in.ids()) {
        slice const columns = parts_.columns(rank, id);
        for (std::size_t m = 0; m < table.devices().size(); ++m)
          copy_row(table.devices()[m], Table::mirror(key, m) + id * parts_.row_length() + columns.begin, values,
                   columns.size());
        values += columns.size();
      }
    }
  }

 private:
  /// What the lists of counts hold.
  using packing_device_type = std::conditional_t<HostDevice<D>, D, cpu_device<>>;
  static constexpr std::size_t given_rows = 0, elements = 1, first_count = 2;

  struct rank_rows {
    explicit rank_rows(staged_bytes const& count) : out(count), in(count) {}

    std::vector<std::int64_t> sent, received;  // counts
    packed_rows<T, packing_device_type> out, in;
    std::vector<T> whole;  // rows of `in`, each at its full length
  };
  /// Rows of a source on a GPU.
  struct copied_rows {
    std::vector<std::int64_t> ids;
    std::vector<T> values;
  };

  static packing_device_type packing_device([[maybe_unused]] Table const& table) {
    if constexpr (HostDevice<D>) {
      return table.devices().front();
    } else {
      return packing_device_type();
    }
  }
  static void copy_row(D const& device, T* to, T const* from, std::int64_t size) {
    if constexpr (HostDevice<D>) {
      std::copy_n(from, size, to);
    } else {
      device.copy(to, from, static_cast<std::size_t>(size) * sizeof(T));
    }
  }
  /// The messages of mirrors, which are the devices'.
  messages& of_mirrors(Table const& table) {
    if constexpr (HostDevice<D>) return *messages_;
    if (of_mirrors_ == nullptr) of_mirrors_ = table.ranks().make_messages();
    return *of_mirrors_;
  }
  /// The sources where the host reads them. Waits for those of GPUs.
  std::span<source_type const> on_host(std::span<source_type const> own) {
    if constexpr (HostDevice<D>) {
      return own;
    } else {
      copied_.resize(std::max(copied_.size(), own.size()));
      own_.assign(own.begin(), own.end());
      for (std::size_t k = 0; k < own.size(); ++k) {
        if (!own[k].device) continue;
        auto const rows = static_cast<std::size_t>(own[k].rows);
        copied_rows& x = copied_[k];
        x.ids.resize(rows);
        x.values.resize(rows * static_cast<std::size_t>(parts_.row_length()));
        own[k].device->copy(x.ids.data(), own[k].ids, rows * sizeof(std::int64_t));
        own[k].device->copy(x.values.data(), own[k].values, x.values.size() * sizeof(T));
        own_[k] = {x.values.data(), x.ids.data(), own[k].rows, {}};
      }
      for (source_type const& x : own)
        if (x.device) x.device->synchronize();
      return own_;
    }
  }
  /// A source of rows that came; elements that this rank does not hold are zeros.
  source_type whole_rows(rank_rows& x) const {
    auto const ids = x.in.ids();
    T const* values = x.in.values();
    x.whole.assign(ids.size() * static_cast<std::size_t>(parts_.row_length()), T{});
    T* row = x.whole.data();
    for (std::int64_t const id : ids) {
      slice const columns = parts_.columns(own_rank_, id);
      std::copy_n(values, columns.size(), row + columns.begin);
      values += columns.size();
      row += parts_.row_length();
    }
    return {x.whole.data(), ids.data(), static_cast<std::int64_t>(ids.size()), {}};
  }
  /// The distinct ids among `rows` of all sources, ascending.
  void append_distinct(slice const& rows) {
    auto const take = [&](std::span<std::int64_t const> ids) {
      std::ranges::copy_if(ids, std::back_inserter(changed_),
                           [&](std::int64_t id) { return id >= rows.begin && id < rows.end; });
    };
    for (source_type const& x : own_) take({x.ids, static_cast<std::size_t>(x.rows)});
    for_each_other([&](std::size_t, rank_rows& x) { take(x.in.ids()); });
    std::ranges::sort(changed_);
    changed_.erase(std::unique(changed_.begin(), changed_.end()), changed_.end());
  }

  static std::int64_t rows_in(std::vector<std::int64_t> const& counts) {
    return std::accumulate(counts.begin() + first_count, counts.end(), std::int64_t{0});
  }
  /// f(source, row, rank, columns) for each row of each source and each rank that holds elements of it.
  template <class F>
  void for_each_row(std::span<source_type const> own, F const& f) const {
    for (std::size_t k = 0; k < own.size(); ++k)
      for (std::int64_t i = 0; i < own[k].rows; ++i)
        parts_.for_each_holder(own[k].ids[i], [&](std::size_t rank, slice const& columns) { f(k, i, rank, columns); });
  }
  template <class F>
  void for_each_other(F const& f) {
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
      if (rank != own_rank_) f(rank, ranks_[rank]);
  }
  template <class F>
  awaited& start(F const& f) {
    messages_->clear();
    f();
    messages_->start_exchange();
    return *messages_;
  }
  void send(std::vector<std::int64_t> const& counts, std::size_t rank) {
    messages_->send(counts.data(), counts.size() * sizeof(std::int64_t), static_cast<int>(rank));
  }
  void receive(std::vector<std::int64_t>& counts, std::size_t rank) {
    messages_->receive(counts.data(), counts.size() * sizeof(std::int64_t), static_cast<int>(rank));
  }

  std::unique_ptr<messages> messages_, of_mirrors_;
  row_parts parts_;
  std::size_t own_rank_ = 0;
  std::vector<rank_rows> ranks_;
  std::vector<std::int64_t> changed_;
  mirror_exchange<Table> mirrors_;
  std::vector<copied_rows> copied_;
  std::vector<source_type> own_;  // of GPUs, on the host
};

}  // namespace pushpull::detail
