/// @file
/// Pushes of row-sparse gradients and pulls of rows: each distinct row is a run of the one pass.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/bytes.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/body.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/may_fail.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/schedule/operation_pool.hpp>
#include <pushpull/store/call.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/parameter_groups.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/row_operands.hpp>
#include <pushpull/store/row_pass.hpp>
#include <pushpull/store/store_operations.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A push of row-sparse gradients to one key, and a pull of the whole key behind it if there are outputs.
/// @tparam Rule, Reduction  Those of the store, or pass::assign and reduce::sum for an initial value.
template <class Types, class T, Device D, class Rule, class Reduction>
class row_update final : public device_operation<D> {
  using table_type = typename Types::table_type;
  using record = typename Types::record;
  using key_view = typename Types::key_view;
  using types = typename Types::types;
  using run_type = pass::run<types, state_count<Rule>>;
  using controls_type = std::vector<control<D, typename Types::rule_type, typename Types::step_types>>;
  using groups_type = parameter_groups<typename Types::updater_type, key_view>;

 public:
  static constexpr bool writes_key = true;
  rule_list<Rule> rules;  ///< At the time of the call; null where there is none.
  std::shared_ptr<operation_pool<row_update>> home;

  /// @param groups  Where the rules come from, if there are any.
  row_update(table_type const& table, controls_type const& controls, groups_type const* groups)
      : device_operation<D>(table.devices()),
        pass_(table),
        table_(table),
        controls_(controls),
        groups_(groups),
        tables_(table.devices()),
        outputs_(table.devices().size()),
        output_step_(table.devices().size()) {}

  /// Names the key. @param whole  All its rows are updated, as a key's first update does that starts states.
  void begin(record& r, bool whole) {
    sources_.clear();
    outputs_.clear();
    outputs_.add_key(r);
    key_ = &r;
    whole_ = whole;
    pulls_ = false;
    ascending_ = true;
    given_ = 0;
  }
  /// @throws shape_mismatch; invalid_argument if a row does not exist that the host can see
  template <class Rows>
  void add_source(char const* call, key_view key, Rows const& rows) {
    expect_shape(call, key, key_->shape, rows.shape());
    using device_type = typename Rows::device_type;
    static_assert(std::same_as<device_type, D> || HostDevice<device_type>,
                  "store: a tensor lives on a device of another kind than the store's, and not on the host");
    std::int64_t const count = rows.rows();
    expect_countable(call, key_text(key), count);
    expect_countable(call, key_text(key), given_ + count);
    bool ascending = count <= 1;
    if constexpr (HostDevice<device_type>)
      ascending = check_row_ids(call, key_text(key), {rows.row_ids(), static_cast<std::size_t>(count)}, key_->shape[0]);
    row_source<T, D> source{rows.values(), rows.row_ids(), count, {}};
    if constexpr (std::same_as<device_type, D>) source.device = rows.device();
    ascending_ = ascending && (ascending_ && given_ == 0);
    given_ += count;
    sources_.push_back(source);
  }
  /// @throws shape_mismatch
  template <class View>
  void add_output(char const* call, key_view key, View const& view) {
    outputs_.add_output(call, key, view);
    pulls_ = true;
  }
  /// @throws invalid_argument if there is no source
  void expect_source(char const* call, key_view key) const {
    expects<invalid_argument>(!sources_.empty(),
                              [&] { return std::string(call) + ": " + key_text(key) + " came with no gradient"; });
    expect_weights(call, key, *key_);
  }

  /// Elements to read and to write, roughly.
  std::int64_t work() const {
    std::int64_t const whole = (whole_ ? key_->size() : 0) + outputs_.work();
    return bounded_sum(bounded_product(given_, row_length_of(key_->shape)), whole);
  }

