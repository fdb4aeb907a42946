/// @file
/// ADOPT: Adam that divides each gradient by the moment of the earlier ones, and then takes the average.
#pragma once

#include <string_view>

#include <cuda/std/cmath>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Taniguchi et al. 2024, algorithm 2, as its authors and optax define it. The first update sets v = g^2. Later ones:
///   n = g / max(sqrt(v), epsilon) within +-(t - 1)^clip_exponent;  m = beta1 m + (1 - beta1) n;
///   w = (1 - learning_rate weight_decay) w - learning_rate m;  v = beta2 v + (1 - beta2) g^2.
/// 28 bytes per float parameter.
struct adopt {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.9999;
  double epsilon = 1e-6;
  double clip_exponent = 0.25;
  double weight_decay = 0;

  static constexpr auto state_names = states("exp_avg", "exp_avg_sq");
  static constexpr bool first_update_differs = true;  ///< Rows that come later have no v to begin with.

  /// @throws invalid_argument as adam's, on a clip_exponent outside [0, 1], and on a negative weight_decay.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("adopt", learning_rate, beta1, beta2, epsilon);
    c.in("adopt: clip_exponent", clip_exponent, {.high = 1});
    c.not_negative("adopt: weight_decay", weight_decay);
  }

  /// The values that depend on t alone.
  template <class A>
  struct scalars {
    bool first;  ///< The update that sets v alone.
    A limit;     ///< (t - 1)^clip_exponent
    A rate;
    A kept;  ///< Of the weight, by its decay.
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    return {s.t == 1, static_cast<A>(cuda::std::pow(static_cast<double>(s.t - 1), clip_exponent)),
            static_cast<A>(learning_rate), detail::kept<A>(learning_rate, weight_decay)};
  }

  // The branch goes one way for all elements of a pass.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v) const noexcept {
    if (s.first) {
      v = g * g;
      return;
    }
    V const n = g / max(sqrt(v), detail::beside_root<V>(epsilon));
    m = beta1 * m + (1 - beta1) * min(max(n, -s.limit), s.limit);
    w = s.kept * w - s.rate * m;
    v = detail::faded(beta2, v) + (1 - beta2) * g * g;
  }
};

static_assert(Updater<adopt>);

template <>
inline constexpr std::string_view rule_name<adopt> = "adopt";

}  // namespace pushpull::update
