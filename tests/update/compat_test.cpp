/// @file
/// The forms of MXNet 2.0 and of DJL against their formulas in double, and what their types promise. Those of MXNet 1.x
/// are compared with MXNet itself: mxnet_test.cpp.
#include <algorithm>
#include <array>
#include <cmath>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "update/rule_runner.hpp"

namespace {

namespace mxnet = pushpull::compat::mxnet2;
namespace djl = pushpull::compat::djl;
using std::abs, std::max, std::pow, std::sqrt;

constexpr double wd = 0.1, s = 0.5, limit = 0.3;

double clip(double x) { return std::clamp(x, -limit, limit); }
double sign_of(double x) { return x > 0 ? 1 : (x < 0 ? -1 : 0); }
/// clip(s g) + wd w, and clip(s g + wd w).
double decayed_last(double w, double g) { return clip(s * g) + wd * w; }
double decayed_first(double w, double g) { return clip(s * g + wd * w); }

/// 50 steps of a pipe in double against formula(w, g, state, t), on 97 random elements.
template <class Rule, class Formula>
void compare(char const* name, Rule const& rule, Formula const& formula) {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<double> w(97), g(97);
  for (double& x : w) x = uniform(random);
  std::vector<std::array<double, 3>> state(w.size());
  pushpull::test::rule_runner<double, double, Rule> runner(rule, w, 1);
  for (int t = 1; t <= 50; ++t) {
    for (double& x : g) x = uniform(random);
    runner.step(g);
    for (std::size_t i = 0; i < w.size(); ++i) formula(w[i], g[i], state[i], t);
  }
  auto const got = runner.values(0);
  for (std::size_t i = 0; i < w.size(); ++i) {
    INFO(name << " " << i);
    CHECK(abs(got[i] - w[i]) <= 1e-13 * (1 + abs(w[i])));
  }
}

/// The step of Adam with its corrections in the rate, divided by the rate: m / (sqrt(v) + epsilon).
double moments(double g, auto& x, double epsilon) {
  x[0] = 0.9 * x[0] + 0.1 * g;
  x[1] = 0.999 * x[1] + 0.001 * g * g;
  return x[0] / (sqrt(x[1]) + epsilon);
}
double corrected(double rate, double t) { return rate * sqrt(1 - pow(0.999, t)) / (1 - pow(0.9, t)); }

}  // namespace

