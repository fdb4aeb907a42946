/// @file
/// RMSProp: gradients divided by a moving average of their size; plain, centered, and as a stage of a pipe.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// v = alpha v + (1 - alpha) g^2;  g = g / (sqrt(v) + epsilon). RMSProp with a velocity, as PyTorch defines it, is
/// `scale_by_rms{...} | momentum{...}`.
/// @tparam Epsilon  Where epsilon stands: epsilon_outside_root or epsilon_inside_root.
template <class Epsilon>
struct basic_scale_by_rms {
  double alpha = 0.99;
  double epsilon = 1e-8;

  static constexpr auto state_names = states("square_avg");

  /// @throws invalid_argument on an alpha outside [0, 1) or a negative epsilon.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.in_range("rmsprop: alpha", alpha, 0, 1);
    c.not_negative("rmsprop: epsilon", epsilon);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V const&, V& g, V& v) const noexcept {
    v = detail::faded(alpha, v) + (1 - alpha) * g * g;
    g /= Epsilon::root(v, epsilon);
  }
};

/// v = alpha v + (1 - alpha) g^2;  a = alpha a + (1 - alpha) g;  g = g / (sqrt(v - a^2) + epsilon) (Graves 2013).
/// Rounding can make v - a^2 negative where gradients hardly change: it counts as 0 then. Where v has become infinite, so
/// has the variance.
/// @tparam Epsilon  Where epsilon stands: epsilon_outside_root or epsilon_inside_root.
template <class Epsilon>
struct basic_scale_by_centered_rms {
  double alpha = 0.99;
  double epsilon = 1e-8;

  static constexpr auto state_names = states("square_avg", "grad_avg");

  /// @throws invalid_argument on an alpha outside [0, 1) or a negative epsilon.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    basic_scale_by_rms<Epsilon>{alpha, epsilon}.check(c);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V const&, V& g, V& v, V& a) const noexcept {
    v = detail::faded(alpha, v) + (1 - alpha) * g * g;
    a = alpha * a + (1 - alpha) * g;
    g /= Epsilon::root(select(v <= detail::largest_number<V>, max(v - a * a, 0), v), epsilon);
  }
};

/// With the epsilon outside of the root.
using scale_by_rms = basic_scale_by_rms<epsilon_outside_root>;
/// Same, of the centered form.
using scale_by_centered_rms = basic_scale_by_centered_rms<epsilon_outside_root>;

/// Tieleman & Hinton 2012, as PyTorch defines it: w = w - learning_rate g / (sqrt(v) + epsilon) with v as in
/// scale_by_rms. 20 bytes per float parameter.
struct rmsprop {
  double learning_rate = 1e-2;
  double alpha = 0.99;
  double epsilon = 1e-8;

  static constexpr auto state_names = scale_by_rms::state_names;

  /// @throws invalid_argument on a negative rate or epsilon, or an alpha outside [0, 1).
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("rmsprop: learning_rate", learning_rate);
    scale_by_rms{alpha, epsilon}.check(c);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& v) const noexcept {
    V h = g;
    scale_by_rms{alpha, epsilon}(s, w, h, v);
    w -= learning_rate * h;
  }
};

/// RMSProp by the variance instead of the mean square, as PyTorch defines it. 28 bytes per float parameter.
struct centered_rmsprop {
  double learning_rate = 1e-2;
  double alpha = 0.99;
  double epsilon = 1e-8;

  static constexpr auto state_names = scale_by_centered_rms::state_names;

  /// @throws invalid_argument as rmsprop's.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    rmsprop{learning_rate, alpha, epsilon}.check(c);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& v, V& a) const noexcept {
    V h = g;
    scale_by_centered_rms{alpha, epsilon}(s, w, h, v, a);
    w -= learning_rate * h;
  }
};

static_assert(GradientTransform<scale_by_rms> && GradientTransform<scale_by_centered_rms>);
static_assert(Updater<rmsprop> && Updater<centered_rmsprop>);

template <>
inline constexpr std::string_view rule_name<basic_scale_by_rms<epsilon_outside_root>> = "scale_by_rms";
template <>
inline constexpr std::string_view rule_name<basic_scale_by_rms<epsilon_inside_root>> =
    "scale_by_rms.epsilon_inside_root";
template <>
inline constexpr std::string_view rule_name<basic_scale_by_centered_rms<epsilon_outside_root>> =
    "scale_by_centered_rms";
template <>
inline constexpr std::string_view rule_name<basic_scale_by_centered_rms<epsilon_inside_root>> =
    "scale_by_centered_rms.epsilon_inside_root";
template <>
inline constexpr std::string_view rule_name<rmsprop> = "rmsprop";
template <>
inline constexpr std::string_view rule_name<centered_rmsprop> = "centered_rmsprop";

}  // namespace pushpull::update
