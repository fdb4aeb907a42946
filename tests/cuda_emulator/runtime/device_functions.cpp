// CUDA's functions of devices, peers, errors and attributes.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <utility>

#include "execution/memory.hpp"
#include "report.hpp"
#include "runtime/graph.hpp"
#include "runtime/peers.hpp"
#include "runtime/program.hpp"
#include "runtime/stream.hpp"
#include "runtime/summary.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

/// Device and owner of what it reaches: by the context, and of pools.
using pairs = std::set<std::pair<int, int>>;
pairs& peers() {
  static auto& never_ends = *new pairs;
  return never_ends;
}
pairs& pools() {
  static auto& never_ends = *new pairs;
  return never_ends;
}

bool is_device(int d) { return d >= 0 && d < setting().devices; }

}  // namespace

bool reaches(int device, std::uint8_t owner) {
  int const other = device_of(owner);
  return device == other || (of_pool(owner) ? pools() : peers()).contains({device, other});
}

}  // namespace emulator

using namespace emulator;

extern "C" {

cudaError_t cudaGetDeviceCount(int* n) {
  announce();
  *n = setting().devices;
  return *n > 0 ? cudaSuccess : failed(cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int* d) {
  *d = current_device();
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int d) {
  if (!is_device(d)) return failed(cudaErrorInvalidDevice);
  current_device() = d;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  auto const lock = lock_runtime();
  for (stream* const s : live_streams())
    if (cudaError_t const e = refuse_while_captured(*s, "cudaDeviceSynchronize"); e != cudaSuccess) return failed(e);
  finish_all_streams();
  return failed(sticky_error());
}
cudaError_t cudaDriverGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* v) { return cudaDriverGetVersion(v); }

cudaError_t cudaGetLastError() { return std::exchange(last_error(), sticky_error()); }
cudaError_t cudaPeekAtLastError() { return last_error(); }
char const* cudaGetErrorName(cudaError_t e) {
  switch (e) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDeviceFunction: return "cudaErrorInvalidDeviceFunction";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureMerge: return "cudaErrorStreamCaptureMerge";
    case cudaErrorStreamCaptureUnmatched: return "cudaErrorStreamCaptureUnmatched";
    case cudaErrorStreamCaptureUnjoined: return "cudaErrorStreamCaptureUnjoined";
    case cudaErrorStreamCaptureIsolation: return "cudaErrorStreamCaptureIsolation";
    case cudaErrorStreamCaptureImplicit: return "cudaErrorStreamCaptureImplicit";
    case cudaErrorCapturedEvent: return "cudaErrorCapturedEvent";
    case cudaErrorStreamCaptureWrongThread: return "cudaErrorStreamCaptureWrongThread";
    case cudaErrorPeerAccessAlreadyEnabled: return "cudaErrorPeerAccessAlreadyEnabled";
    case cudaErrorPeerAccessUnsupported: return "cudaErrorPeerAccessUnsupported";
    default: return "cudaError";
  }
}
char const* cudaGetErrorString(cudaError_t e) { return cudaGetErrorName(e); }

cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int) {
  switch (a) {
    case cudaDevAttrMultiProcessorCount: *v = 4; break;
    case cudaDevAttrMaxThreadsPerBlock: *v = 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *v = 2048; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *v = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 232448; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *v = 233472; break;
    case cudaDevAttrWarpSize: *v = 32; break;
    case cudaDevAttrComputeCapabilityMajor: *v = architecture() / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *v = architecture() % 10; break;
    case cudaDevAttrMaxGridDimX: *v = 0x7FFFFFFF; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *v = 65535; break;
    case cudaDevAttrMemoryPoolsSupported: *v = 1; break;
    default: report("cudaDeviceGetAttribute of " + std::to_string(a)); *v = 0;
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int a, int b) {
  if (!is_device(a) || !is_device(b)) return failed(cudaErrorInvalidDevice);
  *can = setting().peers && a != b ? 1 : 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int other, unsigned) {
  auto const lock = lock_runtime();
  if (!is_device(other)) return failed(cudaErrorInvalidDevice);
  if (!setting().peers || other == current_device()) return failed(cudaErrorPeerAccessUnsupported);
  bool const enabled = peers().insert({current_device(), other}).second;
  return enabled ? cudaSuccess : failed(cudaErrorPeerAccessAlreadyEnabled);
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* p, int d) {
  if (!is_device(d)) return failed(cudaErrorInvalidDevice);
  *p = reinterpret_cast<cudaMemPool_t>(static_cast<std::intptr_t>(d + 1));
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t pool, cudaMemAccessDesc const* wanted, size_t n) {
  auto const lock = lock_runtime();
  int const owner = static_cast<int>(reinterpret_cast<std::intptr_t>(pool)) - 1;
  for (size_t k = 0; k < n; ++k) {
    int const device = wanted[k].location.id;
    if (wanted[k].location.type != cudaMemLocationTypeDevice || !is_device(device))
      return failed(cudaErrorInvalidDevice);
    if (!setting().peers && device != owner) return failed(cudaErrorInvalidDevice);
    if (wanted[k].flags == cudaMemAccessFlagsProtReadWrite) {
      pools().insert({device, owner});
    } else {
      pools().erase({device, owner});
    }
  }
  return cudaSuccess;
}

}  // extern "C"
