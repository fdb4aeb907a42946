/// @file
/// A copy of the values that a step restores if it fails before its pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/pass/step_control.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The values that a step on a host changes before its pass, restored if a rule's `prepare` throws.
/// @tparam Types  The element types of the step.
template <class Rule, class Types>
class step_memory {
  using A = typename Types::accumulation;

 public:
  /// Memory for what `remember` writes.
  template <class Plans>
  void reserve(Plans const& plans) {
    std::size_t clocks = 0, sums = 0;
    for (auto const& plan : plans) {
      plan.for_each_clock([&](std::int32_t) { ++clocks; });
      for_each_sum(plan, [&](A const*, std::size_t size) { sums += size; });
    }
    counts_.resize(clocks);
    sums_.resize(sums);
    shared_.resize(plans.size());
  }
  template <class Plans, class Controls>
  void remember(Plans const& plans, Controls const& controls) {
    for_each(plans, controls, [](auto& memory, auto const& current) { memory = current; });
  }
  template <class Plans, class Controls>
  void put_back(Plans const& plans, Controls const& controls) {
    for_each(plans, controls, [](auto const& memory, auto& current) { current = memory; });
  }

 private:
  /// f(copy, original) for step counts, sums of micro-batches, and persistent values.
  template <class Plans, class Controls, class F>
  void for_each(Plans const& plans, Controls const& controls, F const& f) {
    auto count = counts_.begin();
    auto sum = sums_.begin();
    for (std::size_t n = 0; n < plans.size(); ++n) {
      plans[n].for_each_clock([&](std::int32_t clock) { f(*count++, controls[n].clocks()[clock].t); });
      for_each_sum(plans[n], [&](A* sums, std::size_t size) {
        for (std::size_t i = 0; i < size; ++i) f(*sum++, sums[i]);
      });
      if constexpr (pass::detail::has_shared_sums<Rule>) f(shared_[n], *controls[n].shared());
    }
  }
  /// f(elements, count) for the sums of micro-batches that a phase before the pass adds to.
  template <class Plan, class F>
  static void for_each_sum(Plan const& plan, F const& f) {
    if constexpr (PreReduction<Rule> && Types::accumulates)
      for (auto const& r : plan.runs())
        if (r.accumulated) f(r.reduced, static_cast<std::size_t>(r.size));
  }

  std::vector<std::int64_t> counts_;
  std::vector<A> sums_;
  std::vector<pass::shared_sums<Rule>> shared_;
};

}  // namespace pushpull::detail
