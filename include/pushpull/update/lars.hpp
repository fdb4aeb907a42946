/// @file
/// Rates that adapt to the norms of each tensor: LARS.
#pragma once

#include <string_view>

#include <cuda/std/array>
#include <cuda/std/cmath>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// You, Gitman & Ginsburg 2017, algorithm 1, with the norms of each key:
///   rate = learning_rate trust_coefficient |w| / (|g| + weight_decay |w| + epsilon), or learning_rate if |w| or |g| is 0;
///   m = momentum m + rate (g + weight_decay w);   w = w - m.
/// 28 bytes per float parameter: a phase before the pass reads g and w.
struct lars {
  double learning_rate = 0.1;
  double momentum = 0.9;
  double weight_decay = 0;
  double trust_coefficient = 1e-3;
  double epsilon = 0;

  static constexpr auto state_names = states("momentum_buffer");
  static constexpr bool per_tensor = true;
  using sums_type = cuda::std::array<double, 2>;  ///< Squares of w, of g.

  /// @throws invalid_argument on a negative value, or a momentum of 1 or more.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("lars: learning_rate", learning_rate);
    c.in_range("lars: momentum", momentum, 0, 1);
    c.not_negative("lars: weight_decay", weight_decay);
    c.not_negative("lars: trust_coefficient", trust_coefficient);
    c.not_negative("lars: epsilon", epsilon);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE cuda::std::array<V, 2> pre_reduce(S const&, V const& w, V const& g) const noexcept {
    return {w * w, g * g};
  }

  /// The rate.
  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(step<A> const&, sums_type const& sums) const noexcept {
    double const w = cuda::std::sqrt(sums[0]), g = cuda::std::sqrt(sums[1]);
    double const trust = w > 0 && g > 0 ? trust_coefficient * w / (g + weight_decay * w + epsilon) : 1;
    return detail::to_finite<A>(learning_rate * trust);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(A const& rate, V& w, V const& g, V& m) const noexcept {
    m = momentum * m + rate * (g + weight_decay * w);
    w -= m;
  }
};

static_assert(Updater<lars> && PreReduction<lars>);

template <>
inline constexpr std::string_view rule_name<lars> = "lars";

}  // namespace pushpull::update
