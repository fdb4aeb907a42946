/// @file
/// AdaBelief: Adam that divides by how far gradients are from what was expected of them.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/adam.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Zhuang et al. 2020, algorithm 2: m as in adam;  v = beta2 v + (1 - beta2) (g - m)^2 + epsilon;
///   w = w - learning_rate m' / (sqrt(v') + epsilon),  m' = m / (1 - beta1^t),  v' = v / (1 - beta2^t).
/// 28 bytes per float parameter.
struct adabelief {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-16;

  static constexpr auto state_names = states("exp_avg", "exp_avg_var");

  /// @throws invalid_argument as adam's.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("adabelief", learning_rate, beta1, beta2, epsilon);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE auto prepare(step<A> const& s) const noexcept {
    return adam{learning_rate, beta1, beta2, epsilon}.prepare(s);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& m, V& v) const noexcept {
    m = beta1 * m + (1 - beta1) * g;
    v = detail::faded(beta2, v) + (1 - beta2) * (g - m) * (g - m) + epsilon;
    w -= s.step_size * m / (sqrt(v) + s.epsilon);
  }
};

static_assert(Updater<adabelief>);

template <>
inline constexpr std::string_view rule_name<adabelief> = "adabelief";

}  // namespace pushpull::update
