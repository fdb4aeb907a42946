/// @file
/// Tensors that somebody else owns.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ranges>
#include <string>
#include <type_traits>

#include <pushpull/concepts/tensor.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/bytes.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// A pointer with a shape and a device. `T` may be const. Does not own; the memory must outlive the view.
template <class T, Device D = cpu_device<>>
  requires ElementType<std::remove_const_t<T>>
class tensor_view {
 public:
  using value_type = T;
  using device_type = D;

  /// @throws invalid_argument if no memory can hold the shape
  tensor_view(T* data, pushpull::shape const& shape, D const& device) : data_(data), shape_(shape), device_(device) {
    detail::bytes_of<invalid_argument, std::remove_const_t<T>>("tensor_view", shape);
  }
  /// On the host, device 0.
  tensor_view(T* data, pushpull::shape const& shape)
    requires std::default_initializable<D>
      : tensor_view(data, shape, D()) {}
  /// A view that may write is also one that may not.
  template <class U>
    requires(std::is_const_v<T> && std::same_as<U const, T>)
  tensor_view(tensor_view<U, D> const& other) : tensor_view(other.data(), other.shape(), other.device()) {}

  T* data() const noexcept { return data_; }
  pushpull::shape const& shape() const noexcept { return shape_; }
  std::size_t size() const noexcept { return shape_.size(); }
  D const& device() const noexcept { return device_; }

 private:
  T* data_;
  pushpull::shape shape_;
  D device_;
};

template <class T, class D>
tensor_view(T*, shape, D) -> tensor_view<T, D>;
template <class T>
tensor_view(T*, shape) -> tensor_view<T, cpu_device<>>;

static_assert(Tensor<tensor_view<float>> && Tensor<tensor_view<double const>>);

/// The view of a tensor.
template <class T>
  requires Tensor<std::remove_cvref_t<T>>
auto view_of(T&& t) {
  auto* const data = t.data();
  return tensor_view<std::remove_pointer_t<decltype(data)>, typename std::remove_cvref_t<T>::device_type>(
      data, t.shape(), t.device());
}
/// The view itself.
template <class T, Device D>
tensor_view<T, D> view_of(tensor_view<T, D> const& t) {
  return t;
}

/// The view of a contiguous range of elements in host memory, as a vector of rank 1: std::vector, std::array,
/// std::span.
template <std::ranges::contiguous_range R>
  requires(!Tensor<std::remove_cvref_t<R>> && std::ranges::sized_range<R> && ElementType<std::ranges::range_value_t<R>>)
auto view_of(R&& range) {
  using element = std::remove_reference_t<std::ranges::range_reference_t<R>>;
  return tensor_view<element, cpu_device<>>(std::to_address(std::ranges::begin(range)),
                                            shape{static_cast<std::int64_t>(std::ranges::size(range))}, cpu_device<>());
}

namespace detail {

/// Eigen's matrices, maps and blocks, whose elements may have gaps.
template <class C>
concept Strided = requires(C const& c) {
  { c.innerStride() } -> std::integral;
  { c.outerStride() } -> std::integral;
  { c.innerSize() } -> std::integral;
  { c.outerSize() } -> std::integral;
};

}  // namespace detail

/// The same of other containers with `data()` and `size()`: thrust::host_vector, whose iterators C++20 does not know to
/// be contiguous; matrices, maps and blocks of Eigen, in the order of their memory.
/// @throws shape_mismatch for a map or a block whose elements are not contiguous
template <class C>
  requires(!Tensor<std::remove_cvref_t<C>> && !std::ranges::contiguous_range<C> &&
           requires(C& c) {
             { *c.data() } -> std::same_as<std::remove_pointer_t<decltype(c.data())>&>;
             { c.size() } -> std::integral;
             requires ElementType<std::remove_cv_t<std::remove_pointer_t<decltype(c.data())>>>;
           })
auto view_of(C&& container) {
  if constexpr (detail::Strided<std::remove_cvref_t<C>>)
    detail::expects<shape_mismatch>(
        container.size() == 0 || ((container.innerSize() == 1 || container.innerStride() == 1) &&
                                  (container.outerSize() == 1 || container.outerStride() == container.innerSize())),
        [] {
          return std::string(
              "view_of: contiguous elements expected, got a matrix or a vector with gaps: copy it first");
        });
  return tensor_view(container.data(), shape{static_cast<std::int64_t>(container.size())});
}

namespace detail {

template <class T>
inline constexpr bool is_tensor_view = false;
template <class T, class D>
inline constexpr bool is_tensor_view<tensor_view<T, D>> = true;

}  // namespace detail

/// Whatever `view_of` takes: a Tensor, or a contiguous range of elements in host memory.
template <class T>
concept TensorLike = requires(T&& t) { view_of(t); };

/// A TensorLike as an expression of type `T` that names memory which outlives the expression: a reference to a tensor,
/// or a view. A temporary that owns its elements is gone before a call that gathers several tensors reads it.
template <class T>
concept LastingTensorLike =
    TensorLike<T> && (std::is_lvalue_reference_v<T> || detail::is_tensor_view<std::remove_cvref_t<T>> ||
                      std::ranges::borrowed_range<T> ||
                      (Tensor<std::remove_cvref_t<T>> && std::is_trivially_copyable_v<std::remove_cvref_t<T>>));

/// The element type of a TensorLike, without const.
template <TensorLike T>
using element_of = std::remove_const_t<typename decltype(view_of(std::declval<T&>()))::value_type>;

/// A TensorLike with elements of type `E`.
template <class T, class E>
concept TensorLikeOf = TensorLike<T> && std::same_as<element_of<T>, E>;

/// As TensorLikeOf, and its elements can be written.
template <class T, class E>
concept WritableTensorLikeOf =
    TensorLikeOf<T, E> && !std::is_const_v<typename decltype(view_of(std::declval<T&>()))::value_type>;

/// A tensor that a call may write: not const, and no temporary.
template <class T>
concept OutputTensor = LastingTensorLike<T> && WritableTensorLikeOf<T, element_of<T>>;

}  // namespace pushpull
