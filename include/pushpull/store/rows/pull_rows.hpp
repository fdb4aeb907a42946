/// @file
/// A pull of rows of a key.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/bytes.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/row_schedule.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/exchange/row_requests.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/keyed_state.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/rows/row_pass.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/tensor/row_sparse.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A pull of rows of one key into row_sparse outputs. In a store of several ranks it reads this rank's mirrors, and takes
/// part in no call to other ranks. A key without mirrors is another matter: all ranks ask its owners.
/// @tparam Table  The store's key_table.
template <class Table>
class pull_rows final : public device_operation<typename Table::device_type> {
  using T = typename Table::T;
  using D = typename Table::device_type;
  using record = typename Table::record;
  using key_view = typename Table::key_view;

 public:
  explicit pull_rows(keyed_state<Table>& contents)
      : device_operation<D>(contents.devices()),
        contents_(contents),
        pass_(contents.keys),
        table_(contents.keys),
        answered_(contents.keys.devices(), contents.keys.staged()) {}

  /// Names the key.
  void begin(record& r) {
    used_ = 0;
    key_ = &r;
    work_ = 0;
    stage_ = stage::own_rows;
    this->reads(r.order);
    if (!asks_owners()) return;
    expects<invalid_argument>(HostDevice<D> || !table_.is_distributed(), [] {
      return std::string("row_sparse_pull: ranks of GPUs do not ask others for rows; a key with mirrors expected");
    });
    contents_.write_collectives(*this);
  }

  /// Rows that the outputs named next receive. Ids in host memory are read before this returns.
  /// @throws invalid_argument if a row does not exist that the host can see
  template <class View>
  void add_ids(char const* call, key_view key, View const& ids) {
    if (used_ == requests_.size()) requests_.push_back(std::make_unique<request>(table_));
    request& q = *requests_[used_++];
    q.outputs.clear();
    expect_countable(call, key_text(key), static_cast<std::int64_t>(ids.size()));
    q.rows = {nullptr, nullptr, static_cast<std::int64_t>(ids.size()), {}};
    q.ascending = ids.size() <= 1;
    if constexpr (HostDevice<typename View::device_type>) {
      q.ids.resize(ids.size());
      std::transform(ids.data(), ids.data() + ids.size(), q.ids.begin(), [&](auto x) { return row_id(call, key, x); });
      q.ascending = check_row_ids(call, key_text(key), q.ids, key_->shape[0]);
      q.rows.ids = q.ids.data();
    } else {
      static_assert(std::same_as<std::remove_const_t<typename View::value_type>, std::int64_t> &&
                        std::same_as<typename View::device_type, D>,
                    "row_sparse_pull: row ids are 64-bit integers on a device of the store's kind, or in host memory");
      q.rows.ids = ids.data();
      q.rows.device = ids.device();
    }
  }
  /// @throws shape_mismatch; unknown_device if an owner cannot write the output's memory
  void add_output(char const* call, key_view key, row_sparse<T, D>& output) {
    expect_shape(call, key, key_->shape, output.shape());
    for (D const& device : table_.devices())
      expects<unknown_device>(device.can_access(output.device()), [&] {
        return std::string(call) + ": " + key_text(key) + ": device " + std::string(device.name()) +
               " cannot write the memory of an output on " + std::string(output.device().name());
      });
    request& q = *requests_[used_ - 1];
    q.outputs.push_back(&output);
    work_ = bounded_sum(work_, bounded_product(q.rows.rows, row_length_of(key_->shape)));
  }

  std::int64_t work() const { return work_; }

  char const* name() const override { return "row_sparse_pull"; }
  void list_keys(profile::detail::key_list& list) const override { list.add(key_view(key_->key)); }

  progress run() override {
    if constexpr (exchanges_rows)
      if (asks_owners()) return contents_.in_step([&] { return run_over_ranks(); });
    read_own_rows();
    return progress::done();
  }

 private:
  struct request {
    std::vector<std::int64_t> ids;
    row_source<T, D> rows{};
    bool ascending = true;
    std::vector<row_sparse<T, D>*> outputs;
    shared_row_tables<T, D> tables;

    explicit request(Table const& table) : tables(table.devices(), table.staged()) {}
  };

  static constexpr bool exchanges_rows = Table::collective && HostDevice<D>;
  bool asks_owners() const { return table_.is_distributed() && !key_->arena->resident(); }

  void read_own_rows() {
    for (std::size_t i = 0; i < used_; ++i) {
      request& q = *requests_[i];
      for (auto* const output : q.outputs) {
        output->expect_rows(q.rows.rows);
        order_after(table_.devices(), std::optional<D>(output->device()));
      }
      order_after(table_.devices(), q.rows.device);
      run(q);
      order_before(table_.devices(), q.rows.device);
      for (auto* const output : q.outputs) order_before(table_.devices(), std::optional<D>(output->device()));
    }
  }

