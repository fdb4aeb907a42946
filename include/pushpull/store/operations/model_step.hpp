/// @file
/// A step over resident keys that is laid out once and run many times.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/accumulating_push.hpp>
#include <pushpull/store/reach.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A step that is laid out for some of a plan's keys.
template <Device D, class Record, class Step>
struct laid_out {
  Step step;
  std::vector<staged_copy> copies_in, copies_out;  ///< Before and behind it, where devices do not reach each other.
  std::vector<staging<D>> staged;                  ///< Gradients that they cannot read where they are.
  std::vector<Record*> keys;
  std::vector<bool> joined;  ///< Key i continues the run of key i - 1.
  bool with_sums = false;    ///< The step reads the sums of micro-batches.

  explicit laid_out(std::size_t devices) : step(devices), staged(devices) {}

  void clear() {
    keys.clear();
    step.clear();
    copies_in.clear();
    copies_out.clear();
    for (auto& memory : staged) memory.clear();
  }
  /// `run(step)`, with the copies.
  template <class Run>
  void run(std::vector<D> const& devices, Run const& run_step) {
    copy_before(devices, copies_in);
    run_step(step);
    copy_behind(devices, copies_out);
  }
};

/// The steps that add to sums of micro-batches, each laid out for the keys that it last took.
template <class Types>
struct laid_out_accumulation {
  using steps = accumulating_steps<Types, pass::memory::arenas>;
  using record = typename Types::record;
  laid_out<typename Types::device_type, record, decltype(steps::first)> first;
  laid_out<typename Types::device_type, record, decltype(steps::more)> more;
  std::vector<record*> due, waiting;  ///< The keys of a call that make a step, and the others.

  explicit laid_out_accumulation(std::size_t devices) : first(devices), more(devices) {}
};

/// Keys with resident gradients and mirrors, and the step that updates them: one pass per device. Neighbouring keys that
/// have seen equally many updates share a run, and with it a clock. In stores with the policy `accumulate` also the steps
/// that add to sums of micro-batches. Belongs to whoever waits for it.
/// @tparam Types  A kv_store_types.
template <class Types>
class model_step final : public operation {
  using D = typename Types::device_type;
  using T = typename Types::value_type;
  using Table = typename Types::table_type;
  using rule_type = typename Types::rule_type;
  using Step =
      fused_step<D, rule_type, typename Types::reduction_type, typename Types::step_types, pass::memory::arenas>;

 public:
  using record = typename Types::record;

  /// @throws duplicate_key if a key stands twice
  model_step(store_contents<Types>& contents, std::vector<record*> keys)
      : contents_(contents),
        update_(contents.devices().size()),
        accumulating_(contents.devices().size()),
        keys_(std::move(keys)) {
    Table const& table = contents.keys;
    std::sort(keys_.begin(), keys_.end(), [](auto const* a, auto const* b) { return a->index < b->index; });
    expects<duplicate_key>(std::adjacent_find(keys_.begin(), keys_.end()) == keys_.end(),
                           [] { return std::string("make_plan: a key stands twice"); });
    // Neighbours in memory are not those in number. But sums over keys go by their numbers.
    if (table.whole_keys() && !Step::two_phases)
      std::sort(keys_.begin(), keys_.end(), [](auto const* a, auto const* b) {
        return a->arena != b->arena ? std::less<>()(a->arena, b->arena) : a->offset < b->offset;
      });
    build(table, update_, keys_, false);
  }

  /// For the next run. @param policy  When keys are updated. @param only  No key is updated.
  void begin([[maybe_unused]] typename Types::accumulation_policy const& policy, bool only) {
    policy_ = policy;
    only_accumulates_ = only;
    forget_accesses();
    for (record* const r : keys_) writes(r->order);
    if constexpr (pass::has_shared_sums<rule_type>) writes(contents_.steps);
  }

  /// Keys that it updates.
  std::size_t size() const { return keys_.size(); }
  template <class F>
  void for_each_key(F const& f) const {
    for (record* const r : keys_) f(*r);
  }

