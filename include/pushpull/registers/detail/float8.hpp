/// @file
/// Loads and stores between 8-bit floating-point elements and vector registers of floats.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <pushpull/config.hpp>
#include <pushpull/element/float8.hpp>
#include <pushpull/registers/detail/register.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

#if !defined(__CUDA_ARCH__)

// The arithmetic is written on the compilers' own vectors, which every instruction set has; device code, which has none,
// keeps float8.hpp from sharing it. How bytes become words and words bytes is what compilers do badly by themselves.
template <std::size_t Bytes>
struct compiler_vector {
  typedef std::int32_t words __attribute__((vector_size(Bytes)));
  typedef std::uint32_t unsigned_words __attribute__((vector_size(Bytes)));
  typedef float floats __attribute__((vector_size(Bytes)));
};
template <class Batch>
using words_of = typename compiler_vector<sizeof(Batch)>::words;
template <class Batch>
using floats_of = typename compiler_vector<sizeof(Batch)>::floats;

/// float8_to_float of codes, one in each word.
template <Float8 T, class Batch>
PUSHPULL_HOST_INLINE Batch float8_to_floats(words_of<Batch> codes) {
  using format = float8_format<T>;
  using words = words_of<Batch>;
  using floats = floats_of<Batch>;
  words const magnitude = codes & 0x7F;
  words const normal = (magnitude << format::dropped) + format::rebias;
  words const tiny =
      std::bit_cast<words>(std::bit_cast<floats>(normal + (1 << 23)) - std::bit_cast<float>(format::least_normal));
  words bits = magnitude < format::first_normal ? tiny : normal;
  if constexpr (format::largest != format::last_number) bits = magnitude > format::largest ? normal | 0x7F800000 : bits;
  bits = magnitude > format::last_number ? normal | 0x7FC00000 : bits;
  bits |= (codes & 0x80) << 24;
  return Batch(std::bit_cast<typename Batch::register_type>(bits));
}

/// float_to_float8 of all elements, a code in each word.
template <Float8 T, class Batch>
PUSHPULL_HOST_INLINE words_of<Batch> floats_to_float8(Batch const& x) {
  using format = float8_format<T>;
  using words = words_of<Batch>;
  using floats = floats_of<Batch>;
  words const u = std::bit_cast<words>(x.data);
  words const magnitude = u & 0x7FFFFFFF;
  words const normal = (magnitude + format::round_normal + (magnitude >> format::dropped & 1)) >> format::dropped;
  floats const rounded = std::bit_cast<floats>(magnitude) + std::bit_cast<float>(format::round_tiny);
  words const tiny = std::bit_cast<words>(rounded) - format::round_tiny;
  words code = magnitude < format::least_normal ? tiny : normal;
  code = code > format::largest ? words{} + format::largest : code;
  return magnitude > 0x7F800000 ? words{} + format::nan : code | (u >> 24 & 0x80);
}

/// One byte in each word.
template <class Batch>
PUSHPULL_HOST_INLINE words_of<Batch> load_bytes(void const* from) {
#if PUSHPULL_HAS_AVX512
  if constexpr (sizeof(Batch) == 64)
    return std::bit_cast<words_of<Batch>>(
        _mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128(static_cast<__m128i const*>(from))));
#endif
#if PUSHPULL_HAS_AVX2
  if constexpr (sizeof(Batch) == 32)
    return std::bit_cast<words_of<Batch>>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<__m128i const*>(from))));
#endif
#if PUSHPULL_HAS_SSE2
  if constexpr (sizeof(Batch) == 16) {
    int four;
    std::memcpy(&four, from, 4);
    __m128i const eight = _mm_unpacklo_epi8(_mm_cvtsi32_si128(four), _mm_setzero_si128());
    return std::bit_cast<words_of<Batch>>(_mm_unpacklo_epi16(eight, _mm_setzero_si128()));
  }
#endif
  words_of<Batch> codes;
  for (std::size_t i = 0; i < Batch::size; ++i) codes[i] = static_cast<std::uint8_t const*>(from)[i];
  return codes;
}

#if PUSHPULL_HAS_AVX2 || PUSHPULL_HAS_AVX512

