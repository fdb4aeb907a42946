/// @file
/// CUDA devices: an ordinal and a stream; several logical ones may share a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>

PUSHPULL_OTHERS_HEADERS_BEGIN
#include <cub/block/block_reduce.cuh>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_select.cuh>
PUSHPULL_OTHERS_HEADERS_END

#include <thrust/iterator/counting_iterator.h>
#include <pushpull/concepts/device.hpp>
#include <pushpull/detail/cuda/check.cuh>
#include <pushpull/detail/cuda/peers.cuh>
#include <pushpull/detail/index_range.hpp>
#include <pushpull/device/cuda_memory_resource.cuh>
#include <pushpull/device/cuda_queue.cuh>
#include <pushpull/error.hpp>
#include <pushpull/registers/cuda_execution.cuh>
#include <pushpull/registers/sums.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// Threads per block of the kernel below.
inline constexpr int index_threads = 256;

/// The first r with ends[r] > task; all lanes of a warp search together. @param size  Number of ends; the last exceeds task.
__device__ inline std::int32_t warp_upper_bound(std::int64_t const* ends, std::int32_t size, std::int64_t task) {
  auto const lane = static_cast<std::int32_t>(threadIdx.x % 32);
  std::int32_t low = 0;
  for (std::int32_t high = size - 1; low < high;) {
    std::int32_t const step = (high - low + 31) / 32, probe = low + (lane + 1) * step - 1;
    bool const below = probe < high && ends[probe] <= task;
    low += __popc(__ballot_sync(0xffffffffU, below)) * step;
    if (low + step - 1 < high) high = low + step - 1;
  }
  return low;
}

/// The runs of a block's tasks, which start at `begin`. A search by each thread for itself would take as long as the pass.
template <class Runs>
__device__ void search_runs(Runs const& runs, std::int64_t begin, std::int64_t n, index_range& range) {
  if (threadIdx.x < 32) {
    std::int32_t const first = warp_upper_bound(runs.ends, runs.size, begin);
    if (threadIdx.x == 0) range.first = first;
  } else if (threadIdx.x < 64) {
    std::int64_t const end = begin + index_threads < n ? begin + index_threads : n;
    std::int32_t const last = warp_upper_bound(runs.ends, runs.size, end - 1);
    if (threadIdx.x == 32) range.last = last;
  }
  __syncthreads();
}

/// f(i) for every 0 <= i < n, one thread each. Not cub::DeviceFor::Bulk: that gives each thread two items behind two
/// paths, four copies of f, which costs Adam 62 registers for 48 and spills where gradients and mirrors are bfloat16.
/// Where f searches a list of runs for that of i, the block searches once.
/// Internal linkage: two libraries that instantiate it with the same names must not launch each other's.
template <class F>
static __global__ void __launch_bounds__(index_threads)
    index_kernel(__grid_constant__ F const f, std::int64_t const n) {
  std::int64_t const begin = static_cast<std::int64_t>(blockIdx.x) * index_threads, i = begin + threadIdx.x;
  if constexpr (requires { f.searched_runs(); }) {
    __shared__ index_range range;
    search_runs(f.searched_runs(), begin, n, range);
    if (i < n) f(i, range);
  } else {
    if (i < n) f(i);
  }
}

/// Threads that sum one leaf of a norm's tree.
inline constexpr int leaf_threads = 128;

/// a + b, for one sum or several.
struct add_sums {
  template <class Sums>
  __device__ Sums operator()(Sums a, Sums const& b) const {
    add(a, b);
    return a;
  }
};

/// out[f.slot(leaf)] = sum over threads of f(leaf, thread, threads), in the fixed order of CUB's block reduction.
template <class F, class Sums>
static __global__ void __launch_bounds__(leaf_threads) leaf_kernel(__grid_constant__ F const f, Sums* const out) {
  using block_reduce = cub::BlockReduce<Sums, leaf_threads>;
  __shared__ typename block_reduce::TempStorage scratch;
  std::int64_t const leaf = blockIdx.x;
  Sums const sum =
      block_reduce(scratch).Reduce(f(leaf, static_cast<std::int32_t>(threadIdx.x), leaf_threads), add_sums{});
  if (threadIdx.x == 0) out[f.slot(leaf)] = sum;
}

}  // namespace detail

/// A point in a stream's work.
class cuda_event {
 public:
  /// Everything that was enqueued on the stream so far. @throws cuda_error
  cuda_event(int ordinal, cudaStream_t stream) : event_(std::make_shared<owned>(ordinal)) {
    detail::current_device const current(ordinal);
    detail::cuda_check(cudaEventRecord(event_->handle, stream), "cudaEventRecord");
  }

  /// @throws cuda_error, also that of work before the event
  bool ready() const {
    cudaError_t const state = cudaEventQuery(event_->handle);
    if (state == cudaErrorNotReady) return false;
    detail::cuda_check(state, "cudaEventQuery");
    return true;
  }
  /// @throws as ready
  void wait() const { detail::cuda_check(cudaEventSynchronize(event_->handle), "cudaEventSynchronize"); }

