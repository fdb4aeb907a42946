/// @file
/// The work of a store in the order of its calls: run, waited for, and ordered with the launches of graphs.
#pragma once

#include <exception>
#include <limits>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/profile/statistics.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/call_drafts.hpp>
#include <pushpull/store/capture.hpp>
#include <pushpull/store/operations/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Runs the operations of a kv_store, and waits for them. @tparam Types  A kv_store_types.
template <class Types>
class ordered_work : public call_drafts<Types> {
  using drafts = call_drafts<Types>;

 public:
  using drafts::devices;
  using typename drafts::D, typename drafts::record;

  using drafts::drafts;

  /// An operation of this call's own. Returns when it is done. @throws what it fails with; capture_error
  void run_in_order(operation& op) {
    expect_uncaptured(devices(), "a call that is no push, pull, pushpull or update");
    perform(op);
    join_devices();
  }
  /// f(contents) when earlier operations on the key are done, and before later ones. Returns when done.
  template <class F>
  void run_in_order(record& r, F const& f) {
    run_after(r.order, f);
  }
  /// f(contents) between two steps of stores whose steps share sums.
  template <class F>
  void run_between_steps(F const& f) {
    run_after(contents_.steps, f);
  }
  /// Names all keys. No key is added meanwhile.
  void write_all(operation& op) {
    contents_.keys.for_each([&](record& r) { op.writes(r.order); });
  }

  void wait(record& r) {
    expect_uncaptured(devices(), "wait");
    schedule_->wait(r.order);
    synchronize();
    expect_alive();
  }
  void wait() {
    expect_uncaptured(devices(), "wait");
    schedule_->wait();
    synchronize();
    expect_alive();
  }
  /// As wait, without the errors of what failed.
  /// @throws invalid_argument in a function of the user that the store's work calls: it would wait for itself; capture_error
  void drain() {
    expect_outside(*schedule_);
    expect_uncaptured(devices(), "drain");
    finish_work();
  }
  bool has_captures() const noexcept { return contents_.captured.any(); }
  /// See kv_store::discard_captures.
  void discard_captures() {
    drain();
    contents_.keys.for_each([](record& r) { r.captured_run = 0; });
    contents_.captured.discard();
  }

 protected:
  using drafts::contents_, drafts::ranks_, drafts::schedule_;

  /// Same as run_in_order, for an operation that was checked.
  void perform(operation& op) {
    order_with_graphs();
    schedule_->submit(op, std::numeric_limits<int>::max(), true);
    schedule_->finish(op);
    order_with_graphs();
    tell(op);
  }
  /// Runs an operation that is captured: all devices take part.
  void capture(operation& op) {
    capture_of_all<D> const all(devices());
    schedule_->submit(op, std::numeric_limits<int>::max(), true);
  }
  /// A graph is launched in the stream of one device, and its work is that of all.
  void order_with_graphs() const {
    if (contents_.captured.any()) join_devices();
  }
  /// After calls other than steps, at whose end devices have waited for each other: so work of all comes before graphs that
  /// may be captured next.
  void join_devices() const {
    if constexpr (CapturingDevice<D>) detail::join(devices());
  }

  /// @throws what an operation that is done has failed with
  static void tell(operation const& op) {
    if (failure* const failed = op.failed()) {
      failed->told = true;
      std::rethrow_exception(failed->error);
    }
  }
  template <class F>
  void run_between_all(F const& f) {
    function_operation op(f);
    write_all(op);
    run_in_order(op);
  }
  void finish_work() {
    schedule_->drain();
    synchronize();
  }

 private:
  template <class F>
  void run_after(variable& v, F const& f) {
    auto const run = [&] { f(contents_); };
    function_operation op(run);
    contents_.write_collectives(op);
    op.writes(v);
    run_in_order(op);
  }
  void synchronize() const {
    if constexpr (HostDevice<D>) return;
    profile::detail::waiting_in const call(schedule_->counters);
    for (D const& device : devices()) device.synchronize();
  }
  /// Where devices move messages, what a device has done says whether they came.
  void expect_alive() const {
    if constexpr (Types::collective && !HostDevice<D>) {
      try {
        ranks_->expect_alive();
      } catch (...) {
        ranks_->note(std::current_exception());
        throw;
      }
    }
  }
};

}  // namespace pushpull::detail
