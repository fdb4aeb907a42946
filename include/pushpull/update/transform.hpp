/// @file
/// Transforms that stand before a rule in a pipe.
#pragma once

#include <pushpull/concepts/updater.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::update {

/// g = factor g: the mean over a batch of sums over its samples, or the inverse of a loss scale.
struct rescale {
  double factor;

  static constexpr auto state_names = states();

  explicit rescale(double factor) : factor(factor) { validate(); }

  /// @throws invalid_argument on a factor that is not finite.
  void validate() const { detail::expects_finite("rescale: factor", factor); }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V const&, V& g) const {
    g *= factor;
  }
};

/// g = min(max(g, -limit), limit), elementwise. NaN stays NaN.
struct clip_value {
  double limit;

  static constexpr auto state_names = states();

  explicit clip_value(double limit) : limit(limit) { validate(); }

  /// @throws invalid_argument on a negative limit.
  void validate() const { detail::expects_not_negative("clip_value: limit", limit); }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V const&, V& g) const {
    g = min(max(g, -limit), limit);
  }
};

/// g = g + decay w: L2 regularisation, coupled with the rule. MXNet's older rules add it before they clip, its newer
/// ones after: here it stands where the pipe puts it.
struct weight_decay {
  double decay;

  static constexpr auto state_names = states();

  explicit weight_decay(double decay) : decay(decay) { validate(); }

  /// @throws invalid_argument on a negative decay.
  void validate() const { detail::expects_not_negative("weight_decay: decay", decay); }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V const& w, V& g) const {
    g += decay * w;
  }
};

/// g = g min(1, max_norm / (norm + 1e-6)), where norm is the Euclidean norm over the gradients of all keys of the step,
/// as they arrive at this stage: PyTorch's clip_grad_norm_. Costs a phase that reads every gradient once more.
struct clip_global_norm {
  double max_norm;

  static constexpr auto state_names = states();

  explicit clip_global_norm(double max_norm) : max_norm(max_norm) { validate(); }

  /// @throws invalid_argument on a negative norm.
  void validate() const { detail::expects_not_negative("clip_global_norm: max_norm", max_norm); }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(S const&, V const&, V const& g) const {
    return g * g;
  }

  /// The factor, from the sum of squares. A sum that is not finite gives a factor of 0 or NaN: the weights show it.
  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(step<A> const&, double sum) const {
    double const factor = max_norm / (cuda::std::sqrt(sum) + 1e-6);
    return static_cast<A>(factor < 1 ? factor : (factor >= 1 ? 1.0 : factor));
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(A const& factor, V const&, V& g) const {
    g *= factor;
  }
};

static_assert(GradientTransform<rescale> && GradientTransform<clip_value> && GradientTransform<weight_decay>);
static_assert(GradientTransform<clip_global_norm> && PreReduction<clip_global_norm>);

}  // namespace pushpull::update
