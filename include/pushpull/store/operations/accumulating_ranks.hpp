/// @file
/// A push of a store of several ranks where several pushes make a step: the ranks exchange one sum each per step.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/exchange/call_exchange.hpp>
#include <pushpull/store/exchange/rank_sums.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operations/effect.hpp>
#include <pushpull/store/operations/laid_out_call.hpp>
#include <pushpull/store/operations/pull.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The way of an accumulating push's sources and outputs. Keys that are not updated are added to this rank's sums, with
/// no message, and pulled from its mirrors. Of each key that is updated the rank brings one source, the sum.
/// @tparam Types  A kv_store_types.
template <class Types>
class accumulating_ranks {
  using D = typename Types::device_type;
  using T = typename Types::value_type;
  using record = typename Types::record;
  using table_type = typename Types::table_type;

 public:
  accumulating_ranks(store_contents<Types>& contents, typename Types::compressor_type const& compressor, bool may_skip)
      : contents_(contents), sums_(contents.keys), call_(contents.keys, compressor), pull_(contents.devices().size()) {
    call_.remember_residuals(may_skip, true);
    call_.expect_sums();
  }

  /// @param call  The push, whose records are marked due or not. @param step  Updates those that are due.
  template <class Call, class Step>
  void lay_out(Call& call, Step& step) {
    auto const& table = contents_.keys;
    sums_.clear();
    is_copied_ = is_brought_ = false;
    waits_ = call.choose([](record const& r) { return !r.due; });
    if (waits_) {
      call.for_each_key_and_sources(
          table, [&](record const& r, std::span<T const* const> sources) { sums_.add(table, r, r.size(), sources); });
      call.lay_out_copies(table, pull_, [](record const& r) {
        expects<invalid_argument>(r.arena->resident(), [&] {
          return "pushpull: " + key_text(typename Types::key_view(r.key)) +
                 " has no mirrors in the store, and this micro-batch does not update it: push, and pull after the step";
        });
        return table_type::mirror(r, 0);
      });
    }
    updates_ = call.choose([](record const& r) { return r.due; });
    if (updates_) lay_out_step(call, step);
    sums_.commit(table.devices());
  }

  /// As far as the push goes without other ranks. @param run  Runs the step in parts, and may throw: see laid_out_call.
  /// @returns  The messages that it waits for; null if it is done.
  template <class Call, class Run>
  awaited* run(Call& call, Run const& run_step) {
    auto const& devices = contents_.devices();
    if (!std::exchange(is_copied_, true)) call.bring_sources(devices);
    if (updates_) {  // the rule may fail, so this comes first
      if (!std::exchange(is_brought_, true)) sums_.run_bring(devices);
      if (awaited* const event = call_.launch_part(contents_.keys, effect::updates, run_step)) return event;
    }
    if (waits_) {
      sums_.run_add(devices);
      call.choose([](record const& r) { return !r.due; });
      call.launch(contents_.keys, effect::reads, [&] { pull_.run(devices); });
    }
    call.release_sources(devices);
    return nullptr;
  }

  /// See laid_out_call.
  template <class Step>
  void return_residuals(Step const& step) {
    call_.return_residuals(contents_.devices(), step);
  }

 private:
  template <class Call, class Step>
  void lay_out_step(Call& call, Step& step) {
    auto const& table = contents_.keys;
    call.for_each_key_and_sources(
        table, [&](record const& r, std::span<T const* const> sources) { sums_.bring(table, r, r.size(), sources); });
    call_.clear();
    call.for_each_key_and_output(
        [&](record& r) {
          call_.add_key(r);
          call_.add_source({sums_.brought(r), table.devices().front(), r.shape.size()});
        },
        [&](auto const& output) { call_.add_output(output); });
    call_.take_ranks(table, sources_of::all_ranks);
    call_.begin(table, effect::updates, Step::may_fail);
    call_.lay_out(table, step, effect::updates);
  }

  store_contents<Types>& contents_;
  rank_sums<Types, pass::memory::foreign> sums_;
  laid_out_call<table_type, D, T, T, typename Types::compressor_type> call_;
  pull_step<table_type, T, T> pull_;
  bool waits_ = false, updates_ = false, is_copied_ = false, is_brought_ = false;
};

}  // namespace pushpull::detail
