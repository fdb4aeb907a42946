/// @file
/// A decaying sum of gradients, for any rule.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// t = g + decay t;  g = t, or with nesterov g + decay t: optax.trace. `trace(0.9) | sgd{r}` is `momentum{r, 0.9}`; before
/// other rules, or behind other stages, it gives momentum to what they make of the gradient.
struct trace {
  double decay;
  bool nesterov;

  static constexpr auto state_names = states("trace");

  explicit trace(double decay_, bool nesterov_ = false) : decay(decay_), nesterov(nesterov_) { validate(); }

  /// @throws invalid_argument on a decay outside [0, 1).
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.in_range("trace: decay", decay, 0, 1);
    c.any("trace: nesterov", nesterov);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V const&, V& g, V& t) const noexcept {
    t = g + decay * t;
    if (nesterov) {  // for all elements of a pass alike
      g += decay * t;
    } else {
      g = t;
    }
  }
};

static_assert(GradientTransform<trace>);

template <>
inline constexpr std::string_view rule_name<trace> = "trace";

}  // namespace pushpull::update
