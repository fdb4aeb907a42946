/// @file
/// Calls of NCCL that are submitted together, and what they return.
#pragma once

#include <nccl.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <pushpull/comm/nccl_handle.hpp>
#include <pushpull/comm/nccl_watchdog.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// The communicators of a rank, one for each of its devices.
using nccl_handles = std::vector<std::shared_ptr<nccl_handle>>;

}  // namespace detail

namespace comm {

/// A device that NCCL can work on.
/// Needs:  stream() -> cudaStream_t; activate() -> an object during whose life the device is the thread's current one.
/// Model:  cuda_device.
template <class D>
concept StreamDevice = Device<D> && requires(D const& device) {
  { device.stream() } -> std::same_as<cudaStream_t>;
  device.activate();
};

/// Calls of comm::nccl that are submitted together: one group of NCCL, which belongs to its thread. A second one of the same
/// rank waits for its end. Dropped before `end` it fails the rank's communicators.
template <StreamDevice D>
class nccl_group {
  using handles_type = pushpull::detail::nccl_handles;
  using watchdogs_type = std::vector<std::shared_ptr<pushpull::detail::nccl_watchdog<D>>>;

 public:
  /// @param handles  The rank's communicators, which are settled. @param watchdogs  Theirs.
  /// @throws comm_error, comm_timeout: of calls before
  nccl_group(std::shared_ptr<handles_type const> handles, std::shared_ptr<watchdogs_type const> watchdogs)
      : handles_(std::move(handles)), watchdogs_(std::move(watchdogs)) {
    for (;;) {  // a group of another thread may have come between
      for (auto const& h : *handles_) h->wait_until_settled();
      if (acquires_all()) break;
    }
    ncclResult_t const result = ncclGroupStart();
    is_open_ = result == ncclSuccess;
    check("ncclGroupStart", result);
  }
  nccl_group(nccl_group&& other) noexcept
      : handles_(std::move(other.handles_)),
        watchdogs_(std::move(other.watchdogs_)),
        acquired_(std::exchange(other.acquired_, 0)),
        is_open_(std::exchange(other.is_open_, false)) {}
  nccl_group& operator=(nccl_group&&) = delete;
  ~nccl_group() {
    if (is_open_) {
      for (auto const& h : *handles_) h->fail(h->rank(), "a group was dropped before its end");
      static_cast<void>(ncclGroupEnd());
    }
    release();
  }

  void end() {
    is_open_ = false;
    ncclResult_t const result = ncclGroupEnd();
    for (auto const& h : *handles_) h->waits_for("ncclGroupEnd");
    check("ncclGroupEnd", result);
    release();
    for (auto const& each : *watchdogs_) each->watch();
  }

 private:
  /// Whether no call of another thread is on its way; then it keeps the locks.
  bool acquires_all() {
    try {
      for (auto const& h : *handles_) {
        h->acquire("group");
        ++acquired_;
        if (h->settled_with_lock()) continue;
        release();
        return false;
      }
      return true;
    } catch (...) {
      release();
      throw;
    }
  }
  void release() noexcept {
    while (acquired_ > 0) (*handles_)[--acquired_]->release();
  }
  void check(char const* function, ncclResult_t result) {
    try {
      handles_->front()->check(function, result);
    } catch (...) {
      for (auto const& h : *handles_) h->fail(h->rank(), function);  // what was noted stays
      release();
      throw;
    }
  }

  std::shared_ptr<handles_type const> handles_;
  std::shared_ptr<watchdogs_type const> watchdogs_;
  std::size_t acquired_ = 0;  // locks
  bool is_open_ = false;
};

/// A call of comm::nccl. Ready when NCCL has put its work on the devices' streams: what is enqueued there afterwards comes
/// after it. The host sees the memory when the devices have been synchronized. Dropped before it is ready, it waits.
class nccl_request {
  using handles_type = pushpull::detail::nccl_handles;

 public:
  /// Of calls of all the rank's communicators.
  explicit nccl_request(std::shared_ptr<handles_type const> handles) : handles_(std::move(handles)) {
    count_ = handles_->size();
  }
  /// Of a call of one of them.
  nccl_request(std::shared_ptr<handles_type const> handles, std::size_t number)
      : handles_(std::move(handles)), first_(number), count_(1) {}
  nccl_request(nccl_request&& other) noexcept
      : handles_(std::move(other.handles_)),
        first_(other.first_),
        count_(other.count_),
        is_ready_(std::exchange(other.is_ready_, true)) {}
  nccl_request& operator=(nccl_request&& other) noexcept {
    std::swap(handles_, other.handles_);
    std::swap(first_, other.first_);
    std::swap(count_, other.count_);
    std::swap(is_ready_, other.is_ready_);
    return *this;
  }
  ~nccl_request() {
    try {
      wait();
    } catch (...) {  // noted, and the communicators are aborted
    }
  }

  /// @throws comm_error, comm_timeout
  bool ready() {
    is_ready_ = is_ready_ || std::ranges::all_of(handles(), [](auto const& h) { return h->settled(); });
    return is_ready_;
  }
  /// @throws comm_error, comm_timeout
  void wait() {
    if (is_ready_) return;
    for (auto const& h : handles()) h->wait_until_settled();
    is_ready_ = true;
  }

 private:
  std::span<std::shared_ptr<pushpull::detail::nccl_handle> const> handles() const {
    return std::span(*handles_).subspan(first_, count_);
  }

  std::shared_ptr<handles_type const> handles_;
  std::size_t first_ = 0, count_ = 0;
  bool is_ready_ = false;
};

}  // namespace comm
}  // namespace pushpull
