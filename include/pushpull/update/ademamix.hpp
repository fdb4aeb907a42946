/// @file
/// AdEMAMix: Adam with a second, much slower average of gradients.
#pragma once

#include <cstdint>
#include <string_view>

#include <cuda/std/cmath>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

namespace detail {

/// 1 / log(beta): minus the number of updates in which an average fades to 1 / e.
PUSHPULL_HOST_DEVICE inline double inverse_log(double beta) { return 1 / cuda::std::log(beta); }

}  // namespace detail

/// Pagliardini et al. 2024, algorithm 1 and section 3.1: m, v, m', v' as in adamw;  n = b n + (1 - b) g;
///   w = (1 - learning_rate weight_decay) w - learning_rate (m' + a n) / (sqrt(v') + epsilon).
/// From update `warmup` on a = alpha and b = beta3. Before, with s = t / warmup, a = s alpha, and b fades in
/// (1 - s) / log(beta1) + s / log(beta3) = 1 / log(b), but no slower than beta3. 36 bytes per float parameter.
struct ademamix {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double beta3 = 0.9999;
  double alpha = 5;
  double weight_decay = 0;
  std::int64_t warmup = 0;  ///< Updates in which alpha and beta3 rise.

  static constexpr auto state_names = states("exp_avg", "exp_avg_sq", "exp_avg_slow");

  /// @throws invalid_argument as adam's, on a beta3 outside [0, 1), and on a negative alpha, weight_decay or warmup.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("ademamix", learning_rate, beta1, beta2, epsilon);
    c.in_range("ademamix: beta3", beta3, 0, 1);
    c.not_negative("ademamix: alpha", alpha);
    c.not_negative("ademamix: weight_decay", weight_decay);
    c.not_negative("ademamix: warmup", static_cast<double>(warmup));
  }

  /// The values that depend on t alone.
  template <class A>
  struct scalars {
    A fast;        ///< learning_rate / (1 - beta1^t)
    A slow;        ///< learning_rate a
    A slow_kept;   ///< b
    A slow_gain;   ///< 1 - b
    A root_scale;  ///< 1 / sqrt(1 - beta2^t)
    A kept;        ///< Of the weight, by its decay.
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    double a = alpha, b = beta3;
    if (s.t < warmup) {
      double const share = static_cast<double>(s.t) / static_cast<double>(warmup);
      a *= share;
      double const rising =
          cuda::std::exp(1 / ((1 - share) * detail::inverse_log(beta1) + share * detail::inverse_log(beta3)));
      if (rising < beta3) b = rising;
    }
    return {detail::to_finite<A>(learning_rate / bias_correction(beta1, s.t)),
            detail::to_finite<A>(learning_rate * a),
            static_cast<A>(b),
            static_cast<A>(1 - b),
            static_cast<A>(1 / cuda::std::sqrt(bias_correction(beta2, s.t))),
            detail::kept<A>(learning_rate, weight_decay)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v, V& n) const noexcept {
    m = beta1 * m + (1 - beta1) * g;
    v = detail::faded(beta2, v) + (1 - beta2) * g * g;
    n = s.slow_kept * n + s.slow_gain * g;
    w = s.kept * w - (s.fast * m + s.slow * n) / (sqrt(v) * s.root_scale + detail::beside_root<V>(epsilon));
  }
};

static_assert(Updater<ademamix>);

template <>
inline constexpr std::string_view rule_name<ademamix> = "ademamix";

}  // namespace pushpull::update
