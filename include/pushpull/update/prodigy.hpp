/// @file
/// Prodigy: Adam that finds its rate from the distance that the weights have gone.
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

/// Mishchenko & Defazio 2023, algorithm 4, as its authors' package prodigyopt defines it. With p0 the weight before the
/// first update, beta3 = sqrt(beta2), and sums over the elements of all keys of a step:
///   rate = d learning_rate, with correct_bias times sqrt(1 - beta2^t) / (1 - beta1^t);
///   m = beta1 m + d (1 - beta1) g;   v = beta2 v + d^2 (1 - beta2) g^2;
///   s = beta3 s + d / d0 (safeguard_warmup ? d : rate) g;   r = beta3 r + sum of d / d0 rate g (p0 - w);
///   d' = d_coef r / sum of |s|,  and the next d is the largest d' so far, at least d0, at most growth_rate d;
///   w = (1 - rate weight_decay) w - rate m / (sqrt(v) + e epsilon),  e the next d.
/// As long as all gradients have been 0, d and r stay. d is of the store: one step is what one call updates, so give it all keys.
/// Carried numbers of checkpoints: d, the largest d', r.
/// 68 bytes per float parameter: a phase before the pass reads g, w and all states.
struct prodigy {
  double learning_rate = 1;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double d0 = 1e-6;
  double d_coef = 1;
  double growth_rate = std::numeric_limits<double>::infinity();
  bool correct_bias = false;
  bool safeguard_warmup = false;

  static constexpr auto state_names = states("exp_avg", "exp_avg_sq", "s", "p0");
  using sums_type = cuda::std::array<double, 5>;  ///< g (p0 - w) with its factors, |s|; d, the largest d', r.
  static constexpr std::size_t carried = 3;

  /// p0 is the weight before the first update.
  constexpr bool starts_states() const { return true; }

  /// @throws invalid_argument as adam's, on a negative weight_decay or d_coef, a d0 outside [1e-12, 1], and a growth_rate
  /// below 1.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("prodigy", learning_rate, beta1, beta2, epsilon);
    c.not_negative("prodigy: weight_decay", weight_decay);
    c.in("prodigy: d0", d0, {.low = least_d, .high = 1});
    c.not_negative("prodigy: d_coef", d_coef);
    c.in("prodigy: growth_rate", growth_rate, {.low = 1, .high = cuda::std::numeric_limits<double>::infinity()});
    c.any("prodigy: correct_bias", correct_bias);
    c.any("prodigy: safeguard_warmup", safeguard_warmup);
  }

  template <class A>
  struct scalars {
    bool first;  ///< p0 begins here.
    A rate;
    A moment_gain;    ///< d (1 - beta1)
    A square_gain;    ///< d^2 (1 - beta2)
    A s_gain;         ///< d / d0 (safeguard_warmup ? d : rate)
    A distance_gain;  ///< d / d0 rate
    A offset;         ///< The next d times epsilon.
    A kept;           ///< Of the weight, by its decay.
  };

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE cuda::std::array<V, 2> pre_reduce(scalars<A> const& s, V const& w, V const& g, V const&,
                                                           V const&, V const& sum, V const& p0) const noexcept {
    V const distance = s.first ? V(0) : p0 - w;
    return {s.distance_gain * g * distance, abs(beta3() * sum + s.s_gain * g)};
  }

  PUSHPULL_HOST_DEVICE sums_type initial_sums() const { return {0, 0, d0, d0, 0}; }
  /// Sums that are not finite, of a step that another stage may skip, change nothing.
  PUSHPULL_HOST_DEVICE void carry(sums_type& sums) const noexcept {
    if (!(sums[1] > 0) || !pushpull::detail::is_finite(sums[0]) || !pushpull::detail::is_finite(sums[1])) return;
    sums[4] = beta3() * sums[4] + sums[0];
    double const found = d_coef * sums[4] / sums[1];
    if (found > sums[3]) sums[3] = found;
    double const d = !(sums[2] > d0) && found > sums[2] ? found : sums[2];
    double const most = d * growth_rate;
    sums[2] = sums[3] < most ? sums[3] : most;
  }

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s, sums_type const& sums) const noexcept {
    double const d = sums[2];
    double rate = d * learning_rate;
    if (correct_bias) rate *= cuda::std::sqrt(bias_correction(beta2, s.t)) / bias_correction(beta1, s.t);
    sums_type next = sums;
    carry(next);
    return {s.t == 1,
            detail::to_finite<A>(rate),
            detail::to_finite<A>(d * (1 - beta1)),
            detail::to_finite<A>(d * d * (1 - beta2)),
            detail::to_finite<A>(d / d0 * (safeguard_warmup ? d : rate)),
            detail::to_finite<A>(d / d0 * rate),
            detail::to_finite<A>(detail::beside_root<pack<A>>(next[2] * epsilon)),
            detail::kept<A>(rate, weight_decay)};
  }

  // The branch goes one way for all elements of a pass.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v, V& sum,
                                         V& p0) const noexcept {
    if (s.first) p0 = w;
    m = beta1 * m + s.moment_gain * g;
    v = detail::faded(beta2, v) + s.square_gain * g * g;
    sum = beta3() * sum + s.s_gain * g;
    w = s.kept * w - s.rate * m / (sqrt(v) + s.offset);
  }

 private:
  /// The smallest d0: below, squares of moments that adapt to it would be 0 in float.
  static constexpr double least_d = 1e-12;

  PUSHPULL_HOST_DEVICE double beta3() const { return cuda::std::sqrt(beta2); }
};

static_assert(Updater<prodigy> && PreReduction<prodigy>);

template <>
inline constexpr std::string_view rule_name<prodigy> = "prodigy";

}  // namespace pushpull::update
