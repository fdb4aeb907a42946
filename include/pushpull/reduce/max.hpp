/// @file
/// The largest of all sources.
#pragma once

#include <type_traits>

#include <pushpull/concepts/policy.hpp>
#include <pushpull/concepts/reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/registers/pack.hpp>

namespace pushpull::inline PUSHPULL_ABI::reduce {

/// g = max(g_0, ..., g_{K-1}), elementwise. NaN of any source stays NaN, so that guards behind the reduction see it.
struct max {
  using policy_kind = reduction_tag;

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V operator()(V const& a, V const& b) const noexcept {
    if constexpr (std::is_floating_point_v<typename V::element_type>) {
      return select(is_nan(b), b, pushpull::max(a, b));
    } else {
      return pushpull::max(a, b);
    }
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V finish(V const& largest, int) const noexcept {
    return largest;
  }
};

static_assert(Reduction<max>);

}  // namespace pushpull::reduce
