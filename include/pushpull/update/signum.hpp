/// @file
/// Steps of one size: the sign of the gradient, or of its moving average.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// w = (1 - learning_rate weight_decay) w - learning_rate sign(g), with sign(0) = 0 (Bernstein et al. 2018, signSGD) and
/// sign(NaN) = NaN, so that a weight that no longer trains is seen.
/// No state; 12 bytes per float parameter.
struct signsgd {
  double learning_rate = 1e-2;
  double weight_decay = 0;

  static constexpr auto state_names = states();

  /// @throws invalid_argument on a negative rate or decay.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("signsgd: learning_rate", learning_rate);
    c.not_negative("signsgd: weight_decay", weight_decay);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g) const noexcept {
    w = detail::kept<typename V::element_type>(learning_rate, weight_decay) * w -
        learning_rate * select(is_nan(g), g, sign(g));
  }
};

/// m = momentum m + (1 - momentum) g;  w = (1 - learning_rate weight_decay) w - learning_rate sign(m) (Bernstein et al.
/// 2018, Signum). 20 bytes per float parameter.
struct signum {
  double learning_rate = 1e-2;
  double momentum = 0.9;
  double weight_decay = 0;

  static constexpr auto state_names = states("momentum_buffer");

  /// @throws invalid_argument on a negative rate or decay, or a momentum outside [0, 1).
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("signum: learning_rate", learning_rate);
    c.in_range("signum: momentum", momentum, 0, 1);
    c.not_negative("signum: weight_decay", weight_decay);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& m) const noexcept {
    m = momentum * m + (1 - momentum) * g;
    signsgd{learning_rate, weight_decay}(s, w, m);
  }
};

static_assert(Updater<signsgd> && Updater<signum>);

template <>
inline constexpr std::string_view rule_name<signsgd> = "signsgd";
template <>
inline constexpr std::string_view rule_name<signum> = "signum";

}  // namespace pushpull::update
