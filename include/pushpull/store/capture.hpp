/// @file
/// Calls of a store that are captured in a graph, in the place of being run.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/completion.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Whether what the devices are given is being captured: one of them suffices, the others follow it.
template <Device D>
bool is_captured([[maybe_unused]] std::vector<D> const& devices) {
  if constexpr (CapturingDevice<D>)
    return std::any_of(devices.begin(), devices.end(), [](D const& device) { return device.is_captured(); });
  return false;
}

/// @throws capture_error if the devices are being captured. @param call  For the message, with what would have to be captured.
template <Device D>
void expect_uncaptured(std::vector<D> const& devices, char const* call) {
  expects<capture_error>(!is_captured(devices), [&] {
    return std::string(call) + ": cannot be captured in a graph, and the stream of a device of the store is being " +
           "captured: call it before the capture, or after it";
  });
}

/// While it lives, all devices of a store take part in the capture of one of them; at its end that one has waited for all.
template <Device D>
class capture_of_all {
 public:
  /// @throws capture_error if the capture is void
  explicit capture_of_all(std::vector<D> const& devices) {
    if constexpr (CapturingDevice<D>) {
      auto const first = std::find_if(devices.begin(), devices.end(), [](D const& d) { return d.is_captured(); });
      expects<capture_error>(first != devices.end(), [] {
        return std::string(
            "a call was gathered while a stream was being captured, which has ended before the call was made");
      });
      first_ = *first;
      others_.reserve(devices.size());
      try {
        for (D const& device : devices)
          if (!device.is_captured()) {
            device.wait_for(*first_);
            others_.push_back(device);
          }
      } catch (...) {
        join_back();
        throw;
      }
    }
  }
  capture_of_all(capture_of_all const&) = delete;
  capture_of_all& operator=(capture_of_all const&) = delete;
  ~capture_of_all() { join_back(); }

 private:
  void join_back() noexcept {
    try {
      for (D const& device : others_) first_->wait_for(device);
    } catch (error const&) {  // then the capture is void, as its end will say
    }
  }

  struct no_guard {};
  template <class Device>
  struct guard_of {
    using type = no_guard;
  };
  template <CapturingDevice Device>
  struct guard_of<Device> {
    using type = typename Device::capture_guard;
  };

  [[no_unique_address]] typename guard_of<D>::type guard_;
  std::optional<D> first_;
  std::vector<D> others_;  // that came for this call
};

/// f(), which lays out a call: what it copies and fills is done once, and not when a graph is launched, if the call is
/// captured.
template <Device D, class F>
void lay_out_aside([[maybe_unused]] bool captured, [[maybe_unused]] std::vector<D> const& devices, F const& f) {
  if constexpr (CapturingDevice<D>)
    if (captured) {
      auto const uncaptured = D::step_aside(devices);
      f();
      return uncaptured.finish();
    }
  f();
}

/// The operations and memory to which graphs of captured calls refer. They may be launched at any time: the host never knows how often.
class captured_calls {
 public:
  bool any() const noexcept { return any_.load(std::memory_order_acquire); }
  /// Room for what `keep` is given next.
  void make_room() {
    std::lock_guard const lock(mutex_);
    operations_.reserve(operations_.size() + 1);
    memory_.reserve(memory_.size() + 1);
    runs_.reserve(runs_.size() + 1);
  }
  /// Keeps an operation, with its memory, until `discard`.
  void keep(completion operation) {
    std::lock_guard const lock(mutex_);
    operations_.push_back(std::move(operation));
    any_.store(true, std::memory_order_release);
  }
  void keep(std::shared_ptr<void const> memory) {
    std::lock_guard const lock(mutex_);
    memory_.push_back(std::move(memory));
    any_.store(true, std::memory_order_release);
  }
  /// A run of a captured step that several keys share, and with it a step count. @returns  Its number, from 1 on
  std::int32_t add_run(std::size_t keys) {
    std::lock_guard const lock(mutex_);
    runs_.push_back(keys);
    return static_cast<std::int32_t>(runs_.size());
  }
  /// No graph is launched any more.
  void discard() {
    std::lock_guard const lock(mutex_);
    operations_.clear();
    memory_.clear();
    runs_.clear();
    any_.store(false, std::memory_order_release);
  }
  /// @throws capture_error if the keys of a call are a part of those that share a run of a captured step, which would no
  /// longer have one count
  template <class ForEachKey>
  void expect_whole_runs(char const* call, ForEachKey const& for_each_key) const {
    if (!any()) return;
    std::lock_guard const lock(mutex_);
    if (runs_.empty()) return;
    std::map<std::int32_t, std::set<std::int32_t>> found;
    for_each_key([&](auto& r) {
      if (r.captured_run != 0) found[r.captured_run].insert(r.index);
    });
    for (auto const& one : found) {
      std::size_t const all = runs_[static_cast<std::size_t>(one.first - 1)], given = one.second.size();
      expects<capture_error>(given == all, [&] {
        return std::string(call) + ": a captured step updates " + std::to_string(all) +
               " keys with one step count, and this call " + std::to_string(given) +
               " of them: call discard_captures when its graphs are not launched any more";
      });
    }
  }

 private:
  std::vector<completion> operations_;
  std::vector<std::shared_ptr<void const>> memory_;
  std::vector<std::size_t> runs_;  // keys of each
  std::atomic<bool> any_ = false;
  mutable std::mutex mutex_;
};

}  // namespace pushpull::detail
