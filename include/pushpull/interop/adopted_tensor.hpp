/// @file
/// Memory of another owner as a tensor, with the function that frees it.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/tensor.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::interop {

/// A Tensor over a pointer that its destructor frees. Move-only. The destructor does not wait: on GPUs synchronize the device first
/// if it still uses the memory.
/// @tparam Deleter  Deleter(T*) frees the memory, on the thread that destroys the tensor; must not throw.
template <class T, Device D, std::invocable<T*> Deleter>
  requires ElementType<std::remove_const_t<T>>
class adopted_tensor {
 public:
  using value_type = T;
  using device_type = D;

  /// The memory belongs to the tensor, also if this throws. @throws invalid_argument if no memory can hold the shape
  adopted_tensor(T* data, pushpull::shape const& shape, D const& device, Deleter deleter)
      : owner_(data, std::move(deleter)), view_(data, shape, device) {}

  T* data() const noexcept { return view_.data(); }
  pushpull::shape const& shape() const noexcept { return view_.shape(); }
  std::size_t size() const noexcept { return view_.size(); }
  D const& device() const noexcept { return view_.device(); }
  tensor_view<T, D> const& view() const noexcept { return view_; }

 private:
  std::unique_ptr<T, Deleter> owner_;
  tensor_view<T, D> view_;
};

}  // namespace pushpull::interop
