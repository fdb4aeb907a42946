/// @file
/// Transforms that bound the norm of gradients.
#pragma once

#include <string_view>

#include <cuda/std/cmath>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

namespace detail {

/// min(1, max_norm / (norm + 1e-6)), from the sum of squares. A sum that is not finite gives 0 or NaN: the weights show
/// it.
PUSHPULL_HOST_DEVICE inline double clipping_factor(double max_norm, double sum) {
  if (pushpull::detail::is_nan(sum)) return sum;  // under any flags of the compiler
  double const factor = max_norm / (cuda::std::sqrt(sum) + 1e-6);
  return factor >= 1 ? 1.0 : factor;
}

}  // namespace detail

/// g = g min(1, max_norm / (norm + 1e-6)), where norm is the Euclidean norm over the gradients of all keys of the step,
/// as they arrive at this stage: PyTorch's clip_grad_norm_. Costs a phase that reads every gradient once more.
struct clip_global_norm {
  double max_norm;

  static constexpr auto state_names = states();

  explicit clip_global_norm(double max_norm_) : max_norm(max_norm_) { validate(); }

  /// @throws invalid_argument on a negative norm.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("clip_global_norm: max_norm", max_norm);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(S const&, V const&, V const& g) const noexcept {
    return g * g;
  }

  /// The factor.
  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(step<A> const&, double sum) const noexcept {
    return static_cast<A>(detail::clipping_factor(max_norm, sum));
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(A const& factor, V const&, V& g) const noexcept {
    g *= factor;
  }
};

/// The same with the norm of each key's gradient for itself: Keras' clipnorm.
struct clip_norm {
  double max_norm;

  static constexpr auto state_names = states();
  static constexpr bool per_tensor = true;

  explicit clip_norm(double max_norm_) : max_norm(max_norm_) { validate(); }

  /// @throws invalid_argument on a negative norm.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("clip_norm: max_norm", max_norm);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(S const&, V const&, V const& g) const noexcept {
    return g * g;
  }

  /// The factor.
  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(step<A> const&, double sum) const noexcept {
    return static_cast<A>(detail::clipping_factor(max_norm, sum));
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(A const& factor, V const&, V& g) const noexcept {
    g *= factor;
  }
};

static_assert(GradientTransform<clip_global_norm> && PreReduction<clip_global_norm>);
static_assert(GradientTransform<clip_norm> && PreReduction<clip_norm>);

template <>
inline constexpr std::string_view rule_name<clip_global_norm> = "clip_global_norm";
template <>
inline constexpr std::string_view rule_name<clip_norm> = "clip_norm";

}  // namespace pushpull::update
