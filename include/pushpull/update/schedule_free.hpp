/// @file
/// Training without a schedule: gradients at a point between the fast weights and their average.
#pragma once

#include <cstdint>
#include <string_view>

#include <cuda/std/cmath>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

namespace detail {

/// min(1, t / warmup): the share of the learning rate in update t.
PUSHPULL_HOST_DEVICE inline double warmed(std::int64_t t, std::int64_t warmup) {
  return t < warmup ? static_cast<double>(t) / static_cast<double>(warmup) : 1;
}
/// The weight of update t in the average of fast weights: its share of the sum over all updates so far of the squares of
/// `warmed`, in closed form.
PUSHPULL_HOST_DEVICE inline double share_of_average(std::int64_t t, std::int64_t warmup) {
  auto const n = static_cast<double>(t), w = static_cast<double>(warmup);
  return t < warmup ? 6 * n / ((n + 1) * (2 * n + 1))
                    : 1 / (n - w + (warmup > 0 ? (w + 1) * (2 * w + 1) / (6 * w) : 0));
}

}  // namespace detail

/// Defazio et al. 2024, equations 3 to 5, as their package schedulefree defines SGDScheduleFree, with the package's weights
/// of the average for r = 0 and weight_lr_power = 2. Its gradients are those at the weights w; z and x begin as w:
///   rate = learning_rate min(1, t / warmup);   z = z - rate (g + weight_decay w);
///   x = x + c (z - x),  c = rate^2 / the sum of rate^2 over updates so far;   w = momentum x + (1 - momentum) z.
/// x are the weights for evaluation: a store's `swap("x")` puts them in w's place and back. A schedule of the rate does not
/// change c. 28 bytes per float parameter.
struct schedule_free_sgd {
  double learning_rate = 1;
  double momentum = 0.9;
  double weight_decay = 0;
  std::int64_t warmup = 0;  ///< Updates in which the rate rises.

  static constexpr auto state_names = states("z", "x");

  /// z and x begin as the weights before the first update.
  constexpr bool starts_states() const { return true; }

  /// @throws invalid_argument on a negative value, or a momentum of 1 or more.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("schedule_free_sgd: learning_rate", learning_rate);
    c.in_range("schedule_free_sgd: momentum", momentum, 0, 1);
    c.not_negative("schedule_free_sgd: weight_decay", weight_decay);
    c.not_negative("schedule_free_sgd: warmup", static_cast<double>(warmup));
  }

  /// The values that depend on t alone.
  template <class A>
  struct scalars {
    bool first;  ///< z and x begin here.
    A rate;
    A share;  ///< c
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    return {s.t == 1, detail::to_finite<A>(learning_rate * detail::warmed(s.t, warmup)),
            static_cast<A>(detail::share_of_average(s.t, warmup))};
  }

  // The branch goes one way for all elements of a pass.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& z, V& x) const noexcept {
    if (s.first) z = x = w;
    z -= s.rate * (g + weight_decay * w);
    x += s.share * (z - x);
    w = z + momentum * (x - z);  // which is w where z = x = w
  }
};

/// The same with adam's second moment, as AdamWScheduleFree: v = beta2 v + (1 - beta2) g^2;
///   z = z - rate (g / (sqrt(v') + epsilon) + weight_decay w),  v' = v / (1 - beta2^t);   beta1 in momentum's place.
/// 36 bytes per float parameter.
struct schedule_free_adamw {
  double learning_rate = 2.5e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  std::int64_t warmup = 0;  ///< Updates in which the rate rises.

  static constexpr auto state_names = states("z", "x", "exp_avg_sq");

  /// z and x begin as the weights before the first update.
  constexpr bool starts_states() const { return true; }

  /// @throws invalid_argument as adam's, and on a negative weight_decay or warmup.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("schedule_free_adamw", learning_rate, beta1, beta2, epsilon);
    c.not_negative("schedule_free_adamw: weight_decay", weight_decay);
    c.not_negative("schedule_free_adamw: warmup", static_cast<double>(warmup));
  }

  /// The values that depend on t alone.
  template <class A>
  struct scalars {
    bool first;  ///< z and x begin here.
    A rate;
    A share;       ///< c
    A root_scale;  ///< 1 / sqrt(1 - beta2^t)
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    return {s.t == 1, detail::to_finite<A>(learning_rate * detail::warmed(s.t, warmup)),
            static_cast<A>(detail::share_of_average(s.t, warmup)),
            static_cast<A>(1 / cuda::std::sqrt(bias_correction(beta2, s.t)))};
  }

  // The branch goes one way for all elements of a pass.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& z, V& x, V& v) const noexcept {
    if (s.first) z = x = w;
    v = detail::faded(beta2, v) + (1 - beta2) * g * g;
    z -= s.rate * (g / (sqrt(v) * s.root_scale + detail::beside_root<V>(epsilon)) + weight_decay * w);
    x += s.share * (z - x);
    w = z + beta1 * (x - z);  // which is w where z = x = w
  }
};

static_assert(Updater<schedule_free_sgd> && Updater<schedule_free_adamw>);

template <>
inline constexpr std::string_view rule_name<schedule_free_sgd> = "schedule_free_sgd";
template <>
inline constexpr std::string_view rule_name<schedule_free_adamw> = "schedule_free_adamw";

}  // namespace pushpull::update
