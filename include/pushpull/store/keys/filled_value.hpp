/// @file
/// An initial value that is no tensor.
#pragma once

#include <cstddef>

#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// An initial value that `fill(record)` writes into memory of zeros.
template <class Fill>
struct filled_value {
  pushpull::shape extents;
  Fill fill;
  bool has_rows = false;  ///< It writes rows.

  pushpull::shape const& shape() const { return extents; }
  std::size_t size() const { return extents.size(); }
};

}  // namespace pushpull::detail
