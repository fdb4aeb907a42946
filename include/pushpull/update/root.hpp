/// @file
/// The place of an epsilon in the denominators of adaptive rules, in which libraries differ. A tiny number replaces an
/// epsilon of 0, so that a moment that is still 0 gives the step 0, not 0 / 0.
#pragma once

#include <pushpull/config.hpp>
#include <pushpull/registers/pack.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

namespace detail {

/// An epsilon beside a root in packs `V`: at least the smallest root of a number with all its digits, 2^-63 in float.
template <class V>
PUSHPULL_DEVICE_INLINE double beside_root(double epsilon) {
  constexpr double least = smallest_root<typename V::element_type>;
  return epsilon < least ? least : epsilon;
}
/// An epsilon inside of a root, or beside a number that is no root: at least the smallest normal number.
template <class V>
PUSHPULL_DEVICE_INLINE double inside_root(double epsilon) {
  constexpr double least = smallest_normal<typename V::element_type>;
  return epsilon < least ? least : epsilon;
}

/// beta x of an average of squares, which may have overflowed: with a beta of 0 nothing is left of it. A branch would keep the
/// registers of a block apart.
PUSHPULL_EXEC_CHECK_DISABLE
template <class T, class V>
PUSHPULL_DEVICE_INLINE V faded(T beta, V const& x) {
  return pushpull::detail::product_unless(V(beta) < smallest_normal<typename V::element_type>, V(beta), x);
}

}  // namespace detail

/// sqrt(x) + epsilon: PyTorch, and most papers.
struct epsilon_outside_root {
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE static V root(V const& x, double epsilon) {
    return sqrt(x) + detail::beside_root<V>(epsilon);
  }
};

/// sqrt(x + epsilon): MXNet 1.x and DJL in some rules.
struct epsilon_inside_root {
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE static V root(V const& x, double epsilon) {
    return sqrt(x + detail::inside_root<V>(epsilon));
  }
};

}  // namespace pushpull::update
