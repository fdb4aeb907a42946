/// @file
/// Adam with rates that adapt to the norms of each tensor: LAMB and LANS.
#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <string_view>

#include <cuda/std/array>
#include <cuda/std/cmath>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

namespace detail {

/// phi(|w|) / |u|, from sums of squares, where phi brings a norm within bounds; 1 where one of the two is 0.
PUSHPULL_HOST_DEVICE inline double trust_ratio(double w, double u, double lower, double upper) {
  double const norm = cuda::std::sqrt(w);
  bool const below = norm<lower, above = norm> upper;
  double const bounded = below ? lower : (above ? upper : norm);
  if (!(bounded > 0 && u > 0)) return 1;
  return below || above ? bounded / cuda::std::sqrt(u) : cuda::std::sqrt(w / u);
}

}  // namespace detail

/// You et al. 2020, algorithm 2, with the norms of each key, and as its phi the bounds on |w|:
///   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2;
///   u = m' / (sqrt(v') + epsilon) + weight_decay w,  m' = m / (1 - beta1^t),  v' = v / (1 - beta2^t);
///   w = w - learning_rate phi(|w|) / |u| u,  phi(x) = min(max(x, lower_bound), upper_bound), with a ratio of 1 if one of
///   the two is 0. Without correct_bias m and v stand in the places of m' and v'.
/// 44 bytes per float parameter: a phase before the pass reads g, w, m and v.
struct lamb {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-6;
  double weight_decay = 0;
  double lower_bound = 0;  ///< Of |w|.
  double upper_bound = std::numeric_limits<double>::infinity();
  bool correct_bias = true;

  static constexpr auto state_names = states("exp_avg", "exp_avg_sq");
  static constexpr bool per_tensor = true;
  using sums_type = cuda::std::array<double, 2>;  ///< Squares of w, of u.

  /// @throws invalid_argument on a negative rate, epsilon or decay, or a beta outside [0, 1), or bounds that are none.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("lamb: learning_rate", learning_rate);
    c.in_range("lamb: beta1", beta1, 0, 1);
    c.in_range("lamb: beta2", beta2, 0, 1);
    c.not_negative("lamb: epsilon", epsilon);
    c.not_negative("lamb: weight_decay", weight_decay);
    c.bounds("lamb", lower_bound, upper_bound);
    c.any("lamb: correct_bias", correct_bias);
  }

  template <class A>
  struct scalars {
    A scale;       ///< 1 / (1 - beta1^t), or 1
    A root_scale;  ///< 1 / sqrt(1 - beta2^t), or 1
    A rate;        ///< learning_rate phi(|w|) / |u|
  };

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE cuda::std::array<V, 2> pre_reduce(scalars<A> const& s, V const& w, V const& g, V const& m,
                                                           V const& v) const noexcept {
    V m_next = m, v_next = v;
    V const u = direction(s, w, g, m_next, v_next);
    return {w * w, u * u};
  }

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s, sums_type const& sums) const noexcept {
    double const rate = learning_rate * detail::trust_ratio(sums[0], sums[1], lower_bound, upper_bound);
    if (!correct_bias) return {A(1), A(1), detail::to_finite<A>(rate)};
    return {static_cast<A>(1 / bias_correction(beta1, s.t)),
            static_cast<A>(1 / cuda::std::sqrt(bias_correction(beta2, s.t))), detail::to_finite<A>(rate)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v) const noexcept {
    w -= s.rate * direction(s, w, g, m, v);
  }

 private:
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE V direction(scalars<A> const& s, V const& w, V const& g, V& m, V& v) const {
    m = beta1 * m + (1 - beta1) * g;
    v = detail::faded(beta2, v) + (1 - beta2) * g * g;
    return s.scale * m / (sqrt(v) * s.root_scale + detail::beside_root<V>(epsilon)) + weight_decay * w;
  }
};

