/// @file
/// Schedules made of schedules: one after the other, multiplied, shifted, slowed down, bounded.
#pragma once

#include <cstdint>

#include <pushpull/concepts/learning_rate_schedule.hpp>
#include <pushpull/config.hpp>
#include <pushpull/lr_schedule/constant.hpp>
#include <pushpull/lr_schedule/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::lr_schedule {

/// `first` in the first `updates` updates, then `second`, whose own first update is the next one. For more than two:
/// join{a, 100, join{b, 200, c}} has a for 100 updates and b for 200, where PyTorch's SequentialLR and optax's
/// join_schedules list the sums, 100 and 300.
template <LearningRateSchedule First, LearningRateSchedule Second>
struct join {
  First first;
  std::int64_t updates;
  Second second;

  /// @throws invalid_argument on a negative number of updates, and as those of the parts.
  void validate() const {
    detail::validate(first);
    detail::expects_at_least("join: updates", updates, 0);
    detail::validate(second);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept(noexcept(first(t)) && noexcept(second(t))) {
    return t <= updates ? first(t) : second(t - updates);
  }
};
template <class First, class Second>
join(First, std::int64_t, Second) -> join<First, Second>;

/// a(t) b(t): most often a rate and a factor. Written a * b.
template <LearningRateSchedule A, LearningRateSchedule B>
struct product {
  A a;
  B b;

  /// @throws invalid_argument as those of the factors.
  void validate() const {
    detail::validate(a);
    detail::validate(b);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept(noexcept(a(t)) && noexcept(b(t))) {
    return a(t) * b(t);
  }
};
template <class A, class B>
product(A, B) -> product<A, B>;

/// Schedules times schedules, and times a number. For two schedules of another namespace:
/// `using pushpull::lr_schedule::operator*`.
template <LearningRateSchedule A, LearningRateSchedule B>
constexpr product<A, B> operator*(A const& a, B const& b) {
  return {a, b};
}
template <LearningRateSchedule B>
constexpr product<constant, B> operator*(double a, B const& b) {
  return {{a}, b};
}
template <LearningRateSchedule A>
constexpr product<A, constant> operator*(A const& a, double b) {
  return {a, {b}};
}

/// schedule(t + by). By 1 for libraries that ask a schedule which starts at 0 for update number 1, as MXNet's
/// polynomial and cosine do and all of DJL's trackers; for a training that goes on with keys that start to count again.
/// A negative shift delays.
template <LearningRateSchedule Schedule>
struct shifted {
  Schedule schedule;
  std::int64_t by = 1;

  /// @throws invalid_argument as the schedule's.
  void validate() const { detail::validate(schedule); }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept(noexcept(schedule(t))) {
    return schedule(t + by);
  }
};
template <class Schedule>
shifted(Schedule) -> shifted<Schedule>;
template <class Schedule>
shifted(Schedule, std::int64_t) -> shifted<Schedule>;

/// A schedule that counts epochs: each of its values holds for `updates` updates. What PyTorch's do where they are
/// stepped once per epoch.
template <LearningRateSchedule Schedule>
struct per_epoch {
  Schedule schedule;
  std::int64_t updates;  ///< Of one epoch.

  /// @throws invalid_argument on no updates, and as the schedule's.
  void validate() const {
    detail::validate(schedule);
    detail::expects_at_least("per_epoch: updates", updates, 1);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept(noexcept(schedule(t))) {
    return schedule(elapsed(t) / updates + 1);
  }
};
template <class Schedule>
per_epoch(Schedule, std::int64_t) -> per_epoch<Schedule>;

/// Behind update number `updates` the schedule keeps the value that it has there.
template <LearningRateSchedule Schedule>
struct held_after {
  Schedule schedule;
  std::int64_t updates;

  /// @throws invalid_argument on no updates, and as the schedule's.
  void validate() const {
    detail::validate(schedule);
    detail::expects_at_least("held_after: updates", updates, 1);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept(noexcept(schedule(t))) {
    return schedule(t < updates ? t : updates);
  }
};
template <class Schedule>
held_after(Schedule, std::int64_t) -> held_after<Schedule>;

/// max(schedule(t), minimum).
template <LearningRateSchedule Schedule>
struct at_least {
  Schedule schedule;
  double minimum;

  /// @throws invalid_argument on a negative minimum, and as the schedule's.
  void validate() const {
    detail::validate(schedule);
    detail::expects_not_negative("at_least: minimum", minimum);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept(noexcept(schedule(t))) {
    double const value = schedule(t);
    return value < minimum ? minimum : value;
  }
};
template <class Schedule>
at_least(Schedule, double) -> at_least<Schedule>;

}  // namespace pushpull::lr_schedule
