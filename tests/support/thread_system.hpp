/// @file
/// Plain threads as the system of a cpu_device: the thread sanitizer sees how they synchronise.
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

namespace pushpull::test {

/// Neighbouring indexes run on different threads, so that a slice which reaches into the next one is a race.
struct thread_system {
  static constexpr std::int64_t threads = 4;

  template <class F>
  static void for_each(std::int64_t n, F const& f) {
    std::vector<std::jthread> team;
    for (std::int64_t first = 0; first < threads; ++first)
      team.emplace_back([=, &f] {
        for (std::int64_t i = first; i < n; i += threads) f(i);
      });
  }
};

}  // namespace pushpull::test
