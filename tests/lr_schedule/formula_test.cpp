/// @file
/// Schedules against their formulas, written independently; compositions; parameters that can never be right.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <pushpull/compat/mxnet_scheduler.hpp>
#include <pushpull/lr_schedule.hpp>
#include <random>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace lr = pushpull::lr_schedule;

constexpr double pi = 3.14159265358979323846;
constexpr std::int64_t far = std::int64_t{1} << 62;

/// Values of t around everything that happens in schedules of a few hundred updates, and far away.
std::vector<std::int64_t> moments() {
  std::vector<std::int64_t> result;
  for (std::int64_t t = 1; t < 700; ++t) result.push_back(t);
  for (std::int64_t const t : {std::int64_t{4096}, std::int64_t{1} << 40, std::int64_t{1} << 52}) result.push_back(t);
  return result;
}

/// schedule(t) is formula(t - 1), the number of updates before, for every moment.
template <class Schedule, class Formula>
void require_formula(Schedule const& schedule, Formula const& formula) {
  schedule.validate();
  for (std::int64_t const t : moments()) {
    INFO("t = " << t);
    double const expected = formula(static_cast<double>(t - 1));
    REQUIRE(std::abs(schedule(t) - expected) <= 1e-12 * std::abs(expected) + 1e-15);
  }
  REQUIRE(schedule(0) == schedule(1));
  REQUIRE(schedule(-5) == schedule(1));
}

}  // namespace

TEST_CASE("annealing schedules follow their formulas and end exactly at their final value", "[lr_schedule]") {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> value(0, 1);
  for (int const updates : {1, 2, 97, 256, 600}) {
    double const a = value(random), b = value(random), power = 0.5 + value(random);
    auto const share = [&](double e) { return e < updates ? e / updates : 1.0; };
    lr::linear const linear{a, b, updates};
    lr::cosine const cosine{a, b, updates};
    lr::polynomial const polynomial{a, b, updates, power};
    require_formula(linear, [&](double e) { return (1 - share(e)) * a + share(e) * b; });
    require_formula(cosine, [&](double e) { return b + (a - b) * std::pow(std::cos(pi * share(e) / 2), 2); });
    require_formula(polynomial, [&](double e) { return b + (a - b) * std::pow(1 - share(e), power); });
    for (std::int64_t const t : {std::int64_t{updates} + 1, std::int64_t{updates} + 2, far}) {
      REQUIRE(linear(t) == b);
      REQUIRE(cosine(t) == b);
      REQUIRE(polynomial(t) == b);
    }
    REQUIRE(linear(1) == a);
    REQUIRE(std::abs(cosine(1) - a) <= 1e-15);
  }
}

TEST_CASE("cosine_restarts begins anew after every wave", "[lr_schedule]") {
  for (int const growth : {1, 2, 3})
    for (int const first : {1, 5, 64}) {
      lr::cosine_restarts const schedule{.base = 0.3, .final = 0.01, .updates = first, .growth = growth};
      std::int64_t t = 1;
      for (int length = first; t < 700; length *= growth)
        for (int i = 0; i < length; ++i, ++t)
          REQUIRE(schedule(t) == Approx(0.01 + 0.29 * (1 + std::cos(pi * i / length)) / 2).epsilon(1e-12));
    }
  lr::cosine_restarts const long_run{.base = 1, .updates = 10, .growth = far};
  REQUIRE(long_run(far) > 0);
  REQUIRE(long_run(std::numeric_limits<std::int64_t>::max()) <= 1);
}

TEST_CASE("decays follow their formulas", "[lr_schedule]") {
  require_formula(lr::exponential_decay{.base = 0.2, .gamma = 0.99},
                  [](double e) { return std::exp(std::log(0.2) + e * std::log(0.99)); });
  require_formula(lr::exponential_decay{.base = 0.2, .gamma = 0.5, .updates = 30},
                  [](double e) { return 0.2 * std::exp2(-e / 30); });
  require_formula(lr::step_decay{.base = 0.2, .updates = 31, .gamma = 0.5},
                  [](double e) { return std::ldexp(0.2, -static_cast<int>(std::min(std::floor(e / 31), 5000.0))); });
  require_formula(lr::multi_step_decay{.base = 8, .milestones = {1, 30, 600}, .gamma = 0.5}, [](double e) {
    return e >= 600 ? 1.0 : e >= 30 ? 2.0 : e >= 1 ? 4.0 : 8.0;
  });
  require_formula(lr::inverse_sqrt{.peak = 0.7, .warm_up = 100},
                  [](double e) { return e < 99 ? 0.007 * (e + 1) : 7 / std::sqrt(e + 1); });
  require_formula(lr::noam(512, 400, 2), [](double e) {
    return 2 * std::pow(512, -0.5) * std::min(std::pow(e + 1, -0.5), (e + 1) * std::pow(400, -1.5));
  });
  REQUIRE(lr::step_decay{.base = 1, .updates = 10}(10) == 1);
  REQUIRE(lr::step_decay{.base = 1, .updates = 10}(11) == 0.1);
}