// Where binary16 becomes float by one instruction, codes become binary16 first: E5M2 is its upper byte, E4M3 a shift and
// a factor of 2^8 away from it, but for NaN.
template <Float8 T>
PUSHPULL_HOST_INLINE __m256i float8_to_halves(__m128i codes) {
  if constexpr (std::same_as<T, float8_e5m2>) return _mm256_slli_epi16(_mm256_cvtepu8_epi16(codes), 8);
  __m256i const shifted = _mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7);  // the sign in two bits
  __m256i const magnitude = _mm256_and_si256(shifted, _mm256_set1_epi16(0x3F80));
  __m256i const nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3F80));
  return _mm256_or_si256(_mm256_andnot_si256(_mm256_set1_epi16(0x4000), shifted),
                         _mm256_and_si256(nan, _mm256_set1_epi16(0x7C00)));
}
#endif

/// Stores the lowest byte of each word; non-temporal if `Streaming` and the instruction set has such a store.
template <bool Streaming, class Batch>
PUSHPULL_HOST_INLINE void store_bytes(void* to, words_of<Batch> const& codes) {
#if PUSHPULL_HAS_AVX512
  if constexpr (sizeof(Batch) == 64) {
    __m128i const bytes = _mm512_maskz_cvtepi32_epi8(0xFFFF, std::bit_cast<__m512i>(codes));
    if constexpr (Streaming) return _mm_stream_si128(static_cast<__m128i*>(to), bytes);
    return _mm_storeu_si128(static_cast<__m128i*>(to), bytes);
  }
#endif
#if PUSHPULL_HAS_AVX2
  if constexpr (sizeof(Batch) == 32) {
    __m256i const words = std::bit_cast<__m256i>(codes);
    __m128i const low = _mm256_castsi256_si128(words), high = _mm256_extracti128_si256(words, 1);
    __m128i const pairs = _mm_packs_epi32(low, high);
    __m128i const bytes = _mm_packus_epi16(pairs, pairs);
#if defined(__x86_64__)
    if constexpr (Streaming) return _mm_stream_si64(static_cast<long long*>(to), _mm_cvtsi128_si64(bytes));
#endif
    return _mm_storel_epi64(static_cast<__m128i*>(to), bytes);
  }
#endif
#if PUSHPULL_HAS_SSE2
  if constexpr (sizeof(Batch) == 16) {
    __m128i const pairs = _mm_packs_epi32(std::bit_cast<__m128i>(codes), std::bit_cast<__m128i>(codes));
    int const four = _mm_cvtsi128_si32(_mm_packus_epi16(pairs, pairs));
    if constexpr (Streaming) return _mm_stream_si32(static_cast<int*>(to), four);
    std::memcpy(to, &four, 4);
    return;
  }
#endif
  for (std::size_t i = 0; i < Batch::size; ++i) static_cast<std::uint8_t*>(to)[i] = static_cast<std::uint8_t>(codes[i]);
}

template <class Batch, Float8 T>
PUSHPULL_HOST_INLINE Batch load_float8(T const* from) {
  [[maybe_unused]] constexpr float scale = std::same_as<T, float8_e5m2> ? 1.0F : 256.0F;
#if PUSHPULL_HAS_AVX512
  if constexpr (sizeof(Batch) == 64) {
    __m128i const codes = _mm_loadu_si128(reinterpret_cast<__m128i const*>(from));
    return Batch(_mm512_maskz_cvtph_ps(0xFFFF, float8_to_halves<T>(codes))) * Batch(scale);
  }
#endif
#if PUSHPULL_HAS_AVX2
  if constexpr (sizeof(Batch) == 32) {
    __m128i const codes = _mm_loadl_epi64(reinterpret_cast<__m128i const*>(from));
    return Batch(_mm256_cvtph_ps(_mm256_castsi256_si128(float8_to_halves<T>(codes)))) * Batch(scale);
  }
#endif
  return float8_to_floats<T, Batch>(load_bytes<Batch>(from));
}

template <bool Streaming, Float8 T, class Batch>
PUSHPULL_HOST_INLINE void store_float8(T* to, Batch const& x) {
  store_bytes<Streaming, Batch>(to, floats_to_float8<T>(x));
}

#endif

}  // namespace pushpull::detail
