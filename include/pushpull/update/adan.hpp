/// @file
/// Adan: Adam with Nesterov's momentum by differences of gradients.
#pragma once

#include <string_view>

#include <cuda/std/cmath>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Xie et al. 2022, algorithm 1, with the betas and bias corrections of its authors' code; d is the difference to the
/// gradient before, 0 in the first update:
///   m = beta1 m + (1 - beta1) g;   c = beta2 c + (1 - beta2) d;   v = beta3 v + (1 - beta3) (g + beta2 d)^2;
///   w = [w - learning_rate (m' + beta2 c') / (sqrt(v') + epsilon)] / (1 + learning_rate weight_decay),
///   m' = m / (1 - beta1^t),  c' = c / (1 - beta2^t),  v' = v / (1 - beta3^t).
/// `decoupled_decay{adan{...}, rate}` decays before the step, as the code's no_prox. 44 bytes per float parameter.
struct adan {
  double learning_rate = 1e-3;
  double beta1 = 0.98;
  double beta2 = 0.92;
  double epsilon = 1e-8;
  double beta3 = 0.99;
  double weight_decay = 0;

  static constexpr auto state_names = states("exp_avg", "exp_avg_sq", "exp_avg_diff", "previous_gradient");

  /// @throws invalid_argument as adam's, on a beta3 outside [0, 1), and on a negative weight_decay.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("adan", learning_rate, beta1, beta2, epsilon);
    c.in_range("adan: beta3", beta3, 0, 1);
    c.not_negative("adan: weight_decay", weight_decay);
  }

  /// The values that depend on t alone.
  template <class A>
  struct scalars {
    bool first;
    A moment_factor;      ///< learning_rate / (1 - beta1^t)
    A difference_factor;  ///< learning_rate beta2 / (1 - beta2^t)
    A root_scale;         ///< 1 / sqrt(1 - beta3^t)
    A kept;               ///< 1 / (1 + learning_rate weight_decay)
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    return {s.t == 1, detail::to_finite<A>(learning_rate / bias_correction(beta1, s.t)),
            detail::to_finite<A>(learning_rate * beta2 / bias_correction(beta2, s.t)),
            static_cast<A>(1 / cuda::std::sqrt(bias_correction(beta3, s.t))),
            static_cast<A>(1 / (1 + learning_rate * weight_decay))};
  }

  // The branch goes one way for all elements of a pass.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v, V& c,
                                         V& previous) const noexcept {
    if (s.first) previous = g;
    V const d = g - previous, u = g + beta2 * d;
    m = beta1 * m + (1 - beta1) * g;
    c = beta2 * c + (1 - beta2) * d;
    v = detail::faded(beta3, v) + (1 - beta3) * u * u;
    previous = g;
    w = s.kept * (w - (s.moment_factor * m + s.difference_factor * c) /
                          (sqrt(v) * s.root_scale + detail::beside_root<V>(epsilon)));
  }
};

static_assert(Updater<adan>);

template <>
inline constexpr std::string_view rule_name<adan> = "adan";

}  // namespace pushpull::update
