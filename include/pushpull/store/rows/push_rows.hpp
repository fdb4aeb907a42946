/// @file
/// A push of row-sparse gradients: each distinct row is a run of the one pass.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
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
#include <pushpull/pass/row_numbers.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/exchange/gathered_outputs.hpp>
#include <pushpull/store/exchange/row_exchange.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/laid_out_call.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/store/parameter_groups.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/rows/initial_rows.hpp>
#include <pushpull/store/rows/row_pass.hpp>
#include <pushpull/store/rows/row_tables.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A push of row-sparse gradients to one key, and after it a pull of the whole key if there are outputs. In a store of
/// several ranks the sources are those of all ranks, as many of each.
/// @tparam Rule, Reduction  Those of the store, or pass::assign and reduce::sum for an initial value.
template <class Types, class Rule = typename Types::rule_type, class Reduction = typename Types::reduction_type>
class push_rows final : public device_operation<typename Types::device_type> {
  using T = typename Types::value_type;
  using D = typename Types::device_type;
  using table_type = typename Types::table_type;
  using record = typename Types::record;
  using key_view = typename Types::key_view;
  using types = typename Types::types;
  using run_type = pass::run<types, state_count<Rule>>;

 public:
  rule_list<Rule> rules;  ///< At the time of the call; null where there is none.

  explicit push_rows(store_contents<Types>& contents)
      : device_operation<D>(contents.devices()),
        contents_(contents),
        table_(contents.keys),
        pass_(table_),
        tables_(table_.devices(), table_.staged()),
        outputs_(table_),
        output_step_(table_.devices().size()) {}

  /// Names the key. @param whole  All its rows are updated, as a key's first update does that starts states.
  void begin(record& r, bool whole) {
    sources_.clear();
    outputs_.clear();
    outputs_.add_key(r);
    key_ = &r;
    output_work_ = 0;
    whole_ = whole;
    pulls_ = false;
    ascending_ = true;
    given_ = 0;
    stage_ = stage::counts;
    steps_before_.reset();
    contents_.write_collectives(*this);
    this->writes(r.order);
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
    expect_shape(call, key, key_->shape, view.shape());
    outputs_.add_output(operand_of<T, D>(view));
    output_work_ += key_->size();
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
    std::int64_t const whole = (whole_ ? key_->size() : 0) + output_work_;
    return bounded_sum(bounded_product(given_, row_length_of(key_->shape)), whole);
  }

  void prepare() override {
    expect_weights("push", key_view(key_->key), *key_);
    contents_.captured.expect_whole_runs("push", [&](auto const& f) { f(*key_); });
    if constexpr (!pass::is_timeless<Rule>) {
      contents_.groups.complete(rules);
      whole_ = whole_ || (!is_updated(table_, contents_.controls, *key_) &&
                          starts_states((*rules)[static_cast<std::size_t>(key_->parameter_group)]));
    }
    order_after(table_.devices(), sources_);
    source_count_ = static_cast<std::int32_t>(sources_.size() * table_.owners().ranks());
    mirrors_.reserve(table_.devices().size());
    copies_.clear();
    if (key_->arena->resident())
      for_each_shard(table_, *key_, [&](auto const& shard) { table_.add_mirror_copies(copies_, shard); });
    if (!table_.is_distributed()) {
      sort(sources_, ascending_);
      if (pulls_) {
        outputs_.begin(table_, effect::reads);
        outputs_.lay_out(table_, output_step_, effect::reads);
      }
    }
    if constexpr (step_may_fail)
      if (!table_.is_distributed() || key_->size() > 0) contents_.in_own_step([&] { begin_step(); });
  }
  void take_back() noexcept override {
    if constexpr (step_may_fail)
      if (auto const t = std::exchange(steps_before_, std::nullopt)) for_each_clock([&](auto& c) { c.t = *t; });
  }

  char const* name() const override { return "push"; }
  void list_keys(profile::detail::key_list& list) const override { list.add(typename Types::key_view(key_->key)); }

  progress run() override {
    if constexpr (Types::collective)
      if (table_.is_distributed()) return contents_.in_step([&] { return run_over_ranks(); });
    if (pulls_) {
      outputs_.launch(table_, effect::reads, [&] {
        update();
        output_step_.run(table_.devices());
      });
    } else {
      update();
    }
    order_before(table_.devices(), sources_);
    ++key_->updates;
    return progress::done();
  }

 private:
  void sort(std::vector<row_source<T, D>> const& sources, bool ascending) {
    if (key_->size() == 0) return;
    tables_.for_each([&](auto& tables) {
      tables.sort(sources, key_->shape[0], ascending);
      tables.find(sources, row_length_of(key_->shape));
    });
  }

