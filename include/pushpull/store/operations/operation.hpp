/// @file
/// The common base of the operations of a store.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/schedule/operation_pool.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Knows the devices, whose streams may still be at work when the operation has run.
template <Device D>
class device_operation : public pooled_operation {
 public:
  explicit device_operation(std::vector<D> const& devices) : devices_(devices) {}

  bool devices_ready() override {
    if constexpr (!HostDevice<D>) {
      record();
      for (auto const& event : events_)
        if (!event.ready()) return false;
    }
    return true;
  }
  void devices_wait() override {
    if constexpr (!HostDevice<D>) {
      record();
      for (auto const& event : events_) event.wait();
    }
  }

 protected:
  void forget() noexcept override { events_.clear(); }

 private:
  /// Who asks first records events, which stay as they are: who asks late waits for later work as well. Several threads may ask.
  void record() {
    std::lock_guard const lock(mutex_);
    if (!events_.empty()) return;
    try {
      for (D const& device : devices_) events_.push_back(device.record());
    } catch (...) {
      events_.clear();
      throw;
    }
  }

  struct no_mutex {
    void lock() {}
    void unlock() {}
  };

  std::vector<D> devices_;
  std::vector<decltype(std::declval<D const&>().record())> events_;
  [[no_unique_address]] std::conditional_t<HostDevice<D>, no_mutex, std::mutex> mutex_;  // events_ while it is filled
};

/// A call that was gathered into lists, which the operation holds as `gathered`.
template <Device D>
class gathered_operation : public device_operation<D> {
 public:
  using device_operation<D>::device_operation;

  /// Finds the keys, checks the tensors, and names what the operation reads and writes. Changes nothing.
  /// @throws unknown_key, shape_mismatch, invalid_argument
  virtual void find_keys() = 0;
  /// Elements to read and to write, roughly.
  virtual std::int64_t work() const = 0;
};

/// Several operations as one: all have prepared before the first changes anything.
class joint_operation final : public operation {
 public:
  explicit joint_operation(std::size_t parts) { parts_.reserve(parts); }

  /// Takes over a reference to an operation that was not submitted, and what it has named.
  void add(operation& part) {
    part.move_accesses(*this);
    if (part.is_captured()) capture();
    part.acquire();
    parts_.push_back(&part);
  }

  char const* name() const override { return parts_.front()->name(); }
  void list_keys(profile::detail::key_list& list) const override {
    for (operation const* const part : parts_) part->list_keys(list);
  }

  void prepare() override {
    for (operation* const part : parts_) part->prepare();
  }
  void take_back() noexcept override {
    for (operation* const part : parts_) part->take_back();
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

/// Runs a function. Both belong to whoever waits for the operation. One class for all functions, which compile in half the
/// time.
class function_operation final : public operation {
 public:
  template <class F>
  explicit function_operation(F const& f)
      : function_(&f), run_([](void const* function) { (*static_cast<F const*>(function))(); }) {}
  progress run() override {
    run_(function_);
    return progress::done();
  }

 private:
  void recycle() noexcept override {}

  void const* function_;
  void (*run_)(void const*);
};

}  // namespace pushpull::detail
