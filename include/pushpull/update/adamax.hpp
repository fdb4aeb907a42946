/// @file
/// Adamax: Adam by the largest gradient instead of the mean square.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// The place of Adamax's epsilon.
enum class adamax_epsilon {
  norm,        ///< u = max(beta2 u, |g| + epsilon): PyTorch.
  denominator  ///< m / (u + epsilon): MXNet 2.0.
};

/// Kingma & Ba 2015, algorithm 2, as PyTorch defines it: m as in adam;  u = max(beta2 u, |g| + epsilon);
///   w = w - learning_rate / (1 - beta1^t) m / u.
/// 28 bytes per float parameter.
template <adamax_epsilon Place>
struct basic_adamax {
  double learning_rate = 2e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;

  static constexpr auto state_names = states("exp_avg", "exp_inf");

  /// @throws invalid_argument as adam's.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("adamax", learning_rate, beta1, beta2, epsilon);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(step<A> const& s) const noexcept {
    return detail::to_finite<A>(learning_rate / bias_correction(beta1, s.t));
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(A const& step_size, V& w, V const& g, V& m, V& u) const noexcept {
    constexpr bool in_norm = Place == adamax_epsilon::norm;
    m = beta1 * m + (1 - beta1) * g;
    double const least = detail::inside_root<V>(epsilon);
    u = max(abs(g) + (in_norm ? least : 0), beta2 * u);
    w -= step_size * m / (u + (in_norm ? 0 : least));
  }
};

/// Adamax in PyTorch's form.
using adamax = basic_adamax<adamax_epsilon::norm>;

static_assert(Updater<adamax> && Updater<basic_adamax<adamax_epsilon::denominator>>);

template <>
inline constexpr std::string_view rule_name<basic_adamax<adamax_epsilon::norm>> = "adamax";
template <>
inline constexpr std::string_view rule_name<basic_adamax<adamax_epsilon::denominator>> =
    "adamax.epsilon_in_denominator";

}  // namespace pushpull::update
