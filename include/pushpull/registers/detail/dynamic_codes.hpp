/// @file
/// Codes of a dynamic map, from and to numbers in vector registers.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include <pushpull/config.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/registers/detail/code_words.hpp>
#include <pushpull/registers/detail/dynamic_map.hpp>
#include <pushpull/registers/detail/float8.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

#if !defined(__CUDA_ARCH__)

template <bool Signed>
inline constexpr dynamic_map<Signed> dynamic_map_of{};
template <bool Signed>
inline constexpr dynamic_lines<Signed> dynamic_lines_of{};

/// The values of codes.
template <bool Signed, class Batch>
PUSHPULL_HOST_INLINE Batch dynamic_values(std::uint8_t const* from) {
  auto const& map = dynamic_map_of<Signed>;
  words_of<Batch> code, number;
  if constexpr (Signed) {
    code = load_signed_bytes<Batch>(from);
    number = code < 0 ? -code : code;
  } else {
    code = load_bytes<Batch>(from);
    number = code + 1;
  }
  auto const bits = std::bit_cast<words_of<Batch>>(floats_from<Batch>(number).data);
  words_of<Batch> const exponent = bits >> 23, mantissa = (bits & 0x7FFFFF) | 0x3F800000, zero{};
  auto const table = [&](auto const& values)
                         PUSHPULL_INLINE_LAMBDA { return batch_of<Batch>(look_up<Batch>(values.data(), exponent)); };
  Batch const value = (batch_of<Batch>(mantissa) + table(map.shift)) * table(map.factor);
  words_of<Batch> result = std::bit_cast<words_of<Batch>>(value.data);
  if constexpr (Signed) result |= code > -128 ? code & static_cast<std::int32_t>(0x80000000U) : zero;
  return batch_of<Batch>(code != 0 ? result : zero);
}

/// The values from 0 on that are behind numbers between 0 and 1, by their bits, or the next ones: `rounding` is added to places between
/// two.
template <bool Signed, class Batch>
PUSHPULL_HOST_INLINE words_of<Batch> dynamic_numbers(words_of<Batch> const& bits, words_of<Batch> const& rounding) {
  auto const& lines = dynamic_lines_of<Signed>;
  words_of<Batch> decade{};
  static_for<dynamic_lines<Signed>::decades - 1>(
      [&](auto d) PUSHPULL_INLINE_LAMBDA { decade -= bits >= lines.first[d + 1]; });  // true is -1
  auto const place = [&](std::size_t line) PUSHPULL_INLINE_LAMBDA {
    auto const slope = batch_of<Batch>(look_up<Batch>(lines.slope[line].data(), decade));
    return wrapped_sum<Batch>(nearest_words(batch_of<Batch>(bits) * slope),
                              look_up<Batch>(lines.offset[line].data(), decade));
  };
  words_of<Batch> const of_decade = place(0), behind = place(1);
  words_of<Batch> const number = wrapped_sum<Batch>(of_decade < behind ? of_decade : behind, rounding);
  return number >> dynamic_lines<Signed>::fraction;
}

/// The codes of numbers between -1 and 1, or between 0 and 1. @param rounding  See encode_states; for unsigned codes.
template <bool Signed, class Batch>
PUSHPULL_HOST_INLINE words_of<Batch> dynamic_codes(Batch const& x, [[maybe_unused]] words_of<Batch> const& rounding) {
  words_of<Batch> const zero{}, bits = std::bit_cast<words_of<Batch>>(x.data);
  if constexpr (Signed) {
    words_of<Batch> const number = dynamic_numbers<true, Batch>(bits & 0x7FFFFFFF, zero + (1 << 19));
    return (bits < 0 ? (number > 127 ? zero - 127 : -number) : number) & 0xFF;
  } else {
    constexpr std::int32_t least = dynamic_lines_of<false>.first[0];
    words_of<Batch> const above = bits < least ? zero + least : bits;
    words_of<Batch> const number = dynamic_numbers<false, Batch>(above, (rounding & 0xFFF00) | 128);
    return bits > 0 ? (number > 255 ? zero + 255 : number) : zero;
  }
}

#endif

}  // namespace pushpull::detail
