/// @file
/// Codes of states from and to vector registers of floats.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/registers/detail/code_words.hpp>
#include <pushpull/registers/detail/dynamic_codes.hpp>
#include <pushpull/registers/detail/float8.hpp>
#include <pushpull/registers/detail/memory.hpp>
#include <pushpull/registers/detail/product.hpp>
#include <pushpull/registers/detail/register.hpp>
#include <pushpull/registers/state_codec.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

#if defined(__CUDA_ARCH__)

// See register.hpp: declared for the device pass, never used there.
template <class Codec, class Batch>
__host__ __device__ Batch decode_states(std::uint8_t const*, Batch const&);
template <class Batch>
struct greatest_magnitude {
  template <class Codec>
  __host__ __device__ void add(Batch const&);
  template <class Codec, std::int64_t Block>
  __host__ __device__ float of_block(float*) const;
};
template <class Codec, std::int64_t Block>
__host__ __device__ float signed_unit(float, float const*);
template <class Codec, class Batch, std::size_t N>
__host__ __device__ void encode_states(std::uint8_t*, Batch const (&)[N], Batch const&, int const (&)[N]);
template <class Batch>
struct random_words {
  random_words() = default;
  __host__ __device__ explicit random_words(std::uint32_t);
  __host__ __device__ void advance();
  __host__ __device__ int upper() const;
  __host__ __device__ int lower() const;
};
template <CodedStates S, std::size_t States>
void decode_state(std::size_t, coded_pointer<S::block>, std::int64_t, float*);
template <CodedStates S, std::size_t States>
void encode_state(std::size_t, void const*, std::int64_t, coded_pointer<S::block>);

#else

/// Decodes a register of states of one block. @param unit  Of the block, in all places.
template <class Codec, class Batch>
PUSHPULL_HOST_INLINE Batch decode_states(std::uint8_t const* from, Batch const& unit) {
  if constexpr (std::same_as<Codec, codec::linear>) {
    return product(floats_from<Batch>(load_signed_bytes<Batch>(from)), unit);
  } else if constexpr (std::same_as<Codec, codec::unsigned_linear>) {
    return product(floats_from<Batch>(load_signed_bytes<Batch>(from) + Codec::middle), unit);
  } else if constexpr (std::same_as<Codec, codec::float8>) {
    return product(load_float8<Batch>(reinterpret_cast<float8_e4m3 const*>(from)), unit);
  } else if constexpr (DynamicCodec<Codec>) {
    return product(dynamic_values<Codec::is_signed, Batch>(from), unit);
  } else {
    static_assert(FloatBitsCodec<Codec>);
    words_of<Batch> codes;
    if constexpr (code_bits<Codec> == 4) {
      codes = load_half_bytes<Batch>(from);
    } else {
      codes = load_signed_bytes<Batch>(from);
    }
    return batch_of<Batch>((codes << Codec::dropped) + std::bit_cast<words_of<Batch> >(unit.data));
  }
}

/// Random words for the elements of a block, a register of them at a time, that depend on the seed and on the element's number in the
/// block alone, so not on the size of registers. Each is uniform over the seeds, which is what rounding needs; those of one seed
/// are a Weyl sequence per lane. Also in state_codes.cuh.
template <class Batch>
struct random_words {
  using words = typename compiler_vector<sizeof(Batch)>::unsigned_words;
  static constexpr std::size_t lanes = 16, registers = Batch::size < lanes ? lanes / Batch::size : 1;
  words state[registers]{};

  random_words() = default;
  PUSHPULL_HOST_INLINE explicit random_words(std::uint32_t seed) {
    static_for<registers>([&](auto k) PUSHPULL_INLINE_LAMBDA {
      words lane;
      for (std::size_t i = 0; i < Batch::size; ++i)
        lane[i] = static_cast<std::uint32_t>(k * Batch::size + i) * random_lane_step;
      state[k] = lane + seed;
      state[k] = (state[k] ^ (state[k] >> 16)) * 0x7FEB352DU;
      state[k] = (state[k] ^ (state[k] >> 15)) * 0x846CA68BU + random_lane_step;
    });
  }
  /// On to the next register's elements.
  PUSHPULL_HOST_INLINE void advance() {
    words next = state[0] + random_lane_step;
    hide(next);  // else compilers add multiples of the step to the first words, each a constant to be loaded
    static_for<registers - 1>([&](auto k) PUSHPULL_INLINE_LAMBDA { state[k] = state[k + 1]; });
    state[registers - 1] = next;
  }
  /// Words of which the lowest 20 bits are random: the upper bits of the own words, or those words as they are.
  PUSHPULL_HOST_INLINE words_of<Batch> upper() const {
    words const shifted = state[0] >> 12;
    return std::bit_cast<words_of<Batch> >(shifted);
  }
  PUSHPULL_HOST_INLINE words_of<Batch> lower() const { return std::bit_cast<words_of<Batch> >(state[0]); }
};

