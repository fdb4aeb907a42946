/// @file
/// Where an epsilon stands in the denominators of adaptive rules: libraries differ.
#pragma once

#include <pushpull/config.hpp>
#include <pushpull/pass/pack.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// sqrt(x) + epsilon: PyTorch, and most papers.
struct epsilon_outside_root {
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE static V root(V const& x, double epsilon) {
    return sqrt(x) + epsilon;
  }
};

/// sqrt(x + epsilon): MXNet 1.x and DJL in some rules.
struct epsilon_inside_root {
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE static V root(V const& x, double epsilon) {
    return sqrt(x + epsilon);
  }
};

}  // namespace pushpull::update
