/// @file
/// Codes of a dynamic map, of numbers in vector registers.
#pragma once

#include <bit>
#include <cstddef>

#include <pushpull/config.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/registers/detail/code_words.hpp>
#include <pushpull/registers/detail/dynamic_map.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

#if !defined(__CUDA_ARCH__)

template <bool Signed>
inline constexpr dynamic_map<Signed> dynamic_map_of{};
inline constexpr dynamic_cells dynamic_cells_of_map{};
inline constexpr dynamic_lines dynamic_lines_of_map{};

/// The nearest codes of numbers between -1 and 1.
template <class Batch>
PUSHPULL_HOST_INLINE words_of<Batch> nearest_dynamic_codes(Batch const& x) {
  using map = dynamic_cells;
  auto const& tables = dynamic_cells_of_map;
  words_of<Batch> const zero{}, bits = std::bit_cast<words_of<Batch> >(x.data);
  words_of<Batch> magnitude = bits & 0x7FFFFFFF;
  magnitude = magnitude < map::least ? zero + map::least : magnitude;
  magnitude = magnitude > map::one ? zero + map::one : magnitude;
  words_of<Batch> number = gather_words<Batch, 1>(tables.cell.data(), (magnitude - map::least) >> map::dropped) & 0xFF;
  number -= gather_words<Batch, 4>(tables.middle.data(), number) <= magnitude;  // true is -1
  return (bits < 0 ? (number > 127 ? zero - 127 : -number) : number) & 0xFF;
}

/// Codes of numbers between 0 and 1, rounded up by how far they are behind a value and by `rounding`.
template <class Batch>
PUSHPULL_HOST_INLINE words_of<Batch> unsigned_dynamic_codes(Batch const& x, words_of<Batch> const& rounding) {
  auto const& lines = dynamic_lines_of_map;
  words_of<Batch> const zero{}, bits = std::bit_cast<words_of<Batch> >(x.data);
  words_of<Batch> const above = bits < lines.first[0] ? zero + lines.first[0] : bits;
  words_of<Batch> decade{};
  static_for<dynamic_lines::decades - 1>(
      [&](auto d) PUSHPULL_INLINE_LAMBDA { decade -= above >= lines.first[d + 1]; });  // true is -1
  auto const place = [&](std::size_t line) PUSHPULL_INLINE_LAMBDA {
    auto const slope = batch_of<Batch>(look_up<Batch>(lines.slope[line].data(), decade));
    return nearest_words(batch_of<Batch>(above) * slope) + look_up<Batch>(lines.offset[line].data(), decade);
  };
  words_of<Batch> const of_decade = place(0), behind = place(1);
  words_of<Batch> code = (of_decade < behind ? of_decade : behind) + ((rounding & -256) | 128);
  code >>= dynamic_lines::fraction;
  return bits > 0 ? (code > 255 ? zero + 255 : code) : zero;
}

#endif

}  // namespace pushpull::detail
