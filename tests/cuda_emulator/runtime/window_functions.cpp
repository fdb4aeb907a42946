// What a stand-in for NCCL asks the emulator for; no function of CUDA's.
#include <cuda_runtime_api.h>

#include <cstddef>

#include "execution/memory.hpp"
#include "runtime/stream.hpp"

extern "C" {

/// Memory of the current device, which cudaFree frees: see allocate_window. Without bytes: see level_lanes.
cudaError_t cudaEmulatedWindow(void** p, std::size_t n, int lane) {
  auto const lock = emulator::lock_runtime();
  if (n == 0) {
    emulator::level_lanes();
    return cudaSuccess;
  }
  std::uint64_t const address = emulator::allocate_window(n, static_cast<std::size_t>(lane),
                                                          emulator::owner_of(emulator::current_device(), false));
  *p = reinterpret_cast<void*>(address);
  return address != 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

}  // extern "C"
