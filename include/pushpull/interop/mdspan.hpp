/// @file
/// Multidimensional spans as tensors, without copies: std::mdspan where the standard library has it, and cuda::std::mdspan.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include <cuda/std/mdspan>
#if __has_include(<mdspan>)
#include <mdspan>
#endif
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/interop/detail/row_major.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// A span over several dimensions whose elements are plain memory.
template <class S>
concept Mdspan = requires(S const& s) {
  typename S::layout_type;
  typename S::accessor_type;
  requires std::same_as<typename S::data_handle_type, typename S::element_type*>;
  requires std::same_as<typename S::reference, typename S::element_type&>;
  { s.data_handle() } -> std::convertible_to<typename S::element_type*>;
  { S::rank() } -> std::convertible_to<std::size_t>;
  { s.is_exhaustive() } -> std::convertible_to<bool>;
  requires ElementType<typename S::value_type>;
};

template <class S>
shape shape_of_mdspan(S const& span) {
  std::array<std::int64_t, (S::rank() > 0 ? S::rank() : 1)> extents{};
  for (std::size_t axis = 0; axis < S::rank(); ++axis)
    extents[axis] = static_cast<std::int64_t>(span.extent(static_cast<typename S::rank_type>(axis)));
  return shape(std::span<std::int64_t const>(extents.data(), S::rank()));
}

}  // namespace detail

/// The view of an mdspan over memory of `device`. No copy.
/// @throws shape_mismatch unless the elements are row-major and without gaps
template <detail::Mdspan S, Device D>
tensor_view<typename S::element_type, D> view_of(S const& span, D const& device) {
  shape const extents = detail::shape_of_mdspan(span);
  if constexpr (S::rank() > 0)
    interop::detail::expect_row_major("view_of", extents, [&](std::size_t axis) {
      return static_cast<std::int64_t>(span.stride(static_cast<typename S::rank_type>(axis)));
    });
  return {span.data_handle(), extents, device};
}
/// In host memory, on device 0.
template <detail::Mdspan S>
tensor_view<typename S::element_type> view_of(S const& span) {
  return view_of(span, cpu_device<>());
}

}  // namespace pushpull
