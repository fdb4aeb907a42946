/// @file
/// Pauses of a thread that asks again and again.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Short waits end within microseconds, and long ones hold no core: first no pause, then longer and longer ones. From some
/// milliseconds on, a pause is at most 1/64 of the time waited, so that a wait is not much longer than its reason.
class backoff {
 public:
  /// Zero: let other threads run, and ask again.
  std::chrono::microseconds next() noexcept {
    if (asked_ < without_pause) {
      ++asked_;
      return {};
    }
    waited_ += pause_;
    return std::exchange(pause_, std::min(2 * pause_, std::clamp(waited_ / 64, medium, longest)));
  }
  /// Something has happened.
  void reset() noexcept { *this = backoff(); }

 private:
  static constexpr int without_pause = 100;
  static constexpr std::chrono::microseconds medium{100};
  static constexpr std::chrono::microseconds longest{1000};

  int asked_ = 0;
  std::chrono::microseconds pause_{20};
  std::chrono::microseconds waited_{0};
};

/// Returns when event.ready(), and throws what that throws.
template <class Event>
void wait_until_ready(Event& event) {
  for (backoff pause; !event.ready();) {
    auto const wait = pause.next();
    if (wait.count() == 0) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(wait);
    }
  }
}

}  // namespace pushpull::detail