 private:
  struct owned {
    cudaEvent_t handle = nullptr;
    explicit owned(int ordinal) {
      detail::current_device const current(ordinal);
      detail::cuda_check(cudaEventCreateWithFlags(&handle, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    }
    owned(owned const&) = delete;
    owned& operator=(owned const&) = delete;
    ~owned() { static_cast<void>(cudaEventDestroy(handle)); }
  };

  std::shared_ptr<owned> event_;
};

/// One GPU and one stream. Copies of a device share both; the stream of its own ends with the last copy.
class cuda_device {
 public:
  using memory_space = cuda_memory;
  using execution = pass::cuda_execution;
  /// What `step_aside` returns.
  class aside;
  /// A kernel may be loaded when a capture meets it first.
  using capture_guard = detail::relaxed_capture;

  /// A stream of its own on GPU `ordinal`. Devices made so are distinct, also on one GPU.
  /// @throws invalid_argument if there is no such GPU; cuda_error
  explicit cuda_device(int ordinal = 0, cuda_memory_resource& resource = cuda_pool_resource::instance())
      : queue_(std::make_shared<detail::cuda_queue>(checked(ordinal), resource, nullptr, true)) {}

  /// The caller's stream, which must outlive the device. Not cudaStreamPerThread, which names another stream on every thread, nor
  /// nullptr in programs whose default stream is that.
  cuda_device(int ordinal, cudaStream_t stream, cuda_memory_resource& resource = cuda_pool_resource::instance())
      : queue_(std::make_shared<detail::cuda_queue>(checked(ordinal), resource, stream, false)) {}

  int id() const noexcept { return queue_->ordinal; }
  cudaStream_t stream() const noexcept { return queue_->stream; }
  std::string name() const { return "cuda:" + std::to_string(queue_->ordinal); }
  /// Makes the GPU the calling thread's current one until the result goes. @throws cuda_error
  [[nodiscard]] detail::current_device activate() const { return detail::current_device(id()); }

  /// Whether the stream is being captured in a graph. @throws capture_error if the capture is void
  bool is_captured() const {
    cudaStreamCaptureStatus const status = queue_->capture_status();
    detail::expects<capture_error>(status != cudaStreamCaptureStatusInvalidated, [&] {
      return name() + ": an error before has made the capture of its stream void";
    });
    return status == cudaStreamCaptureStatusActive;
  }
  /// While the result lives, work of the devices that this thread enqueues runs on other streams, captured by nobody.
  static aside step_aside(std::vector<cuda_device> const& devices);

  /// @throws out_of_memory, cuda_error; capture_error while the stream is captured
  void* allocate(std::size_t bytes) const {
    expect_uncaptured("memory is taken");
    detail::current_device const current(id());
    if (queue_->has_released && !queue_->is_aside()) queue_->give_back();
    return queue_->resource->allocate(bytes, queue_->current());
  }
  /// While the stream is captured, memory is kept until later.
  void deallocate(void* p, std::size_t bytes) const noexcept {
    if (queue_->is_aside() || queue_->capture_status() != cudaStreamCaptureStatusNone) return queue_->keep(p, bytes);
    detail::on_device(id(), [&] { queue_->resource->deallocate(p, bytes, stream()); });
  }

  void copy(void* to, void const* from, std::size_t bytes) const {
    if (bytes == 0) return;
    detail::current_device const current(id());
    detail::cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, queue_->current()), "cudaMemcpyAsync");
  }
  void fill_zero(void* p, std::size_t bytes) const {
    if (bytes == 0) return;
    detail::current_device const current(id());
    detail::cuda_check(cudaMemsetAsync(p, 0, bytes, queue_->current()), "cudaMemsetAsync");
  }

  template <class F>
  void for_each(std::int64_t n, F const& f) const {
    if (n == 0) return;
    detail::current_device const current(id());
    auto const blocks = static_cast<unsigned>((n + detail::index_threads - 1) / detail::index_threads);
    detail::index_kernel<<<blocks, detail::index_threads, 0, queue_->current()>>>(f, n);
    detail::cuda_check(cudaGetLastError(), "index_kernel");
  }

  template <class F, class Sums>
  void for_each_leaf(std::int64_t n, F const& f, Sums* out) const {
    if (n == 0) return;
    detail::current_device const current(id());
    detail::leaf_kernel<<<static_cast<unsigned>(n), detail::leaf_threads, 0, queue_->current()>>>(f, out);
    detail::cuda_check(cudaGetLastError(), "leaf_kernel");
  }

  template <class Scratch>
  void sort_by_key(std::int64_t const* keys, std::int64_t* sorted_keys, std::int32_t const* values,
                   std::int32_t* sorted_values, std::int64_t n, int bits, Scratch& scratch) const {
    with_scratch(scratch, [&](void* memory, std::size_t& bytes) {
      return cub::DeviceRadixSort::SortPairs(memory, bytes, keys, sorted_keys, values, sorted_values, n, 0, bits,
                                             stream());
    });
  }

