/// @file
/// A meeting of threads that needs no communicator, whose barrier would fail with the first thread that leaves.
#pragma once

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

namespace pushpull::test {

/// Counts the calling thread, and waits until `all` have been counted. @throws std::runtime_error after a minute
inline void meet(std::atomic<int>& came, int all) {
  ++came;
  auto const end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (came < all) {
    if (std::chrono::steady_clock::now() > end)
      throw std::runtime_error("only " + std::to_string(came) + " of " + std::to_string(all) + " came in a minute");
    std::this_thread::yield();
  }
}

}  // namespace pushpull::test
