/// @file
/// The check that elements of a foreign tensor are in row-major order and without gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::interop::detail {

/// @param stride  stride(axis) in elements. That of an axis with one element may be any.
/// @throws shape_mismatch
template <class Stride>
void expect_row_major(char const* call, shape const& extents, Stride const& stride) {
  std::int64_t expected = 1;
  for (std::size_t axis = extents.rank(); extents.size() > 0 && axis-- > 0;) {
    std::int64_t const found = stride(axis);
    pushpull::detail::expects<shape_mismatch>(extents[axis] == 1 || found == expected, [&] {
      return std::string(call) + ": contiguous elements in row-major order expected, got stride " +
             std::to_string(found) + " instead of " + std::to_string(expected) + " on axis " + std::to_string(axis) +
             " of shape " + to_string(extents) + "; make the tensor contiguous first";
    });
    expected *= extents[axis];
  }
}

}  // namespace pushpull::interop::detail
