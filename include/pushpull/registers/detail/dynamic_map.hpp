/// @file
/// The values of dynamic codes, and lines that find a number among them.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda/std/array>
#include <cuda/std/bit>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Sizes of bitsandbytes' create_dynamic_map (Dettmers et al. 2021), 256 approximations of numbers between -1 and 1 or between 0 and 1:
/// decade number i of seven, from 10^-6 on, has 2^i values of each sign, or 2^(i+1) values, the middles of equal parts of
/// [0.1, 1] 10^(i-6). And 0, and 1.
/// @tparam Signed  Codes are then those of 0 and of positive values, and of negative values in two's complement; 1 has code -128.
template <bool Signed>
struct dynamic_sizes {
  static constexpr std::size_t decades = 7;
  static constexpr std::size_t one = Signed ? 128 : 255;  ///< The code of 1.

  static constexpr int parts(std::size_t decade) { return (Signed ? 1 : 2) << decade; }
  /// The code of a decade's first value.
  static constexpr std::size_t first(std::size_t decade) {
    return static_cast<std::size_t>(parts(decade)) - (Signed ? 0U : 1U);
  }
  static constexpr double greatest_of(std::size_t decade) {
    double result = 1;
    for (std::size_t d = decade + 1; d < decades; ++d) result /= 10;
    return result;
  }
};

/// The values. A code's magnitude, plus 1 without signs, is a number whose exponent counts the decades and whose mantissa f counts the
/// values of one: (f + shift) factor, in tables by the lowest three bits of the float's exponent.
template <bool Signed>
struct dynamic_map {
  using sizes = dynamic_sizes<Signed>;

  cuda::std::array<float, 8> shift{}, factor{};
  cuda::std::array<float, 256> value{};  ///< Of each code.

  constexpr dynamic_map() {
    for (std::size_t decade = 0; decade < sizes::decades; ++decade) {
      std::size_t const place = place_of(sizes::parts(decade));
      shift[place] = static_cast<float>(0.5 / sizes::parts(decade) - 1 + 1 / 9.0);
      factor[place] = static_cast<float>(0.9 * sizes::greatest_of(decade));
    }
    factor[place_of(2 * sizes::parts(sizes::decades - 1))] = 1;
    for (std::size_t code = 1; code <= sizes::one; ++code) {
      int const number = static_cast<int>(code) + (Signed ? 0 : 1);
      auto const bits = cuda::std::bit_cast<std::uint32_t>(static_cast<float>(number)) & 0x7FFFFFU;
      value[code] =
          (cuda::std::bit_cast<float>(bits | 0x3F800000U) + shift[place_of(number)]) * factor[place_of(number)];
      if (Signed && code < sizes::one) value[256 - code] = -value[code];
    }
  }

 private:
  static constexpr std::size_t place_of(int number) {
    return cuda::std::bit_cast<std::uint32_t>(static_cast<float>(number)) >> 23 & 7U;
  }
};

/// Where a number is among the values from 0 on: m and a fraction between values m and m + 1. As a function of the number that is made of
/// lines, of which later ones are less steep. So the least of two lines gives it from a decade's first value to that of the next:
/// the line through the decade's values, and that from its last value on. Only the last line, before 1, is steeper than the one
/// before it, and counts as a decade of its own. A first decade of one value has the line from 0 in the place of its own.
template <bool Signed>
struct dynamic_lines {
  using sizes = dynamic_sizes<Signed>;
  static constexpr std::size_t decades = sizes::decades + 1;
  static constexpr int fraction = 20;  ///< Bits of places behind the point.

  cuda::std::array<std::int32_t, decades> first{};  ///< Bits of a decade's first value.
  cuda::std::array<float, decades> slope[2]{};
  cuda::std::array<std::int32_t, decades> offset[2]{};

  constexpr dynamic_lines() {
    dynamic_map<Signed> const map;
    for (std::size_t decade = 0; decade < sizes::decades; ++decade) {
      int const parts = sizes::parts(decade);
      double const one = sizes::greatest_of(decade), step = one * 0.9 / parts;
      auto const code = static_cast<int>(sizes::first(decade));
      first[decade] = cuda::std::bit_cast<std::int32_t>(map.value[sizes::first(decade)]);
      set(0, decade, parts == 1 ? 1 / (one * 0.55) : 1 / step, one * 0.1 + step / 2, code);
      set(1, decade, 1 / (3 * step), one - step / 2,
          code + parts - 1);  // the next decade's steps are five times as long
    }
    constexpr std::size_t last = sizes::decades - 1;
    constexpr auto before_one = static_cast<int>(sizes::one) - 1;
    double const step = 0.9 / sizes::parts(last);
    set(1, last, 1 / step, 1 - step / 2, before_one);
    for (std::size_t line = 0; line < 2; ++line) set(line, last + 1, 2 / step, 1 - step / 2, before_one);
    first[last + 1] = cuda::std::bit_cast<std::int32_t>(map.value[sizes::one - 1]);
  }

 private:
  /// A line by its slope and a point of it.
  constexpr void set(std::size_t line, std::size_t decade, double rise, double x, int code) {
    constexpr double one = 1 << fraction;
    double const at_zero = (code - rise * x) * one;
    slope[line][decade] = static_cast<float>(rise * one);
    offset[line][decade] = static_cast<std::int32_t>(at_zero < 0 ? at_zero - 0.5 : at_zero + 0.5);
  }
};

}  // namespace pushpull::detail
