/// @file
/// The options of comm::nccl.
#pragma once

#include <chrono>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace comm {

/// Options of comm::nccl, the same on all ranks.
struct nccl_options {
  /// How long initialisation, a call, or work on the device's stream waits for other ranks.
  std::chrono::milliseconds deadline = std::chrono::minutes(5);
  /// How often the watchdog asks NCCL and the device, while something is on its way.
  std::chrono::milliseconds watch_interval = std::chrono::milliseconds(10);
};

}  // namespace comm

namespace detail {

/// @throws invalid_argument
inline comm::nccl_options const& checked_options(comm::nccl_options const& options) {
  expects<invalid_argument>(options.deadline.count() > 0, [&] {
    return "comm::nccl: a deadline above 0 ms expected, got " + std::to_string(options.deadline.count()) + " ms";
  });
  expects<invalid_argument>(options.watch_interval.count() > 0, [&] {
    return "comm::nccl: a watch_interval above 0 ms expected, got " + std::to_string(options.watch_interval.count()) +
           " ms";
  });
  return options;
}

}  // namespace detail
}  // namespace pushpull
