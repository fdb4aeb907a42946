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
#include <utility>
#include <vector>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/accumulation.hpp>
#include <pushpull/store/key_table.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Keys of `Table` with resident gradients and mirrors, and the `Step` that updates them: one pass per device.
/// Neighbouring keys that have seen equally many updates share a run, and with it a clock.
/// @tparam Accumulating  The steps that add to sums of micro-batches: accumulating_steps, or no_further_steps.
template <class Table, class Step, class Accumulating = no_further_steps>
class resident_plan {
 public:
  using record = typename Table::record;

  /// @throws duplicate_key if a key stands twice
  resident_plan(Table const& table, std::vector<record*> keys)
      : step_(table.devices().size()), accumulating_(table.devices().size()), keys_(std::move(keys)) {
    std::sort(keys_.begin(), keys_.end(), [](auto const* a, auto const* b) { return a->clock < b->clock; });
    expects<duplicate_key>(std::adjacent_find(keys_.begin(), keys_.end()) == keys_.end(),
                           [] { return std::string("make_plan: a key stands twice"); });
    // Neighbours in memory are not those in number. But sums over keys go by their numbers.
    if (table.whole_keys() && !Step::two_phases)
      std::sort(keys_.begin(), keys_.end(), [](auto const* a, auto const* b) {
        return a->group != b->group ? std::less<>()(a->group, b->group) : a->offset < b->offset;
      });
    build(table, step_);
  }

  /// What runs the plan in its turn.
  struct plan_operation final : detail::operation {
    std::function<void()> function;
    void run() override { function(); }

   private:
    void recycle() noexcept override {}
  };
  plan_operation& operation() { return *operation_; }

  /// Keys that it updates.
  std::size_t size() const { return keys_.size(); }

  template <class F>
  void for_each_key(F const& f) const {
    for (record* const r : keys_) f(*r);
  }

  template <class Controls, class Rule>
  void run(Table const& table, Controls const& controls, Rule const* rules) {
    // A key that was pushed alone has seen more updates than its neighbours: they no longer share a clock.
    for (std::size_t i = 1; i < keys_.size(); ++i)
      if (joined_[i] && !share_clock(*keys_[i - 1], *keys_[i])) {
        build(table, step_);
        break;
      }
    step_.run(table.devices(), controls, rules);
    table.count([&](auto const& f) { for_each_key(f); });
  }

  /// As `run` where it is time for a step by `policy`, and not `only` accumulating; else adds the gradients to the sums.
  template <class Controls, class Rule, class Policy>
  void run(Table const& table, Controls const& controls, Rule const* rules, Policy const& policy, bool only) {
    bool const due = !only && is_due(policy, micro_batches_);
    bool const sums = std::any_of(keys_.begin(), keys_.end(), [](record const* r) { return r->accumulated; });
    if (sums) complete_sums(table);
    if (!due) {
      if (sums) {
        accumulate(table, accumulating_.more);
      } else {
        accumulate(table, accumulating_.first);
      }
      for (record* const r : keys_) r->accumulated = true;
      ++micro_batches_;
      return;
    }
    if (sums != with_sums_) {
      with_sums_ = sums;
      build(table, step_);
    }
    run(table, controls, rules);
    for (record* const r : keys_) {
      r->accumulated = false;
      r->micro_batches = 0;
    }
    micro_batches_ = 0;
  }

 private:
  /// Zero stands for the sums of keys that have none.
  void complete_sums(Table const& table) {
    for (record* const r : keys_) {
      if (r->accumulated) continue;
      for (std::size_t n = 0; n < table.devices().size(); ++n) {
        slice const part = r->part(n);
        if (part.size() <= 0) continue;
        auto* const sum = r->group->reduced(table.devices()[n], n) + (part.begin - r->group->part(n).begin);
        table.devices()[n].fill_zero(sum, static_cast<std::size_t>(part.size()) * sizeof(*sum));
      }
      r->accumulated = true;
    }
  }
  template <class Other>
  void accumulate(Table const& table, Other& step) {
    if (step.empty()) build(table, step);
    step.run(table.devices());
  }

