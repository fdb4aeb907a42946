/// @file
/// Two 8-bit floating-point elements at a time: what the instructions of a GPU convert.
#pragma once

#include <cstdint>

#include <cuda/std/bit>
#include <pushpull/config.hpp>
#include <pushpull/element/float8.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

template <Float8 T>
__host__ __device__ __forceinline__ float2 float8_to_float2(T x, T y) {
#if PUSHPULL_HAS_FP8_INSTRUCTIONS
  auto const codes = static_cast<__nv_fp8x2_storage_t>(cuda::std::bit_cast<std::uint8_t>(x) |
                                                       cuda::std::bit_cast<std::uint8_t>(y) << 8);
  return __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(codes, float8_interpretation<T>)));
#else
  return make_float2(float8_to_float(x), float8_to_float(y));
#endif
}

template <Float8 T>
__host__ __device__ __forceinline__ void float2_to_float8(float x, float y, T& to_x, T& to_y) {
#if PUSHPULL_HAS_FP8_INSTRUCTIONS
  unsigned const codes = __nv_cvt_float2_to_fp8x2(make_float2(x, y), __NV_SATFINITE, float8_interpretation<T>);
  to_x = cuda::std::bit_cast<T>(static_cast<std::uint8_t>(codes));
  to_y = cuda::std::bit_cast<T>(static_cast<std::uint8_t>(codes >> 8));
#else
  to_x = float_to_float8<T>(x);
  to_y = float_to_float8<T>(y);
#endif
}

}  // namespace pushpull::detail
