/// @file
/// Thrust's OpenMP system; include it, and compile with OpenMP, to use `cpu_device<openmp_system>`.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <cstdint>

#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/system/omp/execution_policy.h>

namespace pushpull::inline PUSHPULL_ABI {

/// Runs work on OpenMP's threads (OMP_NUM_THREADS). Thrust refuses to compile it without -fopenmp.
struct openmp_system {
  template <class F>
  static void for_each(std::int64_t n, F const& f) {
    thrust::for_each_n(thrust::omp::par, thrust::make_counting_iterator<std::int64_t>(0), n, f);
  }
};

}  // namespace pushpull