  enum class stage { counts, rows, arrival, pass, gathered, changed, mirrors, outputs, end };  // of run_over_ranks
  progress wait(stage next, awaited& event) {
    stage_ = next;
    return progress::waiting_for(event);
  }
  /// Runs as far as it goes without other ranks.
  progress run_over_ranks()
    requires(Types::collective)
  {
    if (key_->size() == 0) stage_ = stage::end;
    switch (stage_) {
      case stage::counts: return wait(stage::rows, exchange_.start_counts(table_, *key_, sources_, given_));
      case stage::rows:
        expect_countable("push", key_text(key_view(key_->key)), exchange_.given());
        return wait(stage::arrival, exchange_.start_rows(table_, sources_));
      case stage::arrival:
        if (awaited* const event = exchange_.start_arrival(table_, *key_)) return wait(stage::pass, *event);
        [[fallthrough]];
      case stage::pass:
        exchange_.take_sources(sources_, all_sources_);
        sort(all_sources_, false);
        update();
        if (!key_->arena->resident() && pulls_) return wait(stage::outputs, start_outputs());
        if (!key_->arena->resident()) break;
        // Where ranks share memory, the passes have written all mirrors, and nothing is gathered.
        if (whole_ || (key_->arena->is_shared() && !table_.ranks().has_levels()))
          return wait(stage::gathered, exchange_.start_gather(table_, *key_));
        return wait(stage::changed, exchange_.start_changed_counts(tables_.of_device(0)));
      case stage::gathered:
        if (awaited* const event = exchange_.advance_gather(table_)) return progress::waiting_for(*event);
        break;
      case stage::changed: return wait(stage::mirrors, exchange_.start_changed_rows(table_, *key_));
      case stage::mirrors: exchange_.store_changed_rows(table_, *key_); break;
      case stage::outputs: gathered_.finish(table_); break;
      case stage::end: break;
    }
    if (key_->arena->resident())
      outputs_.for_each_key_and_output([](record const&) {},
                                       [&](operand<T, D> const& output) {
                                         order_after(table_.devices(), output.device);
                                         table_.devices().front().copy(output.data, table_type::mirror(*key_, 0),
                                                                       output.size * sizeof(T));
                                         order_before(table_.devices(), output.device);
                                       });
    order_before(table_.devices(), sources_);
    ++key_->updates;
    return progress::done();
  }

  /// Of a key without mirrors: after the pass.
  awaited& start_outputs() {
    if (messages_ == nullptr) messages_ = table_.ranks().make_messages();
    messages_->clear();
    gathered_.clear();
    outputs_.begin(table_, effect::reads);
    outputs_.for_each_key_and_output([](record const&) {},
                                     [&](auto& output) { gathered_.add(table_, *key_, output, *messages_); });
    outputs_.lay_out(table_, output_step_, effect::reads);
    outputs_.launch(table_, effect::reads, [&] { output_step_.run(table_.devices()); });
    messages_->start_gathers();
    return *messages_;
  }

  void update() {
    join(table_.devices());
    if constexpr (!pass::is_timeless<Rule> && !step_may_fail) begin_step();
    steps_before_.reset();  // the step is made
    for_each_shard(table_, *key_, [&](auto const& shard) { update(shard); });
    join(table_.devices());
    copy_behind(table_.devices(), copies_);
  }

  /// Of a rule with a number per row, whose key has one owner.
  void find_numbers() {
    using S = typename types::state;
    numbers_.of_device.resize(table_.devices().size());
    numbers_.owner = 0;
    bool any = false;
    for_each_shard(table_, *key_, [&](auto const& shard) {
      any = true;
      numbers_.owner = shard.device_number();
      numbers_.now().set(shard.device(), key_->shape, key_->first_element,
                         factor_states<Rule, S>(shard.device(), *key_));
    });
    if (!any) numbers_.now().set(table_.devices().front(), key_->shape, key_->first_element, nullptr);
  }
  /// The argument of the rule's `prepare`.
  auto steps() const {
    if constexpr (has_numbers) {
      return numbers_.now().steps();
    } else {
      return pass::detail::steps_of<Rule, typename types::accumulation>();
    }
  }

  /// Whether the rule's `prepare` may throw. Then the step begins before any other operation of the call changes anything.
  static constexpr bool step_may_fail =
      !pass::is_timeless<Rule> && pass::may_fail<D, Rule, typename types::accumulation>;
  /// Counts the step on every owner. Until the pass `take_back` undoes it, if it may fail.
  void begin_step() {
    if constexpr (step_may_fail) for_each_clock([&](auto& c) { steps_before_ = c.t; });
    if constexpr (has_numbers) find_numbers();
    using begin = pass::begin_step<Rule, typename types::accumulation>;
    for_each_counting_device([&](std::size_t n) {
      auto const& control = contents_.controls[n];
      begin const f{control.rules(rules->data()), control.clocks(), {key_->index, nullptr}, nullptr, steps()};
      pass::for_each_step<step_may_fail>(table_.devices()[n], 1, f);
    });
  }
  template <class F>
  void for_each_clock(F const& f) const {
    for_each_counting_device([&](std::size_t n) { f(contents_.controls[n].clocks()[key_->index]); });
  }
  /// f(n) for each device that counts the key's steps: those that hold elements of it. Where other ranks hold all, number 0.
  template <class F>
  void for_each_counting_device(F const& f) const {
    bool any = false;
    for_each_shard(table_, *key_, [&](auto const& shard) {
      any = true;
      f(shard.device_number());
    });
    if (!any && table_.is_distributed()) f(0);
  }

