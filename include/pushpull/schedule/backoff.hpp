/// @file
/// Pauses of a thread that asks again and again.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Short waits end within microseconds, and long ones hold no core: first no pause, then longer and longer ones.
class backoff {
 public:
  /// Zero: let other threads run, and ask again.
  std::chrono::microseconds next() noexcept {
    if (asked_ < without_pause) {
      ++asked_;
      return {};
    }
    return std::exchange(pause_, std::min(2 * pause_, longest));
  }
  /// Something has happened.
  void reset() noexcept { *this = backoff(); }

 private:
  static constexpr int without_pause = 100;
  static constexpr std::chrono::microseconds longest{1000};

  int asked_ = 0;
  std::chrono::microseconds pause_{20};
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
