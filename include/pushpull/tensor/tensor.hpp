/// @file
/// Tensors that own their memory.
#pragma once

#include <concepts>
#include <cstddef>
#include <utility>
#include <vector>

#include <pushpull/concepts/tensor.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/bytes.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Dense elements on one device, zero at first. Move-only: copies go through `copy`, which says where they run.
template <ElementType T, Device D = cpu_device<>>
class tensor {
 public:
  using value_type = T;
  using device_type = D;

  /// Zeros of the given shape. Enqueued on `device`. @throws out_of_memory
  tensor(D const& device, pushpull::shape const& shape)
      : device_(device), shape_(shape), memory_(device, detail::bytes_of<out_of_memory, T>("tensor", shape)) {
    device_.fill_zero(memory_.data(), memory_.bytes());
  }

  T* data() noexcept { return static_cast<T*>(memory_.data()); }
  T const* data() const noexcept { return static_cast<T const*>(memory_.data()); }
  pushpull::shape const& shape() const noexcept { return shape_; }
  std::size_t size() const noexcept { return shape_.size(); }
  D const& device() const noexcept { return device_; }

  tensor_view<T, D> view() noexcept { return {data(), shape_, device_}; }
  tensor_view<T const, D> view() const noexcept { return {data(), shape_, device_}; }
  operator tensor_view<T, D>() noexcept { return view(); }
  operator tensor_view<T const, D>() const noexcept { return view(); }

 private:
  D device_;
  pushpull::shape shape_;
  buffer<D> memory_;
};

static_assert(Tensor<tensor<float>>);

}  // namespace pushpull