/// Encodes N registers of finite states of one block; for a FloatBitsCodec none is negative. @param factor  The block's, in all
/// places. @param rounding  Words of which the lowest 20 bits round at random, and 2^19 to the nearest code; below 2^20 for a
/// FloatBitsCodec.
template <class Codec, class Batch, std::size_t N>
PUSHPULL_HOST_INLINE void encode_states(std::uint8_t* to, Batch const (&x)[N], Batch const& factor,
                                        [[maybe_unused]] words_of<Batch> const (&rounding)[N]) {
  using words = words_of<Batch>;
  [[maybe_unused]] words codes[N];
  if constexpr (std::same_as<Codec, codec::linear>) {
    // No integer is rounded away, nor what is within 2^-15 of one: a product of a decoded state.
    static_for<N>([&](auto k) PUSHPULL_INLINE_LAMBDA {
      codes[k] = wrapped_sum<Batch>(nearest_words(x[k] * factor), (rounding[k] & 0xFFF80) | 64) >> 20;
    });
    store_signed_bytes<byte_range::symmetric, Batch>(to, codes, 0);
  } else if constexpr (std::same_as<Codec, codec::unsigned_linear>) {
    static_for<N>([&](auto k) PUSHPULL_INLINE_LAMBDA { codes[k] = nearest_words(x[k] * factor); });
    store_signed_bytes<byte_range::all, Batch>(to, codes, 128);
  } else if constexpr (FloatBitsCodec<Codec>) {
    // The least value's lower bits are 0. Of what is less the code is at most 0, also when it is rounded up.
    static_for<N>([&](auto k) PUSHPULL_INLINE_LAMBDA {
      codes[k] =
          wrapped_sum<Batch>(std::bit_cast<words>(x[k].data), rounding[k] << (Codec::dropped - 20)) >> Codec::dropped;
    });
    std::int32_t const least = std::bit_cast<std::int32_t>(factor.get(0)) >> Codec::dropped;
    if constexpr (code_bits<Codec> == 4) {
      static_for<N>([&](auto k) PUSHPULL_INLINE_LAMBDA {
        words const above = codes[k] - least, code = above > 0 ? above : words{};
        store_half_bytes<Batch>(to + k * Batch::size / 2, code > 15 ? words{} + 15 : code);
      });
    } else {
      store_signed_bytes<byte_range::all, Batch>(to, codes, static_cast<std::int16_t>(least + 128));
    }
  } else {
    static_for<N>([&](auto k) PUSHPULL_INLINE_LAMBDA {
      std::uint8_t* const at = to + k * Batch::size;
      if constexpr (std::same_as<Codec, codec::float8>) {
        store_float8<false>(reinterpret_cast<float8_e4m3*>(at), x[k] * factor);
      } else {
        static_assert(DynamicCodec<Codec>);
        store_bytes<false, Batch>(at, dynamic_codes<Codec::is_signed>(x[k] * factor, rounding[k]));
      }
    });
  }
}

/// The greatest of the numbers in a vector.
template <std::size_t Bytes>
PUSHPULL_HOST_INLINE std::int32_t greatest_of(typename compiler_vector<Bytes>::words const& x) {
  using half [[maybe_unused]] = typename compiler_vector<Bytes / 2>::words;
#if PUSHPULL_HAS_AVX512
  if constexpr (Bytes == 64) {
    __m512i const all = std::bit_cast<__m512i>(x);
    half const low = std::bit_cast<half>(_mm512_maskz_extracti64x4_epi64(0xF, all, 0));
    half const high = std::bit_cast<half>(_mm512_maskz_extracti64x4_epi64(0xF, all, 1));
    return greatest_of<Bytes / 2>(low > high ? low : high);
  }
#endif
#if PUSHPULL_HAS_AVX2
  if constexpr (Bytes == 32) {
    __m256i const all = std::bit_cast<__m256i>(x);
    half const low = std::bit_cast<half>(_mm256_castsi256_si128(all));
    half const high = std::bit_cast<half>(_mm256_extracti128_si256(all, 1));
    return greatest_of<Bytes / 2>(low > high ? low : high);
  }
#endif
  std::int32_t result = x[0];
  for (std::size_t i = 1; i < Bytes / sizeof(std::int32_t); ++i) result = x[i] > result ? x[i] : result;
  return result;
}

/// The greatest magnitude of the states of a block, by bits: a NaN is greater than infinity.
template <class Batch>
struct greatest_magnitude {
  static constexpr auto sign = static_cast<std::int32_t>(0x80000000U);
  words_of<Batch> bits{};

  template <class Codec>
  PUSHPULL_HOST_INLINE void add(Batch const& x) {
    if constexpr (FloatBitsCodec<Codec>) {  // one with a sign is greater than all others, and of_block finds it
      using words = typename compiler_vector<sizeof(Batch)>::unsigned_words;
      words const word = std::bit_cast<words>(x.data), most = std::bit_cast<words>(bits);
      bits = std::bit_cast<words_of<Batch> >(word > most ? word : most);
    } else {
      words_of<Batch> const magnitude = std::bit_cast<words_of<Batch> >(x.data) & ~sign;
      bits = magnitude > bits ? magnitude : bits;
    }
  }
  /// @param x  The states. Those that are negative become 0 where the codec has no codes for them.
  template <class Codec, std::int64_t Block>
  PUSHPULL_HOST_INLINE float of_block([[maybe_unused]] float* x) const {
    if constexpr (FloatBitsCodec<Codec>) {
      std::int32_t const most = greatest_of<sizeof(Batch)>(bits ^ sign) ^ sign;
      return most >= 0 ? std::bit_cast<float>(most) : with_negative(x, Block);
    } else {
      return std::bit_cast<float>(greatest_of<sizeof(Batch)>(bits));
    }
  }