  progress run() override {
    for (record* const r : keys_) expect_weights("update", typename Types::key_view(r->key), *r);
    rule_list<typename Types::updater_type> const rules = contents_.groups.rules();
    if constexpr (Types::accumulates) {
      run_micro_batch(*rules);
    } else {
      lay_out(contents_.keys, update_, keys_, false);
      update(*rules);
    }
    return progress::done();
  }

 private:
  /// Updates the keys for which it is time, unless it only accumulates; the gradients of the others are added to their
  /// sums. Keys count for themselves, as in a call that names a list of them.
  template <class Rules>
  void run_micro_batch(Rules const& rules) {
    Table const& table = contents_.keys;
    auto& due = accumulating_.due;
    auto& waiting = accumulating_.waiting;
    due.clear();
    waiting.clear();
    for (record* const r : keys_)
      (!only_accumulates_ && is_due(policy_, r->micro_batches) ? due : waiting).push_back(r);
    bool const first = std::none_of(waiting.begin(), waiting.end(), [](auto* r) { return r->accumulated(); });
    bool const with_sums = std::any_of(due.begin(), due.end(), [](auto* r) { return r->accumulated(); });
    // What may fail comes first.
    if (!waiting.empty()) {
      if (first) {
        lay_out(table, accumulating_.first, waiting, false);
      } else {
        lay_out(table, accumulating_.more, waiting, false);
      }
    }
    if (!due.empty()) lay_out(table, update_, due, with_sums);
    if (!due.empty()) {
      if (with_sums) complete_sums(table, due);
      update(rules);
      for (record* const r : due) r->micro_batches = 0;
    }
    if (waiting.empty()) return;
    if (first) {
      accumulating_.first.run(table.devices(), [&](auto& step) { step.run(table.devices()); });
    } else {
      complete_sums(table, waiting);
      accumulating_.more.run(table.devices(), [&](auto& step) { step.run(table.devices()); });
    }
    for (record* const r : waiting) ++r->micro_batches;
  }

  template <class Rules>
  void update([[maybe_unused]] Rules const& rules) {
    Table const& table = contents_.keys;
    update_.run(table.devices(), [&](auto& step) {
      if constexpr (Types::has_updater) {
        step.run(table.devices(), contents_.controls, rules.data());
      } else {
        step.run(table.devices());
      }
    });
    table.count([&](auto const& f) {
      for (record* const r : update_.keys) f(*r);
    });
  }

  /// Zero stands for the sums of keys that have none.
  void complete_sums(Table const& table, std::vector<record*> const& keys) {
    for (record* const r : keys) {
      if (r->accumulated()) continue;
      for_each_shard(table, *r, [](auto const& shard) {
        auto* const sum = shard.reduced();
        shard.device().fill_zero(sum, static_cast<std::size_t>(shard.size()) * sizeof(*sum));
      });
    }
  }

  /// Lays the step out for the keys, unless it is. A key that was pushed alone has seen more updates than its neighbours:
  /// they no longer share a clock.
  template <class Built>
  void lay_out(Table const& table, laid_out<D, record, Built>& built, std::vector<record*> const& keys,
               bool with_sums) {
    bool stands = built.with_sums == with_sums && built.keys == keys;
    for (std::size_t i = 1; stands && i < keys.size(); ++i)
      stands = !built.joined[i] || Built::accumulates_only || share_clock(*keys[i - 1], *keys[i]);
    if (!stands) build(table, built, keys, with_sums);
  }

  template <class Built>
  void build(Table const& table, laid_out<D, record, Built>& built, std::vector<record*> const& keys, bool with_sums) {
    built.clear();  // until all is laid out it is laid out for none
    built.with_sums = with_sums;
    built.joined.assign(keys.size(), false);
    for (std::size_t first = 0; first < keys.size();) {
      std::size_t last = first + 1;
      for (; last < keys.size() && !sums_by_key(table) && continues(*keys[last - 1], *keys[last]); ++last)
        built.joined[last] = true;
      add_run(table, built, std::span(keys).subspan(first, last - first));
      first = last;
    }
    built.step.commit(table.devices());
    built.keys = keys;
  }

  /// Whether every key has a run of its own: where it has sums of its own, or leaves of its own and they matter.
  static bool sums_by_key(Table const& table) { return Step::per_tensor || (Step::two_phases && table.whole_keys()); }

