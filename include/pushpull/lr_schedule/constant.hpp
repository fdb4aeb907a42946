/// @file
/// No schedule: one value throughout.
#pragma once

#include <cstdint>

#include <pushpull/concepts/learning_rate_schedule.hpp>
#include <pushpull/config.hpp>
#include <pushpull/lr_schedule/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::lr_schedule {

/// The same value in every update: a part of joins and products.
struct constant {
  double value;

  /// @throws invalid_argument on a negative or infinite value.
  void validate() const { detail::expects_not_negative("constant: value", value); }

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t) const noexcept { return value; }
};

static_assert(LearningRateSchedule<constant>);

}  // namespace pushpull::lr_schedule
