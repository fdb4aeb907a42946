/// @file
/// Rounding that is right on average: what is too small for a narrow type moves it now and then instead of never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <cuda/std/bit>
#include <cuda/std/cmath>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/registers/pack.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// Whether numbers computed in `A` are rounded to `T` at random: float to half and bfloat16.
template <class T, class A>
inline constexpr bool can_round_stochastically =
    std::is_same_v<A, float> && (std::is_same_v<T, half> || std::is_same_v<T, bfloat16>);

namespace detail {

/// 64 bits that differ in half of their places from those of any near x: SplitMix64 (Steele, Lea & Flood 2014).
PUSHPULL_HOST_DEVICE inline std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}
/// Same as the overload for 64 bits, but of 32 bits, with multiplications that vector registers have.
PUSHPULL_HOST_DEVICE inline std::uint32_t mix(std::uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7FEB352DU;
  x = (x ^ (x >> 15)) * 0x846CA68BU;
  return x ^ (x >> 16);
}

/// The bits of a rounded number, at most `Largest` if the number itself is below `Infinite`. Both are bits of floats.
template <std::uint32_t Largest, std::uint32_t Infinite>
PUSHPULL_HOST_DEVICE std::uint32_t held(std::uint32_t bits, std::uint32_t rounded) {
  constexpr std::uint32_t magnitude = 0x7FFFFFFFU;
  bool const above = (rounded & magnitude) > Largest && (bits & magnitude) < Infinite;
  return above ? (bits & ~magnitude) | Largest : rounded;
}

/// One of the two numbers of type `T` around x, by a random number: the nearer one is as much likelier as it is nearer. Above the
/// largest number there is only infinity, and it takes what rounding to nearest makes infinite.
template <class T>
PUSHPULL_HOST_DEVICE float round_by(float x, std::uint32_t random) {
  std::uint32_t const bits = cuda::std::bit_cast<std::uint32_t>(x);
  std::uint32_t const exponent = bits & 0x7F800000U;
  if constexpr (std::is_same_v<T, bfloat16>) {  // the upper half of the bits; a carry goes on to the next magnitude
    std::uint32_t const rounded = held<0x7F7F0000U, 0x7F7F8000U>(bits, (bits + (random >> 16)) & 0xFFFF0000U);
    return exponent == 0x7F800000U ? x : cuda::std::bit_cast<float>(rounded);
  } else {  // 13 bits less; below 2^-14 the steps are 2^-24
    std::uint32_t const rounded = held<0x477FE000U, 0x477FF000U>(bits, (bits + (random >> 19)) & 0xFFFFE000U);
    float const tiny = cuda::std::floor(x * 0x1p24F + static_cast<float>(random >> 8) * 0x1p-24F) * 0x1p-24F;
    return exponent == 0x7F800000U ? x : exponent < 0x38800000U ? tiny : cuda::std::bit_cast<float>(rounded);
  }
}

}  // namespace detail

/// Elements first, first + 1, ... rounded to numbers of type `T` at random, with the exact value as the mean: the same
/// for the same element, step and array, whatever the devices. What `T` cannot hold becomes infinite, as else;
/// infinity and NaN stay.
/// @param t, array  The step, and the number of the array among those of a step: other numbers, independent rounding.
template <class T, class V>
PUSHPULL_DEVICE_INLINE V round_stochastically(V x, std::int64_t t, std::uint32_t array, std::int64_t first) {
  using A = typename V::element_type;
  if constexpr (can_round_stochastically<T, A>) {
    auto const element = static_cast<std::uint64_t>(first);
    std::uint64_t const key = detail::mix(detail::mix(static_cast<std::uint64_t>(t)) ^ (element >> 32) ^
                                          (static_cast<std::uint64_t>(array) << 32));
    auto const low = static_cast<std::uint32_t>(element);
    auto const random = [&](std::uint32_t lane) PUSHPULL_INLINE_LAMBDA {
      return detail::mix(detail::mix((low + lane) ^ static_cast<std::uint32_t>(key)) +
                         static_cast<std::uint32_t>(key >> 32));
    };
    if constexpr (V::size == 1) {
      x.value = detail::round_by<T>(x.value, random(0));
    } else {
      alignas(64) float lanes[V::size];
      for (std::size_t i = 0; i < V::size; ++i) lanes[i] = reinterpret_cast<float const*>(&x)[i];
      for (std::size_t i = 0; i < V::size; ++i)
        lanes[i] = detail::round_by<T>(lanes[i], random(static_cast<std::uint32_t>(i)));
      for (std::size_t i = 0; i < V::size; ++i) reinterpret_cast<float*>(&x)[i] = lanes[i];
    }
  }
  return x;
}

}  // namespace pushpull::pass