TEST_CASE("cycles go up and down between their values", "[lr_schedule]") {
  using lr::cycle_height;
  require_formula(lr::cyclical{.base = 1, .peak = 3, .up = 10, .down = 40}, [](double e) {
    double const at = std::fmod(e, 50);
    return 1 + 2 * std::min(at / 10, (50 - at) / 40);
  });
  require_formula(lr::cyclical{.base = 1, .peak = 3, .up = 25, .height = cycle_height::triangular2}, [](double e) {
    return 1 + 2 * std::exp2(-std::floor(e / 50)) * (1 - std::abs(std::fmod(e, 50) / 25 - 1));
  });
  require_formula(lr::cyclical{.base = 1, .peak = 3, .up = 25, .height = cycle_height::exp_range, .gamma = 0.9},
                  [](double e) { return 1 + 2 * std::pow(0.9, e) * (1 - std::abs(std::fmod(e, 50) / 25 - 1)); });
  for (int const updates : {1, 2, 3, 10, 333}) {
    for (double const rise : {0.0, 0.1, 0.3, 0.5}) {
      for (bool const three_phases : {false, true}) {
        lr::one_cycle const schedule{.peak = 5, .updates = updates, .rise = rise, .three_phases = three_phases};
        schedule.validate();
        for (std::int64_t t = 1; t <= updates; ++t) {
          REQUIRE(schedule(t) <= 5);
          REQUIRE(schedule(t) >= 5 / 25e4 * (1 - 1e-12));
        }
        REQUIRE(schedule(updates) == (rise * updates == 1 && updates == 1 ? 5 : 5 / 25.0 / 1e4));
        REQUIRE(schedule(far) == 5 / 25.0 / 1e4);
      }
    }
  }
  lr::one_cycle const schedule{.peak = 5, .updates = 101, .rise = 0.5, .shape = lr::ramp::linear};
  require_formula(schedule, [](double e) {
    return e <= 49.5 ? 0.2 + 4.8 * e / 49.5 : e < 100 ? 5 - (5 - 2e-5) * (e - 49.5) / 50.5 : 2e-5;
  });
}

TEST_CASE("warm-ups lead to the first value of what follows", "[lr_schedule]") {
  lr::exponential_decay const after{.base = 0.5, .gamma = 0.99};
  auto const require_ramp = [&](lr::ramp shape, auto const& f) {
    require_formula(lr::warm_up{after, 200, 0.1, shape},
                    [&](double e) { return e < 200 ? 0.1 + 0.4 * f(e / 200) : 0.5 * std::pow(0.99, e - 200); });
    require_formula(lr::warm_up_stable_decay{.peak = 0.5,
                                             .warm_up = 20,
                                             .stable = 100,
                                             .decay = 300,
                                             .initial = 0.1,
                                             .final = 0.05,
                                             .decay_shape = shape,
                                             .warm_up_shape = shape},
                    [&](double e) {
                      if (e < 20) return 0.1 + 0.4 * f(e / 20);
                      if (e < 120) return 0.5;
                      return e < 420 ? 0.5 - 0.45 * f((e - 120) / 300) : 0.05;
                    });
  };
  require_ramp(lr::ramp::linear, [](double s) { return s; });
  require_ramp(lr::ramp::constant, [](double) { return 0.0; });
  require_ramp(lr::ramp::square, [](double s) { return s * s; });
  require_ramp(lr::ramp::square_root, [](double s) { return std::sqrt(s); });
  require_ramp(lr::ramp::cosine, [](double s) { return (1 - std::cos(pi * s)) / 2; });
  lr::warm_up const none{after, 0};
  for (std::int64_t const t : {1, 2, 100}) REQUIRE(none(t) == after(t));
  lr::warm_up_stable_decay const all_stable{.peak = 0.5, .warm_up = 0, .stable = 0, .decay = 0, .final = 0.25};
  REQUIRE(all_stable(1) == 0.25);
  lr::warm_up_stable_decay const no_decay{.peak = 0.5, .warm_up = 1, .stable = 2, .decay = 0, .final = 0.25};
  REQUIRE(no_decay(3) == 0.5);
  REQUIRE(no_decay(4) == 0.25);
  constexpr auto ever = std::numeric_limits<std::int64_t>::max();
  lr::warm_up_stable_decay const stays{.peak = 0.5, .warm_up = 10, .stable = ever, .decay = 0};
  for (std::int64_t const t : {std::int64_t{11}, std::int64_t{1000000}, ever}) REQUIRE(stays(t) == 0.5);
}

