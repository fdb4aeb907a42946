/// @file
/// Loops whose indexes are constants.
#pragma once

#include <cstddef>
#include <utility>

#include <cuda/std/type_traits>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

PUSHPULL_EXEC_CHECK_DISABLE
template <class F, std::size_t... I>
PUSHPULL_DEVICE_INLINE void static_for_each(F const& f, std::index_sequence<I...>) {
  (f(cuda::std::integral_constant<std::size_t, I>{}), ...);
}

/// f(0), ..., f(N - 1), each index an integral_constant. Arrays that are indexed so live in registers: compilers at -O2
/// leave those of an ordinary loop in memory.
PUSHPULL_EXEC_CHECK_DISABLE
template <std::size_t N, class F>
PUSHPULL_DEVICE_INLINE void static_for(F const& f) {
  static_for_each(f, std::make_index_sequence<N>{});
}

}  // namespace pushpull::detail
