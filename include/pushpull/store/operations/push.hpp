/// @file
/// A push: one pass per device that reduces the sources and applies the rule.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <shared_mutex>
#include <span>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/capture.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/exchange/call_exchange.hpp>
#include <pushpull/store/exchange/rank_sums.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/operations/laid_out_call.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/store/parameter_groups.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The common part of operations that change keys by gathered gradients. @tparam Types  A kv_store_types.
template <class Types>
class gradient_operation : public gathered_operation<typename Types::device_type> {
 protected:
  using T = typename Types::value_type;
  using D = typename Types::device_type;
  using record = typename Types::record;
  using table_type = typename Types::table_type;
  using key_view = typename Types::key_view;

 public:
  gathered_call<key_view, D, T> gathered;

  gradient_operation(store_contents<Types>& contents, typename Types::compressor_type const& compressor)
      : gathered_operation<D>(contents.devices()), contents_(contents), call_(contents.keys, compressor) {}

  void find_keys() override {
    {
      std::shared_lock const lock(contents_.mutex.mutex);
      call_.take(contents_.keys, gathered);
    }
    contents_.expect_in_step(gathered.caller());
    name_keys();
  }
  /// In the place of `find_keys`: resident keys with their gradients. Their mirrors follow every change.
  template <class Plan>
  void take_resident(Plan const& plan) {
    contents_.expect_in_step("update");
    call_.clear();
    table_type const& table = contents_.keys;
    plan.for_each_key([&](record& r) {
      call_.add_key(r);
      for (std::size_t n = 0; n < table.devices().size(); ++n)
        call_.add_source({table_type::gradient(r, n), table.devices()[n], r.shape.size()});
    });
    name_keys();
  }
  std::int64_t work() const override { return call_.work(); }
  char const* name() const override { return gathered.caller(); }
  void list_keys(profile::detail::key_list& list) const override {
    call_.for_each_key([&](record const& r) { list.add(key_view(r.key)); });
  }

 protected:
  /// Runs what was laid out by `run()`, as far as it goes without other ranks: see laid_out_call::launch_part.
  template <class Run>
  progress launch(Run const& run) {
    return contents_.in_step([&] {
      awaited* const event = call_.launch_part(contents_.keys, effect::updates, run);
      return event != nullptr ? progress::waiting_for(*event) : progress::done();
    });
  }
  /// Another thread may have called swap since the call was checked.
  void expect_all_weights() const {
    call_.for_each_key([](record& r) { expect_weights("push", key_view(r.key), r); });
  }

  store_contents<Types>& contents_;
  laid_out_call<table_type, D, T, T, typename Types::compressor_type> call_;

 private:
  void name_keys() {
    if constexpr (Types::accumulates) {
      reserve_sums();
    } else {
      contents_.in_step([&] { call_.take_ranks(contents_.keys, sources_of::all_ranks); });
    }
    contents_.write_collectives(*this);
    call_.for_each_key([&](record& r) { this->writes(r.order); });
    if constexpr (pass::has_shared_sums<typename Types::rule_type>) this->writes(contents_.steps);
  }
  /// Each rank adds up its own sources.
  void reserve_sums() {
    if constexpr (Types::collective)
      if (contents_.keys.is_distributed())
        contents_.in_step([&] {
          call_.for_each_key([&](record& r) { rank_sums<Types, pass::memory::foreign>::reserve(contents_.keys, r); });
        });
  }
};

/// A push. Without a rule the reduced gradients replace what is stored.
template <class Types>
class push final : public gradient_operation<Types> {
  using rule_type = typename Types::rule_type;
  using step_type = fused_step<typename Types::device_type, rule_type, typename Types::reduction_type,
                               typename Types::step_types, pass::memory::foreign>;

 public:
  rule_list<typename Types::updater_type> rules;  ///< At the time of the call.

  push(store_contents<Types>& contents, typename Types::compressor_type const& compressor)
      : gradient_operation<Types>(contents, compressor), step_(contents.devices().size()) {
    this->call_.remember_residuals(step_type::may_skip);
  }

  void prepare() override {
    auto& contents = this->contents_;
    this->expect_all_weights();
    contents.captured.expect_whole_runs(this->name(), [&](auto const& f) { this->call_.for_each_key(f); });
    if (this->is_captured()) this->call_.capture();
    lay_out_aside(this->is_captured(), contents.devices(), [&] {
      contents.in_step([&] {
        this->call_.begin(contents.keys, effect::updates, step_type::may_fail);
        this->call_.lay_out(contents.keys, step_, effect::updates);
        if constexpr (step_type::is_factored) step_.make_room(contents.devices(), contents.controls);
      });
    });
  }
  progress run() override {
    auto& contents = this->contents_;
    return this->launch([&]() -> std::optional<std::span<double>> {
      if constexpr (Types::has_updater) {
        contents.groups.complete(rules);
        auto const advance = [&] { return step_.advance(contents.devices(), contents.controls, rules->data()); };
        if (auto const sums = contents.in_own_step(advance)) return sums;
        this->call_.return_residuals(contents.devices(), step_);
      } else {
        step_.run(contents.devices());
      }
      return std::nullopt;
    });
  }

 private:
  step_type step_;
};

}  // namespace pushpull::detail
