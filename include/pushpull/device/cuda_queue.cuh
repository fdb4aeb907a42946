/// @file
/// The stream of a CUDA device, with what orders other streams after it and what is done while it is captured.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/detail/cuda/check.cuh>
#include <pushpull/device/cuda_memory_resource.cuh>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// While it lives, the calling thread may make calls that are unsafe while a stream is captured: what they do is no part of
/// the graph.
class relaxed_capture {
 public:
  relaxed_capture() { cuda_check(cudaThreadExchangeStreamCaptureMode(&mode_), "cudaThreadExchangeStreamCaptureMode"); }
  relaxed_capture(relaxed_capture const&) = delete;
  relaxed_capture& operator=(relaxed_capture const&) = delete;
  ~relaxed_capture() { static_cast<void>(cudaThreadExchangeStreamCaptureMode(&mode_)); }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

/// A stream with the events that order others after it.
struct cuda_queue {
  int ordinal;
  cudaStream_t stream = nullptr;
  bool owned;
  cudaEvent_t event = nullptr;
  cuda_memory_resource* resource;
  cudaStream_t side = nullptr;                          ///< Of work that is not captured; made when first needed.
  std::atomic<std::thread::id> aside{};                 ///< The thread whose work goes there.
  std::mutex mutex;                                     ///< Of `released`.
  std::vector<std::pair<void*, std::size_t>> released;  ///< Memory that was given back meanwhile.
  std::atomic<bool> has_released = false;

  cuda_queue(int gpu, cuda_memory_resource& source, cudaStream_t given, bool own)
      : ordinal(gpu), stream(given), owned(own), resource(&source) {
    current_device const current(gpu);
    if (owned) cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    cudaError_t const created = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (created != cudaSuccess && owned) static_cast<void>(cudaStreamDestroy(stream));
    cuda_check(created, "cudaEventCreateWithFlags");
  }
  bool is_legacy() const noexcept { return stream == nullptr || stream == cudaStreamLegacy; }
  /// The stream that takes work.
  cudaStream_t current() const { return is_aside() ? side : stream; }
  /// Whether the calling thread's work goes to the side stream.
  bool is_aside() const noexcept { return aside.load(std::memory_order_relaxed) == std::this_thread::get_id(); }
  /// Whether the stream is being captured. The legacy stream cannot be.
  cudaStreamCaptureStatus capture_status() const noexcept {
    auto status = cudaStreamCaptureStatusNone;
    if (is_legacy()) return status;
    if (cudaStreamIsCapturing(stream, &status) != cudaSuccess) static_cast<void>(cudaGetLastError());
    return status;
  }
  /// Keeps memory until `give_back`. Where there is no memory to note it, it is lost.
  void keep(void* p, std::size_t bytes) noexcept {
    try {
      std::lock_guard const lock(mutex);
      released.emplace_back(p, bytes);
      has_released = true;
    } catch (std::exception const&) {
    }
  }
  void give_back() noexcept {
    std::vector<std::pair<void*, std::size_t>> own;
    {
      std::lock_guard const lock(mutex);
      own.swap(released);
      has_released = false;
    }
    int before = 0;
    static_cast<void>(cudaGetDevice(&before));
    static_cast<void>(cudaSetDevice(ordinal));
    for (auto const& [p, bytes] : own) resource->deallocate(p, bytes, stream);
    static_cast<void>(cudaSetDevice(before));
  }
  cuda_queue(cuda_queue const&) = delete;
  cuda_queue& operator=(cuda_queue const&) = delete;
  ~cuda_queue() {
    if (has_released) give_back();
    if (side != nullptr) static_cast<void>(cudaStreamDestroy(side));
    static_cast<void>(cudaEventDestroy(event));
    if (owned) static_cast<void>(cudaStreamDestroy(stream));
  }
};

}  // namespace pushpull::detail
