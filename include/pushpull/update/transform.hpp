/// @file
/// Transforms: the stages before a rule in a pipe.
#pragma once

#include <string_view>

#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// g = factor g: the mean over a batch of sums over its samples, or the inverse of a loss scale.
struct rescale {
  double factor;

  static constexpr auto state_names = states();

  explicit rescale(double factor_) : factor(factor_) { validate(); }

  /// @throws invalid_argument on a factor that is not finite.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.finite("rescale: factor", factor);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V const&, V& g) const noexcept {
    g *= factor;
  }
};

/// g = min(max(g, -limit), limit), elementwise. NaN stays NaN, and an infinite limit clips nothing.
struct clip_value {
  double limit;

  static constexpr auto state_names = states();

  explicit clip_value(double limit_) : limit(limit_) { validate(); }

  /// @throws invalid_argument on a negative limit.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.limit("clip_value: limit", limit);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V const&, V& g) const noexcept {
    g = min(max(g, -limit), limit);
  }
};

/// g = g + decay w: L2 regularisation, coupled with the rule. MXNet's older rules add it before they clip, its newer
/// ones after: here it stands where the pipe puts it.
struct weight_decay {
  double decay;

  static constexpr auto state_names = states();

  explicit weight_decay(double decay_) : decay(decay_) { validate(); }

  /// @throws invalid_argument on a negative decay.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("weight_decay: decay", decay);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V const& w, V& g) const noexcept {
    g += decay * w;
  }
};

static_assert(GradientTransform<rescale> && GradientTransform<clip_value> && GradientTransform<weight_decay>);

template <>
inline constexpr std::string_view rule_name<rescale> = "rescale";
template <>
inline constexpr std::string_view rule_name<clip_value> = "clip_value";
template <>
inline constexpr std::string_view rule_name<weight_decay> = "weight_decay";

}  // namespace pushpull::update
