/// @file
/// FTML: follow the moving leader.
#pragma once

#include <string_view>

#include <cuda/std/cmath>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Zheng & Kwok 2017, algorithm 1: v as in adam;  d' = d;  d = (1 - beta1^t) / learning_rate (sqrt(v') + epsilon),
///   v' = v / (1 - beta2^t);  z = beta1 z + (1 - beta1) g - (d - beta1 d') w;  w = -z / d.
/// 36 bytes per float parameter.
struct ftml {
  double learning_rate = 2.5e-3;
  double beta1 = 0.6;
  double beta2 = 0.999;
  double epsilon = 1e-8;

  static constexpr auto state_names = states("d", "v", "z");

  /// @throws invalid_argument as adam's, and on a rate or an epsilon of 0.
  void validate() const {
    detail::expects_adaptive("ftml", learning_rate, beta1, beta2, epsilon);
    detail::expects_positive("ftml: learning_rate", learning_rate);
    detail::expects_positive("ftml: epsilon", epsilon);
  }

  /// What depends on t alone.
  template <class A>
  struct scalars {
    A inverse_rate;  ///< (1 - beta1^t) / learning_rate
    A root_scale;    ///< 1 / sqrt(1 - beta2^t)
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    return {static_cast<A>(bias_correction(beta1, s.t) / learning_rate),
            static_cast<A>(1 / cuda::std::sqrt(bias_correction(beta2, s.t)))};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& d, V& v, V& z) const noexcept {
    v = beta2 * v + (1 - beta2) * g * g;
    V const denominator = s.inverse_rate * (sqrt(v) * s.root_scale + epsilon);
    z = beta1 * z + (1 - beta1) * g - (denominator - beta1 * d) * w;
    d = denominator;
    w = -z / d;
  }
};

static_assert(Updater<ftml>);

template <>
inline constexpr std::string_view rule_name<ftml> = "ftml";

}  // namespace pushpull::update
