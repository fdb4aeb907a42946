/// @file
/// FTML: follow the moving leader.
#pragma once

#include <string_view>

#include <cuda/std/cmath>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Zheng & Kwok 2017, algorithm 1: v as in adam;  d' = d;  d = (1 - beta1^t) / learning_rate (sqrt(v') + epsilon),
///   v' = v / (1 - beta2^t);  z = beta1 z + (1 - beta1) g - (d - beta1 d') w;  w = -z / d.
/// With a rate of 0, or one so small that d would be infinite, weight and states stay. So do those of an element whose
/// next d or z would overflow. 36 bytes per float parameter.
struct ftml {
  double learning_rate = 2.5e-3;
  double beta1 = 0.6;
  double beta2 = 0.999;
  double epsilon = 1e-8;

  static constexpr auto state_names = states("d", "v", "z");

  /// @throws invalid_argument as adam's, and on an epsilon of 0.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("ftml", learning_rate, beta1, beta2, epsilon);
    c.positive("ftml: epsilon", epsilon);
  }

  /// The values that depend on t alone.
  template <class A>
  struct scalars {
    A inverse_rate;  ///< (1 - beta1^t) / learning_rate; 0 where that is no finite number
    A root_scale;    ///< 1 / sqrt(1 - beta2^t)
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    auto const inverse = static_cast<A>(bias_correction(beta1, s.t) / learning_rate);
    return {pushpull::detail::is_finite(inverse) ? inverse : A(0),
            static_cast<A>(1 / cuda::std::sqrt(bias_correction(beta2, s.t)))};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& d, V& v, V& z) const noexcept {
    if (!(s.inverse_rate > 0)) return;  // for all elements alike
    V const squares = detail::faded(beta2, v) + (1 - beta2) * g * g;
    V const next_d = max(s.inverse_rate * (sqrt(squares) * s.root_scale + epsilon),
                         detail::smallest_normal<typename V::element_type>);
    V const next_z = beta1 * z + (1 - beta1) * g - (next_d - beta1 * d) * w;
    auto const stays = is_finite(g) && !(is_finite(next_d) && is_finite(next_z));
    w = select(stays, w, -next_z / next_d);
    d = select(stays, d, next_d);
    v = select(stays, v, squares);
    z = select(stays, z, next_z);
  }
};

static_assert(Updater<ftml>);

template <>
inline constexpr std::string_view rule_name<ftml> = "ftml";

}  // namespace pushpull::update