TEST_CASE("the forms of MXNet 2.0 equal their formulas", "[update]") {
  auto const in = decayed_last;
  compare("sgd", mxnet::sgd({0.1, wd, s, limit}), [=](double& w, double g, auto&, double) { w -= 0.1 * in(w, g); });
  compare("sgd_momentum", mxnet::sgd_momentum({0.1, 0.9, wd, s, limit}), [=](double& w, double g, auto& x, double) {
    x[0] = 0.9 * x[0] - 0.1 * in(w, g);
    w += x[0];
  });
  compare("nag", mxnet::nag({0.1, 0.9, wd, s, limit}), [=](double& w, double g, auto& x, double) {
    double const h = in(w, g);
    x[0] = 0.9 * x[0] - 0.1 * h;
    w += 0.9 * x[0] - 0.1 * h;
  });
  compare("signum", mxnet::signum({0.01, 0.9, 0.2, wd, s, limit}), [=](double& w, double g, auto& x, double) {
    x[0] = 0.9 * x[0] - 0.1 * in(w, g);
    w = (1 - 0.01 * 0.2) * w + 0.01 * sign_of(x[0]);
  });
  compare("signsgd", mxnet::signsgd({0.01, 0.2, wd}),
          [](double& w, double g, auto&, double) { w = (1 - 0.01 * (wd + 0.2)) * w - 0.01 * sign_of(g); });
  compare("signum, wd_mult 0", pushpull::update::with_multipliers(mxnet::signum({0.01, 0.9, 0.2, wd, s, limit}), 1, 0),
          [=](double& w, double g, auto& x, double) {
            x[0] = 0.9 * x[0] - 0.1 * clip(s * g);
            w = (1 - 0.01 * 0.2) * w + 0.01 * sign_of(x[0]);
          });
  compare("signsgd, wd_mult 0", pushpull::update::with_multipliers(mxnet::signsgd({0.01, 0.2, wd}), 1, 0),
          [](double& w, double g, auto&, double) { w = (1 - 0.01 * 0.2) * w - 0.01 * sign_of(g); });
  auto const compensated = [=](double& w, double g, double& old, double t) {
    double const h = in(w, g), before = t == 1 ? w : old;
    old = w;
    return 0.1 * (h + 0.4 * h * h * (w - before));
  };
  compare("dcasgd", mxnet::dcasgd({0.1, 0.4, wd, s, limit}),
          [=](double& w, double g, auto& x, double t) { w -= compensated(w, g, x[0], t); });
  compare("dcasgd_momentum", mxnet::dcasgd_momentum({0.1, 0.9, 0.4, wd, s, limit}),
          [=](double& w, double g, auto& x, double t) {
            x[1] = 0.9 * x[1] - compensated(w, g, x[0], t);
            w += x[1];
          });
  compare("adam", mxnet::adam({0.01, 0.9, 0.999, 1e-3, wd, s, limit}),
          [=](double& w, double g, auto& x, double t) { w -= corrected(0.01, t) * moments(in(w, g), x, 1e-3); });
  compare("adamw", mxnet::adamw({0.01, 0.9, 0.999, 1e-3, true, wd, s, limit}),
          [](double& w, double g, auto& x, double t) {
            w -= corrected(0.01, t) * (moments(clip(s * g), x, 1e-3) + wd * w);
          });
  compare("adamw, uncorrected", mxnet::adamw({0.01, 0.9, 0.999, 1e-3, false, wd, s, limit}),
          [](double& w, double g, auto& x, double) { w -= 0.01 * (moments(clip(s * g), x, 1e-3) + wd * w); });
  compare("adabelief", mxnet::adabelief({0.01, 0.9, 0.999, 1e-4, true, wd, s, limit}),
          [](double& w, double g, auto& x, double t) {
            double const h = decayed_first(w, g);
            x[0] = 0.9 * x[0] + 0.1 * h;
            x[1] = 0.999 * x[1] + 0.001 * (h - x[0]) * (h - x[0]) + 1e-4;
            w -= corrected(0.01, t) * x[0] / (sqrt(x[1]) + 1e-4);
          });
  compare("adamax", mxnet::adamax({0.01, 0.9, 0.999, 1e-3, wd, s, limit}), [=](double& w, double g, auto& x, double t) {
    x[0] = 0.9 * x[0] + 0.1 * in(w, g);
    x[1] = max(0.999 * x[1], abs(in(w, g)));
    w -= 0.01 / (1 - pow(0.9, t)) * x[0] / (x[1] + 1e-3);
  });
  compare("nadam", mxnet::nadam({0.01, 0.9, 0.999, 1e-3, 0.1, wd, s, limit}),
          [=](double& w, double g, auto& x, double t) {
            double const h = in(w, g);
            auto const mu = [](double k) { return 0.9 * (1 - 0.5 * pow(0.96, k * 0.1)); };
            double product = 1;
            for (double k = 1; k <= t; ++k) product *= mu(k);
            moments(h, x, 1);
            w -= 0.01 * ((1 - mu(t)) * h / (1 - product) + mu(t + 1) * x[0] / (1 - product * mu(t + 1))) /
                 (sqrt(x[1] / (1 - pow(0.999, t))) + 1e-3);
          });
  compare("adagrad", mxnet::adagrad({0.1, 1e-3, wd, s, limit}), [=](double& w, double g, auto& x, double) {
    x[0] += in(w, g) * in(w, g);
    w -= 0.1 * in(w, g) / (sqrt(x[0]) + 1e-3);
  });
  compare("rmsprop", mxnet::rmsprop({0.01, 0.9, 1e-3, 0.4, wd, s, limit}), [=](double& w, double g, auto& x, double) {
    x[0] = 0.9 * x[0] + 0.1 * in(w, g) * in(w, g);
    w = std::clamp(w - 0.01 * in(w, g) / (sqrt(x[0]) + 1e-3), -0.4, 0.4);
  });
  auto const centered = [](double& w, double h, auto& x) {
    x[0] = 0.9 * x[0] + 0.1 * h * h;
    x[1] = 0.9 * x[1] + 0.1 * h;
    x[2] = 0.8 * x[2] - 0.01 * h / sqrt(x[0] - x[1] * x[1] + 1e-3);
    w += x[2];
  };
  compare("rmsprop_centered", mxnet::rmsprop_centered({0.01, 0.9, 0.8, 1e-3, 0, wd, s, limit}),
          [=](double& w, double g, auto& x, double) { centered(w, in(w, g), x); });
  auto const adadelta = [](double h, auto& x, double epsilon) {
    x[0] = 0.9 * x[0] + 0.1 * h * h;
    double const step = sqrt(x[1] + epsilon) / sqrt(x[0] + epsilon) * h;
    x[1] = 0.9 * x[1] + 0.1 * step * step;
    return step;
  };
  compare("adadelta", mxnet::adadelta({0.5, 0.9, 1e-4, wd, s, limit}),
          [=](double& w, double g, auto& x, double) { w -= 0.5 * adadelta(in(w, g), x, 1e-4); });
  compare("ftrl", mxnet::ftrl({0.1, 0.2, 1, wd, s, limit}), [](double& w, double g, auto& x, double) {
    double const h = clip(s * g);
    x[0] += h - (sqrt(x[1] + h * h) - sqrt(x[1])) * w / 0.1;
    x[1] += h * h;
    w = -sign_of(x[0]) * max(abs(x[0]) - 0.2, 0.0) / ((1 + sqrt(x[1])) / 0.1 + wd);
  });
  compare("ftml", mxnet::ftml({0.01, 0.6, 0.999, 1e-3, wd, s, limit}), [=](double& w, double g, auto& x, double t) {
    double const h = in(w, g);
    x[1] = 0.999 * x[1] + 0.001 * h * h;
    double const d = (1 - pow(0.6, t)) / 0.01 * (sqrt(x[1] / (1 - pow(0.999, t))) + 1e-3);
    x[2] = 0.6 * x[2] + 0.4 * h - (d - 0.6 * x[0]) * w;
    x[0] = d;
    w = -x[2] / d;
  });
  compare("test", mxnet::test({0.1, wd, s}), [](double& w, double g, auto&, double) { w -= 0.1 * (s * g + wd * w); });
}

