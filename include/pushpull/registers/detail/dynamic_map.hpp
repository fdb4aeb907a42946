/// @file
/// The values of dynamic codes, and tables that find those of a number.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda/std/array>
#include <cuda/std/bit>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The 256 values of bitsandbytes' create_dynamic_map (Dettmers et al. 2021), 8-bit approximations of numbers between -1 and 1 or
/// between 0 and 1: decade number i of seven, from 10^-6 on, has 2^i values of each sign, or 2^(i+1) values, the middles of equal
/// parts of [0.1, 1] 10^(i-6). And 0, and 1.
/// @tparam Signed  Codes are then those of 0 and of positive values, and of negative values in two's complement; 1 has code -128.
template <bool Signed>
struct dynamic_map {
  static constexpr int positive = Signed ? 128 : 255;  ///< Number of positive values.

  cuda::std::array<float, 256> value{};  ///< Of each code.

  constexpr dynamic_map() {
    int m = 0;
    double scale = 1e-6;
    for (int decade = 0; decade < 7; ++decade, scale *= 10) {
      int const parts = Signed ? 1 << decade : 2 << decade;
      for (int k = 0; k < parts; ++k)
        value[static_cast<std::size_t>(++m)] = static_cast<float>(scale * (0.1 + 0.9 * (k + 0.5) / parts));
    }
    value[static_cast<std::size_t>(positive)] = 1;
    if constexpr (Signed)
      for (int i = 1; i < positive; ++i) value[static_cast<std::size_t>(256 - i)] = -value[static_cast<std::size_t>(i)];
  }
};

/// Tables that find the nearest value of a signed map.
struct dynamic_cells {
  static constexpr std::int32_t one = 0x3F800000;          ///< The bits of 1.
  static constexpr std::int32_t least = one - (23 << 23);  ///< Those of 2^-23: what is less is nearest to 0.
  static constexpr int dropped = 16;  ///< Between two numbers that agree in all other bits is at most one middle.
  static constexpr std::int32_t cells = ((one - least) >> dropped) + 1;

  cuda::std::array<std::int32_t, 256> middle{};  ///< middle[m]: the bits of the middle of values m and m + 1 >= 0.
  /// The first value m >= 0 in question for numbers of each cell, by their bits between `least` and `one`. Read as words.
  cuda::std::array<std::uint8_t, cells + 3> cell{};

  constexpr dynamic_cells() {
    dynamic_map<true> const map;
    for (std::size_t i = 0; i < 256; ++i) {
      float const between = i < map.positive ? (map.value[i] + map.value[i + 1]) / 2 : 2.0F;
      middle[i] = cuda::std::bit_cast<std::int32_t>(between);
    }
    std::size_t first = 0;
    for (std::int32_t c = 0; c < cells; ++c) {
      while (middle[first] <= least + (c << dropped)) ++first;
      cell[static_cast<std::size_t>(c)] = static_cast<std::uint8_t>(first);
    }
  }
};

/// Where a number is among the values of the unsigned map: m and a fraction between values m and m + 1. As a function of the number
/// that is made of lines, of which later ones are less steep. So the least of two lines gives it from a decade's first value to that
/// of the next: the line through the decade's values, and that from its last value on. Only the last line, before 1, is steeper
/// than the one before it, and counts as a decade of its own.
struct dynamic_lines {
  static constexpr std::size_t decades = 8;
  static constexpr int fraction = 20;  ///< Bits of places behind the point.

  cuda::std::array<std::int32_t, decades> first{};  ///< Bits of a decade's first value.
  cuda::std::array<float, decades> slope[2]{};
  cuda::std::array<std::int32_t, decades> offset[2]{};

  constexpr dynamic_lines() {
    double scale = 1e-6;
    for (std::size_t decade = 0; decade + 1 < decades; ++decade, scale *= 10) {
      int const parts = 2 << decade;
      double const step = scale * 0.9 / parts;
      set(0, decade, 1 / step, scale * 0.1 + step / 2, parts - 1);
      set(1, decade, 1 / (3 * step), scale - step / 2,
          2 * parts - 2);  // the next decade's steps are five times as long
    }
    constexpr double step = 0.9 / 128;
    set(1, decades - 2, 1 / step, 1 - step / 2, 254);
    for (std::size_t line = 0; line < 2; ++line) set(line, decades - 1, 2 / step, 1 - step / 2, 254);
    dynamic_map<false> const map;
    for (std::size_t decade = 0; decade < decades; ++decade)
      first[decade] = cuda::std::bit_cast<std::int32_t>(map.value[decade + 1 < decades ? (2U << decade) - 1 : 254]);
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
