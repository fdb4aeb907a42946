/// @file
/// From one value to another in a given number of updates: linear, polynomial, cosine, and cosine with restarts.
#pragma once

#include <cstdint>

#include <cuda/std/limits>
#include <pushpull/concepts/learning_rate_schedule.hpp>
#include <pushpull/config.hpp>
#include <pushpull/lr_schedule/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::lr_schedule {

/// base + (final - base) s,  s = min(t - 1, updates) / updates. PyTorch's LinearLR with base = lr start_factor and
/// final = lr end_factor, optax's linear_schedule. It may fall or rise.
struct linear {
  double base;
  double final = 0;
  std::int64_t updates;

  /// @throws invalid_argument on a negative value or no updates.
  void validate() const {
    detail::expects_not_negative("linear: base", base);
    detail::expects_not_negative("linear: final", final);
    detail::expects_at_least("linear: updates", updates, 1);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    return between(ramp::linear, base, final, progress(t, updates));
  }
};

/// final + (base - final) (1 - s)^power,  s = min(t - 1, updates) / updates. PyTorch's PolynomialLR has final = 0 and
/// its power 1 is the default here; optax's polynomial_schedule.
struct polynomial {
  double base;
  double final = 0;
  std::int64_t updates;
  double power = 1;

  /// @throws invalid_argument on a negative value, a power that is not above 0, or no updates.
  void validate() const {
    detail::expects_not_negative("polynomial: base", base);
    detail::expects_not_negative("polynomial: final", final);
    detail::expects_at_least("polynomial: updates", updates, 1);
    detail::expects_positive("polynomial: power", power);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    return final + (base - final) * cuda::std::pow(1 - progress(t, updates), power);
  }
};

/// final + (base - final) (1 + cos(pi s)) / 2,  s = min(t - 1, updates) / updates: one half wave (Loshchilov & Hutter
/// 2017, without restarts). PyTorch's CosineAnnealingLR with T_max = updates, but behind that it stays at `final`,
/// where PyTorch's goes up again. optax's cosine_decay_schedule.
struct cosine {
  double base;
  double final = 0;
  std::int64_t updates;

  /// @throws invalid_argument on a negative value or no updates.
  void validate() const {
    detail::expects_not_negative("cosine: base", base);
    detail::expects_not_negative("cosine: final", final);
    detail::expects_at_least("cosine: updates", updates, 1);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    return between(ramp::cosine, base, final, progress(t, updates));
  }
};

/// Half waves from base to final, one after the other, each `growth` times as long as the one before: SGDR (Loshchilov
/// & Hutter 2017). PyTorch's CosineAnnealingWarmRestarts with T_0 = updates and T_mult = growth. `final` itself is
/// never reached. Time: the number of restarts before t where growth > 1, that is log(t); constant for growth = 1.
struct cosine_restarts {
  double base;
  double final = 0;
  std::int64_t updates;  ///< Of the first wave.
  std::int64_t growth = 1;

  /// @throws invalid_argument on a negative value, no updates, or a growth below 1.
  void validate() const {
    detail::expects_not_negative("cosine_restarts: base", base);
    detail::expects_not_negative("cosine_restarts: final", final);
    detail::expects_at_least("cosine_restarts: updates", updates, 1);
    detail::expects_at_least("cosine_restarts: growth", growth, 1);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    std::int64_t passed = elapsed(t), length = updates;
    if (growth == 1) {
      passed %= length;
    } else {
      constexpr std::int64_t longest = cuda::std::numeric_limits<std::int64_t>::max();
      while (passed >= length) {
        passed -= length;
        length = length > longest / growth ? longest : length * growth;
      }
    }
    return between(ramp::cosine, base, final, static_cast<double>(passed) / static_cast<double>(length));
  }
};

static_assert(LearningRateSchedule<linear> && LearningRateSchedule<polynomial> && LearningRateSchedule<cosine> &&
              LearningRateSchedule<cosine_restarts>);

}  // namespace pushpull::lr_schedule