TEST_CASE("the forms of DJL equal their formulas", "[update]") {
  compare("sgd", djl::sgd({0.1, wd, s, limit}),
          [](double& w, double g, auto&, double) { w = (1 - 0.1 * wd) * w - 0.1 * clip(s * g); });
  compare("sgd_momentum", djl::sgd_momentum({0.1, 0.9, wd, s, limit}), [](double& w, double g, auto& x, double) {
    x[0] = 0.9 * x[0] - 0.1 * wd * w - 0.1 * clip(s * g);
    w += x[0];
  });
  compare("nag", djl::nag({0.1, 0.9, wd, s, limit}), [](double& w, double g, auto& x, double) {
    double const d = 0.1 * decayed_last(w, g);
    w += 0.81 * x[0] - 1.9 * d;
    x[0] = 0.9 * x[0] - d;
  });
  compare("adam", djl::adam({0.01, 0.9, 0.999, 1e-3, wd, s, limit}), [](double& w, double g, auto& x, double t) {
    w -= corrected(0.01, t) * moments(decayed_first(w, g), x, 1e-3);
  });
  compare(
      "adam, decay after the clip", djl::adam<djl::decay_order::after_clip>({0.01, 0.9, 0.999, 1e-3, wd, s, limit}),
      [](double& w, double g, auto& x, double t) { w -= corrected(0.01, t) * moments(decayed_last(w, g), x, 1e-3); });
  compare("adamw", djl::adamw({0.01, 0.9, 0.999, 1e-3, wd, s, limit}), [](double& w, double g, auto& x, double t) {
    w -= 0.01 * wd * w + corrected(0.01, t) * moments(clip(s * g), x, 1e-3);
  });
  compare("adagrad", djl::adagrad({0.1, 1e-3, s, limit}), [](double& w, double g, auto& x, double) {
    x[0] += clip(s * g) * clip(s * g);
    w -= 0.1 * clip(s * g) / sqrt(x[0] + 1e-3);
  });
  compare("rmsprop", djl::rmsprop({0.01, 0.9, 1e-3, wd, s, limit}), [](double& w, double g, auto& x, double) {
    double const h = decayed_first(w, g);
    x[0] = 0.9 * x[0] + 0.1 * h * h;
    w -= 0.01 * h / sqrt(x[0] + 1e-3);
  });
  compare("rmsprop_centered", djl::rmsprop_centered({0.01, 0.9, 0.8, 1e-3, wd, s, limit}),
          [](double& w, double g, auto& x, double) {
            double const h = decayed_first(w, g);
            x[0] = 0.9 * x[0] + 0.1 * h * h;
            x[1] = 0.9 * x[1] + 0.1 * h;
            x[2] = 0.8 * x[2] - 0.01 * h / sqrt(x[0] - x[1] * x[1] + 1e-3);
            w += x[2];
          });
  compare("adadelta", djl::adadelta({0.9, 1e-4, wd, s, limit}), [](double& w, double g, auto& x, double) {
    double const h = decayed_last(w, g);
    x[0] = 0.9 * x[0] + 0.1 * h * h;
    double const step = sqrt(x[1] + 1e-4) / sqrt(x[0] + 1e-4) * h;
    x[1] = 0.9 * x[1] + 0.1 * step * step;
    w -= step;
  });
}

