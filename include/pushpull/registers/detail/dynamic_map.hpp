/// @file
/// The values of dynamic codes, and a table that finds the nearest.
#pragma once

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
  static constexpr std::int32_t one = 0x3F800000;          ///< The bits of 1.
  static constexpr std::int32_t least = one - (23 << 23);  ///< Those of 2^-23: what is less is nearest to 0.
  static constexpr int dropped = 16;  ///< Between two numbers that agree in all other bits is at most one middle.
  static constexpr std::int32_t cells = ((one - least) >> dropped) + 1;
  static constexpr int positive = Signed ? 128 : 255;  ///< Number of positive values.

  cuda::std::array<float, 256> value{};          ///< Of each code.
  cuda::std::array<std::int32_t, 256> middle{};  ///< middle[m]: the bits of the middle of values m and m + 1 >= 0.
  /// The first value m >= 0 in question for numbers of each cell, by their bits between `least` and `one`. Read as words.
  cuda::std::array<std::uint8_t, cells + 3> cell{};

  constexpr dynamic_map() {
    int m = 0;
    double scale = 1e-6;
    for (int decade = 0; decade < 7; ++decade, scale *= 10) {
      int const parts = Signed ? 1 << decade : 2 << decade;
      for (int k = 0; k < parts; ++k)
        value[static_cast<std::size_t>(++m)] = static_cast<float>(scale * (0.1 + 0.9 * (k + 0.5) / parts));
    }
    value[static_cast<std::size_t>(positive)] = 1;
    for (int i = 0; i < 256; ++i) {
      float const between =
          i < positive ? (value[static_cast<std::size_t>(i)] + value[static_cast<std::size_t>(i) + 1]) / 2 : 2.0F;
      middle[static_cast<std::size_t>(i)] = cuda::std::bit_cast<std::int32_t>(between);
    }
    int first = 0;
    for (std::int32_t c = 0; c < cells; ++c) {
      while (middle[static_cast<std::size_t>(first)] <= least + (c << dropped)) ++first;
      cell[static_cast<std::size_t>(c)] = static_cast<std::uint8_t>(first);
    }
    if constexpr (Signed)
      for (int i = 1; i < positive; ++i) value[static_cast<std::size_t>(256 - i)] = -value[static_cast<std::size_t>(i)];
  }
};

}  // namespace pushpull::detail
