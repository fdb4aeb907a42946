/// @file
/// Loads, stores and streaming stores between memory of any element type and vector registers of floats or doubles.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/registers/detail/float8.hpp>
#include <pushpull/registers/detail/register.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

#if defined(__CUDA_ARCH__)

// See register.hpp: declared for the device pass, never used there.
template <class T, class A>
__host__ __device__ simd_register<A> simd_load(T const*, std::type_identity<simd_register<A>>);
template <class T, class A>
__host__ __device__ void simd_store(T*, simd_register<A> const&);
template <class T, class A>
__host__ __device__ void simd_stream(T*, simd_register<A> const&);
template <class T>
__host__ __device__ void simd_fetch(T const*, std::int64_t);
__host__ __device__ void simd_fence();

#else

// Element by element through memory: every pair of types on every instruction set.
template <class T, class Batch>
PUSHPULL_HOST_INLINE Batch load_by_element(T const* from) {
  using A = typename Batch::value_type;
  alignas(Batch) A buffer[Batch::size];
  for (std::size_t i = 0; i < Batch::size; ++i) buffer[i] = convert<A>(from[i]);
  return Batch::load_aligned(buffer);
}

template <class T, class Batch>
PUSHPULL_HOST_INLINE void store_by_element(T* to, Batch const& x) {
  alignas(Batch) typename Batch::value_type buffer[Batch::size];
  x.store_aligned(buffer);
  for (std::size_t i = 0; i < Batch::size; ++i) to[i] = convert<T>(buffer[i]);
}

#if PUSHPULL_HAS_AVX512

using half_register = __m256i;  // 16 elements of 16 bits
inline constexpr std::size_t half_width = 64;

PUSHPULL_HOST_INLINE half_register load_half(void const* p) {
  return _mm256_loadu_si256(static_cast<__m256i const*>(p));
}
PUSHPULL_HOST_INLINE void store_half(void* p, half_register x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
PUSHPULL_HOST_INLINE void stream_half(void* p, half_register x) { _mm256_stream_si256(static_cast<__m256i*>(p), x); }
PUSHPULL_HOST_INLINE __m512 from_bfloat16(half_register x) {
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xFFFF, _mm512_maskz_cvtepu16_epi32(0xFFFF, x), 16));
}
PUSHPULL_HOST_INLINE half_register to_bfloat16(__m512 x) {
  __m512i const bits = _mm512_castps_si512(x);
  __m512i const odd = _mm512_and_si512(_mm512_maskz_srli_epi32(0xFFFF, bits, 16), _mm512_set1_epi32(1));
  __m512i const rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
  __m512i const quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  __mmask16 const nan = _mm512_cmpgt_epi32_mask(_mm512_and_si512(bits, _mm512_set1_epi32(0x7FFFFFFF)),
                                                _mm512_set1_epi32(0x7F800000));  // by bits: under any flags
  __m512i const result = _mm512_mask_blend_epi32(nan, rounded, quiet);
  return _mm512_maskz_cvtepi32_epi16(0xFFFF, _mm512_maskz_srli_epi32(0xFFFF, result, 16));
}
PUSHPULL_HOST_INLINE __m512 from_half(half_register x) { return _mm512_maskz_cvtph_ps(0xFFFF, x); }
PUSHPULL_HOST_INLINE half_register to_half(__m512 x) {
  return _mm512_maskz_cvtps_ph(0xFFFF, x, _MM_FROUND_TO_NEAREST_INT);
}

#elif PUSHPULL_HAS_AVX2

using half_register = __m128i;  // 8 elements of 16 bits
inline constexpr std::size_t half_width = 32;

PUSHPULL_HOST_INLINE half_register load_half(void const* p) { return _mm_loadu_si128(static_cast<__m128i const*>(p)); }
PUSHPULL_HOST_INLINE void store_half(void* p, half_register x) { _mm_storeu_si128(static_cast<__m128i*>(p), x); }
PUSHPULL_HOST_INLINE void stream_half(void* p, half_register x) { _mm_stream_si128(static_cast<__m128i*>(p), x); }
PUSHPULL_HOST_INLINE __m256 from_bfloat16(half_register x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
PUSHPULL_HOST_INLINE half_register to_bfloat16(__m256 x) {
  __m256i const bits = _mm256_castps_si256(x);
  __m256i const odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i const rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
  __m256i const quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  __m256i const nan = _mm256_cmpgt_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF)),
                                         _mm256_set1_epi32(0x7F800000));  // by bits: under any flags
  __m256i const result = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  __m256i const packed = _mm256_packus_epi32(result, result);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}
PUSHPULL_HOST_INLINE __m256 from_half(half_register x) { return _mm256_cvtph_ps(x); }
PUSHPULL_HOST_INLINE half_register to_half(__m256 x) { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }

#endif

