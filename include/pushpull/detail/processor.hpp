/// @file
/// The processor that a program runs on.
#pragma once

#include <pushpull/config.hpp>

#if defined(__x86_64__) && __has_include(<cpuid.h>)
#include <cpuid.h>
#endif

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Whether the pass prefetches operands in memory. By measurement: on Intel's Xeon prefetches hide a rule's
/// arithmetic; on AMD's EPYC they cost up to a fifth of the time of a step. Elsewhere not measured.
inline bool prefetching_pays() noexcept {
#if defined(__x86_64__) && __has_include(<cpuid.h>)
  static bool const pays = [] {
    unsigned most = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(0, &most, &b, &c, &d) != 0 && b == signature_INTEL_ebx && c == signature_INTEL_ecx &&
           d == signature_INTEL_edx;
  }();
  return pays;
#else
  return false;
#endif
}

}  // namespace pushpull::detail
