/// @file
/// Up and down: again and again, or once over the whole training.
#pragma once

#include <cstdint>

#include <pushpull/concepts/learning_rate_schedule.hpp>
#include <pushpull/config.hpp>
#include <pushpull/lr_schedule/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::lr_schedule {

/// How the height of a `cyclical` shrinks.
enum class cycle_height {
  triangular,   ///< Not at all.
  triangular2,  ///< Half of it after every cycle.
  exp_range,    ///< gamma^(t - 1).
};

/// base + (peak - base) h(t) z: z goes linearly from 0 to 1 in `up` updates and back in `down`, again and again (Smith
/// 2017). PyTorch's CyclicLR with its defaults. A peak below the base is what PyTorch's cycle_momentum does to a
/// momentum: cyclical{.base = 0.9, .peak = 0.8}.
struct cyclical {
  double base;
  double peak;
  std::int64_t up = 2000;
  std::int64_t down = 0;  ///< 0: as many as `up`.
  cycle_height height = cycle_height::triangular;
  double gamma = 1;

  /// @throws invalid_argument on a negative value, no updates up, negative ones down, or a gamma outside [0, 1].
  void validate() const {
    detail::expects_not_negative("cyclical: base", base);
    detail::expects_not_negative("cyclical: peak", peak);
    detail::expects_at_least("cyclical: up", up, 1);
    detail::expects_at_least("cyclical: down", down, 0);
    detail::expects_share("cyclical: gamma", gamma);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    std::int64_t const fall = down == 0 ? up : down, passed = elapsed(t), at = passed % (up + fall);
    double const z = at <= up ? static_cast<double>(at) / static_cast<double>(up)
                              : static_cast<double>(up + fall - at) / static_cast<double>(fall);
    return base + (peak - base) * z * scale(passed, passed / (up + fall));
  }

 private:
  PUSHPULL_HOST_DEVICE double scale(std::int64_t passed, std::int64_t cycles) const {
    switch (height) {
      case cycle_height::triangular2: return cuda::std::pow(0.5, static_cast<double>(cycles));
      case cycle_height::exp_range: return cuda::std::pow(gamma, static_cast<double>(passed));
      case cycle_height::triangular: break;
    }
    return 1;
  }
};

/// From peak / initial_divisor up to peak in the first `rise` of all updates, then down to peak / (initial_divisor
/// final_divisor) in the last update: the 1cycle policy (Smith & Topin 2019). PyTorch's OneCycleLR with its defaults,
/// which counts phases in updates as rise * updates - 1, not rounded. With three phases it goes back to the initial
/// value as steeply as it came, and then down. Later updates stay at the last value.
struct one_cycle {
  double peak;
  std::int64_t updates;
  double rise = 0.3;
  double initial_divisor = 25;
  double final_divisor = 1e4;
  ramp shape = ramp::cosine;
  bool three_phases = false;

  /// @throws invalid_argument on a peak or divisor that is not above 0, no updates, a rise outside [0, 1], or one above
  /// 1/2 with three phases.
  void validate() const {
    detail::expects_positive("one_cycle: peak", peak);
    detail::expects_at_least("one_cycle: updates", updates, 1);
    detail::expects_share("one_cycle: rise", rise);
    if (three_phases) detail::expects_share("one_cycle: rise and fall of three phases", 2 * rise);
    detail::expects_positive("one_cycle: initial_divisor", initial_divisor);
    detail::expects_positive("one_cycle: final_divisor", final_divisor);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept {
    double const initial = peak / initial_divisor;
    return phase(t, initial, peak, initial / final_divisor);
  }

  /// What the t-th update has of a cycle from `initial` to `middle` and, in three phases by way of `initial`, to
  /// `last`.
  PUSHPULL_HOST_DEVICE double phase(std::int64_t t, double initial, double middle, double last) const {
    double const now = static_cast<double>(elapsed(t)), end = static_cast<double>(updates - 1);
    double const top = rise * static_cast<double>(updates) - 1, back = 2 * rise * static_cast<double>(updates) - 2;
    if (now <= top) return stretch(now, 0, top, initial, middle);
    if (!three_phases) return stretch(now, top, end, middle, last);
    if (now <= back) return stretch(now, top, back, middle, initial);
    return stretch(now, back, end, initial, last);
  }

 private:
  PUSHPULL_HOST_DEVICE double stretch(double now, double begin, double end, double first, double last) const {
    return between(shape, first, last, end > begin ? (now - begin) / (end - begin) : 1);
  }
};

/// The momentum that belongs to a one_cycle: from `high` down to `low` while the rate rises, and up again. PyTorch's
/// cycle_momentum with its defaults; for momentum::momentum or adam::beta1, by update::hyperparameter.
struct one_cycle_momentum {
  one_cycle cycle;
  double low = 0.85;
  double high = 0.95;

  /// @throws invalid_argument as one_cycle's, and on a momentum outside [0, 1).
  void validate() const {
    cycle.validate();
    detail::expects_in_range("one_cycle_momentum: low", low, 0, 1);
    detail::expects_in_range("one_cycle_momentum: high", high, 0, 1);
  }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const noexcept { return cycle.phase(t, high, low, high); }
};

static_assert(LearningRateSchedule<cyclical> && LearningRateSchedule<one_cycle> &&
              LearningRateSchedule<one_cycle_momentum>);

}  // namespace pushpull::lr_schedule
