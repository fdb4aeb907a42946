// CUDA's functions that allocate, copy and fill memory.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "execution/memory.hpp"
#include "execution/races.hpp"
#include "report.hpp"
#include "runtime/graph.hpp"
#include "runtime/stream.hpp"
#include "runtime/summary.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

std::uint64_t number_of(void const* p) { return reinterpret_cast<std::uint64_t>(p); }

int device_of_stream(stream const& s) { return &s == &legacy_stream() ? current_device() : s.device; }

/// False and a report if a byte is not allocated.
bool is_allocated(std::uint64_t address, std::size_t n, char const* what) {
  device_memory const& m = memory();
  if (!m.holds(address, n)) {
    report(std::string(what) + " beyond the device's memory");
    return false;
  }
  std::size_t const k = m.first_of_nobody(address, n);
  if (k == n) return true;
  report(std::string(what) + " of " + std::to_string(n) + " bytes: byte " + std::to_string(k) +
         " is nobody's: " + m.describe(address + k));
  return false;
}

/// One side of a copy: memory of a device, or of the host.
struct side {
  std::uint64_t address;
  std::size_t bytes;
  bool on_device;
  char const* what;

  side(void const* p, std::size_t n, char const* name)
      : address(number_of(p)), bytes(n), on_device(memory().holds(address)), what(name) {}
  bool is_valid() const { return !on_device || is_allocated(address, bytes, what); }
  std::size_t at() const { return address - memory().base; }
};

void report_unwritten(side const& from) {
  device_memory const& m = memory();
  for (std::size_t k = 0; k < from.bytes; ++k) {
    if (m.shadow[from.at() + k] == device_memory::written) continue;
    report("a copy to the host of " + std::to_string(from.bytes) + " bytes has uninitialised byte " +
           std::to_string(k) + ": " + m.describe(from.address + k));
    return;
  }
}

void copy_now(side const& to, side const& from, std::uint8_t const* host_source, std::uint32_t operation) {
  device_memory& m = memory();
  if (setting().races) {
    if (from.on_device) note_host_access(operation, from.address, from.bytes, false);
    if (to.on_device) note_host_access(operation, to.address, to.bytes, true);
  }
  if (!to.is_valid() || !from.is_valid()) throw launch_failure("copy");
  std::uint8_t* const target = to.on_device ? m.bytes + to.at() : reinterpret_cast<std::uint8_t*>(to.address);
  std::memmove(target, from.on_device ? m.bytes + from.at() : host_source, to.bytes);
  if (to.on_device && from.on_device) {
    std::memmove(m.shadow + to.at(), m.shadow + from.at(), to.bytes);
  } else if (to.on_device) {
    std::memset(m.shadow + to.at(), device_memory::written, to.bytes);
  } else if (from.on_device && setting().undefined) {
    report_unwritten(from);
  }
}

/// Page-locked memory of the host, by its first byte.
std::map<std::uint64_t, std::size_t>& pinned() {
  static auto& never_ends = *new std::map<std::uint64_t, std::size_t>;  // programs release memory at exit
  return never_ends;
}
bool is_pinned(side const& x) {
  auto const behind = pinned().upper_bound(x.address);
  if (behind == pinned().begin()) return false;
  auto const& [first, bytes] = *std::prev(behind);
  return x.address + x.bytes <= first + bytes;
}

/// From pageable memory of the host a copy reads at once, and to it a copy returns when it is done. Of pinned memory it reads
/// and writes when its turn comes in the stream, or when its graph runs.
cudaError_t copy(void* target, void const* source, std::size_t n, stream& s) {
  count_copy();
  side const to(target, n, "copy to memory"), from(source, n, "copy from memory");
  if (!to.is_valid() || !from.is_valid()) return cudaErrorInvalidValue;
  std::string const what = "copy of " + std::to_string(n) + " bytes from the " + (from.on_device ? "device" : "host") +
                           " to the " + (to.on_device ? "device" : "host");
  bool const from_pageable = !from.on_device && !is_pinned(from), to_pageable = !to.on_device && !is_pinned(to);
  if (s.in && (from_pageable || to_pageable)) {
    s.in->invalidate("a " + what + ", whose memory is pageable");
    return cudaErrorStreamCaptureUnsupported;
  }
  std::vector<std::uint8_t> staged;
  auto const* const bytes = static_cast<std::uint8_t const*>(source);
  if (from_pageable) staged.assign(bytes, bytes + n);
  cudaError_t const e = s.enqueue(what, [=, copied = std::move(staged)](std::uint32_t operation) {
    copy_now(to, from, from_pageable ? copied.data() : bytes, operation);
  });
  if (e != cudaSuccess || s.in) return e;
  if (to_pageable) s.finish();
  return sticky_error();
}

cudaError_t fill(void* p, int value, std::size_t n, stream& s) {
  count_copy();
  side const to(p, n, "fill of memory");
  if (!to.on_device || !to.is_valid()) return cudaErrorInvalidValue;
  cudaError_t const e = s.enqueue("fill of " + std::to_string(n) + " bytes", [=](std::uint32_t operation) {
    if (!to.is_valid()) throw launch_failure("fill");
    if (setting().races) note_host_access(operation, to.address, n, true);
    std::memset(memory().bytes + to.at(), value, n);
    std::memset(memory().shadow + to.at(), device_memory::written, n);
  });
  return e != cudaSuccess ? e : sticky_error();
}

