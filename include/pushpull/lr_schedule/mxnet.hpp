/// @file
/// MXNet's schedulers, by its names, parameters and defaults, as compositions of ours.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include <pushpull/lr_schedule/annealing.hpp>
#include <pushpull/lr_schedule/compose.hpp>
#include <pushpull/lr_schedule/decay.hpp>
#include <pushpull/lr_schedule/scalar.hpp>

/// The schedulers of MXNet 1.3 to 2.0; those before have no warm-up and no final_lr, and are otherwise the same. Asked for
/// update t they give what a scheduler that was asked for every update up to t gives for num_update = t, also for an
/// earlier t.
namespace pushpull::lr_schedule::mxnet {

/// What the rate does in a warm-up.
enum class warmup_mode { linear, constant };

struct factor_parameters {
  std::int64_t step;
  double factor = 1;
  double stop_factor_lr = 1e-8;
  double base_lr = 0.01;
  std::int64_t warmup_steps = 0;
  double warmup_begin_lr = 0;
  mxnet::warmup_mode warmup_mode = mxnet::warmup_mode::linear;
};

struct multi_factor_parameters {
  milestones step;
  double factor = 1;
  double base_lr = 0.01;
  std::int64_t warmup_steps = 0;
  double warmup_begin_lr = 0;
  mxnet::warmup_mode warmup_mode = mxnet::warmup_mode::linear;
};

struct poly_parameters {
  std::int64_t max_update;
  double base_lr = 0.01;
  double pwr = 2;
  double final_lr = 0;
  std::int64_t warmup_steps = 0;
  double warmup_begin_lr = 0;
  mxnet::warmup_mode warmup_mode = mxnet::warmup_mode::linear;
};

struct cosine_parameters {
  std::int64_t max_update;
  double base_lr = 0.01;
  double final_lr = 0;
  std::int64_t warmup_steps = 0;
  double warmup_begin_lr = 0;
  mxnet::warmup_mode warmup_mode = mxnet::warmup_mode::linear;
};

namespace detail {

/// MXNet's warm-up, which reaches base_lr in update number warmup_steps, and `schedule` from that update on.
template <class Parameters, LearningRateSchedule Schedule>
auto after_warmup(Parameters const& p, Schedule const& schedule) {
  lr_schedule::detail::expects_at_least("warmup_steps", p.warmup_steps, 0);
  pushpull::detail::expects<invalid_argument>(p.warmup_begin_lr <= p.base_lr, [&] {
    return "warmup_begin_lr: a value of at most base_lr = " + update::detail::number_text(p.base_lr) +
           " expected, got " + update::detail::number_text(p.warmup_begin_lr);
  });
  double const top = p.warmup_mode == warmup_mode::linear ? p.base_lr : p.warmup_begin_lr;
  shifted const result{
      join{linear{p.warmup_begin_lr, top, std::max<std::int64_t>(p.warmup_steps, 1)}, p.warmup_steps, schedule}, 1};
  result.validate();
  return result;
}

/// @throws invalid_argument unless factor <= 1.
inline void expects_factor(double factor) {
  pushpull::detail::expects<invalid_argument>(factor <= 1, [&] {
    return "factor: a value of at most 1 expected, got " + update::detail::number_text(factor);
  });
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
  return shifted{schedule, warmup_steps - 1};
}

}  // namespace detail

/// FactorScheduler: base_lr factor^floor((t - 1) / step), not below stop_factor_lr. The warm-up does not delay the decay.
/// @throws invalid_argument as MXNet: step < 1, factor > 1, warmup_steps < 0, warmup_begin_lr > base_lr.
inline auto factor(factor_parameters const& p) {
  detail::expects_factor(p.factor);
  return detail::after_warmup(
      p, detail::from_first_update(at_least{step_decay{p.base_lr, p.step, p.factor}, p.stop_factor_lr}, p.warmup_steps));
}

/// MultiFactorScheduler: base_lr factor^n, where t > step for n of the steps. The warm-up does not delay the decay.
/// @throws invalid_argument as MXNet: steps that are none, below 1 or not increasing, and as factor's.
inline auto multi_factor(multi_factor_parameters const& p) {
  detail::expects_factor(p.factor);
  return detail::after_warmup(
      p, detail::from_first_update(multi_step_decay{p.base_lr, p.step, p.factor}, p.warmup_steps));
}

/// PolyScheduler: final_lr + (base_lr - final_lr) (1 - (t - warmup_steps) / (max_update - warmup_steps))^pwr up to
/// max_update, then final_lr.
/// @throws invalid_argument on a max_update that is not above warmup_steps and 0, and as the warm-up's.
inline auto poly(poly_parameters const& p) {
  std::int64_t const updates = detail::updates_after_warmup(p.max_update, p.warmup_steps);
  return detail::after_warmup(p, polynomial{p.base_lr, p.final_lr, updates, p.pwr});
}

/// CosineScheduler: final_lr + (base_lr - final_lr) (1 + cos(pi (t - warmup_steps) / (max_update - warmup_steps))) / 2 up to
/// max_update, then final_lr.
/// @throws invalid_argument as poly's.
inline auto cosine(cosine_parameters const& p) {
  std::int64_t const updates = detail::updates_after_warmup(p.max_update, p.warmup_steps);
  return detail::after_warmup(p, lr_schedule::cosine{p.base_lr, p.final_lr, updates});
}

}  // namespace pushpull::lr_schedule::mxnet
