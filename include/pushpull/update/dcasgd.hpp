/// @file
/// Gradient descent that makes up for gradients of older weights.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>
#include <pushpull/update/sgd.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// g = g + lambda g^2 (w - w_old), where w_old is the weight before the last update: the first-order effect of an
/// update that the gradient has not seen. In the first step w_old = w.
struct delay_compensation {
  double lambda = 0.04;

  static constexpr auto state_names = states("previous_weight");

  /// Previous weights begin at the weights before the first update.
  constexpr bool starts_states() const { return true; }

  /// @throws invalid_argument on a negative lambda.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("delay_compensation: lambda", lambda);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(step<A> const& s) const noexcept {
    return static_cast<A>(s.t == 1 ? 0 : lambda);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(A const& factor, V const& w, V& g, V& previous) const noexcept {
    g += factor * g * (g * (w - previous));  // g^2 alone may overflow
    previous = w;
  }
};

/// Zheng et al. 2017, DC-ASGD: delay_compensation, then sgd. 20 bytes per float parameter.
struct dcasgd {
  double learning_rate = 1e-2;
  double lambda = 0.04;

  static constexpr auto state_names = delay_compensation::state_names;

  /// Previous weights begin at the weights before the first update.
  constexpr bool starts_states() const { return true; }

  /// @throws invalid_argument on a negative rate or lambda.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    sgd{learning_rate}.check(c);
    delay_compensation{lambda}.check(c);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(step<A> const& s) const noexcept {
    return delay_compensation{lambda}.prepare(s);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(A const& factor, V& w, V const& g, V& previous) const noexcept {
    V h = g;
    delay_compensation{lambda}(factor, w, h, previous);
    sgd{learning_rate}(factor, w, h);
  }
};

static_assert(GradientTransform<delay_compensation> && Updater<dcasgd>);

template <>
inline constexpr std::string_view rule_name<delay_compensation> = "delay_compensation";
template <>
inline constexpr std::string_view rule_name<dcasgd> = "dcasgd";

}  // namespace pushpull::update
