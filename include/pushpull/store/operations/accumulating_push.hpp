/// @file
/// A push where several pushes make a step: it adds to the sum of a key's micro-batches, or updates the key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/operations/accumulating_ranks.hpp>
#include <pushpull/store/operations/laid_out_call.hpp>
#include <pushpull/store/operations/pull.hpp>
#include <pushpull/store/operations/push.hpp>
#include <pushpull/store/parameter_groups.hpp>
#include <pushpull/store/policies.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Whether the next push of a key with `micro_batches` before it is a step.
inline bool is_due(accumulate const& policy, std::int64_t micro_batches) {
  return micro_batches + 1 >= policy.micro_batches;  // always, where there is no number
}

/// The steps that write and add to sums of micro-batches. @tparam Types  A kv_store_types.
template <class Types, pass::memory Memory>
struct accumulating_steps {
  template <class Rule>
  using step_of = fused_step<typename Types::device_type, Rule, typename Types::reduction_type,
                             typename Types::accumulation_types, Memory>;

  step_of<pass::accumulate_first> first;
  step_of<pass::accumulate_more> more;

  explicit accumulating_steps(std::size_t devices) : first(devices), more(devices) {}
};

/// A push of a store with the policy `accumulate`. Keys that are not updated are pulled as they are.
template <class Types>
class accumulating_push final : public gradient_operation<Types> {
  using D = typename Types::device_type;
  using rule_type = typename Types::rule_type;
  using record = typename Types::record;
  using step_type =
      fused_step<D, rule_type, typename Types::reduction_type, typename Types::step_types, pass::memory::foreign>;

 public:
  rule_list<typename Types::updater_type> rules;  ///< At the time of the call.
  bool only_accumulates = false;                  ///< No key is updated, however many pushes there were.

  accumulating_push(store_contents<Types>& contents, typename Types::compressor_type const& compressor,
                    typename Types::accumulation_policy const& policy)
      : gradient_operation<Types>(contents, compressor),
        policy_(policy),
        step_(contents.devices().size()),
        sums_(contents.devices().size()),
        pull_(contents.devices().size()),
        ranks_(contents, compressor, step_type::may_skip) {
    this->call_.remember_residuals(step_type::may_skip);
  }

  /// Lays the call out: in one step the keys that are updated, in others the rest.
  void prepare() override {
    this->expect_all_weights();
    auto& contents = this->contents_;
    contents.in_step([&] {
      lay_out();
      if constexpr (step_type::is_factored) step_.make_room(contents.devices(), contents.controls);
    });
  }
  progress run() override {
    auto& call = this->call_;
    progress const result = run_part();
    if (result.event() != nullptr) return result;
    call.choose([](auto const&) { return true; });
    call.for_each_distinct_key([](record& r) { r.micro_batches = r.due ? 0 : r.micro_batches + 1; });
    return result;
  }

 private:
  progress run_part() {
    auto& contents = this->contents_;
    if constexpr (Types::collective)
      if (contents.keys.is_distributed())
        return contents.in_step([&] {
          awaited* const event =
              ranks_.run(this->call_, [&] { return update([&] { ranks_.return_residuals(step_); }); });
          return event != nullptr ? progress::waiting_for(*event) : progress::done();
        });
    auto const& devices = contents.devices();
    return this->launch([&]() -> std::optional<std::span<double>> {
      if (updates_)  // the rule may fail, so these come first
        if (auto const sums = update([&] { this->call_.return_residuals(devices, step_); })) return sums;
      if (adds_) sums_.more.run(devices);
      if (begins_) sums_.first.run(devices);
      if (adds_ || begins_) pull_.run(devices);
      return std::nullopt;
    });
  }
  /// See fused_step::advance.
  template <class F>
  std::optional<std::span<double>> update(F const& return_residuals) {
    auto& contents = this->contents_;
    contents.groups.complete(rules);
    auto const advance = [&] { return step_.advance(contents.devices(), contents.controls, rules->data()); };
    if (auto const sums = contents.in_own_step(advance)) return sums;
    return_residuals();
    return std::nullopt;
  }

  void lay_out() {
    auto& call = this->call_;
    auto const& keys = this->contents_.keys;
    call.choose([](auto const&) { return true; });
    bool const is_distributed = keys.is_distributed();
    call.begin(keys, is_distributed ? effect::reads : effect::updates, step_type::may_fail);
    call.for_each_key([&](record& r) { r.due = !only_accumulates && is_due(policy_, r.micro_batches); });
    if constexpr (Types::collective)
      if (is_distributed) return ranks_.lay_out(call, step_);
    adds_ = call.choose([](record const& r) { return !r.due && r.accumulated(); });
    if (adds_) call.lay_out(keys, sums_.more, effect::accumulates);
    begins_ = call.choose([](record const& r) { return !r.due && !r.accumulated(); });
    if (begins_) call.lay_out(keys, sums_.first, effect::accumulates);
    if (adds_ || begins_) {
      call.choose([](record const& r) { return !r.due; });
      call.lay_out(keys, pull_, effect::reads);
    }
    updates_ = call.choose([](record const& r) { return r.due; });
    if (updates_) call.lay_out(keys, step_, effect::updates);
  }

  typename Types::accumulation_policy policy_;
  step_type step_;
  accumulating_steps<Types, pass::memory::foreign> sums_;
  pull_step<typename Types::table_type, typename Types::value_type> pull_;
  struct no_ranks {
    no_ranks(store_contents<Types>&, typename Types::compressor_type const&, bool) {}
  };
  [[no_unique_address]] std::conditional_t<Types::collective, accumulating_ranks<Types>, no_ranks> ranks_;
  bool adds_ = false, begins_ = false, updates_ = false;
};

}  // namespace pushpull::detail
