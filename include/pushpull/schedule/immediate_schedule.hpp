/// @file
/// Operations that run in their calls: on streams, which order what they are given, and where no asynchrony is wanted.
#pragma once

#include <condition_variable>
#include <mutex>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/profile/statistics.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/backoff.hpp>
#include <pushpull/schedule/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// One operation at a time, in the calling thread, which also waits between stages. Errors are thrown by the call.
class immediate_schedule final : public schedule {
 public:
  void submit(operation& op, int, bool) {
    expect_outside(*this);
    op.reset(*this, 0);
    op.accesses_.clear();
    std::lock_guard const lock(mutex_);
    activity const running(*this, op.callers_);
    try {
      while (awaited* const event = op.advance()) wait_for(*event, op);
    } catch (...) {
      counters.take(op.tally_);
      throw;
    }
    counters.take(op.tally_);
    op.done_.store(true, std::memory_order_release);
  }

  void finish(operation&) override {}
  void resume(operation&) noexcept override {
    std::lock_guard const lock(resumed_mutex_);
    is_resumed_ = true;
    resumed_.notify_one();
  }
  void wait(variable&) const { expect_outside(*this); }
  void wait() const { expect_outside(*this); }
  void drain() const noexcept {}

 private:
  void wait_for(awaited& event, operation& op) {
    profile::detail::waiting_in const call(counters);
    if (event.will_resume(op)) {
      std::unique_lock lock(resumed_mutex_);
      resumed_.wait(lock, [&] { return std::exchange(is_resumed_, false); });
      return;
    }
    wait_until_ready(event);
  }

  std::mutex mutex_;
  std::mutex resumed_mutex_;
  std::condition_variable resumed_;
  bool is_resumed_ = false;
};

}  // namespace pushpull::detail
