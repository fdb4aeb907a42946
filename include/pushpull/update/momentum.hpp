/// @file
/// Gradient descent with a velocity: classical and Nesterov's momentum.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// b = momentum b + (1 - dampening) g;  w = w - learning_rate b. The definition of PyTorch's SGD: the first step has
/// b = g. MXNet's keeps learning_rate inside b, so that a changed rate there does not rescale what b has gathered.
/// 20 bytes per float parameter.
struct momentum {
  double learning_rate = 1e-2;
  double momentum = 0.9;
  double dampening = 0;

  static constexpr auto state_names = states("momentum_buffer");

  /// @throws invalid_argument on a negative rate or a momentum outside [0, 1).
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("momentum: learning_rate", learning_rate);
    c.in_range("momentum: momentum", momentum, 0, 1);
    c.finite("momentum: dampening", dampening);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(step<A> const& s) const noexcept {
    return static_cast<A>(s.t == 1 ? 1.0 : 1.0 - dampening);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(A const& gradient_factor, V& w, V const& g, V& b) const noexcept {
    b = momentum * b + gradient_factor * g;
    w -= learning_rate * b;
  }
};

/// b = momentum b + g;  w = w - learning_rate (g + momentum b): Nesterov's momentum in the form of Sutskever et al.
/// 2013, as PyTorch defines it. 20 bytes per float parameter.
struct nesterov {
  double learning_rate = 1e-2;
  double momentum = 0.9;

  static constexpr auto state_names = states("momentum_buffer");

  /// @throws invalid_argument on a negative rate or a momentum outside [0, 1).
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("nesterov: learning_rate", learning_rate);
    c.in_range("nesterov: momentum", momentum, 0, 1);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g, V& b) const noexcept {
    b = momentum * b + g;
    w -= learning_rate * (g + momentum * b);
  }
};

static_assert(Updater<momentum> && Updater<nesterov>);

template <>
inline constexpr std::string_view rule_name<momentum> = "momentum";
template <>
inline constexpr std::string_view rule_name<nesterov> = "nesterov";

}  // namespace pushpull::update
