/// @file
/// An event that another thread announces.
#pragma once

#include <exception>
#include <mutex>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Ready once another thread has called `set` or `fail`. One operation at a time waits for it; nobody polls.
class announced_event final : public awaited {
 public:
  /// The operation goes on. May be called before it waits.
  void set() noexcept { announce(nullptr); }
  /// The operation fails.
  void fail(std::exception_ptr error) noexcept { announce(std::move(error)); }
  /// As before its first use. No operation waits for it.
  void reset() noexcept {
    std::lock_guard const lock(mutex_);
    is_set_ = false;
    error_ = nullptr;
  }

  bool ready() override {
    std::lock_guard const lock(mutex_);
    if (error_ != nullptr) std::rethrow_exception(error_);
    return is_set_;
  }
  bool will_resume(operation& op) noexcept override {
    std::lock_guard const lock(mutex_);
    if (is_set_) {
      op.resume();
    } else {
      waiting_ = &op;
    }
    return true;
  }

 private:
  /// Resumes with the lock held: the operation, which asks `ready` first, may end the signal as soon as it has the lock.
  void announce(std::exception_ptr error) noexcept {
    std::lock_guard const lock(mutex_);
    is_set_ = true;
    error_ = std::move(error);
    if (operation* const op = std::exchange(waiting_, nullptr)) op->resume();
  }

  std::mutex mutex_;
  bool is_set_ = false;
  std::exception_ptr error_;
  operation* waiting_ = nullptr;
};

}  // namespace pushpull::detail
