/// @file
/// Rounding modes and denormal numbers.
#pragma once

#include <cfenv>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "instructions/decode.hpp"

namespace emulator {

/// Denormal floats become zeros if `ftz`; doubles never do.
template <class T>
T flushed(T x, bool ftz) {
  if constexpr (std::is_same_v<T, float>)
    if (ftz && std::fpclassify(x) == FP_SUBNORMAL) return std::copysign(0.0F, x);
  return x;
}

/// op() under the rounding mode of an instruction. Not inlined: the compiler must not move operations out of it.
template <class T, class Op>
__attribute__((noinline)) T rounded(std::uint32_t mode, Op op) {
  if ((mode & (mode_rz | mode_rm | mode_rp)) == 0) return op();
  int const before = std::fegetround();
  std::fesetround((mode & mode_rz) != 0 ? FE_TOWARDZERO : (mode & mode_rm) != 0 ? FE_DOWNWARD : FE_UPWARD);
  T volatile const x = op();
  std::fesetround(before);
  return x;
}

/// What an instruction does to its result.
template <class T>
T finished(T x, std::uint32_t mode) {
  x = flushed(x, (mode & mode_ftz) != 0);
  if ((mode & mode_sat) == 0) return x;
  return std::isnan(x) || x < 0 ? T(0) : x > 1 ? T(1) : x;
}

}  // namespace emulator
