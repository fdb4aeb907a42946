// Kernels with known results, and one mistake per argument: `selftest`, `selftest race`, ... The exit status is 1 if a
// result is wrong. reports_test.cpp knows what the emulator has to say.
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace {

__global__ void reverse(int* x, int n, bool with_barrier) {
  __shared__ int s[256];
  s[threadIdx.x] = x[threadIdx.x];
  if (with_barrier) __syncthreads();
  x[threadIdx.x] = s[n - 1 - static_cast<int>(threadIdx.x)];
}
__global__ void sum(float const* x, float* out, int n) {
  float s = 0;
  int const threads = static_cast<int>(gridDim.x * blockDim.x);
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += threads) s += x[i];
  for (int d = 16; d > 0; d /= 2) s += __shfl_xor_sync(0xffffffff, s, d);
  if (threadIdx.x % 32 == 0) atomicAdd(out, s);
}
__global__ void vote(unsigned* out) {
  unsigned const ballot = __ballot_sync(0xffffffff, threadIdx.x % 3 == 0);
  unsigned const match = __match_any_sync(0xffffffff, threadIdx.x % 4);
  out[threadIdx.x] = ballot ^ match ^ __reduce_add_sync(0xffffffff, threadIdx.x);
}
/// A function with arguments and a result of each thread's own.
__noinline__ __device__ double shifted(double x, double by) { return x * x + by; }
__global__ void call_each(double* to, double const* from) { to[threadIdx.x] = shifted(from[threadIdx.x], threadIdx.x); }
__noinline__ __device__ void write_where_positive(int* x, int i) {
  if (i > 0) x[i] = 1;
}
__global__ void call_with(int* to, int const* from) { write_where_positive(to, from[0]); }
__global__ void count_threads(int* x, bool with_barrier) {
  __shared__ int n;
  if (threadIdx.x == 0) n = 0;
  __syncthreads();
  atomicAdd(&n, 1);
  if (with_barrier) __syncthreads();
  x[threadIdx.x] = n;
}
/// The last thread writes what all have read.
__global__ void read_and_write(int* x) {
  int const old = x[0];
  if (threadIdx.x == blockDim.x - 1) x[0] = old + 1;
  if (old != 0) x[threadIdx.x] = old;
}
__global__ void read_and_write_in_shared_memory(int* x) {
  __shared__ int n;
  if (threadIdx.x == 0) n = x[0];
  __syncthreads();
  int const old = n;
  if (threadIdx.x == blockDim.x - 1) n = old + 1;
  if (old != 0) x[threadIdx.x] = old;
}
extern __shared__ int as_many_as_given[];
__global__ void fill_shared_memory(int* x, int n) {
  for (int i = 0; i < n; ++i) as_many_as_given[i] = i;
  x[0] = as_many_as_given[n - 1];
}
__global__ void write_thread_number(int* x) { x[0] = static_cast<int>(threadIdx.x); }
__global__ void write_if_positive(int* x, int i) {
  if (x[0] > 0) x[i] = 1;
}
__global__ void copy_each(int* to, int const* from) { to[threadIdx.x] = from[threadIdx.x]; }
__global__ void add_each(int* to, int const* from) { to[threadIdx.x] += from[threadIdx.x]; }
__global__ void write_16_bytes(int4* x) { x[0] = int4{1, 2, 3, 4}; }
__global__ void write_through(int* const* pointer) { **pointer = 1; }
__global__ void write_local_as_global(int* x) {
  int local[4] = {x[0], x[1], x[2], x[3]};
  asm volatile("st.global.u32 [%0], %1;" ::"l"(&local[x[0] & 3]), "r"(7) : "memory");
  x[4] = local[x[0] & 3];
}
__global__ void leave_before_barrier(int* x) {
  if (threadIdx.x == 0) return;
  __syncthreads();
  x[threadIdx.x] = 1;
}
__global__ void shuffle_with_absent_lanes(int* x) {
  if (threadIdx.x < 16) x[threadIdx.x] = __shfl_sync(0xffffffff, x[threadIdx.x], 0);
  __syncthreads();
}
__global__ void spin(int volatile* x) {
  while (x[0] != 4711) continue;
}