TEST_CASE("transitions begin and end at their values exactly", "[lr_schedule]") {
  for (auto const shape : {lr::ramp::linear, lr::ramp::cosine, lr::ramp::square, lr::ramp::square_root})
    for (int i = 1; i < 1000; ++i) {
      double const first = i / 7.0, last = 1.0 / i;
      REQUIRE(lr::between(shape, first, last, 0) == first);
      REQUIRE(lr::between(shape, first, last, 1) == last);
    }
}

TEST_CASE("compositions ask their parts for the right updates", "[lr_schedule]") {
  struct number {
    double operator()(std::int64_t t) const { return static_cast<double>(t); }
  };
  using lr::operator*;
  auto const chain = lr::join{number{}, 3, lr::join{lr::shifted{number{}, 100}, 2, 10.0 * number{}}};
  std::vector<double> values;
  for (int t = 1; t <= 7; ++t) values.push_back(chain(t));
  REQUIRE(values == std::vector<double>{1, 2, 3, 101, 102, 10, 20});
  REQUIRE((number{} * number{})(7) == 49);
  REQUIRE((number{} * 0.5)(7) == 3.5);
  REQUIRE((0.5 * lr::linear{1, 0, 4} * lr::constant{4})(3) == 1);
  REQUIRE(lr::shifted{number{}}(1) == 2);
  REQUIRE(lr::shifted{number{}, -3}(10) == 7);
  REQUIRE(lr::join{number{}, 0, lr::constant{5}}(1) == 5);
  lr::per_epoch const epochs{number{}, 3};
  values.clear();
  for (int t = 1; t <= 7; ++t) values.push_back(epochs(t));
  REQUIRE(values == std::vector<double>{1, 1, 1, 2, 2, 2, 3});
  REQUIRE(lr::held_after{number{}, 3}(2) == 2);
  REQUIRE(lr::held_after{number{}, 3}(3) == 3);
  REQUIRE(lr::held_after{number{}, 3}(far) == 3);
  REQUIRE(lr::at_least{number{}, 3.5}(3) == 3.5);
  REQUIRE(lr::at_least{number{}, 3.5}(4) == 4);
}

TEST_CASE("schedules of DJL are ours, asked for the next update", "[lr_schedule]") {
  for (std::int64_t t = 0; t < 60; ++t) {
    auto const n = static_cast<double>(t);
    lr::shifted const factor{lr::held_after{lr::exponential_decay{.base = 0.5, .gamma = 0.9}, 31}};
    REQUIRE(factor(t) == Approx(0.5 * std::pow(0.9, std::min(n, 30.0))).epsilon(1e-12));
    lr::shifted const linear{lr::linear{.base = 0.5, .final = 0.5 + 20 * 0.01, .updates = 20}};
    REQUIRE(linear(t) == Approx(0.5 + 0.01 * std::min(n, 20.0)).epsilon(1e-12));
    lr::shifted const warm{lr::warm_up{lr::cosine{.base = 0.5, .final = 0.01, .updates = 40}, 10, 0.1}};
    auto const main = [](double u) { return u <= 40 ? 0.01 + 0.49 / 2 * (1 + std::cos(pi * u / 40)) : 0.01; };
    REQUIRE(warm(t) == Approx(t < 10 ? 0.1 + (main(0) - 0.1) * n / 10 : main(n - 10)).epsilon(1e-12));
  }
}

TEST_CASE("plateau ignores metrics in a cooldown, small reductions and NaN", "[lr_schedule]") {
  lr::plateau plateau(1, {.factor = 0.5, .patience = 1, .cooldown = 2, .minimum = 0.3, .least_change = 0.1});
  double const nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> rates;
  for (double const metric : {1.0, 1.0, nan, 1.0, 1.0, 0.5, 0.5, nan, 0.4}) rates.push_back(plateau.step(metric));
  REQUIRE(rates == std::vector<double>{1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3});
  REQUIRE(plateau.best() == 0.4);
  auto const copy = plateau;
  for (int i = 0; i < 10; ++i) REQUIRE(plateau.step(1.0) == 0.3);
  REQUIRE(copy.best() == 0.4);
  REQUIRE(std::is_trivially_copyable_v<lr::plateau>);
}

