/// @file
/// RAdam: Adam that waits with adaptive rates until their variance is known.
#pragma once

#include <string_view>

#include <cuda/std/cmath>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Liu et al. 2020, algorithm 2, as PyTorch defines it: m, v as in adam;  m' = m / (1 - beta1^t);
///   r_inf = 2 / (1 - beta2) - 1;  r = r_inf - 2 t beta2^t / (1 - beta2^t);
///   w = w - learning_rate m'                                                              where r <= 5,
///   w = w - learning_rate m' sqrt(1 - beta2^t) / (sqrt(v) + epsilon)
///         sqrt((r - 4) (r - 2) r_inf / ((r_inf - 4) (r_inf - 2) r))                       where r > 5.
/// 28 bytes per float parameter.
struct radam {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;

  static constexpr auto state_names = states("exp_avg", "exp_avg_sq");

  /// @throws invalid_argument as adam's.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("radam", learning_rate, beta1, beta2, epsilon);
  }

  /// The values that depend on t alone: w -= step_size m / (root_scale sqrt(v) + offset).
  template <class A>
  struct scalars {
    A step_size, root_scale, offset;
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    double const correction = bias_correction(beta2, s.t);
    double const limit = 2 / (1 - beta2) - 1;
    double const length = limit - 2 * static_cast<double>(s.t) * (1 - correction) / correction;
    double const step_size = learning_rate / bias_correction(beta1, s.t);
    if (length <= 5) return {detail::to_finite<A>(step_size), A(0), A(1)};
    double const rectification =
        cuda::std::sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length));
    return {detail::to_finite<A>(step_size * rectification * cuda::std::sqrt(correction)), A(1),
            static_cast<A>(detail::beside_root<pack<A>>(epsilon))};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v) const noexcept {
    m = beta1 * m + (1 - beta1) * g;
    v = detail::faded(beta2, v) + (1 - beta2) * g * g;
    w -= s.step_size * m / (s.root_scale * min(sqrt(v), detail::largest_number<V>) + s.offset);
  }
};

static_assert(Updater<radam>);

template <>
inline constexpr std::string_view rule_name<radam> = "radam";

}  // namespace pushpull::update
