/// @file
/// Wire formats of gradients that are not plain elements: how the pass finds and reads them.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>

#include <pushpull/config.hpp>
#include <pushpull/element/float8.hpp>

namespace pushpull::inline PUSHPULL_ABI::compress {

/// Four elements in a byte, the first in its highest two bits: 11 is one unit, 10 minus one, all else nothing.
struct two_bit_code {
  std::uint8_t bits;

  static constexpr std::size_t elements = 4;
  static constexpr std::size_t block_bytes = 4;  ///< On GPUs a thread takes as many elements as of a type of this size.

  /// Element number `i`, in units.
  PUSHPULL_HOST_DEVICE static constexpr float value(unsigned bits, std::size_t i) {
    unsigned const code = bits >> (6 - 2 * i) & 3U;
    return code == 3 ? 1.0F : (code == 2 ? -1.0F : 0.0F);
  }
};

/// Eight elements in a byte, the first in its highest bit: 1 is one unit, 0 minus one.
struct one_bit_code {
  std::uint8_t bits;

  static constexpr std::size_t elements = 8;
  static constexpr std::size_t block_bytes = 2;

  /// Element number `i`, in units.
  PUSHPULL_HOST_DEVICE static constexpr float value(unsigned bits, std::size_t i) {
    return (bits >> (7 - i) & 1U) != 0 ? 1.0F : -1.0F;
  }
};

/// Elements of 8 bits and one scale for all of them, which the pass reads where the encoder left it.
template <pushpull::detail::Float8 E>
struct scaled_code {
  struct source_type {
    E const* elements;
    float const* scale;  ///< A power of two, which an element is multiplied by.
  };
};

/// Few elements, the others are zero. For every block of 64 a mask, whose lowest bit stands for the first element, and
/// the number of values before the block. 12 bytes per block and 4 per value.
struct sparse_code {
  static constexpr std::int64_t block = 64;

  struct source_type {
    std::uint64_t const* masks;
    std::uint32_t const* offsets;
    float const* values;  ///< Of the whole key, wherever masks and offsets begin.
  };
};

}  // namespace pushpull::compress

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A type of which one object holds several elements.
template <class T>
concept Code = requires {
  { T::elements } -> std::convertible_to<std::size_t>;
  { T::value(0U, std::size_t{0}) } -> std::same_as<float>;
};

/// The operand of a pass over gradients `T` for one source.
template <class T>
struct source {
  using type = T const*;
};
/// Codes, and what is added to their unit: 0, or NaN where a gradient was not finite, which no code can say. All
/// elements of the source then are NaN.
template <Code T>
struct source<T> {
  struct type {
    T const* codes;
    float const* flaw;
  };
};
template <class T>
  requires requires { typename T::source_type; }
struct source<T> {
  using type = typename T::source_type;
};
template <class T>
using source_of = typename source<T>::type;

/// A type of gradients that the pass decodes, in memory that is padded to whole blocks.
template <class T>
concept Encoded = Code<T> || requires { typename T::source_type; };

/// Bytes of `elements` gradients of type T: of a sparse_code without its values, whose number is the device's.
template <class T>
constexpr std::int64_t encoded_bytes(std::int64_t elements) {
  if constexpr (Code<T>) {
    return elements / static_cast<std::int64_t>(T::elements);
  } else if constexpr (std::same_as<T, compress::sparse_code>) {
    return elements / T::block * 12;
  } else if constexpr (Encoded<T>) {
    return elements;  // scaled_code: of 8 bits
  } else {
    return elements * static_cast<std::int64_t>(sizeof(T));
  }
}

/// Bytes per element that choose a GPU thread's share.
template <class T>
inline constexpr std::size_t block_bytes = sizeof(T);
template <Code T>
inline constexpr std::size_t block_bytes<T> = T::block_bytes;
/// Eight elements, so accesses of 8 bytes: with sixteen a thread of Adam needs 96 registers instead of 58.
template <Float8 T>
inline constexpr std::size_t block_bytes<T> = 2;
template <Float8 T>
inline constexpr std::size_t block_bytes<compress::scaled_code<T>> = block_bytes<T>;
template <>
inline constexpr std::size_t block_bytes<compress::sparse_code> = sizeof(float);

/// All elements of all bytes, side by side: a CPU decodes by copying.
template <Code T>
inline constexpr auto decoded = [] {
  std::array<std::array<float, T::elements>, 256> table{};
  for (unsigned bits = 0; bits < 256; ++bits)
    for (std::size_t i = 0; i < T::elements; ++i) table[bits][i] = T::value(bits, i);
  return table;
}();

}  // namespace pushpull::detail
