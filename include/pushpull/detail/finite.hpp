/// @file
/// Whether a number is finite, by its bits: -ffast-math and -ffinite-math-only let compilers take any other test for
/// true.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <cuda/std/bit>
#include <cuda/std/limits>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The layout of the bits of `A`, which is float or double.
template <std::floating_point A>
struct float_bits {
  using word = std::conditional_t<sizeof(A) == 4, std::uint32_t, std::uint64_t>;
  static constexpr word sign = word{1} << (8 * sizeof(A) - 1);
  static constexpr word infinity = sizeof(A) == 4 ? word{0x7F800000} : static_cast<word>(0x7FF0000000000000);
  /// Added to a magnitude, the first carries infinity and NaN into the sign bit, the second only NaN.
  static constexpr word from_infinity = sign - infinity;
  static constexpr word from_nan = from_infinity - 1;
};

template <std::floating_point A>
PUSHPULL_HOST_DEVICE constexpr bool is_finite(A x) {
  using bits = float_bits<A>;
  return (cuda::std::bit_cast<typename bits::word>(x) & bits::infinity) != bits::infinity;
}
template <std::floating_point A>
PUSHPULL_HOST_DEVICE constexpr bool is_nan(A x) {
  using bits = float_bits<A>;
  return (cuda::std::bit_cast<typename bits::word>(x) & ~bits::sign) > bits::infinity;
}

/// `x` as an `A`, with the largest finite `A` in the place of what is larger. Infinity and NaN stay.
template <std::floating_point A>
PUSHPULL_HOST_DEVICE constexpr A to_finite(double x) {
  constexpr A largest = cuda::std::numeric_limits<A>::max();
  if constexpr (sizeof(A) < sizeof(double)) {
    if (is_finite(x)) {
      if (x > static_cast<double>(largest)) return largest;
      if (x < -static_cast<double>(largest)) return -largest;
    }
  }
  return static_cast<A>(x);
}

/// Truncates. A value outside the range of `To` becomes its nearest value, NaN becomes 0.
template <std::integral To, std::floating_point From>
PUSHPULL_HOST_DEVICE constexpr To to_integer(From x) {
  using limits = cuda::std::numeric_limits<To>;
  constexpr From lowest = static_cast<From>(limits::min());                   // exact,
  constexpr From bound = From(2) * static_cast<From>(limits::max() / 2 + 1);  // and so is this
  if (is_nan(x)) return 0;
  if (x <= lowest) return limits::min();
  if (x >= bound) return limits::max();
  return static_cast<To>(x);
}

}  // namespace pushpull::detail
