/// @file
/// Words in vector registers: from and to codes of 8 and 4 bits, floats, and tables.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/registers/detail/float8.hpp>
#include <pushpull/registers/detail/register.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

#if !defined(__CUDA_ARCH__)

/// a + b, which may wrap: states that are not finite give sums that overflow, and nobody uses these.
template <class Batch>
PUSHPULL_HOST_INLINE words_of<Batch> wrapped_sum(words_of<Batch> const& a, words_of<Batch> const& b) {
  using words = typename compiler_vector<sizeof(Batch)>::unsigned_words;
  return std::bit_cast<words_of<Batch>>(std::bit_cast<words>(a) + std::bit_cast<words>(b));
}

/// The nearest integers, of numbers of small magnitude.
template <class Batch>
PUSHPULL_HOST_INLINE words_of<Batch> nearest_words(Batch const& x) {
#if PUSHPULL_HAS_AVX512
  if constexpr (sizeof(Batch) == 64)
    return std::bit_cast<words_of<Batch>>(_mm512_maskz_cvtps_epi32(0xFFFF, std::bit_cast<__m512>(x.data)));
#endif
#if PUSHPULL_HAS_AVX2
  if constexpr (sizeof(Batch) == 32)
    return std::bit_cast<words_of<Batch>>(_mm256_cvtps_epi32(std::bit_cast<__m256>(x.data)));
#endif
#if PUSHPULL_HAS_SSE2
  if constexpr (sizeof(Batch) == 16)
    return std::bit_cast<words_of<Batch>>(_mm_cvtps_epi32(std::bit_cast<__m128>(x.data)));
#endif
  words_of<Batch> result;
  for (std::size_t i = 0; i < Batch::size; ++i) result[i] = to_integer<std::int32_t>(std::nearbyint(x.get(i)));
  return result;
}
/// One signed byte in each word.
template <class Batch>
PUSHPULL_HOST_INLINE words_of<Batch> load_signed_bytes(void const* from) {
#if PUSHPULL_HAS_AVX512
  if constexpr (sizeof(Batch) == 64)
    return std::bit_cast<words_of<Batch>>(
        _mm512_maskz_cvtepi8_epi32(0xFFFF, _mm_loadu_si128(static_cast<__m128i const*>(from))));
#endif
#if PUSHPULL_HAS_AVX2
  if constexpr (sizeof(Batch) == 32)
    return std::bit_cast<words_of<Batch>>(_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<__m128i const*>(from))));
#endif
  return load_bytes<Batch>(from) << 24 >> 24;
}

/// Stores words as signed bytes, the nearest that there are.
template <class Batch>
PUSHPULL_HOST_INLINE void store_signed_bytes(std::uint8_t* to, words_of<Batch> const& words) {
#if PUSHPULL_HAS_AVX512
  if constexpr (sizeof(Batch) == 64)
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                            _mm512_maskz_cvtsepi32_epi8(0xFFFF, std::bit_cast<__m512i>(words)));
#endif
#if PUSHPULL_HAS_AVX2
  if constexpr (sizeof(Batch) == 32) {
    __m256i const all = std::bit_cast<__m256i>(words);
    __m128i const pairs = _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    return _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(pairs, pairs));
  }
#endif
#if PUSHPULL_HAS_SSE2
  if constexpr (sizeof(Batch) == 16) {
    __m128i const pairs = _mm_packs_epi32(std::bit_cast<__m128i>(words), std::bit_cast<__m128i>(words));
    int const four = _mm_cvtsi128_si32(_mm_packs_epi16(pairs, pairs));
    std::memcpy(to, &four, 4);
    return;
  }
#endif
  for (std::size_t i = 0; i < Batch::size; ++i)
    to[i] = static_cast<std::uint8_t>(std::clamp<std::int32_t>(words[i], -128, 127));
}

/// The signed bytes that codes may become: -128 to 127, or without -128.
enum class byte_range { all, symmetric };

