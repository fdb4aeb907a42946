/// @file
/// The concept of a row-sparse tensor: some rows of a larger tensor.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// A row is all elements at one index of the first dimension. Rows that are not listed are zero.
/// Needs:  value_type: an ElementType; device_type: a Device;
///         shape() -> pushpull::shape of the whole tensor, of rank 1 or more;
///         rows(): how many rows are listed, 0 or more;
///         values() -> value_type* (or const): rows() rows, contiguous;
///         row_ids() -> std::int64_t const*: which row each of them is, in any order, repeated ones to be added;
///         device() -> device_type, which holds both.
/// Models: row_sparse, row_sparse_view. It is no Tensor.
template <class T>
concept RowSparseTensor = requires(T const& t) {
  typename T::value_type;
  typename T::device_type;
  requires ElementType<std::remove_const_t<typename T::value_type>>;
  requires Device<typename T::device_type>;
  { t.values() } -> std::convertible_to<typename T::value_type const*>;
  { t.row_ids() } -> std::convertible_to<std::int64_t const*>;
  { t.rows() } -> std::convertible_to<std::int64_t>;
  { t.shape() } -> std::convertible_to<pushpull::shape>;
  { t.device() } -> std::convertible_to<typename T::device_type>;
};

}  // namespace pushpull
