/// @file
/// Which GPUs reach the memory of which.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/detail/cuda/check.cuh>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Answers for every pair of GPUs of the process. A pair that can reach each other is made to when first asked for. Where a
/// GPU has as many peers as its system allows, the others count as out of reach.
class peers {
 public:
  static peers& instance() {
    static peers all;
    return all;
  }

  /// Whether kernels on GPU `from` may read and write memory of GPU `to`. @throws cuda_error
  bool reaches(int from, int to) {
    std::atomic<answer>& known = answers_[static_cast<std::size_t>(from) * size_ + static_cast<std::size_t>(to)];
    answer given = known.load(std::memory_order_acquire);
    if (given == answer::unknown) {  // two threads may both ask: that does no harm
      given = enable(from, to) ? answer::yes : answer::no;
      known.store(given, std::memory_order_release);
    }
    return given == answer::yes;
  }

 private:
  enum class answer : char { unknown, no, yes };

  static std::size_t count() {
    int gpus = 0;
    cuda_check(cudaGetDeviceCount(&gpus), "cudaGetDeviceCount");
    return static_cast<std::size_t>(gpus);
  }

  peers() : size_(count()), answers_(size_ * size_) {}

  // Peer access to memory of a stream-ordered pool is a property of the pool, to other memory one of the context.
  static bool enable(int from, int to) {
    int possible = 0;
    cuda_check(cudaDeviceCanAccessPeer(&possible, from, to), "cudaDeviceCanAccessPeer");
    if (possible == 0) return false;
    {
      current_device const current(from);
      cudaError_t const enabled = cudaDeviceEnablePeerAccess(to, 0);
      if (enabled == cudaErrorPeerAccessAlreadyEnabled || enabled == cudaErrorTooManyPeers) {
        static_cast<void>(cudaGetLastError());
        if (enabled == cudaErrorTooManyPeers) return false;
      } else {
        cuda_check(enabled, "cudaDeviceEnablePeerAccess");
      }
    }
    cudaMemPool_t pool = nullptr;
    cudaError_t const pooled = cudaDeviceGetDefaultMemPool(&pool, to);
    if (pooled == cudaErrorNotSupported) {  // then no memory comes from one
      static_cast<void>(cudaGetLastError());
      return true;
    }
    cuda_check(pooled, "cudaDeviceGetDefaultMemPool");
    cudaMemAccessDesc access{};
    access.location.type = cudaMemLocationTypeDevice;
    access.location.id = from;
    access.flags = cudaMemAccessFlagsProtReadWrite;
    cuda_check(cudaMemPoolSetAccess(pool, &access, 1), "cudaMemPoolSetAccess");
    return true;
  }

  std::size_t size_;
  std::vector<std::atomic<answer>> answers_;
};

}  // namespace pushpull::detail
