/// @file
/// Small steps first: a warm-up before any schedule, and warm-up, stable phase and decay in one.
#pragma once

#include <cstdint>

#include <pushpull/concepts/learning_rate_schedule.hpp>
#include <pushpull/config.hpp>
#include <pushpull/lr_schedule/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::lr_schedule {

/// From `initial` to the first value of `schedule` in `updates` updates, then `schedule`, whose own first update is the
/// next one: initial + (schedule(1) - initial) f((t - 1) / updates) for t <= updates, schedule(t - updates) behind. So
/// the first update has `initial` itself, as with PyTorch's LinearLR and optax's warmup_*_schedule; with 0 it changes
/// no weight.
template <LearningRateSchedule Schedule>
struct warm_up {
  Schedule schedule;
  std::int64_t updates;
  double initial = 0;
  ramp shape = ramp::linear;

  /// @throws invalid_argument on a negative number of updates or initial value, and as the schedule's.
  void validate() const {
    detail::validate(schedule);
    detail::expects_at_least("warm_up: updates", updates, 0);
    detail::expects_not_negative("warm_up: initial", initial);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept(noexcept(schedule(t))) {
    return t > updates ? schedule(t - updates) : between(shape, initial, schedule(1), progress(t, updates));
  }
};
template <class Schedule>
warm_up(Schedule, std::int64_t) -> warm_up<Schedule>;
template <class Schedule>
warm_up(Schedule, std::int64_t, double) -> warm_up<Schedule>;
template <class Schedule>
warm_up(Schedule, std::int64_t, double, ramp) -> warm_up<Schedule>;

/// From `initial` to `peak` in `warm_up` updates, `peak` in the next `stable` ones, from there to `final` in `decay`,
/// and `final` ever after: WSD (Hu et al. 2024, MiniCPM). ramp::square_root is the cooldown "1 - sqrt" of Haegele et
/// al. 2024.
struct warm_up_stable_decay {
  double peak;
  std::int64_t warm_up;
  std::int64_t stable;
  std::int64_t decay;
  double initial = 0;
  double final = 0;
  ramp decay_shape = ramp::linear;
  ramp warm_up_shape = ramp::linear;

  /// @throws invalid_argument on a peak that is not above 0, or a negative value or number of updates.
  void validate() const {
    detail::expects_positive("warm_up_stable_decay: peak", peak);
    detail::expects_at_least("warm_up_stable_decay: warm_up", warm_up, 0);
    detail::expects_at_least("warm_up_stable_decay: stable", stable, 0);
    detail::expects_at_least("warm_up_stable_decay: decay", decay, 0);
    detail::expects_not_negative("warm_up_stable_decay: initial", initial);
    detail::expects_not_negative("warm_up_stable_decay: final", final);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    if (t <= warm_up) return between(warm_up_shape, initial, peak, progress(t, warm_up));
    if (t - warm_up <= stable) return peak;  // a sum of the two may be more than an integer holds
    return between(decay_shape, peak, final, progress(t - warm_up - stable, decay));
  }
};

static_assert(LearningRateSchedule<warm_up_stable_decay>);

}  // namespace pushpull::lr_schedule
