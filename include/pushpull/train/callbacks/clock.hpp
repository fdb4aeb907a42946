/// @file
/// The time that callbacks read.
#pragma once

#include <chrono>
#include <functional>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::callbacks {

/// Seconds since any fixed moment. Tests give callbacks a clock of their own.
using clock_function = std::function<double()>;

/// The clock of callbacks, unless they are given another.
inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace pushpull::train::callbacks
