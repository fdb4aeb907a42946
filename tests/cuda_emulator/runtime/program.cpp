// What nvcc's code calls: it hands over the device code when the program starts, and later names kernels.
#include "runtime/program.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "execution/grid.hpp"
#include "ptx/parser.hpp"
#include "report.hpp"
#include "runtime/stream.hpp"
#include "runtime/summary.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

/// What a block has without cudaFuncSetAttribute, and with it.
constexpr std::size_t usual_shared_bytes = 49152, most_shared_bytes = 232448;

/// The PTX of one translation unit, parsed when a kernel of it is asked for.
struct binary {
  std::string text;
  std::unique_ptr<ptx_module> parsed;

  int architecture() const { return std::atoi(text.c_str() + text.find(".target sm_") + 11); }
  ptx_module const& module() {
    if (text.find(".version") == std::string::npos) {
      report(
          "the program holds no uncompressed PTX: compile it with nvcc -compress-mode=none for an architecture with "
          "PTX");
      std::abort();
    }
    if (!parsed) parsed = parse(text);
    return *parsed;
  }
};

struct kernel {
  binary* from;
  std::string name;
  function const* found = nullptr;
  std::size_t dynamic_bytes = 0;  // of shared memory, that it was allowed beyond those of all kernels

  /// Of dynamic shared memory in a launch.
  std::size_t most_dynamic_bytes() { return std::max(dynamic_bytes, usual_shared_bytes - get().shared_bytes); }
  function const& get() {
    if (found != nullptr) return *found;
    auto const& functions = from->module().functions;
    auto const it = functions.find(name);
    if (it == functions.end()) {
      report("no PTX of kernel " + demangled(name));
      std::abort();
    }
    return *(found = it->second.get());
  }
};

struct loaded_program {
  std::vector<std::unique_ptr<binary>> binaries;
  std::map<void const*, kernel> kernels;  // by the address of the function on the host
};
loaded_program& program() {
  static auto& never_ends = *new loaded_program;  // programs release memory at exit
  return never_ends;
}

template <class T>
T read(std::uint8_t const* p) {
  T x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

/// A container has a header of 16 bytes, with its own size and that of what follows. Each entry has a kind, the size of
/// its header and its own. Kind 1 is PTX.
std::string ptx_of(std::uint8_t const* container) {
  std::string found;
  std::uint64_t const header = read<std::uint16_t>(container + 6), end = header + read<std::uint64_t>(container + 8);
  for (std::uint64_t at = header; at < end;) {
    auto const kind = read<std::uint16_t>(container + at);
    auto const entry_header = read<std::uint32_t>(container + at + 4);
    auto const bytes = read<std::uint64_t>(container + at + 8);
    if (kind == 1) {
      found.assign(reinterpret_cast<char const*>(container + at + entry_header), bytes);
      found.resize(std::strlen(found.c_str()));
    }
    at += entry_header + bytes;
  }
  return found;
}

cudaError_t launch(kernel& k, dim3 blocks, dim3 threads, void** arguments, std::size_t dynamic_bytes, stream& s) {
  if (sticky_error() != cudaSuccess) return failed(sticky_error());
  function const& f = k.get();
  std::string const name = demangled(f.name);
  std::size_t const per_block = std::size_t{threads.x} * threads.y * threads.z;
  bool const empty = blocks.x == 0 || blocks.y == 0 || blocks.z == 0 || per_block == 0;
  if (empty || blocks.x > 0x7FFFFFFF || blocks.y > 65535 || blocks.z > 65535 || threads.z > 64 ||
      per_block > std::min<std::size_t>(1024, static_cast<std::size_t>(f.max_threads))) {
    report("launch of " + std::to_string(blocks.x) + " blocks of " + std::to_string(per_block) + " threads: " + name);
    return failed(cudaErrorInvalidConfiguration);
  }
  if (dynamic_bytes > k.most_dynamic_bytes()) {
    report("launch with " + std::to_string(dynamic_bytes) + " bytes of dynamic shared memory, of which " +
           std::to_string(k.most_dynamic_bytes()) + " are allowed: " + name);
    return failed(cudaErrorInvalidValue);
  }
  if (&s != &legacy_stream() && s.device != current_device()) {
    report("launch on device " + std::to_string(current_device()) + " into a stream of device " +
           std::to_string(s.device) + ": " + name);
    return failed(cudaErrorInvalidResourceHandle);
  }
  auto const g = std::make_shared<grid>();
  g->device = current_device();
  g->kernel = &f;
  g->blocks = {blocks.x, blocks.y, blocks.z};
  g->threads_per_block = {threads.x, threads.y, threads.z};
  g->param.resize(f.parameter_bytes);
  for (std::size_t a = 0; a < f.parameters.size(); ++a)
    std::memcpy(g->param.data() + f.parameters[a].offset, arguments[a], f.parameters[a].size);
  g->shared.resize(f.shared_bytes + dynamic_bytes);
  count_launch(f.name);
  if (setting().trace)
    std::fprintf(stderr, "== emulator: %u x %zu in stream %u: %s\n", blocks.x, per_block, s.number,
                 name.substr(0, 160).c_str());
  cudaError_t const e = s.enqueue("launch of " + name.substr(0, 200), [g](std::uint32_t operation) {
    grid launched = *g;  // a graph may run it again
    launched.operation = operation;
    launched.run();
    count_steps(launched.steps);
  });
  return failed(e != cudaSuccess ? e : sticky_error());
}

struct configuration {
  dim3 blocks, threads;
  std::size_t shared_bytes;
  cudaStream_t stream;
};
thread_local std::vector<configuration> configurations;

}  // namespace