TEST_CASE("schedules refuse parameters that can never be right", "[lr_schedule]") {
  using pushpull::invalid_argument;
  double const nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  auto const refused = [](auto const& schedule) {
    REQUIRE_THROWS_AS(schedule.validate(), invalid_argument);
    lr::constant const fine{1};
    REQUIRE_THROWS_AS((lr::join{schedule, 1, fine}.validate()), invalid_argument);
    REQUIRE_THROWS_AS((lr::join{fine, 1, schedule}.validate()), invalid_argument);
    REQUIRE_THROWS_AS((schedule * fine).validate(), invalid_argument);
    REQUIRE_THROWS_AS((fine * schedule).validate(), invalid_argument);
    REQUIRE_THROWS_AS((lr::warm_up{schedule, 1}.validate()), invalid_argument);
    REQUIRE_THROWS_AS((lr::shifted{schedule, 1}.validate()), invalid_argument);
    REQUIRE_THROWS_AS((lr::per_epoch{schedule, 1}.validate()), invalid_argument);
    REQUIRE_THROWS_AS((lr::held_after{schedule, 1}.validate()), invalid_argument);
    REQUIRE_THROWS_AS((lr::at_least{schedule, 1}.validate()), invalid_argument);
  };
  for (double const bad : {-1.0, nan, infinity, -infinity}) {
    refused(lr::constant{bad});
    refused(lr::linear{.base = bad, .updates = 1});
    refused(lr::linear{.base = 1, .final = bad, .updates = 1});
    refused(lr::polynomial{.base = bad, .updates = 1});
    refused(lr::polynomial{.base = 1, .final = bad, .updates = 1});
    refused(lr::polynomial{.base = 1, .updates = 1, .power = bad});
    refused(lr::cosine{.base = bad, .updates = 1});
    refused(lr::cosine{.base = 1, .final = bad, .updates = 1});
    refused(lr::cosine_restarts{.base = bad, .updates = 1});
    refused(lr::cosine_restarts{.base = 1, .final = bad, .updates = 1});
    refused(lr::exponential_decay{.base = bad, .gamma = 1});
    refused(lr::exponential_decay{.base = 1, .gamma = bad});
    refused(lr::step_decay{.base = bad, .updates = 1});
    refused(lr::step_decay{.base = 1, .updates = 1, .gamma = bad});
    refused(lr::multi_step_decay{.base = bad, .milestones = {1}});
    refused(lr::multi_step_decay{.base = 1, .milestones = {1}, .gamma = bad});
    refused(lr::inverse_sqrt{.peak = bad});
    refused(lr::cyclical{.base = bad, .peak = 1});
    refused(lr::cyclical{.base = 1, .peak = bad});
    refused(lr::cyclical{.base = 1, .peak = 1, .gamma = bad});
    refused(lr::one_cycle{.peak = bad, .updates = 1});
    refused(lr::one_cycle{.peak = 1, .updates = 1, .rise = bad});
    refused(lr::one_cycle{.peak = 1, .updates = 1, .initial_divisor = bad});
    refused(lr::one_cycle{.peak = 1, .updates = 1, .final_divisor = bad});
    refused(lr::one_cycle_momentum{.cycle = {.peak = 1, .updates = 1}, .low = bad});
    refused(lr::one_cycle_momentum{.cycle = {.peak = 1, .updates = 1}, .high = bad});
    refused(lr::warm_up_stable_decay{.peak = bad, .warm_up = 0, .stable = 0, .decay = 1});
    refused(lr::warm_up_stable_decay{.peak = 1, .warm_up = 0, .stable = 0, .decay = 1, .initial = bad});
    refused(lr::warm_up_stable_decay{.peak = 1, .warm_up = 0, .stable = 0, .decay = 1, .final = bad});
    REQUIRE_THROWS_AS((lr::warm_up{lr::constant{1}, 1, bad}.validate()), invalid_argument);
    REQUIRE_THROWS_AS((lr::at_least{lr::constant{1}, bad}.validate()), invalid_argument);
    REQUIRE_THROWS_AS(lr::plateau(bad), invalid_argument);
    REQUIRE_THROWS_AS(lr::plateau(1, {.factor = bad}), invalid_argument);
    REQUIRE_THROWS_AS(lr::plateau(1, {.threshold = bad}), invalid_argument);
    REQUIRE_THROWS_AS(lr::plateau(1, {.minimum = bad}), invalid_argument);
    REQUIRE_THROWS_AS(lr::plateau(1, {.least_change = bad}), invalid_argument);
    REQUIRE_THROWS_AS(lr::noam(512, 4000, bad), invalid_argument);
  }
  refused(lr::linear{.base = 1, .updates = 0});
  refused(lr::polynomial{.base = 1, .updates = 0});
  refused(lr::cosine{.base = 1, .updates = -1});
  refused(lr::cosine_restarts{.base = 1, .updates = 0});
  refused(lr::cosine_restarts{.base = 1, .updates = 1, .growth = 0});
  refused(lr::exponential_decay{.base = 1, .gamma = 1, .updates = 0});
  refused(lr::step_decay{.base = 1, .updates = 0});
  refused(lr::multi_step_decay{.base = 1, .milestones = {}});
  refused(lr::multi_step_decay{.base = 1, .milestones = {0, 1}});
  refused(lr::multi_step_decay{.base = 1, .milestones = {3, 5, 5}});
  refused(lr::inverse_sqrt{.peak = 1, .warm_up = 0});
  refused(lr::cyclical{.base = 1, .peak = 1, .up = 0});
  refused(lr::cyclical{.base = 1, .peak = 1, .down = -1});
  refused(lr::one_cycle{.peak = 1, .updates = 0});
  refused(lr::one_cycle{.peak = 1, .updates = 9, .rise = 0.6, .three_phases = true});
  refused(lr::one_cycle_momentum{.cycle = {.peak = 1, .updates = 0}});
  refused(lr::warm_up_stable_decay{.peak = 1, .warm_up = -1, .stable = 0, .decay = 1});
  refused(lr::warm_up_stable_decay{.peak = 1, .warm_up = 0, .stable = -1, .decay = 1});
  refused(lr::warm_up_stable_decay{.peak = 1, .warm_up = 0, .stable = 0, .decay = -1});
  refused(lr::join{lr::constant{1}, -1, lr::constant{1}});
  refused(lr::warm_up{lr::constant{1}, -1});
  refused(lr::per_epoch{lr::constant{1}, 0});
  refused(lr::held_after{lr::constant{1}, 0});
  REQUIRE_THROWS_AS(lr::plateau(1, {.factor = 1}), invalid_argument);
  REQUIRE_THROWS_AS(lr::plateau(1, {.patience = -1}), invalid_argument);
  REQUIRE_THROWS_AS(lr::plateau(1, {.cooldown = -1}), invalid_argument);
  REQUIRE_THROWS_AS(lr::noam(0), invalid_argument);
  REQUIRE_THROWS_AS(lr::noam(512, 0), invalid_argument);
  std::vector<std::int64_t> many(lr::milestones::capacity + 1);
  REQUIRE_THROWS_AS(lr::milestones(many.begin(), many.end()), invalid_argument);
  many.pop_back();
  REQUIRE(lr::milestones(many.begin(), many.end()).size() == 32);
}

