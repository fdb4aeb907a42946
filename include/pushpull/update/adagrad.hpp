/// @file
/// AdaGrad: rates that fall with the squares of all gradients so far.
#pragma once

#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Duchi et al. 2011, as PyTorch defines it: h = h + g^2;  w = w - rate g / (sqrt(h) + epsilon), where
/// rate = learning_rate / (1 + (t - 1) lr_decay) and h begins at initial_accumulator_value.
/// 20 bytes per float parameter.
/// @tparam Epsilon  Where epsilon stands: epsilon_outside_root or epsilon_inside_root.
template <class Epsilon>
struct basic_adagrad {
  double learning_rate = 1e-2;
  double lr_decay = 0;
  double initial_accumulator_value = 0;
  double epsilon = 1e-10;

  static constexpr auto state_names = states("sum");

  /// Sums begin at initial_accumulator_value.
  constexpr bool starts_states() const { return initial_accumulator_value > 0; }

  /// @throws invalid_argument on a negative hyperparameter.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("adagrad: learning_rate", learning_rate);
    c.not_negative("adagrad: lr_decay", lr_decay);
    c.not_negative("adagrad: initial_accumulator_value", initial_accumulator_value);
    c.not_negative("adagrad: epsilon", epsilon);
  }

  /// The values that depend on t alone.
  template <class A>
  struct scalars {
    A rate;
    A initial;  ///< The initial value of the sum, in the first step; 0 later.
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    return {static_cast<A>(learning_rate / (1 + static_cast<double>(s.t - 1) * lr_decay)),
            static_cast<A>(s.t == 1 ? initial_accumulator_value : 0)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& h) const noexcept {
    h += g * g + s.initial;
    w -= s.rate * g / Epsilon::root(h, epsilon);
  }
};

/// AdaGrad in PyTorch's form.
using adagrad = basic_adagrad<epsilon_outside_root>;

static_assert(Updater<adagrad> && Updater<basic_adagrad<epsilon_inside_root>>);

template <>
inline constexpr std::string_view rule_name<basic_adagrad<epsilon_outside_root>> = "adagrad";
template <>
inline constexpr std::string_view rule_name<basic_adagrad<epsilon_inside_root>> = "adagrad.epsilon_inside_root";

}  // namespace pushpull::update