template <class T>
T* device_memory(std::size_t count) {
  void* p = nullptr;
  cudaMalloc(&p, count * sizeof(T));
  return static_cast<T*>(p);
}
template <class T>
T* device_copy(std::vector<T> const& from) {
  T* const p = device_memory<T>(from.size());
  cudaMemcpy(p, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice);
  return p;
}
template <class T>
std::vector<T> host_copy(T const* from, std::size_t count) {
  std::vector<T> to(count);
  cudaMemcpy(to.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost);
  return to;
}
int* numbers() {
  std::vector<int> v(256);
  for (std::size_t i = 0; i < 256; ++i) v[i] = static_cast<int>(i);
  return device_copy(v);
}

int count_wrong_results() {
  int wrong = 0;
  int* const x = numbers();
  reverse<<<1, 256>>>(x, 256, true);
  std::vector<int> const reversed = host_copy(x, 256);
  for (int i = 0; i < 256; ++i) wrong += reversed[static_cast<std::size_t>(i)] != 255 - i;

  float* const total = device_copy(std::vector<float>(1));
  sum<<<3, 64>>>(device_copy(std::vector<float>(1000, 0.5F)), total, 1000);
  wrong += host_copy(total, 1)[0] != 500;

  unsigned* const votes = device_memory<unsigned>(32);
  vote<<<1, 32>>>(votes);
  std::vector<unsigned> const found = host_copy(votes, 32);
  for (unsigned i = 0; i < 32; ++i) {
    unsigned ballot = 0, match = 0;
    for (unsigned k = 0; k < 32; ++k) {
      ballot |= (k % 3 == 0 ? 1U : 0U) << k;
      match |= (k % 4 == i % 4 ? 1U : 0U) << k;
    }
    wrong += found[i] != (ballot ^ match ^ 496U);
  }

  count_threads<<<1, 256>>>(x, true);
  for (int const n : host_copy(x, 256)) wrong += n != 256;

  cudaFuncSetAttribute(fill_shared_memory, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536);
  fill_shared_memory<<<1, 1, 65536>>>(x, 16384);
  wrong += host_copy(x, 1)[0] != 16383;

  std::vector<double> arguments(256);
  for (std::size_t i = 0; i < 256; ++i) arguments[i] = 1 / static_cast<double>(1 + i);
  double* const results = device_memory<double>(256);
  call_each<<<1, 256>>>(results, device_copy(arguments));
  std::vector<double> const called = host_copy(results, 256);
  for (std::size_t i = 0; i < 256; ++i)
    wrong += std::abs(called[i] - (arguments[i] * arguments[i] + static_cast<double>(i))) > 1e-12;
  return wrong;
}

/// What a copy of pinned memory has, if the host changes the memory after the call.
int copy_of_changed(bool to_host) {
  cudaStream_t a{};
  cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
  int* const x = numbers();
  int* on_host = nullptr;
  cudaMallocHost(&on_host, 1024);
  for (int i = 0; i < 256; ++i) on_host[i] = 7;
  cudaDeviceSynchronize();
  if (to_host) {
    cudaMemcpyAsync(on_host, x, 1024, cudaMemcpyDefault, a);
    int const seen = on_host[1];
    cudaStreamSynchronize(a);
    return seen;
  }
  cudaMemcpyAsync(x, on_host, 1024, cudaMemcpyDefault, a);
  on_host[1] = 8;
  cudaStreamSynchronize(a);
  return host_copy(x, 2)[1];
}

struct two_streams {
  cudaStream_t a{}, b{};
  cudaEvent_t e{};
  two_streams() {
    cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
  }
  /// What the second stream is given now comes after what the first was given; `join` is the reverse.
  void fork() const {
    cudaEventRecord(e, a);
    cudaStreamWaitEvent(b, e, 0);
  }
  void join() const {
    cudaEventRecord(e, b);
    cudaStreamWaitEvent(a, e, 0);
  }
};

/// f(streams) as a graph, launched `launches` times.
template <class F>
void capture(two_streams const& streams, int launches, F const& f) {
  cudaStreamBeginCapture(streams.a, cudaStreamCaptureModeGlobal);
  f();
  cudaGraph_t graph{};
  cudaStreamEndCapture(streams.a, &graph);
  if (graph == nullptr) return;
  cudaGraphExec_t launchable{};
  cudaGraphInstantiate(&launchable, graph, 0);
  cudaGraphDestroy(graph);
  for (int k = 0; k < launches; ++k) cudaGraphLaunch(launchable, streams.a);
  cudaStreamSynchronize(streams.a);
  cudaGraphExecDestroy(launchable);
}

