/// @file
/// Rules since 2022 over 50 steps against their formulas in double, written from the papers as in formulas.hpp.
#include <algorithm>
#include <cmath>
#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "update/formula_runner.hpp"

namespace update = pushpull::update;

TEMPLATE_TEST_CASE("rules since 2022 equal their formulas", "[update]", float, double) {
  using std::abs, std::max, std::pow, std::sqrt;
  auto const f = [](char const* name, auto const& rule, auto const& formula) {
    pushpull::test::follows_formula<TestType, TestType>(name, rule, formula);
  };
  f("ademamix",
    update::ademamix{.learning_rate = 0.01,
                     .beta2 = 0.99,
                     .epsilon = 1e-3,
                     .beta3 = 0.995,
                     .alpha = 3,
                     .weight_decay = 0.1,
                     .warmup = 20},
    [](double& w, double g, double* s, double t) {
      double const share = std::min(1.0, t / 20), b = pow(0.9, 1 / (1 - share + share * log(0.9) / log(0.995)));
      s[0] = 0.9 * s[0] + 0.1 * g;
      s[1] = 0.99 * s[1] + 0.01 * g * g;
      s[2] = b * s[2] + (1 - b) * g;
      double const u = (s[0] / (1 - pow(0.9, t)) + 3 * share * s[2]) / (sqrt(s[1] / (1 - pow(0.99, t))) + 1e-3);
      w -= 0.01 * (u + 0.1 * w);
    });
  f("adopt",
    update::adopt{.learning_rate = 0.01, .beta2 = 0.99, .epsilon = 0.2, .clip_exponent = 0.3, .weight_decay = 0.1},
    [](double& w, double g, double* s, double t) {
      if (t > 1) {
        double const limit = pow(t - 1, 0.3);
        s[0] = 0.9 * s[0] + 0.1 * std::clamp(g / max(sqrt(s[1]), 0.2), -limit, limit);
        w -= 0.01 * (0.1 * w + s[0]);
      }
      s[1] = t > 1 ? 0.99 * s[1] + 0.01 * g * g : g * g;
    });
  f("adan", update::adan{.learning_rate = 0.01, .epsilon = 1e-3, .weight_decay = 0.1},
    [](double& w, double g, double* s, double t) {
      double const d = t == 1 ? 0 : g - s[3];
      s[0] = 0.98 * s[0] + 0.02 * g;
      s[1] = 0.99 * s[1] + 0.01 * pow(g + 0.92 * d, 2);
      s[2] = 0.92 * s[2] + 0.08 * d;
      s[3] = g;
      double const u = s[0] / (1 - pow(0.98, t)) + 0.92 * s[2] / (1 - pow(0.92, t));
      w = (w - 0.01 * u / (sqrt(s[1] / (1 - pow(0.99, t))) + 1e-3)) / (1 + 0.01 * 0.1);
    });
  f("sophia_g",
    update::sophia_g{.learning_rate = 0.01,
                     .beta1 = 0.9,
                     .epsilon = 0.1,
                     .rho = 0.5,
                     .weight_decay = 0.1,
                     .batch = 20,
                     .interval = 4},
    [](double& w, double g, double* s, double t) {
      if (static_cast<int>(t) % 5 == 0) {
        s[1] = 0.99 * s[1] + 0.01 * 20 * g * g;
      } else {
        s[0] = 0.9 * s[0] + 0.1 * g;
        w -= 0.01 * (0.1 * w + std::clamp(s[0] / max(0.5 * s[1], 0.1), -1.0, 1.0));
      }
    });
  // The share of an update in the average: its squared rate's in the sum of all so far.
  auto const share = [](double t) {
    double sum = 0;
    for (double k = 1; k <= t; ++k) sum += pow(std::min(1.0, k / 7), 2);
    return pow(std::min(1.0, t / 7), 2) / sum;
  };
  f("schedule_free_sgd", update::schedule_free_sgd{0.1, 0.8, 0.1, 7}, [=](double& w, double g, double* s, double t) {
    if (t == 1) s[0] = s[1] = w;
    s[0] -= 0.1 * std::min(1.0, t / 7) * (g + 0.1 * w);
    s[1] = (1 - share(t)) * s[1] + share(t) * s[0];
    w = 0.8 * s[1] + 0.2 * s[0];
  });
  f("schedule_free_adamw",
    update::schedule_free_adamw{.learning_rate = 0.01, .epsilon = 1e-3, .weight_decay = 0.1, .warmup = 7},
    [=](double& w, double g, double* s, double t) {
      if (t == 1) s[0] = s[1] = w;
      s[2] = 0.999 * s[2] + 0.001 * g * g;
      s[0] -= 0.01 * std::min(1.0, t / 7) * (g / (sqrt(s[2] / (1 - pow(0.999, t))) + 1e-3) + 0.1 * w);
      s[1] = (1 - share(t)) * s[1] + share(t) * s[0];
      w = 0.9 * s[1] + 0.1 * s[0];
    });
  f("swa", update::sgd{0.1} | update::swa(4, 3), [](double& w, double g, double* s, double t) {
    w -= 0.1 * g;
    if (t <= 4) {
      s[0] = w;
    } else if (static_cast<int>(t) % 3 == 1) {
      double const n = (t - 4) / 3 + 1;
      s[0] = ((n - 1) * s[0] + w) / n;
    }
  });
}

TEST_CASE("schedule_free gives all updates the same weight once the rate has risen", "[update]") {
  for (double const t : {1.0, 2.0, 1e9})
    REQUIRE(update::detail::share_of_average(static_cast<std::int64_t>(t), 0) == 1 / t);
  REQUIRE(update::detail::share_of_average(1, 1) == 1);
  REQUIRE(update::detail::share_of_average(4, 1) == 0.25);
}
