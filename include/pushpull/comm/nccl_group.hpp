/// @file
/// Calls of NCCL that are submitted together, and what they return.
#pragma once

#include <nccl.h>

#include <concepts>
#include <memory>
#include <utility>

#include <pushpull/comm/nccl_handle.hpp>
#include <pushpull/comm/nccl_watchdog.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// A device that NCCL can work on.
/// Needs:  stream() -> cudaStream_t; activate() -> an object during whose life the device is the thread's current one.
/// Model:  cuda_device.
template <class D>
concept StreamDevice = Device<D> && requires(D const& device) {
  { device.stream() } -> std::same_as<cudaStream_t>;
  device.activate();
};

/// Calls of comm::nccl that are submitted together: one group of NCCL, which belongs to its thread. A second one of the same
/// rank waits for its end. Dropped before `end` it fails the communicator.
template <StreamDevice D>
class nccl_group {
 public:
  /// @throws comm_error, comm_timeout: of calls before
  nccl_group(std::shared_ptr<pushpull::detail::nccl_handle> handle,
             std::shared_ptr<pushpull::detail::nccl_watchdog<D>> watchdog)
      : handle_(std::move(handle)), watchdog_(std::move(watchdog)) {
    for (;;) {  // a group of another thread may have come between
      handle_->wait_until_settled();
      lock_ = handle_->lock("group");
      if (handle_->settled(lock_)) break;
      lock_.unlock();
    }
    handle_->check("ncclGroupStart", ncclGroupStart());
    is_open_ = true;
  }
  nccl_group(nccl_group&& other) noexcept
      : handle_(std::move(other.handle_)),
        watchdog_(std::move(other.watchdog_)),
        lock_(std::move(other.lock_)),
        is_open_(std::exchange(other.is_open_, false)) {}
  nccl_group& operator=(nccl_group&&) = delete;
  ~nccl_group() {
    if (!is_open_) return;
    handle_->fail(handle_->rank(), "a group was dropped before its end");
    static_cast<void>(ncclGroupEnd());
  }

  void end() {
    is_open_ = false;
    ncclResult_t const result = ncclGroupEnd();
    handle_->waits_for("ncclGroupEnd");
    handle_->check("ncclGroupEnd", result);
    lock_.unlock();
    watchdog_->watch();
  }

  pushpull::detail::nccl_handle& handle() const noexcept { return *handle_; }

 private:
  std::shared_ptr<pushpull::detail::nccl_handle> handle_;
  std::shared_ptr<pushpull::detail::nccl_watchdog<D>> watchdog_;
  pushpull::detail::nccl_handle::lock_type lock_;
  bool is_open_ = false;
};

/// A call of comm::nccl. Ready when NCCL has put its work on the device's stream: what is enqueued there afterwards comes
/// after it. The host sees the memory when the device has been synchronized. Dropped before it is ready, it waits.
class nccl_request {
 public:
  explicit nccl_request(std::shared_ptr<pushpull::detail::nccl_handle> handle) : handle_(std::move(handle)) {}
  nccl_request(nccl_request&& other) noexcept
      : handle_(std::move(other.handle_)), is_ready_(std::exchange(other.is_ready_, true)) {}
  nccl_request& operator=(nccl_request&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(is_ready_, other.is_ready_);
    return *this;
  }
  ~nccl_request() {
    try {
      wait();
    } catch (...) {  // noted, and the communicator is aborted
    }
  }

  /// @throws comm_error, comm_timeout
  bool ready() {
    is_ready_ = is_ready_ || handle_->settled();
    return is_ready_;
  }
  /// @throws comm_error, comm_timeout
  void wait() {
    if (!is_ready_) handle_->wait_until_settled();
    is_ready_ = true;
  }

 private:
  std::shared_ptr<pushpull::detail::nccl_handle> handle_;
  bool is_ready_ = false;
};

}  // namespace pushpull::comm
