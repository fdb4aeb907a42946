/// @file
/// The time of work on a GPU, by the GPU's own clock.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>

#include <pushpull/device/cuda_device.cuh>

namespace pushpull::bench {

/// Seconds of one launch: the best of nine, after three that do not count.
inline double launch_seconds(cuda_device const& device, std::function<void()> const& launch) {
  using pushpull::detail::cuda_check;
  cudaEvent_t start = nullptr, stop = nullptr;
  cuda_check(cudaEventCreate(&start), "cudaEventCreate");
  cuda_check(cudaEventCreate(&stop), "cudaEventCreate");
  for (int i = 0; i < 3; ++i) launch();
  float best = std::numeric_limits<float>::infinity();
  for (int i = 0; i < 9; ++i) {
    cuda_check(cudaEventRecord(start, device.stream()), "cudaEventRecord");
    launch();
    cuda_check(cudaEventRecord(stop, device.stream()), "cudaEventRecord");
    cuda_check(cudaEventSynchronize(stop), "cudaEventSynchronize");
    float milliseconds = 0;
    cuda_check(cudaEventElapsedTime(&milliseconds, start, stop), "cudaEventElapsedTime");
    best = std::min(best, milliseconds);
  }
  cuda_check(cudaEventDestroy(start), "cudaEventDestroy");
  cuda_check(cudaEventDestroy(stop), "cudaEventDestroy");
  return static_cast<double>(best) * 1e-3;
}

}  // namespace pushpull::bench
