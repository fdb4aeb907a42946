/// @file
/// MARS: AdamW on gradients whose variance the gradient before reduces.
#pragma once

#include <string_view>

#include <cuda/std/cmath>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Yuan et al. 2024, algorithm 2 (MARS-AdamW) in its approximate form, where the gradient before is that of its own batch,
/// as timm defines it:
///   c = g + gamma beta1 / (1 - beta1) (g - previous), or g in the first update;  c = c / max(1, |c|), by the norm of each
///   key;
///   adamw's step on c.
/// Its authors give tensors of one dimension to adamw, by parameter groups.
/// 56 bytes per float parameter: a phase before the pass reads g, w and all states.
struct mars {
  double learning_rate = 3e-3;
  double beta1 = 0.95;
  double beta2 = 0.99;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double gamma = 0.025;

  static constexpr auto state_names = states("exp_avg", "exp_avg_sq", "previous_gradient");
  static constexpr bool per_tensor = true;

  /// @throws invalid_argument as adam's, and on a negative weight_decay or gamma.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("mars", learning_rate, beta1, beta2, epsilon);
    c.not_negative("mars: weight_decay", weight_decay);
    c.not_negative("mars: gamma", gamma);
  }

  template <class A>
  struct scalars {
    A step_size;   ///< learning_rate / (1 - beta1^t)
    A root_scale;  ///< 1 / sqrt(1 - beta2^t)
    A correction;  ///< gamma beta1 / (1 - beta1), or 0
    A unit;        ///< 1 / max(1, |c|)
    A kept;        ///< Of the weight, by its decay.
  };

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(scalars<A> const& s, V const&, V const& g, V const&, V const&,
                                      V const& previous) const noexcept {
    V const c = corrected(s, g, previous);
    return c * c;
  }

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s, double sum) const noexcept {
    return {detail::to_finite<A>(learning_rate / bias_correction(beta1, s.t)),
            static_cast<A>(1 / cuda::std::sqrt(bias_correction(beta2, s.t))),
            s.t == 1 ? A(0) : detail::to_finite<A>(gamma * beta1 / (1 - beta1)),
            static_cast<A>(sum > 1 ? 1 / cuda::std::sqrt(sum) : 1), detail::kept<A>(learning_rate, weight_decay)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v,
                                         V& previous) const noexcept {
    V const c = s.unit * corrected(s, g, previous);
    m = beta1 * m + (1 - beta1) * c;
    v = detail::faded(beta2, v) + (1 - beta2) * c * c;
    previous = g;
    w = s.kept * w - s.step_size * m / (sqrt(v) * s.root_scale + detail::beside_root<V>(epsilon));
  }

 private:
  /// c before its division, finite if g and the gradient before are, and only then.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE V corrected(scalars<A> const& s, V const& g, V const& previous) const {
    V const c = g + s.correction * (g - previous);
    V const held = min(max(c, -detail::largest_number<V>), detail::largest_number<V>);
    return select(is_finite(g) && is_finite(previous), held, c);
  }
};

static_assert(Updater<mars> && PreReduction<mars>);

template <>
inline constexpr std::string_view rule_name<mars> = "mars";

}  // namespace pushpull::update
