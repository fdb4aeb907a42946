/// @file
/// MXNet's learning-rate schedulers, with its parameters' names and defaults, as compositions of this library's
/// schedules.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/lr_schedule/annealing.hpp>
#include <pushpull/lr_schedule/compose.hpp>
#include <pushpull/lr_schedule/decay.hpp>
#include <pushpull/lr_schedule/scalar.hpp>

/// The schedulers of MXNet 1.9 and 2.0, which are the same. Asked for update t they give what a scheduler that was
/// asked for every update up to t gives for num_update = t, also when asked for an earlier t afterwards.
namespace pushpull::inline PUSHPULL_ABI::compat::mxnet {

/// The shape of the rate in a warm-up.
enum class warmup_mode { linear, constant };

/// FactorScheduler's; `step` has no default.
struct factor_scheduler_options {
  std::int64_t step;
  double factor = 1;
  double stop_factor_lr = 1e-8;
  double base_lr = 0.01;
  std::int64_t warmup_steps = 0;
  double warmup_begin_lr = 0;
  mxnet::warmup_mode warmup_mode = mxnet::warmup_mode::linear;
};

/// MultiFactorScheduler's.
struct multi_factor_scheduler_options {
  lr_schedule::milestones step;
  double factor = 1;
  double base_lr = 0.01;
  std::int64_t warmup_steps = 0;
  double warmup_begin_lr = 0;
  mxnet::warmup_mode warmup_mode = mxnet::warmup_mode::linear;
};

/// PolyScheduler's; `max_update` has no default.
struct poly_scheduler_options {
  std::int64_t max_update;
  double base_lr = 0.01;
  double pwr = 2;
  double final_lr = 0;
  std::int64_t warmup_steps = 0;
  double warmup_begin_lr = 0;
  mxnet::warmup_mode warmup_mode = mxnet::warmup_mode::linear;
};

/// CosineScheduler's.
struct cosine_scheduler_options {
  std::int64_t max_update;
  double base_lr = 0.01;
  double final_lr = 0;
  std::int64_t warmup_steps = 0;
  double warmup_begin_lr = 0;
  mxnet::warmup_mode warmup_mode = mxnet::warmup_mode::linear;
};

namespace detail {

/// MXNet's warm-up, which reaches base_lr in update number warmup_steps, and `schedule` from that update on.
template <class Options, LearningRateSchedule Schedule>
auto after_warmup(Options const& o, Schedule const& schedule) {
  lr_schedule::detail::expects_at_least("warmup_steps", o.warmup_steps, 0);
  pushpull::detail::expects<invalid_argument>(o.warmup_begin_lr <= o.base_lr, [&] {
    return "warmup_begin_lr: a value of at most base_lr = " + update::detail::number_text(o.base_lr) +
           " expected, got " + update::detail::number_text(o.warmup_begin_lr);
  });
  double const top = o.warmup_mode == warmup_mode::linear ? o.base_lr : o.warmup_begin_lr;
  lr_schedule::shifted const result{
      lr_schedule::join{lr_schedule::linear{o.warmup_begin_lr, top, std::max<std::int64_t>(o.warmup_steps, 1)},
                        o.warmup_steps, schedule},
      1};
  result.validate();
  return result;
}

/// @throws invalid_argument unless factor <= 1.
inline void expects_factor(double factor) {
  pushpull::detail::expects<invalid_argument>(
      factor <= 1, [&] { return "factor: a value of at most 1 expected, got " + update::detail::number_text(factor); });
}

/// Updates from the end of the warm-up to max_update.
inline std::int64_t updates_after_warmup(std::int64_t max_update, std::int64_t warmup_steps) {
  lr_schedule::detail::expects_at_least("max_update", max_update, std::max<std::int64_t>(warmup_steps, 0) + 1);
  return max_update - warmup_steps;
}

/// A schedule that counts updates from the first one also where it stands behind the warm-up.
template <LearningRateSchedule Schedule>
auto from_first_update(Schedule const& schedule, std::int64_t warmup_steps) {
  // Update t asks the join for t + 1, and that asks its second part for t + 1 - warmup_steps.
  return lr_schedule::shifted{schedule, warmup_steps - 1};
}

}  // namespace detail

/// FactorScheduler: base_lr factor^floor((t - 1) / step), not below stop_factor_lr. The warm-up does not delay the
/// decay.
/// @throws invalid_argument as MXNet: step < 1, factor > 1, warmup_steps < 0, warmup_begin_lr > base_lr.
inline auto factor_scheduler(factor_scheduler_options const& o) {
  detail::expects_factor(o.factor);
  return detail::after_warmup(
      o, detail::from_first_update(
             lr_schedule::at_least{lr_schedule::step_decay{o.base_lr, o.step, o.factor}, o.stop_factor_lr},
             o.warmup_steps));
}

/// MultiFactorScheduler: base_lr factor^n, where t > step for n of the steps. The warm-up does not delay the decay.
/// @throws invalid_argument as MXNet: steps that are none, below 1 or not increasing, and as factor_scheduler's.
inline auto multi_factor_scheduler(multi_factor_scheduler_options const& o) {
  detail::expects_factor(o.factor);
  return detail::after_warmup(
      o, detail::from_first_update(lr_schedule::multi_step_decay{o.base_lr, o.step, o.factor}, o.warmup_steps));
}

/// PolyScheduler: final_lr + (base_lr - final_lr) (1 - (t - warmup_steps) / (max_update - warmup_steps))^pwr up to
/// max_update, then final_lr.
/// @throws invalid_argument on a max_update that is not above warmup_steps and 0, and as the warm-up's.
inline auto poly_scheduler(poly_scheduler_options const& o) {
  std::int64_t const updates = detail::updates_after_warmup(o.max_update, o.warmup_steps);
  return detail::after_warmup(o, lr_schedule::polynomial{o.base_lr, o.final_lr, updates, o.pwr});
}

/// CosineScheduler: final_lr + (base_lr - final_lr) (1 + cos(pi (t - warmup_steps) / (max_update - warmup_steps))) / 2
/// up to max_update, then final_lr.
/// @throws invalid_argument as poly_scheduler's.
inline auto cosine_scheduler(cosine_scheduler_options const& o) {
  std::int64_t const updates = detail::updates_after_warmup(o.max_update, o.warmup_steps);
  return detail::after_warmup(o, lr_schedule::cosine{o.base_lr, o.final_lr, updates});
}

}  // namespace pushpull::compat::mxnet
