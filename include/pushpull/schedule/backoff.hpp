/// @file
/// Pauses of a thread that asks again and again.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Short waits end within microseconds, and long ones hold no core: first no pause, then longer and longer ones. A pause is at
/// most 0.1 ms, or 1/64 of the time waited, so that a wait is not much longer than its reason.
class backoff {
 public:
  /// Zero: let other threads run, and ask again.
  std::chrono::microseconds next() noexcept {
    auto const now = clock::now();
    if (!begun_) {
      begun_ = true;
      start_ = now;
    }
    // By the clock: if other programs keep the cores busy, each yield takes milliseconds, and a sleep is shorter.
    if (now - start_ < without_pause) return {};
    auto const longest = std::chrono::duration_cast<std::chrono::microseconds>((now - start_) / 64);
    return std::exchange(pause_, std::min(2 * pause_, std::clamp(longest, medium_pause, longest_pause)));
  }
  /// Something has happened.
  void reset() noexcept { *this = backoff(); }

 private:
  using clock = std::chrono::steady_clock;
  static constexpr std::chrono::microseconds without_pause{500}, medium_pause{100}, longest_pause{1000};

  bool begun_ = false;
  clock::time_point start_{};
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
