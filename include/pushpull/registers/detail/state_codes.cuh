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
  using access = std::conditional_t<N == 16, uint4, std::conditional_t<N == 8, uint2, unsigned>>;
  std::uint32_t word[N / 4];

  __host__ __device__ __forceinline__ static state_words load(std::uint8_t const* from) {
    return cuda::std::bit_cast<state_words>(*reinterpret_cast<access const*>(from));
  }
  __host__ __device__ __forceinline__ void store(std::uint8_t* to) const {
    *reinterpret_cast<access*>(to) = cuda::std::bit_cast<access>(*this);
  }
  /// Code number j, with its sign.
  __host__ __device__ __forceinline__ int code(std::size_t j) const {
    return static_cast<std::int8_t>(word[j / 4] >> (8 * (j % 4)));
  }
  __host__ __device__ __forceinline__ void set(std::size_t j, int code) {
    word[j / 4] |= (static_cast<std::uint32_t>(code) & 0xFFU) << (8 * (j % 4));
  }
};

/// Has the compiler compute the elements here, all of them.
template <std::size_t N>
__host__ __device__ __forceinline__ void settle([[maybe_unused]] pack<float> (&x)[N]) {
  NV_IF_TARGET(NV_IS_DEVICE, (static_for<N>([&](auto j) { asm volatile("" : "+f"(x[j].value)); });))
}

template <bool Signed>
static __device__ const dynamic_map<Signed> dynamic_map_on_device{};

/// f(tables), on the device.
template <class Codec, class F>
__host__ __device__ __forceinline__ void with_dynamic_map([[maybe_unused]] F const& f) {
  NV_IF_TARGET(NV_IS_DEVICE, (f(dynamic_map_on_device<Codec::is_signed>);))
}

/// The states of these codes, which are in one block. @param unit  The block's.
template <class Codec, std::size_t N>
__host__ __device__ __forceinline__ void decode_states(state_words<N> const& codes, float unit, pack<float> (&x)[N]) {
  if constexpr (std::same_as<Codec, codec::float8>) {
    static_for<N / 2>([&](auto k) {
      auto const element = [&](std::size_t j) {
        return cuda::std::bit_cast<float8_e4m3>(static_cast<std::uint8_t>(codes.code(j)));
      };
      float2 const two = float8_to_float2(element(2 * k), element(2 * k + 1));
      x[2 * k].value = product(two.x, unit);
      x[2 * k + 1].value = product(two.y, unit);
    });
  } else if constexpr (DynamicCodec<Codec>) {
    with_dynamic_map<Codec>([&](auto const& tables) {
      static_for<N>([&](auto j) { x[j].value = product(tables.value.data()[codes.code(j) & 0xFF], unit); });
    });
  } else {
    static_for<N>([&](auto j) {
      int const code = codes.code(j);
      if constexpr (std::same_as<Codec, codec::linear>) {
        x[j].value = product(static_cast<float>(code), unit);
      } else if constexpr (std::same_as<Codec, codec::unsigned_linear>) {
        x[j].value = product(static_cast<float>(code + Codec::middle), unit);
      } else {
        static_assert(std::same_as<Codec, codec::unsigned_float8>);
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
    using map = dynamic_map<Codec::is_signed>;
    int const bits = cuda::std::bit_cast<int>(product(x, factor));
    int magnitude = Codec::is_signed ? bits & 0x7FFFFFFF : bits;
    magnitude = magnitude < map::least ? map::least : magnitude > map::one ? map::one : magnitude;
    int number = 0;
    with_dynamic_map<Codec>([&](auto const& tables) {
      number = tables.cell.data()[(magnitude - map::least) >> map::dropped];
      if (tables.middle.data()[number] <= magnitude) ++number;
    });
    return !Codec::is_signed || bits >= 0 ? number : number > 127 ? -127 : -number;
  } else {
    static_assert(std::same_as<Codec, codec::unsigned_float8>);
    int const bits = cuda::std::bit_cast<int>(x), least = cuda::std::bit_cast<int>(factor);
    int const code = ((bits > least ? bits : least) - least + static_cast<int>(rounding)) >> Codec::dropped;
    return (code < 255 ? code : 255) - 128;
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
      result.set(2 * k, cuda::std::bit_cast<std::uint8_t>(first));
      result.set(2 * k + 1, cuda::std::bit_cast<std::uint8_t>(second));
    });
  } else {
    static_for<N>([&](auto j) {
      std::uint32_t const rounding = s % 2 == 0 ? random.word[j] & 0xFFFFFU : random.word[j] >> 12;
      result.set(j, state_code<Codec>(x[j].value, factor, rounding));
    });
  }
  return result;
}

}  // namespace pushpull::detail
