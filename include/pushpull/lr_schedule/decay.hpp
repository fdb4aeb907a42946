/// @file
/// Decays by a factor: in every update, every so many updates, at given updates; and with the inverse square root.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <string>

#include <pushpull/concepts/learning_rate_schedule.hpp>
#include <pushpull/config.hpp>
#include <pushpull/lr_schedule/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::lr_schedule {

namespace detail {

/// gamma^n.
PUSHPULL_HOST_DEVICE inline double power(double gamma, std::int64_t n) {
  return cuda::std::pow(gamma, static_cast<double>(n));
}

}  // namespace detail

/// base gamma^((t - 1) / updates), not rounded. PyTorch's ExponentialLR with updates = 1; optax's exponential_decay.
struct exponential_decay {
  double base;
  double gamma;
  std::int64_t updates = 1;  ///< For one factor gamma.

  /// @throws invalid_argument on a base or gamma that is not above 0, or no updates.
  void validate() const {
    detail::expects_positive("exponential_decay: base", base);
    detail::expects_positive("exponential_decay: gamma", gamma);
    detail::expects_at_least("exponential_decay: updates", updates, 1);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    return base * cuda::std::pow(gamma, static_cast<double>(elapsed(t)) / static_cast<double>(updates));
  }
};

/// base gamma^floor((t - 1) / updates): the first change is in update number updates + 1. PyTorch's StepLR with
/// step_size = updates; MXNet's FactorScheduler changes in the same update.
struct step_decay {
  double base;
  std::int64_t updates;
  double gamma = 0.1;

  /// @throws invalid_argument on a base that is not above 0, a negative gamma, or no updates.
  void validate() const {
    detail::expects_positive("step_decay: base", base);
    detail::expects_at_least("step_decay: updates", updates, 1);
    detail::expects_not_negative("step_decay: gamma", gamma);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    return base * detail::power(gamma, elapsed(t) / updates);
  }
};

/// Numbers of updates after which something changes: at most `capacity` of them, kept in place so that they travel to
/// the device with the schedule.
class milestones {
 public:
  static constexpr std::size_t capacity = 32;

  milestones() = default;
  milestones(std::initializer_list<std::int64_t> updates) : milestones(updates.begin(), updates.end()) {}
  /// @throws invalid_argument on more than `capacity` values.
  template <std::input_iterator Iterator>
  milestones(Iterator first, Iterator last) {
    for (; first != last; ++first) {
      pushpull::detail::expects<invalid_argument>(size_ < static_cast<std::int64_t>(capacity), [] {
        return "milestones: at most " + std::to_string(capacity) + " values expected, got more";
      });
      values_[size_++] = *first;
    }
  }

  /// @throws invalid_argument unless the values are at least 1 and strictly increasing.
  void validate() const {
    for (std::int64_t i = 0; i < size_; ++i)
      detail::expects_at_least("milestones", values_[i], i == 0 ? 1 : values_[i - 1] + 1);
  }

  PUSHPULL_HOST_DEVICE std::int64_t size() const { return size_; }

  /// How many of them have passed before the t-th update.
  PUSHPULL_HOST_DEVICE std::int64_t passed(std::int64_t t) const {
    std::int64_t n = 0;
    while (n < size_ && elapsed(t) >= values_[n]) ++n;
    return n;
  }

 private:
  std::int64_t values_[capacity] = {};
  std::int64_t size_ = 0;
};

/// base gamma^n, where n milestones m have passed: t > m. PyTorch's MultiStepLR; MXNet's MultiFactorScheduler changes
/// in the same updates.
struct multi_step_decay {
  double base;
  lr_schedule::milestones milestones;
  double gamma = 0.1;

  /// @throws invalid_argument on a base that is not above 0, a negative gamma, or no or not strictly increasing
  /// milestones.
  void validate() const {
    detail::expects_positive("multi_step_decay: base", base);
    detail::expects_at_least("multi_step_decay: number of milestones", milestones.size(), 1);
    milestones.validate();
    detail::expects_not_negative("multi_step_decay: gamma", gamma);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    return base * detail::power(gamma, milestones.passed(t));
  }
};

/// peak min(t / warm_up, sqrt(warm_up / t)): up to `peak` in the update of that number, then down with the inverse
/// square root. The first update has peak / warm_up, not 0.
struct inverse_sqrt {
  double peak;
  std::int64_t warm_up = 1;

  /// @throws invalid_argument on a peak that is not above 0, or a warm-up of less than one update.
  void validate() const {
    detail::expects_positive("inverse_sqrt: peak", peak);
    detail::expects_at_least("inverse_sqrt: warm_up", warm_up, 1);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    double const number = static_cast<double>(elapsed(t) + 1), top = static_cast<double>(warm_up);
    return peak * (number < top ? number / top : cuda::std::sqrt(top / number));
  }
};

/// factor model_size^-0.5 min(t^-0.5, t warm_up^-1.5): the schedule of Vaswani et al. 2017, section 5.3, where
/// warm_up = 4000. It is an inverse_sqrt.
/// @throws invalid_argument as inverse_sqrt's, and on a model size below 1.
inline inverse_sqrt noam(std::int64_t model_size, std::int64_t warm_up = 4000, double factor = 1) {
  detail::expects_at_least("noam: model_size", model_size, 1);
  detail::expects_at_least("noam: warm_up", warm_up, 1);
  detail::expects_positive("noam: factor", factor);
  return {factor / cuda::std::sqrt(static_cast<double>(model_size) * static_cast<double>(warm_up)), warm_up};
}

static_assert(LearningRateSchedule<exponential_decay> && LearningRateSchedule<step_decay> &&
              LearningRateSchedule<multi_step_decay> && LearningRateSchedule<inverse_sqrt>);

}  // namespace pushpull::lr_schedule
