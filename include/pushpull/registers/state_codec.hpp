/// @file
/// Codecs: states of a rule as codes of 8 or 4 bits, with one scale for each block of elements.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include <cuda/std/bit>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/element/float8.hpp>
#include <pushpull/registers/code.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// How states of a rule are stored: as codes of 8 or 4 bits, and a number for each block of elements that gives their unit.
/// Decoded states are encoded to the same values, so states that were saved and loaded continue bit for bit. A block that holds an
/// infinity or a NaN is NaN. An unsigned codec takes no negative states: name the state that it is for with codec::of. One that
/// rounds at random makes a running maximum drift upwards, to the next value.
namespace codec {

/// 255 equal steps from the block's greatest magnitude to its negative. For momentum; of states by whose root a rule divides
/// use unsigned_float8. A step of the pass rounds at random, with the exact value as the mean: rounded to nearest, small codes would
/// never decay. The unit is a 127th of the greatest magnitude, of which 16 bits are kept.
struct linear {
  static constexpr bool rounds_at_random = true;
  static constexpr float greatest = 127;
  static constexpr float value(std::uint8_t code, float unit) {
    return static_cast<float>(static_cast<std::int8_t>(code)) * unit;
  }
};

/// 256 equal steps from 0 to the block's greatest state. Codes are signed, and -128 is 0.
struct unsigned_linear {
  static constexpr float greatest = 255;
  static constexpr int middle = 128;  ///< What code 0 stands for.
  static constexpr float value(std::uint8_t code, float unit) {
    return static_cast<float>(static_cast<std::int8_t>(code) + middle) * unit;
  }
};

/// OCP's E4M3: a sign, four bits of exponent, three of mantissa. Steps of 1/8 to 1/16 of a magnitude over 15 octaves, finer
/// ones below, and 0.
struct float8 {
  static constexpr float greatest = 448;
  static float value(std::uint8_t code, float unit) {
    return detail::float8_to_float(cuda::std::bit_cast<float8_e4m3>(code)) * unit;
  }
};

/// Five bits of exponent, three of mantissa, no sign: steps of 1/8 to 1/16 over the 32 octaves below the block's greatest
/// state. No element is 0 unless its block is, or the element is below 2^-126: what is less becomes the least. For second
/// moments, by whose root rules divide. They change by a thousandth in a step, so a step of the pass rounds at random, with
/// the exact value as the mean. Codes are signed; the unit holds the bits that a code's are added to.
struct unsigned_float8 {
  static constexpr bool rounds_at_random = true;
  static constexpr int dropped = 20;  ///< Bits of a float's mantissa beyond the code's.
  static constexpr int step = 1 << dropped;
  static constexpr float value(std::uint8_t code, float unit) {
    int const bits = static_cast<int>(static_cast<std::int8_t>(code)) * step;
    return cuda::std::bit_cast<float>(bits + cuda::std::bit_cast<int>(unit));
  }
};

/// bitsandbytes' signed 8-bit states (Dettmers et al. 2021): seven decades below the block's greatest magnitude, of which a decade has
/// twice the values of the one below it, and 0. Rounded to nearest, as there. Only one sign has the greatest magnitude itself:
/// that of the state that has it, since the unit has a sign. For momentum.
struct dynamic {
  static constexpr bool is_signed = true;
};

/// The values of its unsigned states, with twice the values in a decade. What is less than the least value becomes that, unless
/// it is 0, so rules do not divide by epsilon alone. A step of the pass rounds at random, with the exact value as the mean;
/// bitsandbytes rounds to nearest, and then a second moment stays where it is until gradients are several times as great.
struct unsigned_dynamic {
  static constexpr bool rounds_at_random = true;
  static constexpr bool is_signed = false;
};

/// One bit of mantissa and no sign in codes of 4 bits: steps of a half or a third of a state over the eight octaves below the block's
/// greatest. For second moments, which have such ranges. Otherwise as unsigned_float8. Two codes are in a byte; an element of even number
/// has the lower half.
struct unsigned_float4 {
  static constexpr bool rounds_at_random = true;
  static constexpr int bits = 4;
  static constexpr int dropped = 22;
  static constexpr int step = 1 << dropped;
  static constexpr float value(std::uint8_t code, float unit) {
    return cuda::std::bit_cast<float>(code * step + cuda::std::bit_cast<int>(unit));
  }
};

/// A code's name, where a rule's states have several: `codec::of<"exp_avg", codec::linear>`.
template <std::size_t N>
struct state_name {
  char text[N];
  consteval state_name(char const (&given)[N]) {
    for (std::size_t i = 0; i < N; ++i) text[i] = given[i];
  }
};

/// The state of this name is stored by `Codec`.
template <state_name Name, class Codec>
struct of {
  static constexpr auto name = Name;
  using codec = Codec;
};

/// Not encoded: elements of the type that the store computes in.
struct none {};

}  // namespace codec

