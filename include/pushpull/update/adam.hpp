/// @file
/// Adam, and Adam with decoupled weight decay.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Kingma & Ba 2015, algorithm 1, as PyTorch defines it:
///   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2;
///   w = w - learning_rate m' / (sqrt(v') + epsilon),  m' = m / (1 - beta1^t),  v' = v / (1 - beta2^t).
/// MXNet's folds the corrections into the rate, so that its epsilon counts 1 / sqrt(1 - beta2^t) times as much.
/// 28 bytes per float parameter.
struct adam {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;

  static constexpr auto state_names = states("exp_avg", "exp_avg_sq");

  /// @throws invalid_argument on a negative rate or epsilon, or a beta outside [0, 1).
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("adam", learning_rate, beta1, beta2, epsilon);
  }

  /// The values that depend on t alone.
  template <class A>
  struct scalars {
    A step_size;   ///< learning_rate / (1 - beta1^t)
    A root_scale;  ///< 1 / sqrt(1 - beta2^t)
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    return {detail::to_finite<A>(learning_rate / bias_correction(beta1, s.t)),
            static_cast<A>(1 / cuda::std::sqrt(bias_correction(beta2, s.t)))};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v) const noexcept {
    m = beta1 * m + (1 - beta1) * g;
    v = detail::faded(beta2, v) + (1 - beta2) * g * g;
    w -= s.step_size * m / (sqrt(v) * s.root_scale + detail::beside_root<V>(epsilon));
  }
};

/// Loshchilov & Hutter 2019, as PyTorch defines it: w = (1 - learning_rate weight_decay) w, then Adam's step. MXNet's
/// adamw decays in the same expression as the step. 28 bytes per float parameter.
struct adamw {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 1e-2;

  static constexpr auto state_names = adam::state_names;

  /// @throws invalid_argument as adam's, and on a negative decay.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("adamw", learning_rate, beta1, beta2, epsilon);
    c.not_negative("adamw: weight_decay", weight_decay);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE auto prepare(step<A> const& s) const noexcept {
    return as_adam().prepare(s);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& m, V& v) const noexcept {
    w *= detail::kept<typename V::element_type>(learning_rate, weight_decay);
    as_adam()(s, w, g, m, v);
  }

 private:
  PUSHPULL_DEVICE_INLINE adam as_adam() const { return {learning_rate, beta1, beta2, epsilon}; }
};

static_assert(Updater<adam> && Updater<adamw>);

template <>
inline constexpr std::string_view rule_name<adam> = "adam";
template <>
inline constexpr std::string_view rule_name<adamw> = "adamw";

}  // namespace pushpull::update
