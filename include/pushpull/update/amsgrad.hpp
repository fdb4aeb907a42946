/// @file
/// AMSGrad: Adam whose rates never rise.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/adam.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Reddi et al. 2018, as PyTorch defines it (Adam with amsgrad=True): m and v as in adam;  u = max(u, v);
///   w = w - learning_rate m' / (sqrt(u') + epsilon),  m' = m / (1 - beta1^t),  u' = u / (1 - beta2^t).
/// 36 bytes per float parameter.
struct amsgrad {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;

  static constexpr auto state_names = states("exp_avg", "exp_avg_sq", "max_exp_avg_sq");

  /// @throws invalid_argument as adam's.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("amsgrad", learning_rate, beta1, beta2, epsilon);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE auto prepare(step<A> const& s) const noexcept {
    return adam{learning_rate, beta1, beta2, epsilon}.prepare(s);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& m, V& v, V& u) const noexcept {
    m = beta1 * m + (1 - beta1) * g;
    v = detail::faded(beta2, v) + (1 - beta2) * g * g;
    u = max(v, u);
    w -= s.step_size * m / (sqrt(u) + s.epsilon);
  }
};

static_assert(Updater<amsgrad>);

template <>
inline constexpr std::string_view rule_name<amsgrad> = "amsgrad";

}  // namespace pushpull::update