/// x += y + 2 z in each launch, z from the host, and y on a second stream.
int count_wrong_results_of_graphs() {
  two_streams const streams;
  int *const x = numbers(), *const y = numbers(), *const z = device_memory<int>(256);
  int* on_host = nullptr;
  cudaMallocHost(&on_host, 1024);
  for (int i = 0; i < 256; ++i) on_host[i] = 7;
  int* const sum = device_memory<int>(256);
  capture(streams, 3, [&] {
    cudaMemsetAsync(sum, 0, 1024, streams.a);
    streams.fork();
    add_each<<<1, 256, 0, streams.b>>>(y, y);
    cudaMemcpyAsync(z, on_host, 1024, cudaMemcpyDefault, streams.a);
    add_each<<<1, 256, 0, streams.a>>>(sum, z);
    add_each<<<1, 256, 0, streams.a>>>(sum, z);
    streams.join();
    add_each<<<1, 256, 0, streams.a>>>(sum, y);
    add_each<<<1, 256, 0, streams.a>>>(x, sum);
    on_host[0] = 8;  // read when the graph runs
  });
  int wrong = 0;
  std::vector<int> const found = host_copy(x, 256);
  for (int i = 0; i < 256; ++i)
    wrong += found[static_cast<std::size_t>(i)] != i + (2 + 4 + 8) * i + 3 * 2 * (i == 0 ? 8 : 7);
  return wrong;
}

/// Writes memory in two streams of a capture, f(streams) in between.
template <class F>
void capture_with(F const& f) {
  two_streams const streams;
  int* const x = numbers();
  capture(streams, 1, [&] {
    cudaMemsetAsync(x, 0, 1024, streams.a);
    f(streams, x);
  });
}

/// Fills memory on one stream and reads it on another.
void use_on_two_streams(bool ordered) {
  int* const x = numbers();
  cudaStream_t a{}, b{};
  cudaEvent_t e{};
  cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
  cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
  cudaMemsetAsync(x, 0, 1024, a);
  cudaEventRecord(e, a);
  if (ordered) cudaStreamWaitEvent(b, e, 0);
  write_if_positive<<<1, 1, 0, b>>>(x, 1);
}

/// Device 1 writes memory of device 0.
void use_of_peer(bool with_access) {
  int* const x = numbers();
  cudaSetDevice(1);
  if (with_access) cudaDeviceEnablePeerAccess(0, 0);
  write_thread_number<<<1, 1>>>(x);
}

void launch_into_stream_of_other_device() {
  cudaStream_t s{};
  cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
  int* const x = numbers();
  cudaSetDevice(1);
  write_thread_number<<<1, 1, 0, s>>>(x);
}

void record_event_of_other_device() {
  cudaEvent_t e{};
  cudaEventCreate(&e);
  cudaSetDevice(1);
  cudaStream_t s{};
  cudaStreamCreate(&s);
  cudaEventRecord(e, s);
}

void free_before_use() {
  int* const x = numbers();
  cudaFree(x);
  write_thread_number<<<1, 1>>>(x);
}

void use_ended_event() {
  cudaEvent_t e{};
  cudaEventCreate(&e);
  cudaEventDestroy(e);
  cudaEventRecord(e, nullptr);
}