namespace detail {

/// Finds its values in a table.
template <class C>
concept DynamicCodec = std::same_as<C, codec::dynamic> || std::same_as<C, codec::unsigned_dynamic>;

/// Finds its values among floats of few bits, by adding bits.
template <class C>
concept FloatBitsCodec = std::same_as<C, codec::unsigned_float8> || std::same_as<C, codec::unsigned_float4>;

/// Stores states as codes.
template <class C>
concept StateCodec = std::same_as<C, codec::linear> || std::same_as<C, codec::unsigned_linear> ||
                     std::same_as<C, codec::float8> || FloatBitsCodec<C> || DynamicCodec<C>;

/// Whether the unit is negative where the block's greatest magnitude is that of a negative state alone.
template <class C>
inline constexpr bool has_signed_unit = std::same_as<C, codec::dynamic>;

/// Bits of an element in memory, without its share of a unit.
template <class C>
inline constexpr int code_bits = StateCodec<C> ? 8 : 32;
template <class C>
  requires requires { C::bits; }
inline constexpr int code_bits<C> = C::bits;

/// The codec's greatest code and its least.
template <class C>
inline constexpr int greatest_code = code_bits<C> == 4 ? 15 : 127;
template <class C>
inline constexpr int least_code = code_bits<C> == 4 ? 0 : -128;

/// Whether codes of the codec are rounded at random.
template <class C>
inline constexpr bool rounds_at_random = requires { requires C::rounds_at_random; };

/// The type of states of which some are codes, in blocks of `Block` elements: one codec or codec::none for each.
template <std::int64_t Block, class... Codecs>
struct coded_states {
  static constexpr std::int64_t block = Block;
  template <std::size_t S>
  using codec = std::tuple_element_t<S, std::tuple<Codecs...>>;
  /// Of an element of state number s, without its share of a unit.
  static constexpr std::array<int, sizeof...(Codecs)> bits{code_bits<Codecs>...};

  /// Whether state number s is codes.
  template <std::size_t s>
  static constexpr bool encodes = StateCodec<codec<s>>;
  static constexpr bool is_code(std::size_t s) { return bits[s] < 32; }

  static constexpr bool random = (rounds_at_random<Codecs> || ...);

  /// Bytes that `elements` elements, a multiple of `block`, take: those of the codes first, then a unit for each block.
  static constexpr std::int64_t bytes(std::size_t s, std::int64_t elements) {
    return elements * bits[s] / 8 + (is_code(s) ? elements / block * 4 : 0);
  }
};

template <class S>
concept CodedStates = requires { S::bits.size(); };

template <CodedStates S>
inline constexpr std::size_t block_bytes<S> = sizeof(float);

/// Memory of a state that may be encoded, from an element on that begins a block.
template <std::int64_t Block>
struct coded_pointer {
  std::byte* data;      ///< Codes, or floats.
  float* units;         ///< One per block of codes.
  std::int64_t number;  ///< Of the element, behind `data`.

