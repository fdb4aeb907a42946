/// @file
/// D-Adaptation of Adam: a rate that rises to a lower bound of the distance to a solution.
#pragma once

#include <cstddef>
#include <limits>
#include <string_view>

#include <cuda/std/array>
#include <cuda/std/cmath>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Defazio & Mishchenko 2023, algorithm 5, as its authors' package dadaptation defines DAdaptAdam with its decoupled decay.
/// With beta3 = sqrt(beta2), and sums over the elements of all keys of a step:
///   rate = d learning_rate, with correct_bias times sqrt(1 - beta2^t) / (1 - beta1^t);
///   r = beta3 r + (1 - beta3) sum of rate g s / (sqrt(v) + epsilon);
///   m = beta1 m + rate (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2;   s = beta3 s + rate (1 - beta3) g;
///   w = (1 - rate weight_decay) w - m / (sqrt(v) + epsilon);
///   d = max(d, min(d', growth_rate d)),  d' = r / ((1 - beta3) sum of |s|), for the next step.
/// As long as all gradients have been 0, d and r stay. d is of the store: one step is what one call updates, so give it all keys.
/// Carried numbers of checkpoints: d, r. 56 bytes per float parameter: a phase before the pass reads g, w and all states.
struct dadapt_adam {
  double learning_rate = 1;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double d0 = 1e-6;
  double growth_rate = std::numeric_limits<double>::infinity();
  bool correct_bias = false;

  static constexpr auto state_names = states("exp_avg", "exp_avg_sq", "s");
  using sums_type = cuda::std::array<double, 4>;  ///< rate g s / (sqrt(v) + epsilon), |s|; d, r.
  static constexpr std::size_t carried = 2;

  /// @throws invalid_argument as adam's, on a negative weight_decay, a d0 outside (0, 1], and a growth_rate below 1.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("dadapt_adam", learning_rate, beta1, beta2, epsilon);
    c.not_negative("dadapt_adam: weight_decay", weight_decay);
    c.in("dadapt_adam: d0", d0, {.high = 1, .without_low = true});
    c.in("dadapt_adam: growth_rate", growth_rate, {.low = 1, .high = cuda::std::numeric_limits<double>::infinity()});
    c.any("dadapt_adam: correct_bias", correct_bias);
  }

  template <class A>
  struct scalars {
    A rate;
    A moment_gain;  ///< rate (1 - beta1)
    A s_gain;       ///< rate (1 - beta3)
    A kept;         ///< Of the weight, by its decay.
  };

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE cuda::std::array<V, 2> pre_reduce(scalars<A> const& s, V const&, V const& g, V const&,
                                                           V const& v, V const& sum) const noexcept {
    return {s.rate * (sum / (sqrt(v) + detail::beside_root<V>(epsilon)) * g), abs(beta3() * sum + s.s_gain * g)};
  }

  PUSHPULL_HOST_DEVICE sums_type initial_sums() const { return {0, 0, d0, 0}; }
  /// Sums that are not finite, of a step that another stage may skip, change nothing.
  PUSHPULL_HOST_DEVICE void carry(sums_type& sums) const noexcept {
    if (!(sums[1] > 0) || !pushpull::detail::is_finite(sums[0]) || !pushpull::detail::is_finite(sums[1])) return;
    sums[3] = beta3() * sums[3] + (1 - beta3()) * sums[0];
    double const found = sums[3] / ((1 - beta3()) * sums[1]), most = sums[2] * growth_rate;
    double const next = found < most ? found : most;
    if (next > sums[2]) sums[2] = next;
  }

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s, sums_type const& sums) const noexcept {
    double rate = sums[2] * learning_rate;
    if (correct_bias) rate *= cuda::std::sqrt(bias_correction(beta2, s.t)) / bias_correction(beta1, s.t);
    return {detail::to_finite<A>(rate), detail::to_finite<A>(rate * (1 - beta1)),
            detail::to_finite<A>(rate * (1 - beta3())), detail::kept<A>(rate, weight_decay)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v, V& sum) const noexcept {
    m = beta1 * m + s.moment_gain * g;
    v = detail::faded(beta2, v) + (1 - beta2) * g * g;
    sum = beta3() * sum + s.s_gain * g;
    w = s.kept * w - m / (sqrt(v) + detail::beside_root<V>(epsilon));
  }

 private:
  PUSHPULL_HOST_DEVICE double beta3() const { return cuda::std::sqrt(beta2); }
};

static_assert(Updater<dadapt_adam> && PreReduction<dadapt_adam>);

template <>
inline constexpr std::string_view rule_name<dadapt_adam> = "dadapt_adam";

}  // namespace pushpull::update