  void update(typename table_type::shard_type const& shard) {
    D const& device = shard.device();
    std::size_t const n = shard.device_number();
    auto const& tables = tables_.of_device(n);
    auto const [begin, end] = shard.rows(row_length_of(key_->shape));
    tables.count(n, begin, end);
    auto operands = pass_.template describe<run_type>(*key_, shard, tables);
    operands.slice.sources = source_count_;
    mirrors_.clear();
    if (shard.resident()) table_.add_whole_mirrors(mirrors_, shard);
    std::span<T* const> mirrors(mirrors_);
    pass_.take_mirrors(operands, mirrors, tables.aligned(), whole_ ? end - begin : tables.size());
    Rule const* given = nullptr;
    pass::clock_of<Rule, types>* clocks = nullptr;
    if constexpr (!pass::is_timeless<Rule>) {
      given = contents_.controls[n].rules(rules->data());
      clocks = contents_.controls[n].clocks();
    }
    if constexpr (has_numbers) {
      if (whole_) {
        numbers_.now().template move<Reduction, pass::all_rows>(device, operands, given, clocks, end - begin);
      } else {
        numbers_.now().template move<Reduction, pass::present_rows>(device, operands, given, clocks, tables.size());
      }
    }
    if (whole_) {
      launch_rows<Rule, Reduction, types, pass::all_rows>(device, operands, given, clocks, end - begin);
      pass_.template copy_rows<pass::all_rows>(*key_, shard, tables, mirrors, false, end - begin);
    } else {
      launch_rows<Rule, Reduction, types, pass::present_rows>(device, operands, given, clocks, tables.size());
      pass_.template copy_rows<pass::present_rows>(*key_, shard, tables, mirrors, false, tables.size());
    }
  }

  store_contents<Types>& contents_;
  table_type const& table_;
  row_pass<table_type> pass_;
  record* key_ = nullptr;
  bool whole_ = false, pulls_ = false, ascending_ = true;
  std::int64_t given_ = 0, output_work_ = 0;
  std::int32_t source_count_ = 0;  // of all ranks
  std::vector<row_source<T, D>> sources_;
  shared_row_tables<T, D> tables_;
  std::vector<T*> mirrors_;
  std::vector<staged_copy> copies_;  // to mirrors out of their owners' reach
  laid_out_call<table_type, D, T, T> outputs_;
  typename table_type::pull_step output_step_;
  stage stage_ = stage::counts;
  std::optional<std::int64_t> steps_before_;  // t, where a step was counted and is not made
  static constexpr bool has_numbers = pass::keeps_rows_alone<Rule>;
  struct no_numbers {};
  template <class R, bool>
  struct numbers_of {
    using type = no_numbers;
  };
  template <class R>
  struct numbers_of<R, true> {
    /// The operation serves keys of any owner: each device reads tables in memory of its own.
    struct type {
      std::vector<pass::row_numbers<D, R, types>> of_device;
      std::size_t owner = 0;  // of the key

      auto& now() { return of_device[owner]; }
      auto const& now() const { return of_device[owner]; }
    };
  };
  [[no_unique_address]] typename numbers_of<Rule, has_numbers>::type numbers_;
  struct no_exchange {};
  [[no_unique_address]] std::conditional_t<Types::collective, row_exchange<table_type>, no_exchange> exchange_;
  [[no_unique_address]] std::conditional_t<Types::collective, gathered_outputs<table_type>, no_exchange> gathered_;
  std::unique_ptr<messages> messages_;  // of outputs of a key without mirrors
  std::vector<row_source<T, D>> all_sources_;
};

/// Writes rows, of several ranks those of rank 0, into a key that holds zeros and that no operation knows yet. Returns when done.
template <class Types, class Rows>
void fill_rows(store_contents<Types>& contents, typename Types::record& key, Rows const& rows) {
  if constexpr (Types::collective)
    if (contents.keys.is_distributed()) return fill_rows_of_rank_0(contents, key, rows);
  push_rows<Types, pass::assign, reduce::sum> op(contents);
  op.begin(key, false);
  op.add_source("init", typename Types::key_view(key.key), rows);
  op.prepare();
  static_cast<void>(op.run());
  op.devices_wait();
  key.updates = 0;  // an initial value is none
}

}  // namespace pushpull::detail
