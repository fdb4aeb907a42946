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

  /// The values that depend on t alone: w -= step_size m / (sqrt(v) + epsilon), as at the end of the paper's section 2.
  template <class A>
  struct scalars {
    A step_size;  ///< learning_rate sqrt(1 - beta2^t) / (1 - beta1^t)
    A epsilon;    ///< epsilon sqrt(1 - beta2^t)
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    double const root = cuda::std::sqrt(bias_correction(beta2, s.t));
    return {detail::to_finite<A>(learning_rate * root / bias_correction(beta1, s.t)),
            static_cast<A>(detail::beside_root<pack<A>>(epsilon) * root)};
  }

  /// The numbers that every element takes.
  template <class A>
  struct numbers : scalars<A> {
    A beta1, gradient_part;  ///< beta1 and 1 - beta1
    A beta2, square_part;    ///< beta2 and 1 - beta2
  };

  /// Once for many elements: see Updater.
  template <class A>
  PUSHPULL_DEVICE_INLINE numbers<A> hoist(scalars<A> const& s) const noexcept {
    return {s, static_cast<A>(beta1), static_cast<A>(1 - beta1), static_cast<A>(beta2), static_cast<A>(1 - beta2)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(numbers<A> const& s, V& w, V const& g, V& m, V& v) const noexcept {
    m = s.beta1 * m + s.gradient_part * g;
    v = detail::faded(s.beta2, v) + s.square_part * g * g;
    w -= s.step_size * m / (sqrt(v) + s.epsilon);
  }
  /// Same, of what `prepare` returned: within wrappers, and in phases before the pass.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v) const noexcept {
    (*this)(hoist(s), w, g, m, v);
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

  /// The numbers that every element takes.
  template <class A>
  struct numbers : adam::numbers<A> {
    A kept;  ///< 1 - learning_rate weight_decay
  };

  /// Once for many elements: see Updater.
  template <class A>
  PUSHPULL_DEVICE_INLINE numbers<A> hoist(adam::scalars<A> const& s) const noexcept {
    return {as_adam().hoist(s), detail::kept<A>(learning_rate, weight_decay)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(numbers<A> const& s, V& w, V const& g, V& m, V& v) const noexcept {
    w *= s.kept;
    as_adam()(static_cast<adam::numbers<A> const&>(s), w, g, m, v);
  }
  /// Same, of what `prepare` returned: within wrappers, and in phases before the pass.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(adam::scalars<A> const& s, V& w, V const& g, V& m, V& v) const noexcept {
    (*this)(hoist(s), w, g, m, v);
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
