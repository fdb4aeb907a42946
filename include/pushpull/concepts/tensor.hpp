/// @file
/// The concept of a tensor: a dense, contiguous block of elements with a shape, on a device.
#pragma once

#include <concepts>
#include <type_traits>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Needs:  value_type: an ElementType; device_type: a Device;
///         data() -> value_type* (or const): row-major, contiguous;
///         shape() -> pushpull::shape; device() -> device_type.
/// Models: tensor, tensor_view. Other types become views through `view_of`: see TensorLike.
template <class T>
concept Tensor = requires(T const& t) {
  typename T::value_type;
  typename T::device_type;
  requires ElementType<std::remove_const_t<typename T::value_type>>;
  requires Device<typename T::device_type>;
  { t.data() } -> std::convertible_to<typename T::value_type const*>;
  { t.shape() } -> std::convertible_to<pushpull::shape>;
  { t.device() } -> std::convertible_to<typename T::device_type>;
};

}  // namespace pushpull
