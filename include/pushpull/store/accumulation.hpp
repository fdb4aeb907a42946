/// @file
/// Gradient accumulation: pushes that add to the sum of a key's micro-batches instead of updating it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/store/call.hpp>
#include <pushpull/store/fused_step.hpp>
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

  /// Takes the part of the call's keys for which it is no step yet. Then chooses the others. @returns whether there are any
  template <class Call, class Table>
  bool take(Call& call, Table const& table, accumulate const& policy) {
    auto const& devices = table.devices();
    auto const due = [&](auto const& r) { return !only && is_due(policy, r.micro_batches); };
    call.choose([](auto const&) { return true; });
    call.for_each_key([&](auto& r) {
      r.due = due(r);
      if (!r.due)  // what may fail comes first
        for (std::size_t n = 0; n < devices.size(); ++n) r.group->reduced(devices[n], n);
    });
    bool any = false;
    if (call.choose([](auto const& r) { return !r.due && r.accumulated(); })) {
      call.execute(table, this->more, effect::accumulates, [&] { this->more.run(devices); });
      any = true;
    }
    if (call.choose([](auto const& r) { return !r.due && !r.accumulated(); })) {
      call.execute(table, this->first, effect::accumulates, [&] { this->first.run(devices); });
      any = true;
    }
    if (any) {
      call.choose([](auto const& r) { return !r.due; });
      call.execute(table, pull, effect::reads, [&] { pull.run(devices); });
    }
    call.for_each_distinct_key([](auto& r) { ++r.micro_batches; });  // those that were chosen last
    return call.choose([](auto const& r) { return r.due; });
  }

  /// After the step of the keys that were chosen.
  template <class Call>
  static void end_step(Call const& call) {
    call.for_each_key([](auto& r) {
      if (r.due) r.micro_batches = 0;
    });
  }
};

}  // namespace pushpull::detail