  void prepare() override {
    expect_weights("push", key_view(key_->key), *key_);
    if constexpr (!pass::is_timeless<Rule>) {
      groups_->complete(rules);
      if (key_->updates == 0 && starts_states((*rules)[static_cast<std::size_t>(key_->parameter_group)])) whole_ = true;
    }
    for (auto const& s : sources_) pass_.order_after(s.device);
    if (key_->size() > 0)
      tables_.for_each([&](auto& tables) {
        tables.sort(sources_, key_->shape[0], ascending_);
        tables.find(sources_, row_length_of(key_->shape));
      });
    mirrors_.reserve(table_.devices().size());
    copies_.clear();
    if (key_->arena->resident())
      for_each_shard(table_, *key_, [&](auto const& shard) { table_.add_mirror_copies(copies_, shard); });
    if (!pulls_) return;
    outputs_.begin(table_, effect::reads);
    outputs_.lay_out(table_, output_step_, effect::reads);
  }

  progress run() override {
    if (pulls_) {
      outputs_.launch(table_, effect::reads, [&] {
        update();
        output_step_.run(table_.devices());
      });
    } else {
      update();
    }
    for (auto const& s : sources_) pass_.order_before(s.device);
    ++key_->updates;
    return progress::done();
  }

 private:
  void update() {
    join(table_.devices());
    if constexpr (!pass::is_timeless<Rule>) begin_step();
    for_each_shard(table_, *key_, [&](auto const& shard) { update(shard); });
    join(table_.devices());
    copy_behind(table_.devices(), copies_);
  }

  /// Counts the step on every owner, or on none if the rule's `prepare` throws.
  void begin_step() {
    using begin = pass::detail::begin_step<Rule, typename types::accumulation>;
    constexpr bool may_fail = pass::detail::may_fail<D, Rule, typename types::accumulation>;
    std::size_t begun = 0;
    auto const clock = [&](std::size_t n) -> auto& { return controls_[n].clocks()[key_->index]; };
    std::int64_t before = 0;
    try {
      for_each_shard(table_, *key_, [&](auto const& shard) {
        std::size_t const n = begun = shard.device_number();
        if constexpr (may_fail) before = clock(n).t;
        pass::detail::for_each_step<may_fail>(
            shard.device(), 1, begin{controls_[n].rules(rules->data()), controls_[n].clocks(), {key_->index, nullptr}});
      });
    } catch (...) {
      if constexpr (may_fail)
        for_each_shard(table_, *key_, [&](auto const& shard) {
          if (shard.device_number() <= begun) clock(shard.device_number()).t = before;
        });
      throw;
    }
  }

  void update(typename table_type::shard_type const& shard) {
    D const& device = shard.device();
    std::size_t const n = shard.device_number();
    auto const& tables = tables_.of_device(n);
    auto const [begin, end] = shard.rows(row_length_of(key_->shape));
    tables.count(n, begin, end);
    auto operands = pass_.template describe<run_type>(*key_, shard, tables);
    operands.slice.sources = static_cast<std::int32_t>(sources_.size());
    mirrors_.clear();
    if (shard.resident()) table_.add_whole_mirrors(mirrors_, shard);
    std::span<T* const> mirrors(mirrors_);
    pass_.take_mirrors(operands, mirrors, tables.aligned(), whole_ ? end - begin : tables.size());
    Rule const* given = nullptr;
    pass::clock_of<Rule, types>* clocks = nullptr;
    if constexpr (!pass::is_timeless<Rule>) {
      given = controls_[n].rules(rules->data());
      clocks = controls_[n].clocks();
    }
    if (whole_) {
      launch_rows<Rule, Reduction, types, pass::detail::all_rows>(device, operands, given, clocks, end - begin);
      pass_.template copy_rows<pass::detail::all_rows>(*key_, shard, tables, mirrors, false, end - begin);
    } else {
      launch_rows<Rule, Reduction, types, pass::detail::present_rows>(device, operands, given, clocks, tables.size());
      pass_.template copy_rows<pass::detail::present_rows>(*key_, shard, tables, mirrors, false, tables.size());
    }
  }

  void recycle() noexcept override {
    this->forget_events();
    operation_pool<row_update>::give_back(*this);
  }