TEST_CASE("a limit that is off clips nothing; DJL's limit of zero stops all gradients", "[update]") {
  compare("MXNet, 0", mxnet::sgd({.learning_rate = 1}), [](double& w, double g, auto&, double) { w -= g; });
  REQUIRE_THROWS_AS(djl::sgd({.learning_rate = 0, .weight_decays = 0.1}), pushpull::invalid_argument);
  REQUIRE_THROWS_AS(djl::nag({.learning_rate = 0.1, .momentum = 0}), pushpull::invalid_argument);
  compare("DJL, -1", djl::sgd({.learning_rate = 1}), [](double& w, double g, auto&, double) { w -= g; });
  compare("DJL, 0", djl::sgd({.learning_rate = 1, .clip_grad = 0}), [](double&, double, auto&, double) {});
}

TEST_CASE("where MXNet 1.x's adamax divides 0 by 0 the weight stays", "[update]") {
  auto const rule = pushpull::compat::mxnet1::adamax();
  pushpull::test::rule_runner<float, float, std::remove_const_t<decltype(rule)>> runner(rule, {0.5, -0.25}, 1);
  runner.step({0, 0});
  REQUIRE(runner.values(0) == std::vector<double>{0.5, -0.25});
}

TEST_CASE("a form takes new hyperparameters as a whole", "[update]") {
  auto const devices = pushpull::cpu_devices(2);
  double const batch = 4;
  // example-begin mxnet
  auto const adam = [&](double rate) {
    return pushpull::compat::mxnet1::adam({.learning_rate = rate, .wd = 1e-4, .rescale_grad = 1 / batch});
  };
  pushpull::kv_store store{devices, adam(0.01)};
  // example-end mxnet
  std::vector<float> w(100, 0.0F), g(100, 2.0F);
  store.init("w", w);
  store.pushpull("w", g, w).wait();
  REQUIRE(w[99] == Approx(-0.01).epsilon(1e-4));
  // example-begin mxnet_rate
  store.set_hyperparameters(adam(0.001));
  // example-end mxnet_rate
  store.pushpull("w", g, w).wait();
  REQUIRE(w[99] == Approx(-0.011).epsilon(1e-4));
}

TEST_CASE("forms of other libraries are updaters like others: piped behind a norm, changed between steps", "[update]") {
  namespace update = pushpull::update;
  pushpull::kv_store store{pushpull::cpu_devices(3), update::clip_global_norm(1e9) | mxnet::adamw({.learning_rate = 1}),
                           pushpull::synchronous{}};
  std::vector<float> w(5000, 0.0F), g(5000, 2.0F);
  store.init("w", w);
  store.pushpull("w", g, w);
  REQUIRE(w[4999] == Approx(-1).epsilon(1e-4));
  store.set_hyperparameters(update::clip_global_norm(1e9) | mxnet::adamw({.learning_rate = 0}));
  auto const before = w;
  store.pushpull("w", g, w);
  REQUIRE(w == before);
  REQUIRE(store.state_names() == std::vector<std::string>{"exp_avg", "exp_avg_sq"});
}