  PUSHPULL_DEVICE_INLINE friend coded_pointer operator+(coded_pointer p, std::int64_t elements) {
    p.number += elements;
    return p;
  }
  PUSHPULL_DEVICE_INLINE std::uint8_t* codes(int bits) const {
    return reinterpret_cast<std::uint8_t*>(data) + number * bits / 8;
  }
  PUSHPULL_DEVICE_INLINE float* elements() const { return reinterpret_cast<float*>(data) + number; }
  PUSHPULL_DEVICE_INLINE float* unit() const { return units + static_cast<std::uint64_t>(number) / Block; }
};

/// The memory of a state of type `S`, and the type of its elements when they are read.
template <class S>
struct state_memory {
  using pointer = S*;
  using value_type = S;
  static constexpr std::int64_t block = 1;
};
template <CodedStates S>
struct state_memory<S> {
  using pointer = coded_pointer<S::block>;
  using value_type = float;
  static constexpr std::int64_t block = S::block;
};
template <class S>
using state_pointer = typename state_memory<S>::pointer;
template <class S>
using state_value = typename state_memory<S>::value_type;

/// Bytes of elements of state number s.
template <class S>
constexpr std::int64_t state_bytes([[maybe_unused]] std::size_t s, std::int64_t elements) {
  if constexpr (CodedStates<S>) {
    return S::bytes(s, elements);
  } else {
    return elements * static_cast<std::int64_t>(sizeof(S));
  }
}

/// The random word of an element is so much above that of the element 16 before it. See random_words.
inline constexpr std::uint32_t random_lane_step = 0x9E3779B9U;

/// The unit of a block's codes, by the greatest magnitude in it. Where that is not finite, NaN: codes of 0 then are NaN. Of the
/// unit the first 16 significant bits are kept, and what follows is dropped: the greatest magnitude then has the greatest code
/// however it is rounded, and the greatest decoded magnitude gives the same unit.
template <class Codec>
PUSHPULL_DEVICE_INLINE float block_unit(float greatest) {
  if (!is_finite(greatest)) return cuda::std::bit_cast<float>(0x7FC00000U);
  if constexpr (requires { Codec::greatest; }) {
    // Below 2^-126 there are no quotients, and those of linear codes have 20 bits more.
    constexpr std::uint32_t least = rounds_at_random<Codec> ? 0x0B000000U : 0x00800000U;
    std::uint32_t const bits = cuda::std::bit_cast<std::uint32_t>(greatest * (1 / Codec::greatest));
    std::uint32_t const kept = (bits + 2U) & 0xFFFFFF00U;
    return cuda::std::bit_cast<float>(kept < least ? 0U : kept);
  } else if constexpr (DynamicCodec<Codec>) {
    return cuda::std::bit_cast<std::uint32_t>(greatest) < 0x00800000U ? 0.0F : greatest;
  } else {  // the upper bits of the greatest state, rounded up, have the greatest code
    constexpr int codes = greatest_code<Codec> - least_code<Codec>, last = (0x7F800000 >> Codec::dropped) - 1;
    int const above = (cuda::std::bit_cast<int>(greatest) + Codec::step - 1) >> Codec::dropped;
    int const top = above < last ? above : last;  // what follows would be infinity
    return cuda::std::bit_cast<float>(((top < codes ? codes : top) - greatest_code<Codec>)*Codec::step);
  }
}
/// The operand that encodes the elements of a block of that unit.
template <class Codec>
PUSHPULL_DEVICE_INLINE float block_factor(float unit) {
  if constexpr (requires { Codec::greatest; }) {
    return unit > 0 ? (rounds_at_random<Codec> ? 0x1p20F : 1.0F) / unit : 0;
  } else if constexpr (DynamicCodec<Codec>) {
    return unit > 0 || unit < 0 ? 1 / unit : 0;
  } else {
    return cuda::std::bit_cast<float>(cuda::std::bit_cast<int>(unit) + least_code<Codec> * Codec::step);
  }
}

}  // namespace detail

}  // namespace pushpull
