/// @file
/// Schedules against the rates that the schedulers of PyTorch, optax and MXNet gave: see reference/README.md.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <pushpull/compat/mxnet_scheduler.hpp>
#include <pushpull/lr_schedule.hpp>
#include <string>
#include <string_view>

#include "lr_schedule/reference/recorded_values.hpp"
#include "support/catch.hpp"

namespace {

namespace lr = pushpull::lr_schedule;
namespace reference = lr_schedule_reference;

reference::record const& recorded(std::string_view name) {
  auto const found = std::find_if(reference::records.begin(), reference::records.end(),
                                  [&](auto const& record) { return record.name == name; });
  INFO(name);
  REQUIRE(found != reference::records.end());
  return *found;
}

/// The recursions of PyTorch round in every update; near zero only the distance counts.
void require_close(double actual, double expected) {
  REQUIRE(std::abs(actual - expected) <= 1e-12 * std::abs(expected) + 1e-16);
}

void compare(std::string_view name, pushpull::LearningRateSchedule auto const& schedule) {
  schedule.validate();
  auto const& values = recorded(name).values;
  for (int t = reference::updates; t > 0; --t) {  // backwards: nothing may depend on what was asked before
    INFO(name << ", t = " << t);
    require_close(schedule(t), values[static_cast<std::size_t>(t - 1)]);
  }
}

/// The metrics that record_schedules.py gives to ReduceLROnPlateau.
double metric(int t) { return t < 20 ? 1.0 / (1 + t / 4 * 0.5) : 0.3 + 0.00001 * (t % 3); }

void compare_plateau(std::string_view name, lr::plateau plateau, double sign) {
  auto const& values = recorded(name).values;
  for (int t = 0; t < reference::updates; ++t) {
    INFO(name << ", metric " << t);
    require_close(plateau.step(sign * metric(t)), values[static_cast<std::size_t>(t)]);
    REQUIRE(plateau.learning_rate() >= plateau.options().minimum);
  }
}

template <class Options>
Options with_warm_up(Options options, std::string_view mode) {
  options.base_lr = 0.1;
  if (mode.empty()) return options;
  options.warmup_steps = 9;
  options.warmup_begin_lr = 0.02;
  if (mode == " constant") options.warmup_mode = pushpull::compat::mxnet::warmup_mode::constant;
  return options;
}

}  // namespace

TEST_CASE("schedules give the rates of PyTorch's schedulers", "[lr_schedule]") {
  compare("PyTorch StepLR", lr::step_decay{.base = 0.1, .updates = 7});
  compare("PyTorch StepLR half", lr::step_decay{.base = 0.1, .updates = 1, .gamma = 0.5});
  compare("PyTorch MultiStepLR", lr::multi_step_decay{.base = 0.1, .milestones = {1, 5, 6, 30}});
  compare("PyTorch ConstantLR", lr::join{lr::constant{0.1 / 3}, 5, lr::constant{0.1}});
  compare("PyTorch LinearLR", lr::linear{.base = 0.1 / 3, .final = 0.1, .updates = 5});
  compare("PyTorch LinearLR down", lr::linear{.base = 0.1, .final = 0.01, .updates = 23});
  compare("PyTorch ExponentialLR", lr::exponential_decay{.base = 0.1, .gamma = 0.93});
  compare("PyTorch PolynomialLR", lr::polynomial{.base = 0.1, .updates = 29});
  compare("PyTorch PolynomialLR 1.7", lr::polynomial{.base = 0.1, .updates = 40, .power = 1.7});
  compare("PyTorch CosineAnnealingLR", lr::cosine{.base = 0.1, .final = 0.003, .updates = 39});
  compare("PyTorch CosineAnnealingWarmRestarts", lr::cosine_restarts{.base = 0.1, .updates = 7});
  compare("PyTorch CosineAnnealingWarmRestarts 2",
          lr::cosine_restarts{.base = 0.1, .final = 0.02, .updates = 3, .growth = 2});
  compare("PyTorch CyclicLR triangular", lr::cyclical{.base = 0.01, .peak = 0.06, .up = 5});
  compare("PyTorch CyclicLR triangular2",
          lr::cyclical{.base = 0.01, .peak = 0.06, .up = 3, .down = 6, .height = lr::cycle_height::triangular2});
  compare("PyTorch CyclicLR exp_range",
          lr::cyclical{
              .base = 0.01, .peak = 0.06, .up = 6, .down = 2, .height = lr::cycle_height::exp_range, .gamma = 0.97});
  compare("PyTorch CyclicLR momentum", lr::cyclical{.base = 0.9, .peak = 0.8, .up = 5});
  lr::one_cycle const cycles[] = {{.peak = 0.5, .updates = 40},
                                  {.peak = 0.5,
                                   .updates = 40,
                                   .rise = 0.37,
                                   .initial_divisor = 10,
                                   .final_divisor = 100,
                                   .shape = lr::ramp::linear},
                                  {.peak = 0.5, .updates = 40, .rise = 0.45, .three_phases = true}};
  std::string const names[] = {"PyTorch OneCycleLR", "PyTorch OneCycleLR linear", "PyTorch OneCycleLR three phases"};
  for (std::size_t i = 0; i < std::size(cycles); ++i) {
    compare(names[i], cycles[i]);
    compare(names[i] + " momentum", lr::one_cycle_momentum{cycles[i]});
  }
  compare("PyTorch SequentialLR", lr::join{lr::constant{0.05}, 5,
                                           lr::join{lr::cosine{.base = 0.1, .final = 0.01, .updates = 12}, 12,
                                                    lr::exponential_decay{.base = 0.1, .gamma = 0.9}}});
  compare("PyTorch LinearLR, CosineAnnealingLR", lr::warm_up{lr::cosine{.base = 0.1, .updates = 32}, 8, 0.001});
}