  row_pass<Types, T, D> pass_;
  table_type const& table_;
  controls_type const& controls_;
  groups_type const* groups_;
  record* key_ = nullptr;
  bool whole_ = false, pulls_ = false, ascending_ = true;
  std::int64_t given_ = 0;
  std::vector<row_source<T, D>> sources_;
  shared_row_tables<T, D> tables_;
  std::vector<T*> mirrors_;
  std::vector<staged_copy> copies_;  // to mirrors out of their owners' reach
  detail::call<table_type, D, T, T> outputs_;
  typename table_type::pull_step output_step_;
};

/// A pull of rows of one key into row_sparse outputs.
template <class Types, class T, Device D>
class row_pull final : public device_operation<D> {
  using table_type = typename Types::table_type;
  using record = typename Types::record;
  using key_view = typename Types::key_view;

 public:
  static constexpr bool writes_key = false;
  std::shared_ptr<operation_pool<row_pull>> home;

  explicit row_pull(table_type const& table) : device_operation<D>(table.devices()), pass_(table), table_(table) {}

  /// Names the key.
  void begin(record& r) {
    used_ = 0;
    key_ = &r;
    work_ = 0;
  }

  /// Rows that the outputs named next receive. Ids in host memory are read before this returns.
  /// @throws invalid_argument if a row does not exist that the host can see
  template <class View>
  void add_ids(char const* call, key_view key, View const& ids) {
    if (used_ == requests_.size()) requests_.push_back(std::make_unique<request>(table_.devices()));
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

  progress run() override {
    for (std::size_t i = 0; i < used_; ++i) {
      request& q = *requests_[i];
      for (auto* const output : q.outputs) {
        output->expect_rows(q.rows.rows);
        pass_.order_after(output->device());
      }
      pass_.order_after(q.rows.device);
      run(q);
      pass_.order_before(q.rows.device);
      for (auto* const output : q.outputs) pass_.order_before(output->device());
    }
    return progress::done();
  }

 private:
  struct request {
    std::vector<std::int64_t> ids;
    row_source<T, D> rows{};
    bool ascending = true;
    std::vector<row_sparse<T, D>*> outputs;
    shared_row_tables<T, D> tables;

    explicit request(std::vector<D> const& devices) : tables(devices) {}
  };

  void run(request& q) {
    q.tables.for_each([&](auto& tables) { tables.sort(std::span(&q.rows, 1), key_->shape[0], q.ascending); });
    join(table_.devices());
    mirrors_.clear();
    for (auto* const output : q.outputs) mirrors_.push_back(output->values());
    for (std::size_t n = 0; n < table_.devices().size(); ++n) {
      auto const& tables = q.tables.of_device(n);
      auto const shard = shard_of(table_, *key_, n);
      auto const [begin, end] = shard.rows(row_length_of(key_->shape));
      tables.count(n, begin, end);
      if (n == 0)
        for (auto* const output : q.outputs) tables.write_ids(n, output->row_ids(), output->count());
      if (!shard.empty())
        pass_.template copy_rows<pass::detail::present_rows>(*key_, shard, tables, mirrors_, true, tables.size());
    }
    join(table_.devices());
  }

  void recycle() noexcept override {
    this->forget_events();
    operation_pool<row_pull>::give_back(*this);
  }

  row_pass<Types, T, D> pass_;
  table_type const& table_;
  record* key_ = nullptr;
  std::int64_t work_ = 0;
  std::size_t used_ = 0;
  std::vector<std::unique_ptr<request>> requests_;
  std::vector<T*> mirrors_;
};

/// A pool of operations of one type that exists once it is asked for: who never pushes rows compiles no passes over
/// them.
class late_pool {
 public:
  template <class Operation>
  operation_pool<Operation>& get() {
    std::lock_guard const lock(mutex_);
    if (pool_ == nullptr) pool_ = std::make_shared<operation_pool<Operation>>();
    return *static_cast<operation_pool<Operation>*>(pool_.get());
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<void> pool_;
};

}  // namespace pushpull::detail
