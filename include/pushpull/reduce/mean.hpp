/// @file
/// The mean of all sources.
#pragma once

#include <pushpull/concepts/policy.hpp>
#include <pushpull/concepts/reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/reduce/sum.hpp>

namespace pushpull::inline PUSHPULL_ABI::reduce {

/// g = (g_0 + ... + g_{K-1}) / K. Choose it where every source's gradient is a mean over equally many samples; where
/// they are sums over samples, choose `sum` and rescale by the batch size. Integers round towards zero.
struct mean {
  using policy_kind = reduction_tag;
  static constexpr bool adds = true;

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V operator()(V const& a, V const& b) const noexcept {
    return sum{}(a, b);
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V finish(V const& total, int k) const noexcept {
    return total / V(k);
  }
};

static_assert(AdditiveReduction<mean>);

}  // namespace pushpull::reduce