/// Stores the words of N registers, each less `middle`, as the nearest signed bytes. Words, with and without `middle`, fit in 16 bits:
/// it is subtracted when two registers have been packed into one.
template <byte_range Range, class Batch, std::size_t N>
PUSHPULL_HOST_INLINE void store_signed_bytes(std::uint8_t* to, words_of<Batch> const (&words)[N], std::int16_t middle) {
  constexpr bool subtracts = Range == byte_range::all;
#if PUSHPULL_HAS_AVX512
  if constexpr (sizeof(Batch) == 64 && N == 4) {
    auto const pairs = [&](std::size_t k) PUSHPULL_INLINE_LAMBDA {
      __m512i const two = _mm512_packs_epi32(std::bit_cast<__m512i>(words[k]), std::bit_cast<__m512i>(words[k + 1]));
      return subtracts ? _mm512_sub_epi16(two, _mm512_set1_epi16(middle)) : two;
    };
    __m512i bytes = _mm512_packs_epi16(pairs(0), pairs(2));
    if constexpr (Range == byte_range::symmetric) bytes = _mm512_max_epi8(bytes, _mm512_set1_epi8(-127));
    // Packing works in quarters of registers.
    __m512i const order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_storeu_si512(to, _mm512_maskz_permutexvar_epi32(0xFFFF, order, bytes));
  }
#endif
#if PUSHPULL_HAS_AVX2
  if constexpr (sizeof(Batch) == 32 && N == 4) {
    auto const pairs = [&](std::size_t k) PUSHPULL_INLINE_LAMBDA {
      __m256i const two = _mm256_packs_epi32(std::bit_cast<__m256i>(words[k]), std::bit_cast<__m256i>(words[k + 1]));
      return subtracts ? _mm256_sub_epi16(two, _mm256_set1_epi16(middle)) : two;
    };
    __m256i bytes = _mm256_packs_epi16(pairs(0), pairs(2));
    if constexpr (Range == byte_range::symmetric) bytes = _mm256_max_epi8(bytes, _mm256_set1_epi8(-127));
    __m256i const order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(bytes, order));
  }
#endif
#if PUSHPULL_HAS_SSE2
  if constexpr (sizeof(Batch) == 16 && N == 4) {
    auto const pairs = [&](std::size_t k) PUSHPULL_INLINE_LAMBDA {
      __m128i const two = _mm_packs_epi32(std::bit_cast<__m128i>(words[k]), std::bit_cast<__m128i>(words[k + 1]));
      return subtracts ? _mm_sub_epi16(two, _mm_set1_epi16(middle)) : two;
    };
    __m128i bytes = _mm_packs_epi16(pairs(0), pairs(2));
    if constexpr (Range == byte_range::symmetric)  // without a maximum of signed bytes: -128 becomes -127
      bytes = _mm_sub_epi8(bytes, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(-128)));
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
  }
#endif
  for (std::size_t k = 0; k < N; ++k) {
    words_of<Batch> word = words[k];
    if constexpr (subtracts) word -= middle;
    if constexpr (Range == byte_range::symmetric) word = word < -127 ? words_of<Batch>{} - 127 : word;
    store_signed_bytes<Batch>(to + k * Batch::size, word);
  }
}

/// A register of numbers of `Vector`.
template <class Batch, class Vector>
PUSHPULL_HOST_INLINE Batch batch_of(Vector const& x) {
  return Batch(std::bit_cast<typename Batch::register_type>(x));
}
template <class Batch>
PUSHPULL_HOST_INLINE Batch floats_from(words_of<Batch> const& words) {
  return batch_of<Batch>(__builtin_convertvector(words, floats_of<Batch>));
}

