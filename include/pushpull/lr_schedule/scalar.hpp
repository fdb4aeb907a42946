/// @file
/// Common parts of schedules: counts of updates, transitions between two values, checks of parameters.
#pragma once

#include <cstdint>
#include <string>

#include <cuda/std/cmath>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::lr_schedule {

/// Updates that came before the t-th one: t - 1, and 0 for t < 1. PyTorch's last_epoch where the scheduler is stepped
/// once per update, and optax's count.
PUSHPULL_HOST_DEVICE constexpr std::int64_t elapsed(std::int64_t t) { return t > 1 ? t - 1 : 0; }

/// How far the t-th update is into a phase of `updates`, from 0 in the first one to 1 when all of them have passed.
PUSHPULL_HOST_DEVICE constexpr double progress(std::int64_t t, std::int64_t updates) {
  std::int64_t const passed = elapsed(t);
  return passed >= updates ? 1.0 : static_cast<double>(passed) / static_cast<double>(updates);
}

/// The way from one value to another, as a function of the share s of it that has passed.
enum class ramp {
  constant,     ///< 0: stays, and jumps at the end
  linear,       ///< s
  cosine,       ///< (1 - cos(pi s)) / 2
  square,       ///< s^2
  square_root,  ///< sqrt(s)
};

/// From `first` at share 0 to `last` at share 1, both exactly.
PUSHPULL_HOST_DEVICE inline double between(ramp shape, double first, double last, double share) {
  if (share >= 1) return last;
  switch (shape) {
    case ramp::constant: return first;
    case ramp::cosine: share = (1 - cuda::std::cos(3.14159265358979323846 * share)) / 2; break;
    case ramp::square: share *= share; break;
    case ramp::square_root: share = cuda::std::sqrt(share); break;
    case ramp::linear: break;
  }
  return first + (last - first) * share;
}

namespace detail {

using update::detail::expects_in_range;
using update::detail::expects_not_negative;
using update::detail::expects_positive;

/// @throws invalid_argument unless value is at least `lowest`.
inline void expects_at_least(char const* name, std::int64_t value, std::int64_t lowest) {
  pushpull::detail::expects<invalid_argument>(value >= lowest, [&] {
    return std::string(name) + ": a value of at least " + std::to_string(lowest) + " expected, got " +
           std::to_string(value);
  });
}

/// @throws invalid_argument unless value is in [0, 1]; NaN is refused.
inline void expects_share(char const* name, double value) {
  pushpull::detail::expects<invalid_argument>(value >= 0 && value <= 1, [&] {
    return std::string(name) + ": a value in [0, 1] expected, got " + update::detail::number_text(value);
  });
}

/// Checks the parameters of a schedule that has some to check.
template <class Schedule>
void validate(Schedule const& schedule) {
  if constexpr (requires { schedule.validate(); }) schedule.validate();
}

}  // namespace detail
}  // namespace pushpull::lr_schedule
