/// @file
/// AdaDelta: steps in the units of the weights.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Zeiler 2012, as PyTorch defines it:
///   v = rho v + (1 - rho) g^2;  x = sqrt(u + epsilon) / sqrt(v + epsilon) g;  u = rho u + (1 - rho) x^2;
///   w = w - learning_rate x.
/// 28 bytes per float parameter.
struct adadelta {
  double learning_rate = 1;
  double rho = 0.9;
  double epsilon = 1e-6;

  static constexpr auto state_names = states("square_avg", "acc_delta");

  /// @throws invalid_argument on a negative rate or epsilon, or a rho outside [0, 1).
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("adadelta: learning_rate", learning_rate);
    c.in_range("adadelta: rho", rho, 0, 1);
    c.not_negative("adadelta: epsilon", epsilon);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g, V& v, V& u) const noexcept {
    v = detail::faded(rho, v) + (1 - rho) * g * g;
    V const x = sqrt(u + epsilon) / sqrt(v + detail::inside_root<V>(epsilon)) * g;
    u = rho * u + (1 - rho) * x * x;
    w -= learning_rate * x;
  }
};

static_assert(Updater<adadelta>);

template <>
inline constexpr std::string_view rule_name<adadelta> = "adadelta";

}  // namespace pushpull::update
