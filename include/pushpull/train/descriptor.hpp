/// @file
/// A description of an input, a label or an output: name, shape, element type and layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// The axis of the samples in a layout: the place of the letter N, 0 in an empty layout, -1 in a layout without N.
/// "NCHW" has axis 0, "TNC" axis 1, "HW" axis -1: no samples, every device gets the whole array.
inline int batch_axis(std::string_view layout) {
  if (layout.empty()) return 0;
  auto const place = layout.find('N');
  return place == layout.npos ? -1 : static_cast<int>(place);
}

/// An array of a batch, or one that an executor returns. `shape` has the rows of all devices.
struct descriptor {
  std::string name{};
  pushpull::shape shape{};
  std::string dtype = "float32";  ///< As dtype_traits<T>::name.
  std::string layout = "NCHW";    ///< One letter per axis; see train::batch_axis.

  /// The axis of the samples, or -1 if every device gets the whole array.
  int batch_axis() const { return train::batch_axis(layout); }

  /// The extent of the axis of the samples, or -1 if there is no such axis.
  /// @throws shape_mismatch if the shape has too few axes
  std::int64_t rows() const {
    int const axis = batch_axis();
    if (axis < 0) return -1;
    pushpull::detail::expects<shape_mismatch>(static_cast<std::size_t>(axis) < shape.rank(), [&] {
      return "descriptor \"" + name + "\": layout " + layout + " has samples on axis " + std::to_string(axis) +
             ", shape " + to_string(shape) + " has no such axis";
    });
    return shape[static_cast<std::size_t>(axis)];
  }

  friend bool operator==(descriptor const&, descriptor const&) = default;
};

/// The shape with another extent on one axis. An axis of -1 returns the shape as it is.
inline shape with_rows(shape const& whole, int axis, std::int64_t rows) {
  if (axis < 0) return whole;
  std::int64_t extents[shape::max_rank] = {};
  for (std::size_t i = 0; i < whole.rank(); ++i) extents[i] = i == static_cast<std::size_t>(axis) ? rows : whole[i];
  return shape(std::span<std::int64_t const>(extents, whole.rank()));
}

}  // namespace pushpull::train
