/// @file
/// The element types of tensors and what the library knows about each.
#pragma once

#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <cuda/std/bit>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/element/float8.hpp>

#if PUSHPULL_HAS_CUDA_FP16
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace pushpull::inline PUSHPULL_ABI {

#if PUSHPULL_HAS_CUDA_FP16
/// IEEE 754 binary16: the CUDA Toolkit's type.
using half = __half;
/// The upper 16 bits of a float: the CUDA Toolkit's type.
using bfloat16 = __nv_bfloat16;
#else
/// IEEE 754 binary16, as storage. Arithmetic happens in float.
struct half {
  std::uint16_t bits;
};
/// The upper 16 bits of a float, as storage. Arithmetic happens in float.
struct bfloat16 {
  std::uint16_t bits;
};
#endif

/// The traits of element type `T`: its `name` and the type `accumulation` that sums and rules compute
/// in. Empty for every type that tensors cannot hold.
template <class T>
struct dtype_traits {};

// clang-format off
template <> struct dtype_traits<float>        { static constexpr std::string_view name = "float32";  using accumulation = float; };
template <> struct dtype_traits<double>       { static constexpr std::string_view name = "float64";  using accumulation = double; };
template <> struct dtype_traits<half>         { static constexpr std::string_view name = "float16";  using accumulation = float; };
template <> struct dtype_traits<bfloat16>     { static constexpr std::string_view name = "bfloat16"; using accumulation = float; };
template <> struct dtype_traits<float8_e4m3>  { static constexpr std::string_view name = "float8_e4m3fn"; using accumulation = float; };
template <> struct dtype_traits<float8_e5m2>  { static constexpr std::string_view name = "float8_e5m2"; using accumulation = float; };
template <> struct dtype_traits<std::int32_t> { static constexpr std::string_view name = "int32";    using accumulation = std::int64_t; };
template <> struct dtype_traits<std::int64_t> { static constexpr std::string_view name = "int64";    using accumulation = std::int64_t; };
template <> struct dtype_traits<std::uint8_t> { static constexpr std::string_view name = "uint8";    using accumulation = std::int64_t; };
// clang-format on

/// A type that tensors can hold.
template <class T>
concept ElementType = requires { typename dtype_traits<T>::accumulation; };

/// A type that rules can update: float, double, half, bfloat16. Those of 8 bits are none: a weight would stay where it
/// is unless it moved by a sixteenth, and range needs a scale per tensor. They are for compressed gradients, copies
/// and the outputs of pull.
template <class T>
concept FloatingElement =
    ElementType<T> && std::floating_point<typename dtype_traits<T>::accumulation> && !detail::Float8<T>;

/// The type that sums and rules over elements of type `T` are computed in. Integers use 64 bits.
template <ElementType T>
using accumulation_t = typename dtype_traits<T>::accumulation;

namespace detail {

PUSHPULL_HOST_DEVICE inline float bits_to_float(std::uint32_t bits) { return cuda::std::bit_cast<float>(bits); }
PUSHPULL_HOST_DEVICE inline std::uint32_t float_to_bits(float x) { return cuda::std::bit_cast<std::uint32_t>(x); }

template <class T>
PUSHPULL_HOST_DEVICE inline std::uint16_t storage_bits(T x) {
  return cuda::std::bit_cast<std::uint16_t>(x);
}

/// float to bfloat16, to nearest even; NaN stays NaN.
PUSHPULL_HOST_DEVICE inline std::uint16_t bfloat16_bits(float x) {
  std::uint32_t const u = float_to_bits(x);
  if ((u & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>((u >> 16) | 0x40U);
  return static_cast<std::uint16_t>((u + 0x7FFFU + ((u >> 16) & 1U)) >> 16);
}

/// float to binary16, to nearest even; NaN stays NaN, large values become infinite, small ones subnormal.
PUSHPULL_HOST_DEVICE inline std::uint16_t half_bits(float x) {
  std::uint32_t const u = float_to_bits(x);
  std::uint32_t const sign = (u >> 16) & 0x8000U;
  std::uint32_t const magnitude = u & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return static_cast<std::uint16_t>(sign | 0x7E00U | ((magnitude >> 13) & 0x3FFU));
  if (magnitude >= 0x477FF000U) return static_cast<std::uint16_t>(sign | 0x7C00U);
  if (magnitude < 0x38800000U)  // the addition rounds a subnormal to the last bit of a binary16
    return static_cast<std::uint16_t>(sign | (float_to_bits(bits_to_float(magnitude) + 0.5F) - 0x3F000000U));
  return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000U + 0xFFFU + ((magnitude >> 13) & 1U)) >> 13));
}

PUSHPULL_HOST_DEVICE inline float half_to_float(std::uint16_t h) {
  std::uint32_t const sign = (h & 0x8000U) << 16;
  std::uint32_t const magnitude = h & 0x7FFFU;
  if (magnitude >= 0x7C00U) return bits_to_float(sign | 0x7F800000U | ((magnitude & 0x3FFU) << 13));
  if (magnitude >= 0x400U) return bits_to_float(sign | ((magnitude << 13) + 0x38000000U));
  return bits_to_float(sign | float_to_bits(static_cast<float>(magnitude) * 0x1p-24F));
}

}  // namespace detail

/// Converts between element types and accumulation types: rounds to nearest even. Integers become narrower ones by
/// their lower bits. Floating-point numbers become integers towards zero, what is out of range becomes the nearest
/// integer that is not, NaN becomes 0. In 8 bits what is too large becomes the largest finite value, infinity too; NaN
/// stays NaN.
template <class To, class From>
PUSHPULL_HOST_DEVICE To convert(From x) {
  if constexpr (std::same_as<To, From>) {
    return x;
  } else if constexpr (std::same_as<From, bfloat16>) {
    return convert<To>(detail::bits_to_float(static_cast<std::uint32_t>(detail::storage_bits(x)) << 16));
  } else if constexpr (std::same_as<From, half>) {
#if defined(__CUDA_ARCH__)
    return convert<To>(__half2float(x));
#else
    return convert<To>(detail::half_to_float(detail::storage_bits(x)));
#endif
  } else if constexpr (detail::Float8<From>) {
    return convert<To>(detail::float8_to_float(x));
  } else if constexpr (detail::Float8<To>) {
    if constexpr (std::same_as<From, double>) {
      return detail::float_to_float8<To>(detail::rounded_to_odd(x));
    } else {
      return detail::float_to_float8<To>(static_cast<float>(x));
    }
  } else if constexpr (std::same_as<To, bfloat16>) {
#if defined(__CUDA_ARCH__)
    return __float2bfloat16_rn(static_cast<float>(x));
#else
    return cuda::std::bit_cast<bfloat16>(detail::bfloat16_bits(static_cast<float>(x)));
#endif
  } else if constexpr (std::same_as<To, half>) {
#if defined(__CUDA_ARCH__)
    return __float2half_rn(static_cast<float>(x));
#else
    return cuda::std::bit_cast<half>(detail::half_bits(static_cast<float>(x)));
#endif
  } else if constexpr (std::integral<To> && std::floating_point<From>) {
    return detail::to_integer<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

}  // namespace pushpull
