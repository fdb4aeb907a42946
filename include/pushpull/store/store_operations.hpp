/// @file
/// The operations of a store: what a schedule runs when a call's turn has come.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/schedule/operation_pool.hpp>
#include <pushpull/store/parameter_groups.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Knows the devices, whose streams may still be at work when the operation has run.
template <Device D>
class device_operation : public operation {
 public:
  explicit device_operation(std::vector<D> const& devices) : devices_(devices) {}

  bool devices_ready() override {
    if constexpr (!HostDevice<D>) {
      if (events_.empty())  // who asks late waits for later work as well
        for (D const& device : devices_) events_.push_back(device.record());
      for (auto const& event : events_)
        if (!event.ready()) return false;
    }
    return true;
  }
  void devices_wait() override {
    if constexpr (!HostDevice<D>) {
      devices_ready();
      for (auto const& event : events_) event.wait();
    }
  }

 protected:
  void forget_events() { events_.clear(); }

 private:
  std::vector<D> devices_;
  std::vector<decltype(std::declval<D const&>().record())> events_;
};

struct no_further_steps {
  explicit no_further_steps(std::size_t) {}
};

/// A call laid out for one pass per device, with all memory that it needs: used again, it allocates nothing.
/// @tparam Call  detail::call; `Step`: detail::fused_step. `Store`: what runs them, by `prepare(operation)` and `run(operation)`. `Further`: more steps
/// that it may take instead.
template <class Store, class Call, class Step, Device D, class Further = no_further_steps>
class call_operation final : public device_operation<D> {
 public:
  Store& store;
  Call call;
  Step step;
  [[no_unique_address]] Further further;
  rule_list<typename Store::rule_type> rules;  ///< At the time of the call; null where there is none.
  std::shared_ptr<operation_pool<call_operation>> home;

  template <class Compressor>
  call_operation(Store& owner, std::vector<D> const& devices, Compressor const& compressor)
      : device_operation<D>(devices),
        store(owner),
        call(devices.size(), compressor),
        step(devices.size()),
        further(devices.size()) {
    call.remember_residuals(Step::may_skip);
  }

  void prepare() override { store.prepare(*this); }
  progress run() override {
    store.run(*this);
    return progress::done();
  }

 private:
  void recycle() noexcept override {
    this->forget_events();
    if (home != nullptr) {
      operation_pool<call_operation>::give_back(*this);
    } else {
      delete this;
    }
  }
};

/// Several operations as one: all have prepared before the first changes anything.
class joint_operation final : public operation {
 public:
  explicit joint_operation(std::size_t parts) { parts_.reserve(parts); }

  /// Takes over a reference to an operation that was not submitted, and what it has named.
  void add(operation& part) {
    part.move_accesses(*this);
    part.acquire();
    parts_.push_back(&part);
  }

  void prepare() override {
    for (operation* const part : parts_) part->prepare();
  }
  progress run() override {
    for (; run_ < parts_.size(); ++run_) {
      progress const part = parts_[run_]->run();
      if (part.event() != nullptr) return part;
    }
    return progress::done();
  }
  bool devices_ready() override {
    return std::all_of(parts_.begin(), parts_.end(), [](operation* part) { return part->devices_ready(); });
  }
  void devices_wait() override {
    for (operation* const part : parts_) part->devices_wait();
  }

 private:
  void recycle() noexcept override {
    for (operation* const part : parts_) part->release();
    delete this;
  }

  std::vector<operation*> parts_;
  std::size_t run_ = 0;  // parts that are done: the first ones
};

/// Runs a function; belongs to whoever waits for it.
template <class F>
class function_operation final : public operation {
 public:
  explicit function_operation(F f) : function_(std::move(f)) {}
  progress run() override {
    function_();
    return progress::done();
  }

 private:
  void recycle() noexcept override {}
  F function_;
};

}  // namespace pushpull::detail
