/// @file
/// FTRL-Proximal: sparse weights by an L1 penalty.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// McMahan et al. 2013, algorithm 1, per coordinate:
///   s = (sqrt(n + g^2) - sqrt(n)) / learning_rate;  z = z + g - s w;  n = n + g^2;
///   w = 0 where |z| <= lambda1, else (sign(z) lambda1 - z) / ((beta + sqrt(n)) / learning_rate + lambda2).
/// The weight is a function of z and n: what it began with is forgotten in the first step.
/// 28 bytes per float parameter.
struct ftrl {
  double learning_rate = 0.1;
  double lambda1 = 0.01;
  double lambda2 = 0;
  double beta = 1;

  static constexpr auto state_names = states("z", "n");

  /// @throws invalid_argument on a rate of 0, or on a negative hyperparameter.
  void validate() const {
    detail::expects_positive("ftrl: learning_rate", learning_rate);
    detail::expects_not_negative("ftrl: lambda1", lambda1);
    detail::expects_not_negative("ftrl: lambda2", lambda2);
    detail::expects_not_negative("ftrl: beta", beta);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g, V& z, V& n) const noexcept {
    V const root = sqrt(n + g * g);
    z += g - (root - sqrt(n)) / learning_rate * w;
    n += g * g;
    w = (min(max(z, -lambda1), lambda1) - z) / ((beta + root) / learning_rate + lambda2);
  }
};

static_assert(Updater<ftrl>);

template <>
inline constexpr std::string_view rule_name<ftrl> = "ftrl";

}  // namespace pushpull::update
