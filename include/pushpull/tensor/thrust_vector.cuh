/// @file
/// Thrust's vectors in GPU memory as tensors.
#pragma once

#include <cstdint>

#include <thrust/device_vector.h>
#include <pushpull/config.hpp>
#include <pushpull/device/cuda_device.cuh>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The view of a vector in the memory of `device`, as a tensor of rank 1. Thrust works on its vectors in the default
/// stream: synchronize with what it enqueued there before a store uses them on another.
template <ElementType T, class Allocator>
tensor_view<T, cuda_device> view_of(thrust::device_vector<T, Allocator>& vector, cuda_device const& device) {
  return {thrust::raw_pointer_cast(vector.data()), shape{static_cast<std::int64_t>(vector.size())}, device};
}
/// Same, of a vector that is only read.
template <ElementType T, class Allocator>
tensor_view<T const, cuda_device> view_of(thrust::device_vector<T, Allocator> const& vector,
                                          cuda_device const& device) {
  return {thrust::raw_pointer_cast(vector.data()), shape{static_cast<std::int64_t>(vector.size())}, device};
}

}  // namespace pushpull