 private:
  static float with_negative(float* x, std::int64_t size) {
    std::int32_t most = 0;
    for (std::int64_t i = 0; i < size; ++i) {
      auto const word = std::bit_cast<std::int32_t>(x[i]);
      most = std::max(most, word & ~sign);
      if (word < 0) x[i] = 0;
    }
    return std::bit_cast<float>(most);
  }
};

/// The unit of a block, with its sign. @param x  The states.
template <class Codec, std::int64_t Block>
PUSHPULL_HOST_INLINE float signed_unit(float unit, [[maybe_unused]] float const* x) {
  if constexpr (has_signed_unit<Codec>) {
    using batch = simd_register<float>;
    batch most = batch::load_aligned(x);
    for (auto i = static_cast<std::int64_t>(batch::size); i < Block; i += static_cast<std::int64_t>(batch::size))
      most = simd_max(most, batch::load_aligned(x + i));
    return simd_any(most >= batch(unit)) ? unit : -unit;
  } else {
    return unit;
  }
}

/// Encodes the block of states that `to` begins. @param x  Aligned to a register. @param greatest  The magnitude.
template <class Codec, std::int64_t Block>
PUSHPULL_HOST_INLINE void encode_block(coded_pointer<Block> const& to, float const* x, float greatest) {
  using batch = simd_register<float>;
  *to.unit() = signed_unit<Codec, Block>(block_unit<Codec>(greatest), x);
  constexpr int bits = code_bits<Codec>;
  std::memset(to.codes(bits), 0, Block * bits / 8);
  if (!is_finite(greatest)) return;
  batch const factor(block_factor<Codec>(*to.unit()));
  words_of<batch> half[1];  // assigned: of an array of vectors in braces nvcc 13 breaks down
  half[0] = words_of<batch>{} + (1 << 19);
  for (std::int64_t i = 0; i < Block; i += static_cast<std::int64_t>(batch::size)) {
    batch const states[1] = {batch::load_aligned(x + i)};
    encode_states<Codec>((to + i).codes(bits), states, factor, half);
  }
}

/// Elements of state number s, from one on that begins a block, as floats.
template <CodedStates S, std::size_t States>
void decode_state(std::size_t s, coded_pointer<S::block> from, std::int64_t size, float* to) {
  using batch = simd_register<float>;
  if (!S::is_code(s)) return void(std::memcpy(to, from.elements(), static_cast<std::size_t>(size) * sizeof(float)));
  alignas(64) float block[S::block];
  static_for<States>([&](auto number) {
    using codec = typename S::template codec<number>;
    if constexpr (StateCodec<codec>)
      for (std::int64_t i = 0; s == number && i < size; i += S::block) {
        auto const at = from + i;
        for (std::int64_t j = 0; j < S::block; j += static_cast<std::int64_t>(batch::size))
          decode_states<codec>((at + j).codes(S::bits[number]), batch(*at.unit())).store_aligned(block + j);
        std::memcpy(to + i, block, static_cast<std::size_t>(std::min(size - i, S::block)) * sizeof(float));
      }
  });
}

/// Sets elements of state number s, from one on that begins a block; what is left of the last block becomes zero.
/// @param from  Floats, of any alignment.
template <CodedStates S, std::size_t States>
void encode_state(std::size_t s, void const* from, std::int64_t size, coded_pointer<S::block> to) {
  using batch = simd_register<float>;
  auto const* const bytes = static_cast<std::byte const*>(from);
  if (!S::is_code(s)) return void(std::memcpy(to.elements(), bytes, static_cast<std::size_t>(size) * sizeof(float)));
  static_for<States>([&](auto number) {
    using codec = typename S::template codec<number>;
    if constexpr (StateCodec<codec>)
      for (std::int64_t i = 0; s == number && i < size; i += S::block) {
        alignas(64) float block[S::block] = {};
        std::memcpy(block, bytes + static_cast<std::size_t>(i) * sizeof(float),
                    static_cast<std::size_t>(std::min(size - i, S::block)) * sizeof(float));
        greatest_magnitude<batch> greatest;
        for (std::int64_t j = 0; j < S::block; j += static_cast<std::int64_t>(batch::size))
          greatest.template add<codec>(batch::load_aligned(block + j));
        float const magnitude = greatest.template of_block<codec, S::block>(static_cast<float*>(block));
        encode_block<codec>(to + i, static_cast<float const*>(block), magnitude);
      }
  });
}

#endif

}  // namespace pushpull::detail
