/// @file
/// Sums of doubles that threads and leaves add up.
#pragma once

#include <cstddef>

#include <cuda/std/array>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// a += b.
template <std::size_t N>
PUSHPULL_HOST_DEVICE void add(cuda::std::array<double, N>& a, cuda::std::array<double, N> const& b) {
  for (std::size_t k = 0; k < N; ++k) a[k] += b[k];
}
PUSHPULL_HOST_DEVICE inline void add(double& a, double b) { a += b; }

}  // namespace pushpull::detail