TEST_CASE("MXNet's schedulers refuse what MXNet refuses", "[lr_schedule]") {
  namespace mxnet = pushpull::compat::mxnet;
  using pushpull::invalid_argument;
  REQUIRE_THROWS_AS(mxnet::factor_scheduler({.step = 0}), invalid_argument);
  REQUIRE_THROWS_AS(mxnet::factor_scheduler({.step = 1, .factor = 1.1}), invalid_argument);
  REQUIRE_THROWS_AS(mxnet::factor_scheduler({.step = 1, .warmup_steps = -1}), invalid_argument);
  REQUIRE_THROWS_AS(mxnet::factor_scheduler({.step = 1, .base_lr = 0.1, .warmup_begin_lr = 0.2}), invalid_argument);
  REQUIRE_THROWS_AS(mxnet::multi_factor_scheduler({.step = {}}), invalid_argument);
  REQUIRE_THROWS_AS(mxnet::multi_factor_scheduler({.step = {0, 4}}), invalid_argument);
  REQUIRE_THROWS_AS(mxnet::multi_factor_scheduler({.step = {4, 4}}), invalid_argument);
  REQUIRE_THROWS_AS(mxnet::multi_factor_scheduler({.step = {4}, .factor = 2}), invalid_argument);
  REQUIRE_THROWS_AS(mxnet::poly_scheduler({.max_update = 0}), invalid_argument);
  REQUIRE_THROWS_AS(mxnet::poly_scheduler({.max_update = 5, .warmup_steps = 5}), invalid_argument);
  REQUIRE_THROWS_AS(mxnet::cosine_scheduler({.max_update = 0}), invalid_argument);
  REQUIRE_THROWS_AS(mxnet::cosine_scheduler({.max_update = 5, .warmup_steps = -1}), invalid_argument);
}