  template <class Built>
  void build(Table const& table, Built& step) {
    step.clear();
    if constexpr (!Built::accumulates_only) joined_.assign(keys_.size(), false);
    for (std::size_t first = 0; first < keys_.size();) {
      std::size_t last = first + 1;
      for (; last < keys_.size() && !sums_by_key(table) && continues(*keys_[last - 1], *keys_[last]); ++last)
        if constexpr (!Built::accumulates_only) joined_[last] = true;
      add_run(table, step, std::span(keys_).subspan(first, last - first));
      first = last;
    }
    step.commit(table.devices());
  }

  /// Whether every key has a run of its own: where it has sums of its own, or leaves of its own and they matter.
  static bool sums_by_key(Table const& table) { return Step::per_tensor || (Step::two_phases && table.whole_keys()); }

  /// Whether one clock can stand for both: as many updates, by the same rule.
  static bool share_clock(record const& a, record const& b) {
    return a.updates == b.updates && a.history == b.history && a.rule == b.rule;
  }

  /// Whether key b lies right behind key a in every operand, is numbered on from it and shares its clock.
  static bool continues(record const& a, record const& b) {
    return a.group == b.group && b.offset == a.offset + padded(a.shape.size()) &&
           b.number - a.number == b.offset - a.offset && share_clock(a, b) && a.own_gradient.empty() &&
           b.own_gradient.empty();
  }

  template <class Built>
  void add_run(Table const& table, Built& step, std::span<record* const> keys) {
    auto& group = *keys.front()->group;
    std::int64_t const begin = keys.front()->offset;
    std::int64_t const end = keys.back()->offset + padded(keys.back()->shape.size());
    std::vector<typename Table::T const*> gradients;
    std::vector<typename Table::T*> mirrors;
    for (std::size_t n = 0; n < table.devices().size(); ++n) {
      slice const part{std::max(begin, group.part(n).begin), std::min(end, group.part(n).end)};
      if (part.size() <= 0) continue;
      std::int64_t const local = part.begin - group.part(n).begin;
      gradients.clear();
      mirrors.clear();
      for (std::size_t m = 0; m < table.devices().size(); ++m)
        gradients.push_back(Table::gradient(*keys.front(), m) + (part.begin - begin));
      typename Built::run_type run{};
      run.size = part.size();
      run.element = keys.front()->number + (part.begin - begin);
      run.leaf_phase = table.leaf_phase(part);
      if constexpr (Built::accumulates_only) {
        run.master = group.reduced(table.devices()[n], n) + local;
      } else {
        table.add_mirrors(mirrors, group, n, part.begin);
        run.master = group.master(n) + local;
        for (std::size_t s = 0; s != Built::states; ++s) run.state[s] = group.state(n, s) + local;
        run.accumulated = with_sums_;
        if (with_sums_ || Built::always_reduced || (Built::two_phases && gradients.size() > 1))
          run.reduced = group.reduced(table.devices()[n], n) + local;
      }
      auto const owned = [&](record const* r) {
        return r->offset + padded(r->shape.size()) > part.begin && r->offset < part.end;
      };
      record const* const lead = *std::find_if(keys.begin(), keys.end(), owned);
      run.clock = lead->clock;
      step.add(n, run, gradients, mirrors);
      if constexpr (Built::is_factored)
        step.add_matrices(
            n, run, gradients, keys.front()->shape,
            factor_states<typename Built::rule_type, typename Table::state_type>(table.devices()[n], *keys.front()));
      for (record const* const r : keys)
        if (owned(r)) step.add_clock(n, r->clock, r == lead);
    }
  }

  Step step_;
  [[no_unique_address]] Accumulating accumulating_;
  std::unique_ptr<plan_operation> operation_ = std::make_unique<plan_operation>();
  std::vector<record*> keys_;
  std::int64_t micro_batches_ = 0;  // since the last step of this plan
  bool with_sums_ = false;          // step_ reads the sums of micro-batches
  std::vector<bool> joined_;        // key i continues the run of key i - 1
};

}  // namespace pushpull::detail
