/// @file
/// Gradient accumulation: pushes that add to the sum of a key's micro-batches instead of updating it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/store/call.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/store/store_operations.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Whether the next push of a key with `micro_batches` before it is a step.
inline bool is_due(accumulate const& policy, std::int64_t micro_batches) {
  return micro_batches + 1 >= policy.micro_batches;  // always, where there is no number
}

/// The steps that write and add to sums of micro-batches. @tparam Types  A kv_store_types.
template <class Types, Device D, pass::memory Memory>
struct accumulating_steps {
  template <class Rule>
  using step_of = fused_step<D, Rule, typename Types::reduction_type, typename Types::accumulation_types, Memory>;

  step_of<pass::accumulate_first> first;
  step_of<pass::accumulate_more> more;

  explicit accumulating_steps(std::size_t devices) : first(devices), more(devices) {}
};

/// What an operation that may accumulate has beside the step that updates: also the pull of what stays as it is.
template <class Types, Device D, class PullStep>
struct accumulation : accumulating_steps<Types, D, pass::memory::foreign> {
  PullStep pull;
  bool only = false;  ///< No key is updated, however many pushes there were.

  explicit accumulation(std::size_t devices)
      : accumulating_steps<Types, D, pass::memory::foreign>(devices), pull(devices) {}

  /// Lays the call out: in `step` the keys that are updated, in the steps here the others.
  template <class Call, class Table, class Step>
  void lay_out(Call& call, Table const& table, Step& step, accumulate const& policy) {
    call.choose([](auto const&) { return true; });
    call.begin(table, effect::updates, Step::may_fail);
    call.for_each_key([&](auto& r) { r.due = !only && is_due(policy, r.micro_batches); });
    adds_ = call.choose([](auto const& r) { return !r.due && r.accumulated(); });
    if (adds_) call.lay_out(table, this->more, effect::accumulates);
    begins_ = call.choose([](auto const& r) { return !r.due && !r.accumulated(); });
    if (begins_) call.lay_out(table, this->first, effect::accumulates);
    if (adds_ || begins_) {
      call.choose([](auto const& r) { return !r.due; });
      call.lay_out(table, pull, effect::reads);
    }
    updates_ = call.choose([](auto const& r) { return r.due; });
    if (updates_) call.lay_out(table, step, effect::updates);
  }

  /// Runs what was laid out, the keys that are updated by `update()`. Their rule may fail, so they come first.
  template <class Call, class Table, class Update>
  void launch(Call& call, Table const& table, Update const& update) {
    auto const& devices = table.devices();
    call.launch(table, effect::updates, [&] {
      if (updates_) update();
      if (adds_) this->more.run(devices);
      if (begins_) this->first.run(devices);
      if (adds_ || begins_) pull.run(devices);
    });
    call.choose([](auto const&) { return true; });
    call.for_each_distinct_key([](auto& r) { r.micro_batches = r.due ? 0 : r.micro_batches + 1; });
  }

 private:
  bool adds_ = false, begins_ = false, updates_ = false;
};

}  // namespace pushpull::detail