  /// Whether one clock can stand for both: as many updates, by the same rule.
  static bool share_clock(record const& a, record const& b) {
    return a.updates == b.updates && a.history == b.history && a.parameter_group == b.parameter_group;
  }

  /// Whether one run can go on from key a into key b.
  static bool continues(record const& a, record const& b) {
    return follows_in_memory(a, b) && share_clock(a, b) && (!Step::two_phases || continues_leaves(a, b));
  }

  template <class Built>
  void add_run(Table const& table, laid_out<D, record, Built>& built, std::span<record* const> keys) {
    for_each_shard(table, keys, [&](auto const& shard) { add_run(table, built, keys, shard); });
  }
  template <class Built, class Shard>
  void add_run(Table const& table, laid_out<D, record, Built>& built, std::span<record* const> keys,
               Shard const& shard) {
    using run_type = typename Built::run_type;
    Built& step = built.step;
    std::size_t const n = shard.device_number();
    std::vector<typename Table::T const*> gradients;
    std::vector<typename Table::T*> mirrors;
    for (std::size_t m = 0; m < table.devices().size(); ++m)
      gradients.push_back(
          readable(table, built, n, m, Table::gradient(*keys.front(), m) + shard.offset(), shard.size()));
    run_type run;
    if constexpr (Built::accumulates_only) {
      run = shard.template sum_run<run_type>();
    } else {
      run = shard.template run<run_type>();
      table.add_mirrors(mirrors, shard);
      table.add_mirror_copies(built.copies_out, shard);
      run.accumulated = built.with_sums;
      if (built.with_sums || Built::always_reduced || (Built::two_phases && gradients.size() > 1))
        run.reduced = shard.reduced();
    }
    auto const owned = [&](record const* r) { return shard.has_elements_of(*r); };
    record const* const lead = *std::find_if(keys.begin(), keys.end(), owned);
    run.clock = lead->index;
    step.add(n, run, gradients, mirrors);
    if constexpr (Built::is_factored)
      step.add_matrices(
          n, run, gradients, keys.front()->shape,
          factor_states<typename Built::rule_type, typename Table::state_type>(shard.device(), *keys.front()));
    for (record const* const r : keys)
      if (owned(r)) step.add_clock(n, r->index, r == lead);
  }

  /// A part of the gradient of device number m where device number n reads it.
  template <class Built>
  static typename Table::T const* readable(Table const& table, laid_out<D, record, Built>& built, std::size_t n,
                                           std::size_t m, typename Table::T const* gradient, std::int64_t size) {
    if (table.reach()(n, m)) return gradient;
    std::size_t const bytes = static_cast<std::size_t>(size) * sizeof(*gradient);
    void* const staged = built.staged[n].take(table.devices()[n], bytes);
    built.copies_in.push_back({n, staged, gradient, bytes});
    return static_cast<typename Table::T const*>(staged);
  }

  void recycle() noexcept override {}

  struct nothing {
    explicit nothing(std::size_t) {}
  };
  using accumulation_type =
      typename std::conditional_t<Types::accumulates, std::type_identity<laid_out_accumulation<Types>>,
                                  std::type_identity<nothing>>::type;

  store_contents<Types>& contents_;
  laid_out<D, record, Step> update_;
  [[no_unique_address]] accumulation_type accumulating_;
  [[no_unique_address]] typename Types::accumulation_policy policy_;
  bool only_accumulates_ = false;
  std::vector<record*> keys_;
};

/// A model_step that is made once for given keys and can be moved.
template <class Types>
class step_plan {
 public:
  /// @throws as model_step
  step_plan(store_contents<Types>& contents, std::vector<typename Types::record*> keys)
      : step_(std::make_unique<model_step<Types>>(contents, std::move(keys))) {}

  /// Keys that it updates.
  std::size_t size() const { return step_->size(); }
  template <class F>
  void for_each_key(F const& f) const {
    step_->for_each_key(f);
  }
  model_step<Types>& step() const { return *step_; }

 private:
  std::unique_ptr<model_step<Types>> step_;
};

}  // namespace pushpull::detail
