/// @file
/// Operations that run in their calls: on streams, which order what they are given, and where no asynchrony is wanted.
#pragma once

#include <mutex>

#include <pushpull/config.hpp>
#include <pushpull/schedule/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// One operation at a time, in the calling thread. Errors are thrown by the call.
class immediate_schedule final : public schedule {
 public:
  void submit(operation& op, int, bool) {
    expect_outside(*this);
    op.reset(*this, 0);
    op.accesses_.clear();
    std::lock_guard const lock(mutex_);
    activity const running(*this, op.callers_);
    op.prepare();
    op.run();
    op.done_.store(true, std::memory_order_release);
  }

  void finish(operation&) override {}
  void wait(variable&) const { expect_outside(*this); }
  void wait() const { expect_outside(*this); }
  void drain() const noexcept {}

 private:
  std::mutex mutex_;
};

}  // namespace pushpull::detail
