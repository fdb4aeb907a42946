/// @file
/// Scalar formulas that rules evaluate once per step, in double, on the host and in kernels.
#pragma once

#include <cstdint>

#include <cuda/std/cmath>
#include <cuda/std/limits>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/update/checks.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// 1 - beta^t, without the cancellation that the plain form suffers for beta close to 1 (Kingma & Ba 2015, section 3).
PUSHPULL_HOST_DEVICE inline double bias_correction(double beta, std::int64_t t) noexcept {
  return -cuda::std::expm1(static_cast<double>(t) * cuda::std::log(beta));
}

namespace detail {

using pushpull::detail::to_finite;

/// The part of a weight that a decay leaves, finite in `A`.
template <class A>
PUSHPULL_HOST_DEVICE A kept(double learning_rate, double weight_decay) noexcept {
  return to_finite<A>(1 - learning_rate * weight_decay);
}

/// The largest number of the elements of packs V.
template <class V>
inline constexpr double largest_number = cuda::std::numeric_limits<typename V::element_type>::max();
/// The smallest number of type A that has all its digits.
template <class A>
inline constexpr double smallest_normal = sizeof(A) == 4 ? 0x1p-126 : 0x1p-1022;
/// Its root: the smallest root of a number that has.
template <class A>
inline constexpr double smallest_root = sizeof(A) == 4 ? 0x1p-63 : 0x1p-511;

}  // namespace detail
}  // namespace pushpull::update
