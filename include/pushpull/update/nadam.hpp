/// @file
/// NAdam: Adam with Nesterov's momentum.
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

/// log of the product over k = 1..t of (1 - exp(-rate k) / 2), in closed form: the logarithm's series, of which each
/// power of exp(-rate k) is a geometric sum over k. Differences 1 - x^j come by additions that cannot cancel.
PUSHPULL_HOST_DEVICE inline double log_warming_product(double rate, std::int64_t t) {
  auto const steps = static_cast<double>(t);
  double const x = cuda::std::exp(-rate), y = cuda::std::exp(-rate * steps);
  double const one_minus_x = -cuda::std::expm1(-rate), one_minus_y = -cuda::std::expm1(-rate * steps);
  double total = 0, half = 0.5, x_j = x, y_j = y, dx = one_minus_x, dy = one_minus_y;
  for (int j = 1; j <= 60; ++j) {
    total -= half / j * x_j * (rate > 0 ? dy / dx : steps);
    dx += x_j * one_minus_x;
    dy += y_j * one_minus_y;
    x_j *= x;
    y_j *= y;
    half /= 2;
  }
  return total;
}

}  // namespace detail

/// Dozat 2016, as PyTorch defines it: m, v as in adam;  mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2);
///   M_t = mu_1 ... mu_t;  w = w - learning_rate [(1 - mu_t) g / (1 - M_t) + mu_{t+1} m / (1 - M_{t+1})] /
///   (sqrt(v') + epsilon),  v' = v / (1 - beta2^t).
/// M is a function of t here, not a state; with PyTorch's and MXNet's it agrees to rounding while beta1 and momentum_decay stay
/// as they are. 28 bytes per float parameter.
struct nadam {
  double learning_rate = 2e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double momentum_decay = 4e-3;

  static constexpr auto state_names = states("exp_avg", "exp_avg_sq");

  /// @throws invalid_argument as adam's, and on a negative momentum_decay.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("nadam", learning_rate, beta1, beta2, epsilon);
    c.not_negative("nadam: momentum_decay", momentum_decay);
  }

  /// The values that depend on t alone.
  template <class A>
  struct scalars {
    A gradient_factor;  ///< learning_rate (1 - mu_t) / (1 - M_t)
    A moment_factor;    ///< learning_rate mu_{t+1} / (1 - M_{t+1})
    A root_scale;       ///< 1 / sqrt(1 - beta2^t)
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    auto const t = static_cast<double>(s.t);
    double const rate = -cuda::std::log(0.96) * momentum_decay;
    double const mu = beta1 * (1 - 0.5 * cuda::std::exp(-rate * t));
    double const next = beta1 * (1 - 0.5 * cuda::std::exp(-rate * (t + 1)));
    double const log_product = t * cuda::std::log(beta1) + detail::log_warming_product(rate, s.t);
    return {detail::to_finite<A>(learning_rate * (1 - mu) / -cuda::std::expm1(log_product)),
            detail::to_finite<A>(learning_rate * next / (1 - cuda::std::exp(log_product) * next)),
            static_cast<A>(1 / cuda::std::sqrt(bias_correction(beta2, s.t)))};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v) const noexcept {
    m = beta1 * m + (1 - beta1) * g;
    v = detail::faded(beta2, v) + (1 - beta2) * g * g;
    w -= (s.gradient_factor * g + s.moment_factor * m) / (sqrt(v) * s.root_scale + detail::beside_root<V>(epsilon));
  }
};

static_assert(Updater<nadam>);

template <>
inline constexpr std::string_view rule_name<nadam> = "nadam";

}  // namespace pushpull::update
