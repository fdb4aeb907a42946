/// @file
/// Elementary functions of packs: xsimd's on a CPU's registers, libcu++'s on single elements. Within a few units in the
/// last place of the exact value; the two differ from each other by as much.
#pragma once

#include <concepts>
#include <type_traits>

#include <cuda/std/cmath>
#include <nv/target>
#include <pushpull/config.hpp>
#include <pushpull/registers/detail/register.hpp>
#include <pushpull/registers/pack.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Elementwise e^x.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> exp(pack<A, R> const& x) {
  if constexpr (std::same_as<A, R>) {
    return {static_cast<A>(cuda::std::exp(x.value))};
  } else {
    return {detail::simd_exp(x.value)};
  }
}

/// Elementwise natural logarithm: -infinity at 0, NaN below.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> log(pack<A, R> const& x) {
  if constexpr (std::same_as<A, R>) {
    return {static_cast<A>(cuda::std::log(x.value))};
  } else {
    return {detail::simd_log(x.value)};
  }
}

/// Elementwise sine of x radians.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> sin(pack<A, R> const& x) {
  if constexpr (std::same_as<A, R>) {
    return {static_cast<A>(cuda::std::sin(x.value))};
  } else {
    return {detail::simd_sin(x.value)};
  }
}

/// Elementwise cosine of x radians.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> cos(pack<A, R> const& x) {
  if constexpr (std::same_as<A, R>) {
    return {static_cast<A>(cuda::std::cos(x.value))};
  } else {
    return {detail::simd_cos(x.value)};
  }
}

/// Elementwise cosine of x half turns. On GPUs unlike cos it needs no table in local memory.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> cospi(pack<A, R> const& x) {
  if constexpr (std::same_as<A, R>) {
    NV_IF_ELSE_TARGET(NV_IS_DEVICE, (return {::cospi(x.value)};), (return cos(A(3.141592653589793) * x);))
  } else {
    return cos(A(3.141592653589793) * x);
  }
}

/// Elementwise x^y; one of the two may be an arithmetic scalar. One element at a time on CPUs.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> pow(pack<A, R> const& x, std::type_identity_t<pack<A, R>> const& y) {
  if constexpr (std::same_as<A, R>) {
    return {static_cast<A>(cuda::std::pow(x.value, y.value))};
  } else {
    return {detail::simd_pow(x.value, y.value)};
  }
}
/// The number x to the power of each element.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R, class T>
  requires std::is_arithmetic_v<T>
PUSHPULL_DEVICE_INLINE pack<A, R> pow(T x, pack<A, R> const& y) {
  return pow(pack<A, R>(x), y);
}

}  // namespace pushpull