  /// What `run_over_ranks` does next.
  enum class stage { own_rows, ids, values, copies };
  progress wait(stage next, awaited& event) {
    stage_ = next;
    return progress::waiting_for(event);
  }
  /// Runs as far as it goes without other ranks.
  progress run_over_ranks()
    requires(exchanges_rows)
  {
    switch (stage_) {
      case stage::own_rows:
        read_own_rows();
        if (key_->size() == 0) break;
        ask();
        return wait(stage::ids, asked_.start_counts());
      case stage::ids: return wait(stage::values, asked_.start_ids());
      case stage::values:
        return wait(stage::copies, asked_.start_values(
                                       table_, [&](std::span<std::int64_t const> ids, T* rows) { answer(ids, rows); }));
      case stage::copies: copy_received(); break;
    }
    return progress::done();
  }
  /// The rows of the first output of each request; further outputs copy them.
  void ask() {
    asked_.begin(table_, *key_);
    for (std::size_t i = 0; i < used_; ++i) {
      request& q = *requests_[i];
      distinct_.clear();
      q.tables.of_device(0).append_distinct(distinct_, 0, key_->shape[0]);
      if (!q.outputs.empty()) asked_.add(distinct_, q.outputs.front()->values());
    }
  }
  /// Reads rows for another rank. @param ids  Ascending, each once.
  void answer(std::span<std::int64_t const> ids, T* rows) {
    row_source<T, D> const given{nullptr, ids.data(), static_cast<std::int64_t>(ids.size()), {}};
    answered_.for_each([&](auto& tables) { tables.sort(std::span(&given, 1), key_->shape[0], true); });
    mirrors_.assign(1, rows);
    for (std::size_t n = 0; n < table_.devices().size(); ++n) copy_rows(answered_.of_device(n), n);
    join(table_.devices());
  }
  void copy_received() {
    for (std::size_t i = 0; i < used_; ++i) {
      auto const& outputs = requests_[i]->outputs;
      for (std::size_t k = 1; k < outputs.size(); ++k)
        std::copy_n(outputs.front()->values(), outputs.front()->rows() * outputs.front()->row_length(),
                    outputs[k]->values());
    }
  }

  void run(request& q) {
    q.tables.for_each([&](auto& tables) { tables.sort(std::span(&q.rows, 1), key_->shape[0], q.ascending); });
    join(table_.devices());
    mirrors_.clear();
    for (auto* const output : q.outputs) mirrors_.push_back(output->values());
    if constexpr (Table::collective)
      if (table_.is_distributed() && key_->arena->resident()) return copy_from_mirror(q);
    for (std::size_t n = 0; n < table_.devices().size(); ++n) {
      auto const& tables = q.tables.of_device(n);
      copy_rows(tables, n);
      if (n == 0)
        for (auto* const output : q.outputs) tables.write_ids(n, output->row_ids(), output->count());
    }
    join(table_.devices());
  }
  /// Enqueues copies of the rows that device number n owns to all mirrors, at their places among the sorted rows.
  void copy_rows(row_tables<T, D> const& tables, std::size_t n) {
    auto const shard = shard_of(table_, *key_, n);
    auto const [begin, end] = shard.rows(row_length_of(key_->shape));
    tables.count(n, begin, end);
    if (!shard.empty())
      pass_.template copy_rows<pass::present_rows>(*key_, shard, tables, mirrors_, true, tables.size());
  }

  void copy_from_mirror(request& q) {
    auto const& tables = q.tables.of_device(0);
    tables.count(0, 0, key_->shape[0]);
    for (auto* const output : q.outputs) tables.write_ids(0, output->row_ids(), output->count());
    if (key_->size() > 0) pass_.copy_rows_of_mirror(*key_, tables, mirrors_);
    join(table_.devices());
  }

  keyed_state<Table>& contents_;
  row_pass<Table> pass_;
  Table const& table_;
  record* key_ = nullptr;
  std::int64_t work_ = 0;
  std::size_t used_ = 0;
  std::vector<std::unique_ptr<request>> requests_;
  std::vector<T*> mirrors_;
  stage stage_ = stage::own_rows;
  struct no_exchange {};
  [[no_unique_address]] std::conditional_t<exchanges_rows, row_requests<Table>, no_exchange> asked_;
  std::vector<std::int64_t> distinct_;  // rows of one request
  shared_row_tables<T, D> answered_;    // of rows that another rank asks for
};

}  // namespace pushpull::detail