std::vector<std::pair<std::string, std::function<void()>>> const programs{
    {"ordered_streams", [] { use_on_two_streams(true); }},
    {"peer_access", [] { use_of_peer(true); }},
    {"race", [] { write_thread_number<<<1, 64>>>(numbers()); }},
    {"race_of_blocks", [] { write_thread_number<<<64, 1>>>(numbers()); }},
    {"race_in_shared_memory", [] { reverse<<<1, 256>>>(numbers(), 256, false); }},
    {"race_of_readers", [] { read_and_write<<<1, 64>>>(device_copy(std::vector<int>(64))); }},
    {"race_of_readers_in_shared_memory",
     [] { read_and_write_in_shared_memory<<<1, 64>>>(device_copy(std::vector<int>(64))); }},
    {"race_after_atomic", [] { count_threads<<<1, 256>>>(numbers(), false); }},
    {"pinned_source", [] { std::printf("copied %d\n", copy_of_changed(false)); }},
    {"pinned_target", [] { std::printf("copied %d\n", copy_of_changed(true)); }},
    {"too_much_shared_memory", [] { fill_shared_memory<<<1, 1, 49156>>>(numbers(), 1); }},
    {"race_of_streams", [] { use_on_two_streams(false); }},
    {"out_of_bounds",
     [] { sum<<<3, 64>>>(device_copy(std::vector<float>(1000)), device_copy(std::vector<float>(1)), 3000); }},
    {"uninitialised_branch", [] { write_if_positive<<<1, 1>>>(device_memory<int>(16), 1); }},
    {"uninitialised_address", [] { write_through<<<1, 1>>>(device_memory<int*>(1)); }},
    {"uninitialised_copy",
     [] {
       int* const to = device_memory<int>(32);
       copy_each<<<1, 32>>>(to, device_memory<int>(32));
       host_copy(to, 32);
     }},
    {"uninitialised_argument", [] { call_with<<<1, 1>>>(numbers(), device_memory<int>(1)); }},
    {"uninitialised_result",
     [] {
       double* const to = device_memory<double>(32);
       call_each<<<1, 32>>>(to, device_memory<double>(32));
       host_copy(to, 32);
     }},
    {"freed", free_before_use},
    {"freed_twice",
     [] {
       int* const x = numbers();
       cudaFree(x);
       cudaFree(x);
     }},
    {"misaligned", [] { write_16_bytes<<<1, 1>>>(reinterpret_cast<int4*>(numbers() + 1)); }},
    {"host_memory",
     [] {
       static int x[1];
       write_thread_number<<<1, 1>>>(x);
     }},
    {"local_as_global", [] { write_local_as_global<<<1, 1>>>(numbers()); }},
    {"no_peer_access", [] { use_of_peer(false); }},
    {"stream_of_other_device", launch_into_stream_of_other_device},
    {"event_of_other_device", record_event_of_other_device},
    {"ended_event", use_ended_event},
    {"left_barrier", [] { leave_before_barrier<<<1, 64>>>(numbers()); }},
    {"absent_lanes", [] { shuffle_with_absent_lanes<<<1, 32>>>(numbers()); }},
    {"too_many_threads", [] { write_thread_number<<<1, 2048>>>(numbers()); }},
    {"copy_out_of_bounds", [] { host_copy(numbers(), 300); }},
    {"capture_and_synchronize", [] { capture_with([](auto const& s, int*) { cudaStreamSynchronize(s.a); }); }},
    {"capture_and_query", [] { capture_with([](auto const& s, int*) { cudaStreamQuery(s.b); }); }},
    {"capture_and_allocate", [] { capture_with([](auto const&, int*) { device_memory<int>(1); }); }},
    {"capture_pageable_copy",
     [] {
       capture_with([](auto const& s, int* x) {
         static int on_host[256];
         cudaMemcpyAsync(x, on_host, 1024, cudaMemcpyDefault, s.a);
       });
     }},
    {"capture_unjoined",
     [] {
       capture_with([](auto const& s, int* x) {
         s.fork();
         cudaMemsetAsync(x, 1, 1024, s.b);
       });
     }},
    {"capture_fork_alone", [] { capture_with([](auto const& s, int*) { s.fork(); }); }},
    {"capture_waits_outside", [] { capture_with([](auto const& s, int*) { s.join(); }); }},
    {"capture_event_query",
     [] {
       capture_with([](auto const& s, int*) {
         cudaEventRecord(s.e, s.a);
         cudaEventQuery(s.e);
       });
     }},
    {"capture_and_legacy_stream",
     [] {
       two_streams s;
       cudaStreamCreate(&s.a);
       int* const x = numbers();
       capture(s, 1, [&] { cudaMemsetAsync(x, 0, 1024, nullptr); });
     }},
    {"race_in_graph",
     [] {
       capture_with([](auto const& s, int* x) {
         s.fork();
         cudaMemsetAsync(x, 1, 1024, s.b);
         cudaMemsetAsync(x, 2, 1024, s.a);
         s.join();
       });
     }},
    {"race_with_graph",
     [] {
       two_streams const s;
       int* const x = numbers();
       capture(s, 0, [&] { cudaMemsetAsync(x, 0, 1024, s.a); });
       cudaMemsetAsync(x, 0, 1024, s.b);
       capture(s, 1, [&] { cudaMemsetAsync(x, 0, 1024, s.a); });
     }},
    {"endless", [] { spin<<<1, 1>>>(numbers()); }},
};

}  // namespace

int main(int count, char** arguments) {
  std::string const wanted = count > 1 ? arguments[1] : "";
  if (wanted.empty()) {
    int const wrong = count_wrong_results() + count_wrong_results_of_graphs();
    std::printf("%d wrong results\n", wrong);
    return wrong != 0;
  }
  for (auto const& [name, program] : programs) {
    if (name != wanted) continue;
    program();
    std::printf("%s\n", cudaGetErrorName(cudaDeviceSynchronize()));
    return 0;
  }
  std::printf("no program %s\n", wanted.c_str());
  return 2;
}
