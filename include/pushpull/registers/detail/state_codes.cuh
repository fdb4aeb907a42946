/// @file
/// Codes of states from and to the registers of a thread of a GPU: the same codes that CPUs make of the same states.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <cuda/std/bit>
#include <nv/target>
#include <pushpull/config.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/element/float8.hpp>
#include <pushpull/registers/detail/dynamic_map.hpp>
#include <pushpull/registers/detail/float8.cuh>
#include <pushpull/registers/pack.hpp>
#include <pushpull/registers/state_codec.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The codes of N consecutive states, in words: one access to memory.
template <std::size_t N>
struct alignas(N) state_words {
  static_assert(N == 4 || N == 8 || N == 16);
  template <std::size_t Bytes>
  using access = std::conditional_t<
      Bytes == 16, uint4,
      std::conditional_t<Bytes == 8, uint2, std::conditional_t<Bytes == 4, unsigned, unsigned short>>>;
  std::uint32_t word[N / 4];

  /// @tparam Bits  Of a code: 8, or 4, and then the lower half of the words is used.
  template <int Bits>
  __host__ __device__ __forceinline__ static state_words load(std::uint8_t const* from) {
    if constexpr (Bits == 8) {
      return cuda::std::bit_cast<state_words>(*reinterpret_cast<access<N> const*>(from));
    } else {
      auto const half = *reinterpret_cast<access<N / 2> const*>(from);
      state_words result{};
      if constexpr (N < 16) {
        result.word[0] = half;
      } else {
        result.word[0] = half.x, result.word[1] = half.y;
      }
      return result;
    }
  }
  template <int Bits>
  __host__ __device__ __forceinline__ void store(std::uint8_t* to) const {
    if constexpr (Bits == 8) {
      *reinterpret_cast<access<N>*>(to) = cuda::std::bit_cast<access<N>>(*this);
    } else if constexpr (N < 16) {
      *reinterpret_cast<access<N / 2>*>(to) = static_cast<access<N / 2>>(word[0]);
    } else {
      *reinterpret_cast<uint2*>(to) = {word[0], word[1]};
    }
  }
  /// Code number j: of 8 bits with its sign, of 4 without.
  template <int Bits>
  __host__ __device__ __forceinline__ int code(std::size_t j) const {
    std::uint32_t const shifted = word[j * Bits / 32] >> (j * Bits % 32);
    return Bits == 4 ? static_cast<int>(shifted & 15U) : static_cast<std::int8_t>(shifted);
  }
  template <int Bits>
  __host__ __device__ __forceinline__ void set(std::size_t j, int code) {
    word[j * Bits / 32] |= (static_cast<std::uint32_t>(code) & ((1U << Bits) - 1)) << (j * Bits % 32);
  }
};

/// Has the compiler compute the elements here, all of them.
template <std::size_t N>
__host__ __device__ __forceinline__ void settle([[maybe_unused]] pack<float> (&x)[N]) {
  NV_IF_TARGET(NV_IS_DEVICE, (static_for<N>([&](auto j) { asm volatile("" : "+f"(x[j].value)); });))
}

template <class Tables>
static __device__ const Tables tables_on_device{};

/// f(tables), on the device.
template <class Tables, class F>
__host__ __device__ __forceinline__ void with_tables([[maybe_unused]] F const& f) {
  NV_IF_TARGET(NV_IS_DEVICE, (f(tables_on_device<Tables>);))
}

/// The states of these codes, which are in one block. @param unit  The block's.
template <class Codec, std::size_t N>
__host__ __device__ __forceinline__ void decode_states(state_words<N> const& codes, float unit, pack<float> (&x)[N]) {
  if constexpr (std::same_as<Codec, codec::float8>) {
    static_for<N / 2>([&](auto k) {
      auto const element = [&](std::size_t j) {
        return cuda::std::bit_cast<float8_e4m3>(static_cast<std::uint8_t>(codes.template code<8>(j)));
      };
      float2 const two = float8_to_float2(element(2 * k), element(2 * k + 1));
      x[2 * k].value = product(two.x, unit);
      x[2 * k + 1].value = product(two.y, unit);
    });
  } else if constexpr (DynamicCodec<Codec>) {
    with_tables<dynamic_map<Codec::is_signed>>([&](auto const& tables) {
      static_for<N>([&](auto j) { x[j].value = product(tables.value.data()[codes.template code<8>(j) & 0xFF], unit); });
    });
  } else {
    static_for<N>([&](auto j) {
      int const code = codes.template code<code_bits<Codec>>(j);
      if constexpr (std::same_as<Codec, codec::linear>) {
        x[j].value = product(static_cast<float>(code), unit);
      } else if constexpr (std::same_as<Codec, codec::unsigned_linear>) {
        x[j].value = product(static_cast<float>(code + Codec::middle), unit);
      } else {
        static_assert(FloatBitsCodec<Codec>);
        x[j].value = cuda::std::bit_cast<float>(code * Codec::step + cuda::std::bit_cast<int>(unit));
      }
    });
  }
  settle(x);  // where a rule uses a state in one of two cases, they would be decoded behind branches, one by one
}

