/// @file
/// The thread that sees work on a stream that does not end because another rank does not come.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include <pushpull/comm/nccl_handle.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Sleeps until a group is submitted. Then asks NCCL for errors, and the device whether the group is done, until it is or the
/// deadline has passed. One event is watched at a time: it stands for all work before it.
/// @tparam D  The device, with record().
template <class D>
class nccl_watchdog {
 public:
  nccl_watchdog(std::shared_ptr<nccl_handle> handle, D const& device)
      : handle_(std::move(handle)), device_(device), thread_([this] { run(); }) {}
  nccl_watchdog(nccl_watchdog const&) = delete;
  nccl_watchdog& operator=(nccl_watchdog const&) = delete;
  ~nccl_watchdog() {
    {
      std::lock_guard const held(mutex_);
      stops_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  /// A group has been submitted.
  void watch() noexcept {
    {
      std::lock_guard const held(mutex_);
      ++submitted_;
    }
    changed_.notify_one();
  }

 private:
  using event_type = decltype(std::declval<D const&>().record());

  void run() noexcept {
    std::unique_lock held(mutex_);
    for (std::uint64_t watched = 0;;) {
      changed_.wait(held, [&] { return stops_ || submitted_ != watched; });
      if (stops_) return;
      watched = submitted_;
      held.unlock();
      auto const since = nccl_handle::clock::now();
      std::optional<event_type> event;
      while (!is_over(event, since)) {
        held.lock();
        bool const stops = changed_.wait_for(held, handle_->options().watch_interval, [&] { return stops_; });
        if (stops) return;
        held.unlock();
      }
      event.reset();
      held.lock();
    }
  }

  /// Whether nothing is left to be watched.
  bool is_over(std::optional<event_type>& event, nccl_handle::clock::time_point since) noexcept {
    try {
      if (!handle_->settled()) return false;
      if (!event) event.emplace(device_.record());
      if (event->ready()) return true;
      if (nccl_handle::clock::now() - since <= handle_->options().deadline) return false;
      handle_->fail(-1,
                    "work on the device's stream does not end: not every rank came in " +
                        std::to_string(handle_->options().deadline.count()) + " ms",
                    true);
    } catch (comm_error const&) {  // noted
    } catch (std::exception const& e) {
      handle_->fail(handle_->rank(), e.what());
    } catch (...) {
      handle_->fail(handle_->rank(), "the device threw");
    }
    return true;
  }

  std::shared_ptr<nccl_handle> handle_;
  D device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t submitted_ = 0;
  bool stops_ = false;
  std::thread thread_;
};

}  // namespace pushpull::detail
