/// @file
/// Sources of a CUDA device's memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include <pushpull/config.hpp>
#include <pushpull/detail/cuda/check.cuh>

namespace pushpull::inline PUSHPULL_ABI {

/// Source of device memory, ordered on a stream. Derive from it to put another allocator under `cuda_device`; it must
/// outlive the devices that use it. Where stores have several GPUs, memory from a pool of its own must be accessible to
/// all that are peers (cudaMemPoolSetAccess); for the default pool and cudaMalloc `cuda_device::can_access` sees to it.
class cuda_memory_resource {
 public:
  virtual ~cuda_memory_resource() = default;
  /// Memory of the current device, aligned to 256 bytes, usable on `stream` from now on. @throws out_of_memory,
  /// cuda_error
  virtual void* allocate(std::size_t bytes, cudaStream_t stream) = 0;
  /// Takes it back once what `stream` was given so far is finished.
  virtual void deallocate(void* p, std::size_t bytes, cudaStream_t stream) noexcept = 0;
};

/// CUDA's stream-ordered pool of the current device: the default.
class cuda_pool_resource final : public cuda_memory_resource {
 public:
  void* allocate(std::size_t bytes, cudaStream_t stream) override {
    void* p = nullptr;
    detail::cuda_check(cudaMallocAsync(&p, bytes == 0 ? 1 : bytes, stream), "cudaMallocAsync");
    return p;
  }
  void deallocate(void* p, std::size_t, cudaStream_t stream) noexcept override {
    static_cast<void>(cudaFreeAsync(p, stream));
  }

  /// The one that devices share.
  static cuda_pool_resource& instance() {
    static cuda_pool_resource pool;
    return pool;
  }
};

/// cudaMalloc and cudaFree, which synchronize: for devices without pools, and for memory that peers read without one.
class cuda_malloc_resource final : public cuda_memory_resource {
 public:
  void* allocate(std::size_t bytes, cudaStream_t) override {
    void* p = nullptr;
    detail::cuda_check(cudaMalloc(&p, bytes == 0 ? 1 : bytes), "cudaMalloc");
    return p;
  }
  void deallocate(void* p, std::size_t, cudaStream_t) noexcept override { static_cast<void>(cudaFree(p)); }
};

}  // namespace pushpull