/// The words in a table of 8 that the lowest three bits of `number` choose.
template <class Batch>
PUSHPULL_HOST_INLINE words_of<Batch> look_up(void const* table, words_of<Batch> const& number) {
#if PUSHPULL_HAS_AVX512
  if constexpr (sizeof(Batch) == 64) {
    __m512i const words = _mm512_maskz_broadcast_i64x4(0xFF, _mm256_loadu_si256(static_cast<__m256i const*>(table)));
    return std::bit_cast<words_of<Batch>>(
        _mm512_maskz_permutexvar_epi32(0xFFFF, std::bit_cast<__m512i>(number), words));
  }
#endif
#if PUSHPULL_HAS_AVX2
  if constexpr (sizeof(Batch) == 32)
    return std::bit_cast<words_of<Batch>>(_mm256_permutevar8x32_epi32(
        _mm256_loadu_si256(static_cast<__m256i const*>(table)), std::bit_cast<__m256i>(number)));
#endif
  words_of<Batch> result;
  for (std::size_t i = 0; i < Batch::size; ++i) {
    std::int32_t word;
    std::memcpy(&word, static_cast<std::byte const*>(table) + std::size_t{4} * static_cast<std::size_t>(number[i] & 7),
                4);
    result[i] = word;
  }
  return result;
}

/// One code in each word: that of an even place is the lower half of a byte.
template <class Batch>
PUSHPULL_HOST_INLINE words_of<Batch> load_half_bytes(std::uint8_t const* from) {
#if PUSHPULL_HAS_AVX512
  if constexpr (sizeof(Batch) == 64) {
    __m512i const bytes = _mm512_maskz_cvtepu8_epi64(0xFF, _mm_loadl_epi64(reinterpret_cast<__m128i const*>(from)));
    __m512i const halves = _mm512_or_si512(bytes, _mm512_maskz_slli_epi64(0xFF, bytes, 28));
    return std::bit_cast<words_of<Batch>>(_mm512_and_si512(halves, _mm512_set1_epi32(15)));
  }
#endif
#if PUSHPULL_HAS_AVX2
  if constexpr (sizeof(Batch) == 32) {
    int four;
    std::memcpy(&four, from, 4);
    __m256i const bytes = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
    __m256i const halves = _mm256_or_si256(bytes, _mm256_slli_epi64(bytes, 28));
    return std::bit_cast<words_of<Batch>>(_mm256_and_si256(halves, _mm256_set1_epi32(15)));
  }
#endif
  words_of<Batch> codes;
  for (std::size_t i = 0; i < Batch::size; ++i) codes[i] = from[i / 2] >> (i % 2 * 4) & 15;
  return codes;
}

/// Stores words from 0 to 15.
template <class Batch>
PUSHPULL_HOST_INLINE void store_half_bytes(std::uint8_t* to, words_of<Batch> const& codes) {
#if PUSHPULL_HAS_AVX512
  if constexpr (sizeof(Batch) == 64) {
    __m512i const words = std::bit_cast<__m512i>(codes);
    __m512i const bytes = _mm512_or_si512(words, _mm512_maskz_srli_epi64(0xFF, words, 28));
    return _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm512_maskz_cvtepi64_epi8(0xFF, bytes));
  }
#endif
#if PUSHPULL_HAS_AVX2
  if constexpr (sizeof(Batch) == 32) {
    __m256i const words = std::bit_cast<__m256i>(codes);
    __m256i const bytes =
        _mm256_and_si256(_mm256_or_si256(words, _mm256_srli_epi64(words, 28)), _mm256_set1_epi64x(255));
    __m128i const pairs = _mm_packs_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    __m128i const quads = _mm_packs_epi32(pairs, pairs);
    int const four = _mm_cvtsi128_si32(_mm_packus_epi16(quads, quads));
    std::memcpy(to, &four, 4);
    return;
  }
#endif
  for (std::size_t i = 0; i < Batch::size; i += 2) to[i / 2] = static_cast<std::uint8_t>(codes[i] | codes[i + 1] << 4);
}

#endif

}  // namespace pushpull::detail
