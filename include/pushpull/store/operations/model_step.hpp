/// @file
/// A step over resident keys that is laid out once and run many times.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
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
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/capture.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/exchange/rank_gradients.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/laid_out_step.hpp>
#include <pushpull/store/operations/model_layout.hpp>
#include <pushpull/store/reach.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

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

  using layout = model_layout<Types, Step>;

 public:
  using record = typename Types::record;

  /// @throws duplicate_key if a key stands twice
  model_step(store_contents<Types>& contents, std::vector<record*> keys)
      : contents_(contents), update_(contents.keys), accumulating_(contents.keys), keys_(std::move(keys)) {
    Table const& table = contents.keys;
    std::sort(keys_.begin(), keys_.end(), [](auto const* a, auto const* b) { return a->index < b->index; });
    expects<duplicate_key>(std::adjacent_find(keys_.begin(), keys_.end()) == keys_.end(),
                           [] { return std::string("make_plan: a key stands twice"); });
    // Neighbours in memory are not those in number. But sums over keys go by their numbers.
    if (table.placement().begins_leaves_with_keys() && !Step::two_phases)
      std::sort(keys_.begin(), keys_.end(), [](auto const* a, auto const* b) {
        // The same order on all ranks, whose messages follow one another in it.
        return a->arena != b->arena ? a->arena->number() < b->arena->number() : a->offset < b->offset;
      });
    lay_out_aside(detail::is_captured(table.devices()), table.devices(),
                  [&] { layout::build(table, update_, keys_, false); });
  }

  /// For the next run. @param policy  When keys are updated. @param only  No key is updated.
  void begin([[maybe_unused]] typename Types::accumulation_policy const& policy, bool only) {
    policy_ = policy;
    only_accumulates_ = only;
    this->capture(false);
    contents_.captured.expect_whole_runs("update", [&](auto const& f) { for_each_key(f); });
    contents_.expect_in_step("update");
    if constexpr (sums_of_ranks)
      if (contents_.keys.is_distributed())
        contents_.in_step([&] {
          for (record* const r : keys_) rank_sums<Types, pass::memory::arenas>::reserve(contents_.keys, *r);
        });
    next_ = 0;
    rules_ = contents_.groups.rules();  // at the time of the call: the same on all ranks
    forget_accesses();
    contents_.write_collectives(*this);
    for (record* const r : keys_) writes(r->order);
    if constexpr (pass::has_shared_sums<rule_type>) writes(contents_.steps);
  }

  /// Keys that it updates.
  std::size_t size() const { return keys_.size(); }
  template <class F>
  void for_each_key(F const& f) const {
    for (record* const r : keys_) f(*r);
  }

  char const* name() const override { return "update"; }
  void list_keys(profile::detail::key_list& list) const override {
    for (record const* const r : keys_) list.add(typename Types::key_view(r->key));
  }

  progress run() override {
    if constexpr (CapturingDevice<D>)
      if (this->is_captured()) {
        run_captured();
        return progress::done();
      }
    return contents_.in_step([&] {
      if (next_ == 0) begin_run();
      // One part after the other, each when the messages of the one before have arrived.
      while (next_ < part_count)
        if (awaited* const event = run_part(next_)) return progress::waiting_for(*event);
      return progress::done();
    });
  }

 private:
  /// Lays out what may fail, before anything changes.
  void begin_run() {
    for (record* const r : keys_) expect_weights("update", typename Types::key_view(r->key), *r);
    contents_.groups.complete(rules_);
    if constexpr (Types::accumulates) {
      choose_due();
    } else {
      lay_out(contents_.keys, update_, keys_, false);
    }
    if constexpr (Step::is_factored) update_.step.make_room(contents_.devices(), contents_.controls);
  }

  /// In the place of all parts: what is laid out belongs to the graph. Keys have runs, and counts, of their own, as other
  /// captured calls may update some of them; not so where that would change the sums over all keys.
  void run_captured() {
    for (record* const r : keys_) expect_weights("update", typename Types::key_view(r->key), *r);
    auto const made = std::make_shared<laid_out<Types, Step>>(contents_.keys);
    lay_out_aside(true, contents_.devices(), [&] {
      layout::build(contents_.keys, *made, keys_, false, !Step::two_phases);
      contents_.groups.complete(rules_);
    });
    note_captured_runs(*made);
    contents_.captured.keep(made);
    made->run(contents_.devices(), [&](auto& step) {
      if constexpr (Types::has_updater) {
        step.run(contents_.devices(), contents_.controls, rules_->data());
      } else {
        step.run(contents_.devices());
      }
    });
    contents_.keys.count_captured([&](auto const& f) {
      for (record* const r : keys_) f(*r);
    });
  }
  /// Gives keys that share a run its number. Those of an earlier captured step that share one do so again.
  template <class Built>
  void note_captured_runs(Built const& built) {
    for (std::size_t first = 0; first < keys_.size();) {
      std::size_t last = first + 1;
      while (last < keys_.size() && built.joined[last]) ++last;
      if (last - first > 1 && keys_[first]->captured_run == 0) {
        std::int32_t const run = contents_.captured.add_run(last - first);
        for (std::size_t i = first; i < last; ++i) keys_[i]->captured_run = run;
      }
      first = last;
    }
  }

  /// Runs part number `part`, and counts it unless it is to be run again. @returns  What the next run waits for.
  awaited* run_part(std::size_t part) {
    bool const updates = !update_.keys.empty() && runs_update();
    if (part < 5 && !updates) {
      ++next_;
      return nullptr;
    }
    switch (part) {
      case 0:
        ++next_;
        if constexpr (sums_of_ranks)
          if (update_.with_sums && contents_.keys.is_distributed())
            accumulating_.of_rank.run_bring(contents_.devices());
        return update_.ranks.start_arrival(contents_.keys);
      case 1: ++next_; return update_.ranks.start_exchange(contents_.keys);
      case 2:
        ++next_;
        if (update_.ranks.exchanges()) copy_before(contents_.devices(), update_.copies_in);
        return nullptr;
      case 3:
        if (auto const sums = contents_.in_own_step([&] { return update(); })) return update_.ranks.start_sum(*sums);
        ++next_;
        return nullptr;
      case 4:
        if (awaited* const event = update_.ranks.advance_mirrors(contents_.keys)) return event;
        ++next_;
        finish_update();
        return nullptr;
      default:
        if constexpr (Types::accumulates)
          if (!accumulating_.waiting.empty()) accumulate();
        next_ = part_count;
        return nullptr;
    }
  }
  static constexpr std::size_t part_count = 6;
  /// Whether there may be ranks, each of which adds up its own micro-batches.
  static constexpr bool sums_of_ranks = Types::accumulates && Types::collective;

  bool runs_update() const {
    if constexpr (Types::accumulates) return !accumulating_.due.empty();
    return true;
  }

  /// Chooses the keys for which it is time, unless the step only accumulates; the gradients of the others are added to
  /// their sums. Keys count for themselves, as in a call that names a list of them.
  void choose_due() {
    Table const& table = contents_.keys;
    auto& due = accumulating_.due;
    auto& waiting = accumulating_.waiting;
    due.clear();
    waiting.clear();
    for (record* const r : keys_)
      (!only_accumulates_ && is_due(policy_, r->micro_batches) ? due : waiting).push_back(r);
    accumulating_.begins = std::none_of(waiting.begin(), waiting.end(), [](auto* r) { return r->accumulated(); });
    bool const with_sums = std::any_of(due.begin(), due.end(), [](auto* r) { return r->accumulated(); });
    if constexpr (sums_of_ranks)
      if (table.is_distributed()) return lay_out_ranks(with_sums || table.devices().size() > 1);
    if (!waiting.empty()) {
      if (accumulating_.begins) {
        lay_out(table, accumulating_.first, waiting, false);
      } else {
        lay_out(table, accumulating_.more, waiting, false);
      }
    }
    if (due.empty()) return;
    lay_out(table, update_, due, with_sums);
    if (with_sums) complete_sums(table, due);
  }
  /// Same, where each rank adds up its own gradients, and brings one sum to a step.
  void lay_out_ranks(bool with_sums)
    requires(sums_of_ranks)
  {
    Table const& table = contents_.keys;
    auto& own = accumulating_.of_rank;
    own.clear();
    own.add_resident(table, accumulating_.waiting);
    if (!accumulating_.due.empty()) {
      lay_out(table, update_, accumulating_.due, with_sums);
      if (with_sums) own.bring_resident(table, accumulating_.due);
    }
    own.commit(table.devices());
  }

  /// Adds the gradients of the keys that wait to their sums.
  void accumulate() {
    Table const& table = contents_.keys;
    auto const run = [&](auto& built) { built.run(table.devices(), [&](auto& step) { step.run(table.devices()); }); };
    if constexpr (Types::collective)
      if (table.is_distributed()) {
        accumulating_.of_rank.run_add(table.devices());
        return count_micro_batches();
      }
    if (accumulating_.begins) {
      run(accumulating_.first);
    } else {
      complete_sums(table, accumulating_.waiting);
      run(accumulating_.more);
    }
    count_micro_batches();
  }
  void count_micro_batches() {
    for (record* const r : accumulating_.waiting) ++r->micro_batches;
  }

  /// @returns  Partial sums that the ranks are to add up before the next call, if it is not done: see fused_step::advance.
  std::optional<std::span<double>> update() {
    auto const& devices = contents_.devices();
    if constexpr (Types::collective && Types::has_updater)
      if (update_.ranks.exchanges()) {
        auto const sums = update_.step.advance(devices, contents_.controls, rules_->data());
        if (!sums) copy_behind(devices, update_.copies_out);
        return sums;
      }
    update_.run(devices, [&](auto& step) {
      if constexpr (Types::has_updater) {
        step.run(devices, contents_.controls, rules_->data());
      } else {
        step.run(devices);
      }
    });
    return std::nullopt;
  }
  void finish_update() {
    contents_.keys.count([&](auto const& f) {
      for (record* const r : update_.keys) f(*r);
    });
    for (record* const r : update_.keys) r->micro_batches = 0;
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
  void lay_out(Table const& table, laid_out<Types, Built>& built, std::vector<record*> const& keys, bool with_sums) {
    bool stands = built.with_sums == with_sums && built.keys == keys;
    for (std::size_t i = 1; stands && i < keys.size(); ++i)
      stands = !built.joined[i] || Built::accumulates_only || layout::share_clock(*keys[i - 1], *keys[i]);
    if (!stands) layout::build(table, built, keys, with_sums);
  }

  void recycle() noexcept override {}

  struct nothing {
    explicit nothing(Table const&) {}
  };
  using accumulation_type =
      typename std::conditional_t<Types::accumulates, std::type_identity<laid_out_accumulation<Types>>,
                                  std::type_identity<nothing>>::type;

  store_contents<Types>& contents_;
  laid_out<Types, Step> update_;
  [[no_unique_address]] accumulation_type accumulating_;
  [[no_unique_address]] typename Types::accumulation_policy policy_;
  bool only_accumulates_ = false;
  rule_list<typename Types::updater_type> rules_;  // of the run that is under way
  std::size_t next_ = 0;                           // the part that it runs next
  std::vector<record*> keys_;
};

}  // namespace pushpull::detail
