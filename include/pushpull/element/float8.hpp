/// @file
/// 8-bit floating-point element types and their conversions from and to float.
#pragma once

#include <concepts>
#include <cstdint>

#include <cuda/std/bit>
#include <pushpull/config.hpp>

#if PUSHPULL_HAS_CUDA_FP8
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#endif

namespace pushpull::inline PUSHPULL_ABI {

#if PUSHPULL_HAS_CUDA_FP8
/// Four bits of exponent, three of mantissa (OCP's E4M3, "FN"): up to 448, NaN, no infinity. The CUDA Toolkit's type.
using float8_e4m3 = __nv_fp8_e4m3;
/// Five bits of exponent, two of mantissa (OCP's E5M2): the upper byte of a binary16, up to 57344. The CUDA Toolkit's
/// type.
using float8_e5m2 = __nv_fp8_e5m2;
#else
/// Four bits of exponent, three of mantissa (OCP's E4M3, "FN"), as storage: up to 448, NaN, no infinity. Arithmetic
/// happens in float.
struct float8_e4m3 {
  std::uint8_t bits;
};
/// Five bits of exponent, two of mantissa (OCP's E5M2), as storage: the upper byte of a binary16, up to 57344. Arithmetic
/// happens in float.
struct float8_e5m2 {
  std::uint8_t bits;
};
#endif

namespace detail {

/// An element type of 8 bits with an exponent.
template <class T>
concept Float8 = std::same_as<T, float8_e4m3> || std::same_as<T, float8_e5m2>;

/// The numbers that conversions need. All are of type int, as vectors of int compare in one instruction.
template <int Mantissa, int Bias, int Largest, int LastNumber>
struct float8_layout {
  static constexpr int largest = Largest;                           ///< The code of the largest finite value.
  static constexpr int last_number = LastNumber;                    ///< What lies above it is NaN.
  static constexpr int nan = 0x7F;                                  ///< The code that every NaN becomes.
  static constexpr int first_normal = 1 << Mantissa;                ///< The code of the least normal value,
  static constexpr int dropped = 23 - Mantissa;                     ///< the bits of mantissa that float has beyond it,
  static constexpr int rebias = (127 - Bias) << 23;                 ///< what a float's exponent has beyond its own,
  static constexpr int least_normal = rebias + (1 << 23);           ///< and that value as a float's bits.
  static constexpr int round_tiny = (151 - Bias - Mantissa) << 23;  ///< A float whose last bit is that of subnormals.
  static constexpr int round_normal = (1 << (dropped - 1)) - 1 - rebias;  ///< Added before the dropped bits go.
};

template <Float8 T>
struct float8_format : float8_layout<3, 7, 0x7E, 0x7E> {};
template <>
struct float8_format<float8_e5m2> : float8_layout<2, 15, 0x7B, 0x7C> {};

#if PUSHPULL_HAS_CUDA_FP8
template <Float8 T>
inline constexpr __nv_fp8_interpretation_t float8_interpretation = std::same_as<T, float8_e4m3> ? __NV_E4M3 : __NV_E5M2;
#endif

template <Float8 T>
PUSHPULL_HOST_DEVICE inline float float8_to_float(T x) {
  auto const code = cuda::std::bit_cast<std::uint8_t>(x);
#if PUSHPULL_HAS_FP8_INSTRUCTIONS
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, float8_interpretation<T>)));
#else
  using format = float8_format<T>;
  int const magnitude = code & 0x7F;
  int bits = (magnitude << format::dropped) + format::rebias;
  if (magnitude > format::largest) {
    bits |= magnitude > format::last_number ? 0x7FC00000 : 0x7F800000;
  } else if (magnitude < format::first_normal) {  // as if it had a leading one, and without it; no subnormal floats
    bits = cuda::std::bit_cast<int>(cuda::std::bit_cast<float>(bits + (1 << 23)) -
                                    cuda::std::bit_cast<float>(format::least_normal));
  }
  return cuda::std::bit_cast<float>(static_cast<std::uint32_t>(bits) | static_cast<std::uint32_t>(code & 0x80) << 24);
#endif
}

/// To nearest even; what is too large, infinity included, becomes the largest finite value, NaN the NaN 0x7F.
template <Float8 T>
PUSHPULL_HOST_DEVICE inline T float_to_float8(float x) {
#if PUSHPULL_HAS_FP8_INSTRUCTIONS
  return cuda::std::bit_cast<T>(
      static_cast<std::uint8_t>(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, float8_interpretation<T>)));
#else
  using format = float8_format<T>;
  auto const u = cuda::std::bit_cast<std::uint32_t>(x);
  int const sign = static_cast<int>(u >> 24 & 0x80U);
  int const magnitude = static_cast<int>(u & 0x7FFFFFFFU);
  int code = 0;
  if (magnitude > 0x7F800000) {
    code = format::nan;
  } else if (magnitude < format::least_normal) {  // the addition rounds to the last bit of a subnormal
    float const rounded = cuda::std::bit_cast<float>(magnitude) + cuda::std::bit_cast<float>(format::round_tiny);
    code = sign | (cuda::std::bit_cast<int>(rounded) - format::round_tiny);
  } else {
    code = (magnitude + format::round_normal + (magnitude >> format::dropped & 1)) >> format::dropped;
    code = sign | (code < format::largest ? code : format::largest);
  }
  return cuda::std::bit_cast<T>(static_cast<std::uint8_t>(code));
#endif
}

/// The float next to `x` whose last bit is odd, unless `x` is a float: rounded once more, to fewer bits, it becomes what
/// `x` itself would.
PUSHPULL_HOST_DEVICE inline float rounded_to_odd(double x) {
  auto const nearest = static_cast<float>(x);
  auto const wide = static_cast<double>(nearest);
  auto const bits = cuda::std::bit_cast<std::uint32_t>(nearest);
  if (!(wide < x || wide > x) || (bits & 1U) != 0) return nearest;
  bool const away = (wide > x) == (bits >> 31 == 0);  // from zero: never so for a zero
  return cuda::std::bit_cast<float>(away ? bits - 1 : bits + 1);
}

}  // namespace detail

}  // namespace pushpull
