/// @file
/// Products that no compiler fuses with a sum.
#pragma once

#include <concepts>
#include <type_traits>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

#if !defined(__CUDA_ARCH__)

/// Makes the compiler forget how the number or vector came about. No instruction; nothing where it is not known how.
template <class R>
PUSHPULL_HOST_INLINE void hide([[maybe_unused]] R& x) {
#if defined(__GNUC__) && defined(__aarch64__)
  asm("" : "+w"(x));
#elif defined(__GNUC__) && defined(__AVX512F__)
  asm("" : "+v"(x));
#elif defined(__GNUC__) && defined(__x86_64__)
  asm("" : "+x"(x));
#endif
}

#endif

/// a * b, rounded by itself. Left alone, nvcc and g++ fuse products and sums, and of the two products of a sum they take either,
/// from one instance of a rule to the next, g++ even from register to register of a block: results would depend on
/// the number of keys and devices, on the compiler's options and on the instruction set.
PUSHPULL_EXEC_CHECK_DISABLE
template <class R>
PUSHPULL_DEVICE_INLINE R product(R const& a, R const& b) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::same_as<R, float>) {
    return __fmul_rn(a, b);
  } else if constexpr (std::same_as<R, double>) {
    return __dmul_rn(a, b);
  } else {
    return R(a * b);
  }
#else
  R result(a * b);
  if constexpr (std::is_floating_point_v<R>) {
    hide(result);
  } else if constexpr (requires { result.data; }) {  // a vector register
    hide(result.data);
  }
  return result;
#endif
}

}  // namespace pushpull::detail
