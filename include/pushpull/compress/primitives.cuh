/// @file
/// Whole-array primitives for encoders on GPUs: CUB's reduction, histogram and scan. None of them waits or allocates.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include <pushpull/config.hpp>

PUSHPULL_OTHERS_HEADERS_BEGIN
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <cub/device/device_histogram.cuh>
#include <cub/device/device_reduce.cuh>
#include <cub/device/device_scan.cuh>
#include <cuda/std/functional>
PUSHPULL_OTHERS_HEADERS_END

#include <pushpull/compress/primitives.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/detail/cuda/check.cuh>
#include <pushpull/registers/cuda_execution.cuh>

namespace pushpull::inline PUSHPULL_ABI::compress {

namespace detail {

/// Bits of element number i, or 0 if it is not finite.
template <class T>
struct finite_magnitude {
  addends<T> sum;

  __host__ __device__ std::uint32_t operator()(std::int64_t i) const {
    std::uint32_t const bits = magnitude_bits(sum[i]);
    return bits < 0x7F800000U ? bits : 0;
  }
};

struct larger {
  __host__ __device__ std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a < b ? b : a; }
};

}  // namespace detail

/// As on CPUs.
template <>
struct primitives<pass::cuda_execution> {
  /// CUB counts up to 256 bins in shared memory.
  static constexpr int digit_bits = 8;

 private:
  // CUB's functions tell their scratch memory's size if they are given none.

  template <class T>
  static auto max_magnitude_of(addends<T> const& sum, std::uint32_t* to) {
    return [=](void* scratch, std::size_t& bytes, cudaStream_t stream) {
      return cub::DeviceReduce::TransformReduce(scratch, bytes, thrust::counting_iterator<std::int64_t>(0), to,
                                                sum.size, detail::larger{}, detail::finite_magnitude<T>{sum},
                                                std::uint32_t{0}, stream);
    };
  }
  template <class Digit>
  static auto histogram_of(Digit const& digit, float const* from, std::int64_t size, std::uint32_t* counts) {
    return [=](void* scratch, std::size_t& bytes, cudaStream_t stream) {
      constexpr std::int32_t bins = 1 << digit_bits;
      return cub::DeviceHistogram::HistogramEven(scratch, bytes, thrust::transform_iterator(from, digit), counts,
                                                 bins + 1, std::int32_t{0}, bins, size, stream);
    };
  }
  template <class T>  // so that only who selects compiles it
  static auto exclusive_sum_of(T* x, std::int64_t size) {
    return [=](void* scratch, std::size_t& bytes, cudaStream_t stream) {
      return cub::DeviceScan::ExclusiveSum(scratch, bytes, x, x, size, stream);
    };
  }

 public:
  template <class T, Device D>
  static std::size_t max_magnitude_bytes(D const& device, std::int64_t size) {
    return bytes_of(device, max_magnitude_of(addends<T>(nullptr, nullptr, size), nullptr));
  }
  template <Device D, class T>
  static void max_magnitude(D const& device, addends<T> const& sum, void* scratch, std::uint32_t* to) {
    run(device, scratch, max_magnitude_of(sum, to));
  }

  template <class Digit, Device D>
  static std::size_t histogram_bytes(D const& device, std::int64_t size) {
    return bytes_of(device, histogram_of(Digit{}, nullptr, size, nullptr));
  }
  template <Device D, class Digit>
  static void histogram(D const& device, Digit const& digit, float const* from, std::int64_t size, void* scratch,
                        std::uint32_t* counts) {
    run(device, scratch, histogram_of(digit, from, size, counts));
  }

  template <Device D>
  static std::size_t exclusive_sum_bytes(D const& device, std::int64_t size) {
    return bytes_of(device, exclusive_sum_of<std::uint64_t>(nullptr, size));
  }
  template <Device D>
  static void exclusive_sum(D const& device, std::uint64_t* x, std::int64_t size, void* scratch) {
    run(device, scratch, exclusive_sum_of(x, size));
  }

 private:
  template <Device D, class Call>
  static std::size_t bytes_of(D const& device, Call const& call) {
    pushpull::detail::current_device const current(device.id());
    std::size_t bytes = 0;
    pushpull::detail::cuda_check(call(nullptr, bytes, device.stream()), "cub");
    return bytes;
  }
  template <Device D, class Call>
  static void run(D const& device, void* scratch, Call const& call) {
    pushpull::detail::current_device const current(device.id());
    std::size_t bytes = 0;
    pushpull::detail::cuda_check(call(nullptr, bytes, device.stream()), "cub");
    pushpull::detail::cuda_check(call(scratch, bytes, device.stream()), "cub");
  }
};

}  // namespace pushpull::compress
