/// @file
/// Yogi: Adam whose second moment changes by a step of g^2 at most.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/adam.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Zaheer et al. 2018, algorithm 2, with Adam's bias corrections as in optax: m as in adam;
///   v = v - (1 - beta2) sign(v - g^2) g^2;
///   w = w - learning_rate m' / (sqrt(v') + epsilon),  m' = m / (1 - beta1^t),  v' = v / (1 - beta2^t).
/// The moments begin at 0. 28 bytes per float parameter.
struct yogi {
  double learning_rate = 1e-2;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-3;

  static constexpr auto state_names = adam::state_names;

  /// @throws invalid_argument as adam's.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("yogi", learning_rate, beta1, beta2, epsilon);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE auto prepare(step<A> const& s) const noexcept {
    return adam{learning_rate, beta1, beta2, epsilon}.prepare(s);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& m, V& v) const noexcept {
    m = beta1 * m + (1 - beta1) * g;
    v -= (1 - beta2) * sign(v - g * g) * g * g;
    w -= s.step_size * m / (sqrt(v) + s.epsilon);
  }
};

static_assert(Updater<yogi>);

template <>
inline constexpr std::string_view rule_name<yogi> = "yogi";

}  // namespace pushpull::update
