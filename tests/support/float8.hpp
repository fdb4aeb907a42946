/// @file
/// The 8-bit floating-point types from their definition: slow, in double, with no bit trick of the library's.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <pushpull/element/dtype.hpp>
#include <random>
#include <type_traits>
#include <vector>

namespace pushpull::test {

template <class T>
inline constexpr bool is_e4m3 = std::is_same_v<T, float8_e4m3>;

/// What a code stands for.
template <class T>
double float8_value(unsigned code) {
  int const fraction_bits = is_e4m3<T> ? 3 : 2, bias = is_e4m3<T> ? 7 : 15;
  int const exponent = static_cast<int>(code & 0x7F) >> fraction_bits;
  int const fraction = static_cast<int>(code) & ((1 << fraction_bits) - 1);
  double magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias - fraction_bits)
                                   : std::ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
  if (is_e4m3<T> && (code & 0x7F) == 0x7F) magnitude = std::numeric_limits<double>::quiet_NaN();
  if (!is_e4m3<T> && exponent == 31) magnitude = fraction == 0 ? HUGE_VAL : std::numeric_limits<double>::quiet_NaN();
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

/// The codes of finite values without a sign, from zero to the largest.
template <class T>
inline constexpr unsigned finite_codes = is_e4m3<T> ? 0x7F : 0x7C;

/// The code of the finite value nearest to `x`, found by trying all; of two the even one.
template <class T>
std::uint8_t nearest_float8(double x) {
  static std::vector<double> const values = [] {
    std::vector<double> v;
    for (unsigned code = 0; code < finite_codes<T>; ++code) v.push_back(float8_value<T>(code));
    return v;
  }();
  if (std::isnan(x)) return 0x7F;
  double const magnitude = std::min(std::abs(x), 1e9);  // infinity is as far from all values
  unsigned best = 0;
  for (unsigned code = 1; code < values.size(); ++code) {
    double const now = std::abs(values[code] - magnitude), before = std::abs(values[best] - magnitude);
    if (now < before || (now == before && code % 2 == 0)) best = code;
  }
  return static_cast<std::uint8_t>(best | (std::signbit(x) ? 0x80U : 0U));
}

/// Floats that conversions to `T` must get right: all values of binary16 and of bfloat16, random floats of any size, and
/// around every value and every midpoint. Padded to a multiple of 64.
template <class T>
std::vector<float> float8_inputs() {
  std::vector<float> x;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    x.push_back(convert<float>(std::bit_cast<half>(static_cast<std::uint16_t>(bits))));
    x.push_back(std::bit_cast<float>(bits << 16));
  }
  std::mt19937 random(8);
  for (int i = 0; i < 100000; ++i) {
    x.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
    x.push_back(std::ldexp(static_cast<float>(random() % 65536) - 32768, static_cast<int>(random() % 40) - 36));
  }
  for (unsigned code = 0; code < finite_codes<T>; ++code) {
    double const low = float8_value<T>(code);  // beyond the largest value as if there were one more
    double const high = code + 1 < finite_codes<T> ? float8_value<T>(code + 1) : 2 * low - float8_value<T>(code - 1);
    for (double const at : {low, (low + high) / 2, high})
      for (float const edge : {static_cast<float>(at), std::nextafter(static_cast<float>(at), 0.0F),
                               std::nextafter(static_cast<float>(at), HUGE_VALF)}) {
        x.push_back(edge);
        x.push_back(-edge);
      }
  }
  x.resize((x.size() + 63) / 64 * 64);
  return x;
}

template <class T>
std::uint8_t code_of(T x) {
  return std::bit_cast<std::uint8_t>(x);
}

}  // namespace pushpull::test