int architecture() { return program().binaries.empty() ? 0 : program().binaries.front()->architecture(); }

}  // namespace emulator

using namespace emulator;

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  auto const lock = lock_runtime();
  struct wrapper_layout {
    std::uint32_t magic, version;
    std::uint8_t const* container;
    void* more;
  };
  summarize_at_exit();
  auto b = std::make_unique<binary>();
  b->text = ptx_of(static_cast<wrapper_layout const*>(wrapper)->container);
  program().binaries.push_back(std::move(b));
  return reinterpret_cast<void**>(program().binaries.back().get());
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 0; }
void __cudaRegisterFunction(void** handle, char const* host, char*, char const* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  auto const lock = lock_runtime();
  program().kernels[host] = {reinterpret_cast<binary*>(handle), name};
}
void __cudaRegisterVar(void**, char*, char*, char const*, int, size_t, int, int) {}

unsigned __cudaPushCallConfiguration(dim3 blocks, dim3 threads, size_t shared_bytes, cudaStream_t stream) {
  configurations.push_back({blocks, threads, shared_bytes, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* blocks, dim3* threads, size_t* shared_bytes, void* stream) {
  configuration const c = configurations.back();
  configurations.pop_back();
  *blocks = c.blocks;
  *threads = c.threads;
  *shared_bytes = c.shared_bytes;
  *static_cast<cudaStream_t*>(stream) = c.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* k, void const* host) {
  auto const lock = lock_runtime();
  auto const found = program().kernels.find(host);
  if (found == program().kernels.end()) return failed(cudaErrorInvalidDeviceFunction);
  *k = reinterpret_cast<cudaKernel_t>(&found->second);
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 blocks, dim3 threads, void** arguments, size_t shared_bytes,
                               cudaStream_t handle) {
  auto const lock = lock_runtime();
  announce();
  return launch(*reinterpret_cast<kernel*>(k), blocks, threads, arguments, shared_bytes, stream_of(handle));
}
cudaError_t cudaLaunchKernel(void const* host, dim3 blocks, dim3 threads, void** arguments, size_t shared_bytes,
                             cudaStream_t handle) {
  cudaKernel_t k{};
  if (cudaError_t const e = __cudaGetKernel(&k, host); e != cudaSuccess) return e;
  return __cudaLaunchKernel(k, blocks, threads, arguments, shared_bytes, handle);
}
cudaError_t cudaLaunchKernelExC(cudaLaunchConfig_t const* c, void const* host, void** arguments) {
  return cudaLaunchKernel(host, c->gridDim, c->blockDim, arguments, c->dynamicSmemBytes, c->stream);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, void const* host) {
  auto const lock = lock_runtime();
  cudaKernel_t handle{};
  if (cudaError_t const e = __cudaGetKernel(&handle, host); e != cudaSuccess) return e;
  auto& k = *reinterpret_cast<kernel*>(handle);
  function const& f = k.get();
  *a = {};
  a->sharedSizeBytes = f.shared_bytes;
  a->localSizeBytes = f.local_bytes;
  a->maxThreadsPerBlock = f.max_threads;
  a->numRegs = 32;
  a->ptxVersion = a->binaryVersion = k.from->architecture();
  a->maxDynamicSharedSizeBytes = static_cast<int>(k.most_dynamic_bytes());
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(void const* host, cudaFuncAttribute attribute, int value) {
  auto const lock = lock_runtime();
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  cudaKernel_t handle{};
  if (cudaError_t const e = __cudaGetKernel(&handle, host); e != cudaSuccess) return e;
  auto& k = *reinterpret_cast<kernel*>(handle);
  if (value < 0 || static_cast<std::size_t>(value) + k.get().shared_bytes > most_shared_bytes)
    return failed(cudaErrorInvalidValue);
  k.dynamic_bytes = static_cast<std::size_t>(value);
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, void const*, int threads, size_t, unsigned) {
  *n = std::max(1, 2048 / std::max(threads, 1));
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n, void const* f, int threads, size_t shared_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(n, f, threads, shared_bytes, 0);
}

}  // extern "C"
