/// @file
/// The calling thread alone.
#pragma once

#include <cstdint>

#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/system/cpp/execution_policy.h>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Runs work on the calling thread, in ascending order.
struct serial_system {
  template <class F>
  static void for_each(std::int64_t n, F const& f) {
    thrust::for_each_n(thrust::cpp::par, thrust::make_counting_iterator<std::int64_t>(0), n, f);
  }
};

}  // namespace pushpull
