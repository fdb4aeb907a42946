/// @file
/// Lion: the sign of an interpolation between gradient and momentum.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>
#include <pushpull/update/signum.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Chen et al. 2023, algorithm 2:
///   c = beta1 m + (1 - beta1) g;  w = w - learning_rate (sign(c) + weight_decay w);  m = beta2 m + (1 - beta2) g.
/// 20 bytes per float parameter.
struct lion {
  double learning_rate = 1e-4;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double weight_decay = 0;

  static constexpr auto state_names = states("exp_avg");

  /// @throws invalid_argument on a negative rate or decay, or a beta outside [0, 1).
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("lion: learning_rate", learning_rate);
    c.in_range("lion: beta1", beta1, 0, 1);
    c.in_range("lion: beta2", beta2, 0, 1);
    c.not_negative("lion: weight_decay", weight_decay);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& m) const noexcept {
    signsgd{learning_rate, weight_decay}(s, w, beta1 * m + (1 - beta1) * g);
    m = beta2 * m + (1 - beta2) * g;
  }
};

static_assert(Updater<lion>);

template <>
inline constexpr std::string_view rule_name<lion> = "lion";

}  // namespace pushpull::update
