/// @file
/// The concept of a schedule of a hyperparameter.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The value of a hyperparameter, most often a learning rate, as a pure function of the update number.
/// Needs:  double operator()(std::int64_t t) const, PUSHPULL_HOST_DEVICE: the value in the t-th update of a key, where
///         the first update has t = 1, as in `step`; the same for the same t, whatever was asked before;
///         trivially copyable, because it travels to the device with the rule. A member `void validate() const` is
///         called when a store takes the rule.
/// Models: everything in lr_schedule but lr_schedule::plateau, which depends on a metric and not on t; a lambda without
///         captures. See also: Updater, update::learning_rate.
template <class S>
concept LearningRateSchedule = std::is_trivially_copyable_v<S> && requires(S const& schedule, std::int64_t t) {
  { schedule(t) } -> std::same_as<double>;
};

}  // namespace pushpull