  template <class F, class Scratch>
  void select(std::int64_t n, F const& f, std::int32_t* out, std::int32_t* count, Scratch& scratch) const {
    with_scratch(scratch, [&](void* memory, std::size_t& bytes) {
      return cub::DeviceSelect::If(memory, bytes, thrust::counting_iterator<std::int32_t>(0), out, count, n, f,
                                   stream());
    });
  }

  /// The same GPU, or one whose memory this one reaches: that of CUDA's pools and of cudaMalloc. Peer access is switched on
  /// when a pair of GPUs is first asked for; later answers cost no call of CUDA. @throws cuda_error
  bool can_access(cuda_device const& other) const {
    return id() == other.id() || detail::peers::instance().reaches(id(), other.id());
  }

  void wait_for(cuda_device const& other) const {
    if (queue_ == other.queue_ || stream() == other.stream()) return;
    detail::expects<capture_error>(!queue_->is_legacy() || !other.is_captured(), [&] {
      return name() + ": its stream is the legacy stream, which cannot wait for one that is being captured";
    });
    {
      detail::current_device const current(other.id());
      detail::cuda_check(cudaEventRecord(other.queue_->event, other.stream()), "cudaEventRecord");
    }
    detail::current_device const current(id());
    detail::cuda_check(cudaStreamWaitEvent(stream(), other.queue_->event, 0), "cudaStreamWaitEvent");
  }

  /// @throws cuda_error; capture_error while the stream is captured
  void synchronize() const {
    expect_uncaptured("a thread waits");
    detail::current_device const current(id());
    detail::cuda_check(cudaStreamSynchronize(queue_->current()), "cudaStreamSynchronize");
  }

  /// @throws as synchronize
  cuda_event record() const {
    expect_uncaptured("a thread asks for what is finished");
    return {id(), queue_->current()};
  }

  /// The same GPU and stream.
  friend bool operator==(cuda_device const& a, cuda_device const& b) noexcept {
    return a.queue_ == b.queue_ || (a.id() == b.id() && a.stream() == b.stream());
  }

 private:
  void expect_uncaptured(char const* what) const {
    detail::expects<capture_error>(queue_->is_aside() || !is_captured(), [&] {
      return name() + ": its stream is being captured, and " + what + ": do so before the capture, or after it";
    });
  }

  static int checked(int ordinal) {
    int count = 0;
    detail::cuda_check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    detail::expects<invalid_argument>(ordinal >= 0 && ordinal < count, [&] {
      return "cuda_device: an ordinal below " + std::to_string(count) + " expected, got " + std::to_string(ordinal);
    });
    return ordinal;
  }

  /// A CUB algorithm, called once for the bytes that it wants and once with them.
  template <class Scratch, class Algorithm>
  void with_scratch(Scratch& scratch, Algorithm const& algorithm) const {
    detail::current_device const current(id());
    std::size_t bytes = 0;
    detail::cuda_check(algorithm(nullptr, bytes), "CUB");
    detail::cuda_check(algorithm(scratch.take(bytes), bytes), "CUB");
  }

  std::shared_ptr<detail::cuda_queue> queue_;
};

/// See cuda_device::step_aside.
class cuda_device::aside {
 public:
  explicit aside(std::vector<cuda_device> const& devices) {
    queues_.reserve(devices.size());
    for (cuda_device const& device : devices) {
      detail::cuda_queue& queue = *device.queue_;
      detail::current_device const current(device.id());
      if (queue.side == nullptr)
        detail::cuda_check(cudaStreamCreateWithFlags(&queue.side, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
      queues_.push_back(&queue);
    }
    for (detail::cuda_queue* const queue : queues_) queue->aside = std::this_thread::get_id();
  }
  aside(aside const&) = delete;
  aside& operator=(aside const&) = delete;
  ~aside() {
    for (detail::cuda_queue* const queue : queues_) {
      static_cast<void>(cudaStreamSynchronize(queue->side));  // after an error, before memory is given back
      queue->aside = std::thread::id();
    }
  }

  /// Waits for the work. @throws cuda_error
  void finish() const {
    for (detail::cuda_queue const* const queue : queues_) {
      detail::current_device const current(queue->ordinal);
      detail::cuda_check(cudaStreamSynchronize(queue->side), "cudaStreamSynchronize");
    }
  }

 private:
  detail::relaxed_capture relaxed_;  // ends after the destructor's calls
  std::vector<detail::cuda_queue*> queues_;
};

inline cuda_device::aside cuda_device::step_aside(std::vector<cuda_device> const& devices) { return aside(devices); }

/// One device per GPU of the machine; none where there is no GPU or no driver.
inline std::vector<cuda_device> cuda_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return {};
  }
  std::vector<cuda_device> devices;
  for (int ordinal = 0; ordinal < count; ++ordinal) devices.emplace_back(ordinal);
  return devices;
}

static_assert(Device<cuda_device> && SortingDevice<cuda_device> && CapturingDevice<cuda_device>);

}  // namespace pushpull
