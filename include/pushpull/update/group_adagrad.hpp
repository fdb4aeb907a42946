/// @file
/// AdaGrad with one rate per row.
#pragma once

#include <string_view>

#include <cuda/std/array>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// AdaGrad (Duchi et al. 2011) with the mean of each row's squares, as MXNet's contrib GroupAdaGrad:
///   h_r = h_r + mean over row r of g^2;   w = w - learning_rate g / sqrt(h_r + epsilon).
/// A row is all elements of one index of the first dimension; of a vector each element, which is AdaGrad. Keeps a number per
/// row. MXNet's takes tensors of two dimensions alone.
/// @tparam Epsilon  Where epsilon stands: epsilon_outside_root or epsilon_inside_root.
template <class Epsilon>
struct basic_group_adagrad {
  double learning_rate = 1e-2;
  double epsilon = 1e-5;

  static constexpr auto state_names = states();
  static constexpr factors factored{.rows = "history"};
  static constexpr bool per_tensor = true;
  using sums_type = cuda::std::array<double, 0>;

  /// @throws invalid_argument on a negative hyperparameter.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("group_adagrad: learning_rate", learning_rate);
    c.not_negative("group_adagrad: epsilon", epsilon);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(S const&, V const&, V const& g) const noexcept {
    return g * g;
  }

  template <class A>
  PUSHPULL_HOST_DEVICE matrix<A> prepare(factored_step<A> const& s, sums_type const&) const noexcept {
    return s.numbers(1, 1);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(matrix_numbers<A> const& s, V& w, V const& g) const noexcept {
    w -= learning_rate * g / Epsilon::root(s.template rows<V>(A(1)), epsilon);
  }
};

/// MXNet 1.x's form.
using group_adagrad = basic_group_adagrad<epsilon_inside_root>;

static_assert(Updater<group_adagrad> && Factored<group_adagrad>);

template <>
inline constexpr std::string_view rule_name<basic_group_adagrad<epsilon_inside_root>> = "group_adagrad";
template <>
inline constexpr std::string_view rule_name<basic_group_adagrad<epsilon_outside_root>> =
    "group_adagrad.epsilon_outside_root";

}  // namespace pushpull::update
