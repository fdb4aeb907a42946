/// @file
/// Adam-mini: Adam with one second moment per row.
#pragma once

#include <cstdint>
#include <string_view>

#include <cuda/std/array>
#include <cuda/std/cmath>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Zhang et al. 2024, algorithm 1, with the blocks of their package adam-mini for matrices of neurons and of tokens:
///   m, m', v' as in adamw;  v_r = beta2 v_r + (1 - beta2) mean over row r of g^2;
///   w = (1 - learning_rate weight_decay) w - learning_rate m' / (sqrt(v'_r) + epsilon).
/// A row is all elements of one index of the first dimension: so (heads, ...) is the shape for queries and keys. In a vector each
/// element is a row, which is adamw. Keeps a number per row. 24 bytes per float parameter: a phase before the pass reads g.
struct adam_mini {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;

  static constexpr auto state_names = states("exp_avg");
  static constexpr factors factored{.rows = "exp_avg_sq"};
  static constexpr bool per_tensor = true;
  using sums_type = cuda::std::array<double, 0>;

  /// @throws invalid_argument as adam's, and on a negative weight_decay.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("adam_mini", learning_rate, beta1, beta2, epsilon);
    c.not_negative("adam_mini: weight_decay", weight_decay);
  }

  template <class A, class Numbers>
  struct scalars {
    A step_size;   ///< learning_rate / (1 - beta1^t)
    A root_scale;  ///< 1 / sqrt(1 - beta2^t)
    A kept;        ///< Of the weight, by its decay.
    Numbers of;    ///< Rows.

    PUSHPULL_DEVICE_INLINE auto at(std::int64_t number) const noexcept
      requires pushpull::detail::Numbered<Numbers>
    {
      return scalars<A, matrix_numbers<A>>{step_size, root_scale, kept, of.at(number)};
    }
  };

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(S const&, V const&, V const& g) const noexcept {
    return g * g;
  }

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A, matrix<A>> prepare(factored_step<A> const& s, sums_type const&) const noexcept {
    return {detail::to_finite<A>(learning_rate / bias_correction(beta1, s.t)),
            static_cast<A>(1 / cuda::std::sqrt(bias_correction(beta2, s.t))),
            detail::kept<A>(learning_rate, weight_decay), s.numbers(beta2, 1 - beta2)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A, matrix_numbers<A>> const& s, V& w, V const& g,
                                         V& m) const noexcept {
    m = beta1 * m + (1 - beta1) * g;
    V const root = sqrt(s.of.template rows<V>(A(1)));
    w = s.kept * w - s.step_size * m / (root * s.root_scale + detail::beside_root<V>(epsilon));
  }
};

static_assert(Updater<adam_mini> && Factored<adam_mini>);

template <>
inline constexpr std::string_view rule_name<adam_mini> = "adam_mini";

}  // namespace pushpull::update
