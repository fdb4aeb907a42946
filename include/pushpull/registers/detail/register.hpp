/// @file
/// The vector register that rules run on when they run on a CPU: an xsimd batch.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>

#if !defined(__CUDA_ARCH__)
#include <xsimd/xsimd.hpp>
#endif

namespace pushpull::inline PUSHPULL_ABI::detail {

#if defined(__CUDA_ARCH__)

// nvcc's device pass parses host code too and refuses vector types anywhere near a host-device function. A stand-in
// with the same operations keeps that pass content; no device code ever uses it.
template <class A>
struct simd_register {
  A unused[4];
  simd_register() = default;
  __host__ __device__ simd_register(A);
};
template <class A>
struct simd_mask {
  bool unused[4];
};

#define PUSHPULL_SIMD_DECLARE(result, op) \
  template <class A>                      \
  __host__ __device__ result<A> operator op(simd_register<A> const&, simd_register<A> const&);
PUSHPULL_SIMD_DECLARE(simd_register, +)
PUSHPULL_SIMD_DECLARE(simd_register, -)
PUSHPULL_SIMD_DECLARE(simd_register, *)
PUSHPULL_SIMD_DECLARE(simd_register, /)
PUSHPULL_SIMD_DECLARE(simd_mask, <)
PUSHPULL_SIMD_DECLARE(simd_mask, <=)
PUSHPULL_SIMD_DECLARE(simd_mask, >)
PUSHPULL_SIMD_DECLARE(simd_mask, >=)
PUSHPULL_SIMD_DECLARE(simd_mask, ==)
#undef PUSHPULL_SIMD_DECLARE
template <class A>
__host__ __device__ simd_register<A> operator-(simd_register<A> const&);
template <class A>
__host__ __device__ simd_mask<A> operator!(simd_mask<A> const&);
template <class A>
__host__ __device__ simd_mask<A> operator&&(simd_mask<A> const&, simd_mask<A> const&);
template <class A>
__host__ __device__ simd_mask<A> operator||(simd_mask<A> const&, simd_mask<A> const&);
template <class A>
__host__ __device__ simd_register<A> simd_sqrt(simd_register<A> const&);
template <class A>
__host__ __device__ simd_register<A> simd_abs(simd_register<A> const&);
template <class A>
__host__ __device__ simd_register<A> simd_exp(simd_register<A> const&);
template <class A>
__host__ __device__ simd_register<A> simd_log(simd_register<A> const&);
template <class A>
__host__ __device__ simd_register<A> simd_pow(simd_register<A> const&, simd_register<A> const&);
template <class A>
__host__ __device__ simd_register<A> simd_sin(simd_register<A> const&);
template <class A>
__host__ __device__ simd_register<A> simd_cos(simd_register<A> const&);
template <class A>
__host__ __device__ simd_register<A> simd_max(simd_register<A> const&, simd_register<A> const&);
template <class A>
__host__ __device__ simd_register<A> simd_min(simd_register<A> const&, simd_register<A> const&);
template <class A>
__host__ __device__ simd_register<A> simd_select(simd_mask<A> const&, simd_register<A> const&, simd_register<A> const&);
template <class A>
__host__ __device__ simd_mask<A> simd_is_finite(simd_register<A> const&);
template <class A>
__host__ __device__ simd_mask<A> simd_is_nan(simd_register<A> const&);
template <class A>
__host__ __device__ bool simd_any(simd_mask<A> const&);

#else

template <class A>
using simd_register = xsimd::batch<A>;

template <class A, class Arch>
PUSHPULL_HOST_INLINE xsimd::batch<A, Arch> simd_abs(xsimd::batch<A, Arch> const& x) {
  return xsimd::abs(x);
}

template <class A, class Arch>
PUSHPULL_HOST_INLINE xsimd::batch<A, Arch> simd_select(xsimd::batch_bool<A, Arch> const& m,
                                                       xsimd::batch<A, Arch> const& a, xsimd::batch<A, Arch> const& b) {
  return xsimd::select(m, a, b);
}

/// f(x) of an elementary function. A register of 64 bytes takes two of 32: in xsimd's code for AVX-512, GCC 12 finds
/// "undefined" registers that -Wuninitialized reports.
template <class A, class Arch, class F>
xsimd::batch<A, Arch> by_halves(xsimd::batch<A, Arch> const& x, F const& f) {
#if PUSHPULL_HAS_AVX512
  if constexpr (sizeof(x) == 64) {
    using half = xsimd::batch<A, xsimd::avx2>;
    alignas(64) A buffer[2 * half::size];
    x.store_aligned(buffer);
    half const low = f(half::load_aligned(buffer)), high = f(half::load_aligned(buffer + half::size));
    low.store_aligned(buffer);
    high.store_aligned(buffer + half::size);
    return xsimd::batch<A, Arch>::load_aligned(buffer);
  }
#endif
  return f(x);
}

template <class A, class Arch>
xsimd::batch<A, Arch> simd_exp(xsimd::batch<A, Arch> const& x) {
  return by_halves(x, [](auto const& part) { return xsimd::exp(part); });
}
template <class A, class Arch>
xsimd::batch<A, Arch> simd_log(xsimd::batch<A, Arch> const& x) {
  return by_halves(x, [](auto const& part) { return xsimd::log(part); });
}
template <class A, class Arch>
xsimd::batch<A, Arch> simd_pow(xsimd::batch<A, Arch> const& x, xsimd::batch<A, Arch> const& y) {
  // xsimd's exp(y log x) is off by dozens of units in the last place.
  alignas(alignof(xsimd::batch<A, Arch>)) A base[xsimd::batch<A, Arch>::size], exponent[xsimd::batch<A, Arch>::size];
  x.store_aligned(base);
  y.store_aligned(exponent);
  for (std::size_t lane = 0; lane < xsimd::batch<A, Arch>::size; ++lane)
    base[lane] = std::pow(base[lane], exponent[lane]);
  return xsimd::batch<A, Arch>::load_aligned(base);
}
template <class A, class Arch>
xsimd::batch<A, Arch> simd_sin(xsimd::batch<A, Arch> const& x) {
  return by_halves(x, [](auto const& part) { return xsimd::sin(part); });
}
template <class A, class Arch>
xsimd::batch<A, Arch> simd_cos(xsimd::batch<A, Arch> const& x) {
  return by_halves(x, [](auto const& part) { return xsimd::cos(part); });
}

template <class A, class Arch>
PUSHPULL_HOST_INLINE xsimd::batch<A, Arch> simd_sqrt(xsimd::batch<A, Arch> const& x) {
  return xsimd::sqrt(x);
}

/// One word for each float or double of a register of so many bytes.
template <class A, std::size_t Bytes>
struct word_vector {
  typedef std::uint32_t type __attribute__((vector_size(Bytes)));
};
template <std::size_t Bytes>
struct word_vector<double, Bytes> {
  typedef std::uint64_t type __attribute__((vector_size(Bytes)));
};

/// Whether the magnitude's bits and `distance` together reach the sign bit.
template <class A, class Arch>
xsimd::batch_bool<A, Arch> magnitude_reaches_sign(xsimd::batch<A, Arch> const& x,
                                                  typename float_bits<A>::word distance) {
  using batch = xsimd::batch<A, Arch>;
  using words = typename word_vector<A, sizeof(batch)>::type;
  words const reached = (std::bit_cast<words>(x.data) & ~float_bits<A>::sign) + distance;
  words const number = (reached & float_bits<A>::sign) | std::bit_cast<typename float_bits<A>::word>(A(1));
  return batch(std::bit_cast<typename batch::register_type>(number)) < batch(A(0));
}
template <class A, class Arch>
PUSHPULL_HOST_INLINE xsimd::batch_bool<A, Arch> simd_is_finite(xsimd::batch<A, Arch> const& x) {
  return !magnitude_reaches_sign(x, float_bits<A>::from_infinity);
}
template <class A, class Arch>
PUSHPULL_HOST_INLINE xsimd::batch_bool<A, Arch> simd_is_nan(xsimd::batch<A, Arch> const& x) {
  return magnitude_reaches_sign(x, float_bits<A>::from_nan);
}
template <class A, class Arch>
PUSHPULL_HOST_INLINE bool simd_any(xsimd::batch_bool<A, Arch> const& m) {
  return xsimd::any(m);
}

/// a < b ? b : a. On x86 that is one instruction, which gives its second operand where one is NaN or both are 0.
template <class A, class Arch>
PUSHPULL_HOST_INLINE xsimd::batch<A, Arch> simd_max(xsimd::batch<A, Arch> const& a, xsimd::batch<A, Arch> const& b) {
  if constexpr (PUSHPULL_HAS_SSE2 && std::is_floating_point_v<A>) return xsimd::max(b, a);
  return xsimd::select(a < b, b, a);
}
/// b < a ? b : a. On x86 that is one instruction, as in simd_max.
template <class A, class Arch>
PUSHPULL_HOST_INLINE xsimd::batch<A, Arch> simd_min(xsimd::batch<A, Arch> const& a, xsimd::batch<A, Arch> const& b) {
  if constexpr (PUSHPULL_HAS_SSE2 && std::is_floating_point_v<A>) return xsimd::min(b, a);
  return xsimd::select(b < a, b, a);
}

#if PUSHPULL_HAS_AVX512
// GCC 12's _mm512_sqrt_ps and its like read an "undefined" register that -Wuninitialized reports; masked forms do not.
template <class Arch>
PUSHPULL_HOST_INLINE xsimd::batch<float, Arch> simd_sqrt(xsimd::batch<float, Arch> const& x) {
  return _mm512_maskz_sqrt_ps(static_cast<__mmask16>(-1), x);
}
template <class Arch>
PUSHPULL_HOST_INLINE xsimd::batch<double, Arch> simd_sqrt(xsimd::batch<double, Arch> const& x) {
  return _mm512_maskz_sqrt_pd(static_cast<__mmask8>(-1), x);
}
template <class Arch>
PUSHPULL_HOST_INLINE xsimd::batch<float, Arch> simd_max(xsimd::batch<float, Arch> const& a,
                                                        xsimd::batch<float, Arch> const& b) {
  return _mm512_maskz_max_ps(static_cast<__mmask16>(-1), b, a);
}
template <class Arch>
PUSHPULL_HOST_INLINE xsimd::batch<double, Arch> simd_max(xsimd::batch<double, Arch> const& a,
                                                         xsimd::batch<double, Arch> const& b) {
  return _mm512_maskz_max_pd(static_cast<__mmask8>(-1), b, a);
}
template <class Arch>
PUSHPULL_HOST_INLINE xsimd::batch<float, Arch> simd_min(xsimd::batch<float, Arch> const& a,
                                                        xsimd::batch<float, Arch> const& b) {
  return _mm512_maskz_min_ps(static_cast<__mmask16>(-1), b, a);
}
template <class Arch>
PUSHPULL_HOST_INLINE xsimd::batch<double, Arch> simd_min(xsimd::batch<double, Arch> const& a,
                                                         xsimd::batch<double, Arch> const& b) {
  return _mm512_maskz_min_pd(static_cast<__mmask8>(-1), b, a);
}
#endif

#endif

}  // namespace pushpull::detail
