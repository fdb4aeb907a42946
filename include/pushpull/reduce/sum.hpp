/// @file
/// The sum of all sources: the default reduction.
#pragma once

#include <concepts>
#include <cstdint>

#include <pushpull/concepts/policy.hpp>
#include <pushpull/concepts/reduction.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::reduce {

/// g = g_0 + g_1 + ... + g_{K-1}, added in this order. Integer sums wrap.
struct sum {
  using policy_kind = reduction_tag;
  static constexpr bool adds = true;

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V operator()(V const& a, V const& b) const noexcept {
    if constexpr (std::integral<typename V::element_type>) {
      return V(static_cast<std::int64_t>(static_cast<std::uint64_t>(a.value) + static_cast<std::uint64_t>(b.value)));
    } else {
      return a + b;
    }
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V finish(V const& total, int) const noexcept {
    return total;
  }
};

static_assert(AdditiveReduction<sum>);

}  // namespace pushpull::reduce