/// Graphs have no nodes for memory here.
cudaError_t refuse_memory(stream& s, char const* what) {
  if (!s.in) return cudaSuccess;
  s.in->invalidate(what);
  return cudaErrorStreamCaptureUnsupported;
}

}  // namespace
}  // namespace emulator

using namespace emulator;

extern "C" {

cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t handle) {
  auto const lock = lock_runtime();
  stream& s = stream_of(handle);
  if (cudaError_t const e = refuse_memory(s, "an allocation"); e != cudaSuccess) return failed(e);
  std::uint32_t const operation = s.start_operation("allocation of " + std::to_string(n) + " bytes");
  std::string const what = "allocation " + std::to_string(operation) + " of stream " + std::to_string(s.number);
  std::uint64_t const address = allocate(n, 256, what, owner_of(device_of_stream(s), true));
  if (address == 0) return failed(cudaErrorMemoryAllocation);
  if (setting().races) note_host_access(operation, address, n, true);
  *p = reinterpret_cast<void*>(address);
  return cudaSuccess;
}

cudaError_t cudaFreeAsync(void* p, cudaStream_t handle) {
  if (p == nullptr) return cudaSuccess;
  auto const lock = lock_runtime();
  stream& s = stream_of(handle);
  if (cudaError_t const e = refuse_memory(s, "a release of memory"); e != cudaSuccess) return failed(e);
  std::uint64_t const address = number_of(p);
  std::uint32_t const operation = s.start_operation("release of memory");
  s.push({.run = [=] {
    if (setting().races) note_host_access(operation, address, allocated_bytes(address), true);
    if (!release(address)) report("release of what was not allocated: " + memory().describe(address));
  }});
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, size_t n) {
  auto const lock = lock_runtime();
  if (cudaError_t const e = refuse_unsafe("cudaMalloc"); e != cudaSuccess) return failed(e);
  std::uint64_t const address = allocate(n, 256, "cudaMalloc", owner_of(current_device(), false));
  if (address == 0) return failed(cudaErrorMemoryAllocation);
  *p = reinterpret_cast<void*>(address);
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  if (p == nullptr) return cudaSuccess;
  auto const lock = lock_runtime();
  if (cudaError_t const e = refuse_unsafe("cudaFree"); e != cudaSuccess) return failed(e);
  finish_all_streams();
  if (release(number_of(p))) return cudaSuccess;
  report("cudaFree of what was not allocated");
  return failed(cudaErrorInvalidValue);
}

cudaError_t cudaMallocHost(void** p, size_t n) {
  auto const lock = lock_runtime();
  if (cudaError_t const e = refuse_unsafe("cudaMallocHost"); e != cudaSuccess) return failed(e);
  *p = std::aligned_alloc(4096, (n + 4095) / 4096 * 4096);
  if (*p == nullptr) return failed(cudaErrorMemoryAllocation);
  pinned()[number_of(*p)] = n;
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) { return cudaMallocHost(p, n); }
cudaError_t cudaFreeHost(void* p) {
  auto const lock = lock_runtime();
  if (cudaError_t const e = refuse_unsafe("cudaFreeHost"); e != cudaSuccess) return failed(e);
  pinned().erase(number_of(p));
  finish_all_streams();
  std::free(p);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t n, cudaMemcpyKind, cudaStream_t handle) {
  auto const lock = lock_runtime();
  return failed(copy(to, from, n, stream_of(handle)));
}
cudaError_t cudaMemcpy(void* to, void const* from, size_t n, cudaMemcpyKind) {
  auto const lock = lock_runtime();
  if (cudaError_t const e = refuse_unsafe("cudaMemcpy"); e != cudaSuccess) return failed(e);
  cudaError_t const e = copy(to, from, n, legacy_stream());
  legacy_stream().finish();
  return failed(e);
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t handle) {
  auto const lock = lock_runtime();
  return failed(fill(p, value, n, stream_of(handle)));
}
cudaError_t cudaMemset(void* p, int value, size_t n) {
  auto const lock = lock_runtime();
  if (cudaError_t const e = refuse_unsafe("cudaMemset"); e != cudaSuccess) return failed(e);
  return failed(fill(p, value, n, legacy_stream()));
}

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  auto const lock = lock_runtime();
  *total = memory().size;
  *available = memory().size - memory().used;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, void const* p) {
  auto const lock = lock_runtime();
  device_memory const& m = memory();
  *a = {};
  a->type = cudaMemoryTypeUnregistered;
  if (!m.holds(number_of(p))) return cudaSuccess;
  std::uint8_t const owner = m.owner[(number_of(p) - m.base) / 256];
  a->type = cudaMemoryTypeDevice;
  a->devicePointer = const_cast<void*>(p);
  a->device = owner != 0 ? device_of(owner) : 0;
  return cudaSuccess;
}

}  // extern "C"