/// The nearest integer.
__host__ __device__ __forceinline__ int nearest_integer([[maybe_unused]] float x) {
  NV_IF_ELSE_TARGET(NV_IS_DEVICE, (return __float2int_rn(x);), (return 0;))
}

/// Random words for N elements of a block, from number `first` on. See random_words of CPUs.
template <std::size_t N>
struct random_words_of {
  std::uint32_t word[N];

  __host__ __device__ __forceinline__ random_words_of(std::uint32_t seed, std::int64_t first) {
    auto const number = static_cast<std::uint32_t>(first);
    static_for<N>([&](auto j) {
      std::uint32_t const lane = (number + static_cast<std::uint32_t>(j)) % 16;
      std::uint32_t x = lane * random_lane_step + seed;
      x = (x ^ (x >> 16)) * 0x7FEB352DU;
      x = (x ^ (x >> 15)) * 0x846CA68BU;
      word[j] = x + (number / 16 + 1) * random_lane_step;
    });
  }
  /// On to the elements `count` elements further, a multiple of 16.
  __host__ __device__ __forceinline__ void advance(std::uint32_t count) {
    static_for<N>([&](auto j) { word[j] += count / 16 * random_lane_step; });
  }
};

/// The code of a finite state. @param factor  Of its block. @param rounding  Below 2^20, by which a codec rounds at random.
template <class Codec>
__host__ __device__ __forceinline__ int state_code(float x, float factor, [[maybe_unused]] std::uint32_t rounding) {
  auto const between = [](int low, int code) {
    code = code < low ? low : code;
    return code > 127 ? 127 : code;
  };
  if constexpr (std::same_as<Codec, codec::linear>) {
    int const exact = nearest_integer(product(x, factor));
    return between(-127, (exact + static_cast<int>(rounding & ~127U) + 64) >> 20);
  } else if constexpr (std::same_as<Codec, codec::unsigned_linear>) {
    return between(-128, nearest_integer(product(x, factor)) - Codec::middle);
  } else if constexpr (DynamicCodec<Codec>) {
    using lines_type = dynamic_lines<Codec::is_signed>;
    int const bits = cuda::std::bit_cast<int>(product(x, factor));
    int number = 0;
    with_tables<lines_type>([&](auto const& lines) {
      int above = bits & 0x7FFFFFFF;
      if (!Codec::is_signed && above < lines.first.data()[0]) above = lines.first.data()[0];
      int decade = 0;
      static_for<lines_type::decades - 1>([&](auto d) { decade += above >= lines.first.data()[d + 1]; });
      auto const place = [&](std::size_t line) {
        float const slope = lines.slope[line].data()[decade];
        return nearest_integer(product(cuda::std::bit_cast<float>(above), slope)) + lines.offset[line].data()[decade];
      };
      int const of_decade = place(0), behind = place(1);
      int const added = Codec::is_signed ? 1 << 19 : static_cast<int>((rounding & ~255U) | 128U);
      number = ((of_decade < behind ? of_decade : behind) + added) >> lines_type::fraction;
    });
    if constexpr (Codec::is_signed) return bits >= 0 ? number : number > 127 ? -127 : -number;
    return bits <= 0 ? 0 : number > 255 ? 255 : number;
  } else {
    static_assert(FloatBitsCodec<Codec>);
    constexpr int greatest = greatest_code<Codec> - least_code<Codec>;
    int const bits = cuda::std::bit_cast<int>(x), least = cuda::std::bit_cast<int>(factor);
    int const added = static_cast<int>(rounding << (Codec::dropped - 20));
    int const code = ((bits > least ? bits : least) - least + added) >> Codec::dropped;
    return (code < greatest ? code : greatest) + least_code<Codec>;
  }
}

/// The codes of finite states of one block. @param s  The number of the state, which chooses among the bits of random words.
template <class Codec, std::size_t s, std::size_t N>
__host__ __device__ __forceinline__ state_words<N> encode_states(pack<float> const (&x)[N], float factor,
                                                                 [[maybe_unused]] random_words_of<N> const& random) {
  state_words<N> result{};
  if constexpr (std::same_as<Codec, codec::float8>) {
    static_for<N / 2>([&](auto k) {
      float8_e4m3 first, second;
      float2_to_float8(product(x[2 * k].value, factor), product(x[2 * k + 1].value, factor), first, second);
      result.template set<8>(2 * k, cuda::std::bit_cast<std::uint8_t>(first));
      result.template set<8>(2 * k + 1, cuda::std::bit_cast<std::uint8_t>(second));
    });
  } else {
    static_for<N>([&](auto j) {
      std::uint32_t const rounding = s % 2 == 0 ? random.word[j] & 0xFFFFFU : random.word[j] >> 12;
      int const code = state_code<Codec>(x[j].value, factor, rounding);
      result.template set<code_bits<Codec>>(j, code);
    });
  }
  return result;
}

}  // namespace pushpull::detail