TEST_CASE("plateau gives the rates of PyTorch's ReduceLROnPlateau", "[lr_schedule]") {
  compare_plateau("PyTorch ReduceLROnPlateau", lr::plateau(0.1, {.patience = 2}), 1);
  compare_plateau("PyTorch ReduceLROnPlateau cooldown",
                  lr::plateau(0.1, {.factor = 0.5, .patience = 0, .cooldown = 3, .minimum = 0.02}), 1);
  compare_plateau("PyTorch ReduceLROnPlateau max",
                  lr::plateau(0.1, {.better = lr::better::larger,
                                    .factor = 0.7,
                                    .patience = 1,
                                    .threshold = 0.01,
                                    .kind = lr::threshold_kind::absolute}),
                  -1);
}

TEST_CASE("schedules give the rates of optax's", "[lr_schedule]") {
  compare("optax linear_schedule", lr::linear{.base = 0.01, .final = 0.2, .updates = 13});
  compare("optax polynomial_schedule", lr::polynomial{.base = 0.1, .final = 0.001, .updates = 31, .power = 2.5});
  compare("optax cosine_decay_schedule", lr::cosine{.base = 0.1, .final = 0.01, .updates = 25});
  compare("optax exponential_decay", lr::exponential_decay{.base = 0.1, .gamma = 0.5, .updates = 6});
  compare("optax exponential_decay staircase", lr::step_decay{.base = 0.1, .updates = 6, .gamma = 0.5});
  compare("optax warmup_constant_schedule", lr::warm_up{lr::constant{0.1}, 9, 0.02});
  compare("optax warmup_cosine_decay_schedule", lr::warm_up{lr::cosine{.base = 0.1, .final = 0.01, .updates = 24}, 9});
  compare("optax join_schedules",
          lr::warm_up_stable_decay{.peak = 0.1, .warm_up = 6, .stable = 14, .decay = 12, .final = 0.01});
}

TEST_CASE("compositions give the rates of MXNet's schedulers", "[lr_schedule]") {
  for (std::string const mode : {"", " linear", " constant"}) {
    using namespace pushpull::compat::mxnet;
    compare("MXNet FactorScheduler" + mode,
            factor_scheduler(with_warm_up(factor_scheduler_options{.step = 7, .factor = 0.6}, mode)));
    compare("MXNet FactorScheduler stop" + mode,
            factor_scheduler(
                with_warm_up(factor_scheduler_options{.step = 4, .factor = 0.3, .stop_factor_lr = 0.005}, mode)));
    compare(
        "MXNet MultiFactorScheduler" + mode,
        multi_factor_scheduler(with_warm_up(multi_factor_scheduler_options{.step = {5, 12, 13}, .factor = 0.5}, mode)));
    compare("MXNet PolyScheduler" + mode,
            poly_scheduler(with_warm_up(poly_scheduler_options{.max_update = 33, .final_lr = 0.004}, mode)));
    compare("MXNet CosineScheduler" + mode,
            cosine_scheduler(with_warm_up(cosine_scheduler_options{.max_update = 33, .final_lr = 0.004}, mode)));
  }
}