template <class T>
concept SixteenBit = std::same_as<T, bfloat16> || std::same_as<T, half>;

template <class T, class A>
PUSHPULL_HOST_INLINE simd_register<A> simd_load(T const* from, std::type_identity<simd_register<A>>) {
  using batch = simd_register<A>;
  if constexpr (std::same_as<T, A>) {
    return batch::load_unaligned(from);
  } else if constexpr (Float8<T> && std::same_as<A, float>) {
    return load_float8<batch>(from);
  } else {
#if PUSHPULL_HAS_AVX512 || PUSHPULL_HAS_AVX2
    if constexpr (SixteenBit<T> && std::same_as<A, float> && sizeof(batch) == half_width) {
      if constexpr (std::same_as<T, bfloat16>) {
        return from_bfloat16(load_half(from));
      } else {
        return from_half(load_half(from));
      }
    }
#endif
    return load_by_element<T, batch>(from);
  }
}

template <class T, class Batch>
PUSHPULL_HOST_INLINE void simd_store(T* to, Batch const& x) {
  if constexpr (std::same_as<T, typename Batch::value_type>) {
    x.store_unaligned(to);
    return;
  } else if constexpr (Float8<T> && std::same_as<typename Batch::value_type, float>) {
    store_float8<false>(to, x);
  } else {
#if PUSHPULL_HAS_AVX512 || PUSHPULL_HAS_AVX2
    if constexpr (SixteenBit<T> && std::same_as<typename Batch::value_type, float> && sizeof(Batch) == half_width) {
      if constexpr (std::same_as<T, bfloat16>) {
        store_half(to, to_bfloat16(x));
      } else {
        store_half(to, to_half(x));
      }
      return;
    }
#endif
    store_by_element(to, x);
  }
}

/// A non-temporal store; `to` is aligned to 16 bytes, or to the written size if that is less. An ordinary store if the
/// instruction set or the types have no non-temporal one.
template <class T, class Batch>
PUSHPULL_HOST_INLINE void simd_stream(T* to, Batch const& x) {
  using A [[maybe_unused]] = typename Batch::value_type;
#if PUSHPULL_HAS_SSE2
  if constexpr (constexpr std::size_t bytes = Batch::size * sizeof(T); bytes > 16) {
    if (reinterpret_cast<std::uintptr_t>(to) % bytes != 0) {  // in pieces, which the processor joins to cache lines
      alignas(64) T buffer[Batch::size];
      simd_store(static_cast<T*>(buffer), x);
      for (std::size_t i = 0; i < bytes / 16; ++i)
        _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i,
                         _mm_load_si128(reinterpret_cast<__m128i const*>(buffer) + i));
      return;
    }
  }
#endif
  if constexpr (Float8<T> && std::same_as<A, float>) return store_float8<true>(to, x);
#if PUSHPULL_HAS_AVX512
  if constexpr (std::same_as<T, float> && std::same_as<A, float>) return _mm512_stream_ps(to, x);
  if constexpr (std::same_as<T, double> && std::same_as<A, double>) return _mm512_stream_pd(to, x);
#elif defined(__AVX__) && !defined(__AVX512F__)
  if constexpr (std::same_as<T, float> && std::same_as<A, float>) return _mm256_stream_ps(to, x);
  if constexpr (std::same_as<T, double> && std::same_as<A, double>) return _mm256_stream_pd(to, x);
#elif PUSHPULL_HAS_SSE2 && !defined(__AVX__)
  if constexpr (std::same_as<T, float> && std::same_as<A, float>) return _mm_stream_ps(to, x);
  if constexpr (std::same_as<T, double> && std::same_as<A, double>) return _mm_stream_pd(to, x);
#endif
#if PUSHPULL_HAS_AVX512 || PUSHPULL_HAS_AVX2
  if constexpr (std::same_as<T, bfloat16> && std::same_as<A, float>) return stream_half(to, to_bfloat16(x));
  if constexpr (std::same_as<T, half> && std::same_as<A, float>) return stream_half(to, to_half(x));
#endif
  if constexpr (true) simd_store(to, x);
}

/// Asks for the cache lines of `size` elements. Inlined always: g++ removes calls of functions that do nothing else.
template <class T>
PUSHPULL_HOST_INLINE void simd_fetch([[maybe_unused]] T const* from, [[maybe_unused]] std::int64_t size) {
#if defined(__GNUC__)
  auto const* const bytes = reinterpret_cast<char const*>(from);
#if !defined(__CUDACC__)
#pragma GCC unroll 8
#endif
  for (std::int64_t b = 0; b < size * std::int64_t{sizeof(T)}; b += 64) __builtin_prefetch(bytes + b);
#endif
}

/// Orders streaming stores before everything that follows on this thread.
inline void simd_fence() {
#if PUSHPULL_HAS_SSE2
  _mm_sfence();
#endif
}

#endif

}  // namespace pushpull::detail
