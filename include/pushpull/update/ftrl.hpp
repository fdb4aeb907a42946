/// @file
/// FTRL-Proximal: sparse weights by an L1 penalty.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// McMahan et al. 2013, algorithm 1, per coordinate:
///   s = (sqrt(n + g^2) - sqrt(n)) / learning_rate;  z = z + g - s w;  n = n + g^2;
///   w = 0 where |z| <= lambda1, else (sign(z) lambda1 - z) / ((beta + sqrt(n)) / learning_rate + lambda2).
/// The weight is a function of z and n: what it began with is forgotten in the first step. With a rate of 0, or one below
/// the smallest normal number, weight and states stay. So do those of an element whose next z or root would overflow.
/// 28 bytes per float parameter.
struct ftrl {
  double learning_rate = 0.1;
  double lambda1 = 0.01;
  double lambda2 = 0;
  double beta = 1;

  static constexpr auto state_names = states("z", "n");

  /// @throws invalid_argument on a negative hyperparameter.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("ftrl: learning_rate", learning_rate);
    c.not_negative("ftrl: lambda1", lambda1);
    c.not_negative("ftrl: lambda2", lambda2);
    c.not_negative("ftrl: beta", beta);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g, V& z, V& n) const noexcept {
    if (learning_rate < detail::smallest_normal<typename V::element_type>) return;  // for all elements alike
    V const squares = n + g * g, root = sqrt(squares);
    V const next = z + (g - (root - sqrt(n)) / learning_rate * w);
    V const divisor = (detail::beside_root<V>(beta) + root) / learning_rate + lambda2;
    auto const stays = is_finite(g) && !(is_finite(next) && is_finite(divisor));
    w = select(stays, w, (min(max(next, -lambda1), lambda1) - next) / divisor);
    z = select(stays, z, next);
    n = select(stays, n, squares);
  }
};

static_assert(Updater<ftrl>);

template <>
inline constexpr std::string_view rule_name<ftrl> = "ftrl";

}  // namespace pushpull::update
