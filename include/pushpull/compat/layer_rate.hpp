/// @file
/// Momentum whose rate goes by the norms of each tensor, as MXNet's LARS and LBSGD have it: the norm is that of the
/// gradient before it is clipped, which update::lars after a clip does not see.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

#include <cuda/std/array>
#include <cuda/std/cmath>
#include <pushpull/compat/gradient.hpp>
#include <pushpull/concepts/learning_rate_schedule.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/lr_schedule/scalar.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::compat {

/// MXNet's LARS: eta |w| / (|s g| + wd |w| + epsilon), and 1 if a norm is 0 or where it does not adapt.
struct lars_factor {
  double eta = 1e-3;
  double epsilon = 0;
  bool adapts = true;  ///< MXNet says no to names that end in gamma, beta or bias: parameter groups do.

  /// @throws invalid_argument on a negative eta or epsilon.
  void validate() const { update::detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("lars: eta", eta);
    c.not_negative("lars: epsilon", epsilon);
    c.any("lars: adapts", adapts);
  }

  /// From the squares of |w| and |g|.
  PUSHPULL_HOST_DEVICE double operator()(double w2, double g2, double rescale, double wd) const noexcept {
    double const w = cuda::std::sqrt(w2), g = cuda::std::sqrt(g2) * cuda::std::fabs(rescale);
    return adapts && w > 0 && g > 0 ? eta * w / (g + wd * w + epsilon) : 1;
  }
};

/// MXNet's LBSGD with the strategy "lars": |w| / sqrt(|g|^2 + wd |w|^2 + 1e-18) within 0.01 and 100, of the gradient
/// before it is rescaled.
struct lbsgd_factor {
  PUSHPULL_HOST_DEVICE double operator()(double w2, double g2, double, double wd) const noexcept {
    double const factor = cuda::std::sqrt(w2 / (g2 + wd * w2 + 1e-18));
    return factor < 0.01 ? 0.01 : (factor > 100 ? 100 : factor);
  }
};

/// rate = learning_rate factor(|w|, |g|), norms of each key;
/// m = momentum m + rate (clip(s g) + wd w);  w = w - m. 28 bytes per float parameter.
template <class Factor>
struct layer_rated_momentum {
  double learning_rate = 1e-2;
  double momentum = 0.9;
  double weight_decay = 0;
  double rescale = 1;
  double limit = std::numeric_limits<double>::infinity();  ///< Of |s g|, each element; infinity is none.
  Factor factor = {};

  static constexpr auto state_names = states("momentum_buffer");
  static constexpr bool per_tensor = true;
  using sums_type = cuda::std::array<double, 2>;  ///< Squares of w, of g.

  /// @throws invalid_argument on a negative value, or a momentum of 1 or more.
  void validate() const { update::detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("layer_rated_momentum: learning_rate", learning_rate);
    c.in_range("layer_rated_momentum: momentum", momentum, 0, 1);
    c.not_negative("layer_rated_momentum: weight_decay", weight_decay);
    c.finite("layer_rated_momentum: rescale", rescale);
    c.limit("layer_rated_momentum: limit", limit);
    c.stage(factor);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE cuda::std::array<V, 2> pre_reduce(S const&, V const& w, V const& g) const noexcept {
    return {w * w, g * g};
  }

  /// The rate.
  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(step<A> const&, sums_type const& sums) const noexcept {
    return update::detail::to_finite<A>(learning_rate * factor(sums[0], sums[1], rescale, weight_decay));
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(A const& rate, V& w, V const& g, V& m) const noexcept {
    V const h = min(max(rescale * g, -limit), limit);
    m = momentum * m + rate * (h + weight_decay * w);
    w -= m;
  }
};

namespace detail {

/// LARS of both generations, whose defaults differ.
template <class Options>
auto lars(Options const& o) {
  return layer_rated_momentum<lars_factor>{o.learning_rate,
                                           o.momentum,
                                           o.wd,
                                           o.rescale_grad,
                                           clip(o.clip_gradient > 0, o.clip_gradient).limit,
                                           {o.eta, o.epsilon, o.adapts}};
}

}  // namespace detail

static_assert(Updater<layer_rated_momentum<lars_factor>> && PreReduction<layer_rated_momentum<lars_factor>>);

/// The factor of MXNet's LBSGD for the learning rate in update t: from 1 to batch_scale while n = begin + batch_scale t
/// counts `warm_up` batches, batch_scale ever after. A LearningRateSchedule.
struct lbsgd_multiplier {
  std::int64_t batch_scale = 1;  ///< Batches per update.
  std::int64_t warm_up = 160;    ///< Batches.
  std::int64_t begin = 0;        ///< Batches before the first update.
  lr_schedule::ramp shape = lr_schedule::ramp::linear;

  /// @throws invalid_argument on less than one batch per update, or a negative number of batches.
  void validate() const {
    lr_schedule::detail::expects_at_least("lbsgd: batch_scale", batch_scale, 1);
    lr_schedule::detail::expects_at_least("lbsgd: warm_up", warm_up, 0);
    lr_schedule::detail::expects_at_least("lbsgd: begin", begin, 0);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    auto const most = static_cast<double>(batch_scale);
    double const n = static_cast<double>(begin) + most * static_cast<double>(t), end = static_cast<double>(warm_up);
    if (n >= end) return most;
    return lr_schedule::between(shape, 1, most, n / end);
  }
};

static_assert(LearningRateSchedule<lbsgd_multiplier>);

}  // namespace pushpull::compat

namespace pushpull::inline PUSHPULL_ABI::update {

template <>
inline constexpr std::string_view rule_name<compat::layer_rated_momentum<compat::lars_factor>> =
    "layer_rated_momentum.lars";
template <>
inline constexpr std::string_view rule_name<compat::layer_rated_momentum<compat::lbsgd_factor>> =
    "layer_rated_momentum.lbsgd";

}  // namespace pushpull::update