/// Zheng et al. 2020, algorithm 2, with the norms of each key:
///   h = g / |g|;   m, v, m', v' as LAMB's, of h;   y = sqrt(v') + epsilon;
///   u = m' / y + weight_decay w;   e = h / y + weight_decay w;
///   w = w - learning_rate phi(|w|) (beta1 u / |u| + (1 - beta1) e / |e|), phi and ratios as LAMB's.
/// 48 bytes per float parameter: two phases before the pass, the first reads g, the second g, w, m and v.
struct lans {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-6;
  double weight_decay = 0;
  double lower_bound = 0;  ///< Of |w|.
  double upper_bound = std::numeric_limits<double>::infinity();

  static constexpr auto state_names = lamb::state_names;
  static constexpr bool per_tensor = true;
  static constexpr std::size_t phases = 2;
  static constexpr std::size_t first_sums[phases] = {0, 1};
  using sums_type = cuda::std::array<double, 4>;  ///< Squares of g; of w, u, e.

  /// @throws invalid_argument as lamb's.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("lans: learning_rate", learning_rate);
    c.in_range("lans: beta1", beta1, 0, 1);
    c.in_range("lans: beta2", beta2, 0, 1);
    c.not_negative("lans: epsilon", epsilon);
    c.not_negative("lans: weight_decay", weight_decay);
    c.bounds("lans", lower_bound, upper_bound);
  }

  template <class A>
  struct scalars {
    A unit;           ///< 1 / |g|, or 1
    A scale;          ///< 1 / (1 - beta1^t)
    A root_scale;     ///< 1 / sqrt(1 - beta2^t)
    A momentum_rate;  ///< learning_rate beta1 phi(|w|) / |u|
    A gradient_rate;  ///< learning_rate (1 - beta1) phi(|w|) / |e|
  };

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(phase<0>, S const&, V const&, V const& g) const noexcept {
    return g * g;
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE cuda::std::array<V, 3> pre_reduce(phase<1>, scalars<A> const& s, V const& w, V const& g,
                                                           V const& m, V const& v) const noexcept {
    V m_next = m, v_next = v, e(0);
    V const u = directions(s, w, g, m_next, v_next, e);
    return {w * w, u * u, e * e};
  }

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s, sums_type const& sums) const noexcept {
    return {detail::to_finite<A>(sums[0] > 0 ? 1 / cuda::std::sqrt(sums[0]) : 1),
            static_cast<A>(1 / bias_correction(beta1, s.t)),
            static_cast<A>(1 / cuda::std::sqrt(bias_correction(beta2, s.t))),
            detail::to_finite<A>(learning_rate * beta1 * ratio(sums[1], sums[2])),
            detail::to_finite<A>(learning_rate * (1 - beta1) * ratio(sums[1], sums[3]))};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v) const noexcept {
    V e(0);
    V const u = directions(s, w, g, m, v, e);
    w -= s.momentum_rate * u + s.gradient_rate * e;
  }

 private:
  PUSHPULL_HOST_DEVICE double ratio(double w, double u) const {
    return detail::trust_ratio(w, u, lower_bound, upper_bound);
  }

  /// u, and e by its argument.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE V directions(scalars<A> const& s, V const& w, V const& g, V& m, V& v, V& e) const {
    V const h = s.unit * g;
    m = beta1 * m + (1 - beta1) * h;
    v = detail::faded(beta2, v) + (1 - beta2) * h * h;
    V const y = sqrt(v) * s.root_scale + detail::beside_root<V>(epsilon);
    e = h / y + weight_decay * w;
    return s.scale * m / y + weight_decay * w;
  }
};

static_assert(Updater<lamb> && PreReduction<lamb> && Updater<lans> && PreReduction<lans>);

template <>
inline constexpr std::string_view rule_name<lamb> = "lamb";
template <>
inline constexpr std::string_view rule_name<lans> = "lans";

}  // namespace pushpull::update
