/// @file
/// Each rule beside its formula in double, written from its source for one weight at a time: the powers and products of
/// the papers, not the recurrences and prepared scalars of the library.
#pragma once

#include <algorithm>
#include <cmath>
#include <pushpull/pushpull.hpp>

namespace pushpull::test {

inline double sign_of(double x) { return x > 0 ? 1 : (x < 0 ? -1 : 0); }

/// f(name, rule, formula) for every elementwise rule; formula(w, g, state, t) changes a weight and its states.
template <class F>
void for_each_rule(F const& f) {
  using std::abs, std::max, std::pow, std::sqrt;
  f("sgd", update::sgd{0.1}, [](double& w, double g, double*, double) { w -= 0.1 * g; });
  f("momentum", update::momentum{0.1, 0.9, 0.5}, [](double& w, double g, double* s, double t) {
    s[0] = t == 1 ? g : 0.9 * s[0] + 0.5 * g;
    w -= 0.1 * s[0];
  });
  f("nesterov", update::nesterov{0.1, 0.9}, [](double& w, double g, double* s, double) {
    s[0] = 0.9 * s[0] + g;
    w -= 0.1 * (g + 0.9 * s[0]);
  });
  f("signsgd", update::signsgd{0.01, 0.1},
    [](double& w, double g, double*, double) { w = (1 - 0.01 * 0.1) * w - 0.01 * sign_of(g); });
  f("signum", update::signum{0.01, 0.9, 0.1}, [](double& w, double g, double* s, double) {
    s[0] = 0.9 * s[0] + 0.1 * g;
    w -= 0.01 * (sign_of(s[0]) + 0.1 * w);
  });
  f("lion", update::lion{0.01, 0.9, 0.99, 0.1}, [](double& w, double g, double* s, double) {
    w -= 0.01 * (sign_of(0.9 * s[0] + 0.1 * g) + 0.1 * w);
    s[0] = 0.99 * s[0] + 0.01 * g;
  });
  f("adagrad", update::adagrad{0.1, 0.01, 0.1, 1e-10}, [](double& w, double g, double* s, double t) {
    s[0] = (t == 1 ? 0.1 : s[0]) + g * g;
    w -= 0.1 / (1 + (t - 1) * 0.01) * g / (sqrt(s[0]) + 1e-10);
  });
  f("rmsprop", update::rmsprop{0.01, 0.99, 1e-8}, [](double& w, double g, double* s, double) {
    s[0] = 0.99 * s[0] + 0.01 * g * g;
    w -= 0.01 * g / (sqrt(s[0]) + 1e-8);
  });
  f("rmsprop with momentum", update::scale_by_rms{0.99, 1e-8} | update::momentum{0.01, 0.9},
    [](double& w, double g, double* s, double) {
      s[0] = 0.99 * s[0] + 0.01 * g * g;
      s[1] = 0.9 * s[1] + g / (sqrt(s[0]) + 1e-8);
      w -= 0.01 * s[1];
    });
  f("centered_rmsprop", update::centered_rmsprop{0.01, 0.9, 1e-3}, [](double& w, double g, double* s, double) {
    s[0] = 0.9 * s[0] + 0.1 * g * g;
    s[1] = 0.9 * s[1] + 0.1 * g;
    w -= 0.01 * g / (sqrt(max(0.0, s[0] - s[1] * s[1])) + 1e-3);
  });
  f("adadelta", update::adadelta{1, 0.9, 1e-4}, [](double& w, double g, double* s, double) {
    s[0] = 0.9 * s[0] + 0.1 * g * g;
    double const x = sqrt((s[1] + 1e-4) / (s[0] + 1e-4)) * g;
    s[1] = 0.9 * s[1] + 0.1 * x * x;
    w -= x;
  });

  auto const moments = [](double g, double* s) {
    s[0] = 0.9 * s[0] + 0.1 * g;
    s[1] = 0.999 * s[1] + 0.001 * g * g;
  };
  auto const first = [](double* s, double t) { return s[0] / (1 - pow(0.9, t)); };
  auto const second = [](double v, double t) { return sqrt(v / (1 - pow(0.999, t))); };
  f("adam", update::adam{.learning_rate = 0.01, .epsilon = 1e-3}, [=](double& w, double g, double* s, double t) {
    moments(g, s);
    w -= 0.01 * first(s, t) / (second(s[1], t) + 1e-3);
  });
  f("adamw", update::adamw{.learning_rate = 0.01, .epsilon = 1e-3, .weight_decay = 0.1},
    [=](double& w, double g, double* s, double t) {
      moments(g, s);
      w -= 0.01 * 0.1 * w;
      w -= 0.01 * first(s, t) / (second(s[1], t) + 1e-3);
    });
  f("amsgrad", update::amsgrad{0.01, 0.9, 0.9, 1e-3}, [=](double& w, double g, double* s, double t) {
    s[0] = 0.9 * s[0] + 0.1 * g;
    s[1] = 0.9 * s[1] + 0.1 * g * g;
    s[2] = max(s[2], s[1]);
    w -= 0.01 * first(s, t) / (sqrt(s[2] / (1 - pow(0.9, t))) + 1e-3);
  });
  f("adamax", update::adamax{.learning_rate = 0.01}, [](double& w, double g, double* s, double t) {
    s[0] = 0.9 * s[0] + 0.1 * g;
    s[1] = max(0.999 * s[1], abs(g) + 1e-8);
    w -= 0.01 / (1 - pow(0.9, t)) * s[0] / s[1];
  });
  f("nadam", update::nadam{.learning_rate = 0.01, .epsilon = 1e-3}, [=](double& w, double g, double* s, double t) {
    auto const mu = [](double k) { return 0.9 * (1 - 0.5 * pow(0.96, k * 0.004)); };
    double product = 1;
    for (double k = 1; k <= t; ++k) product *= mu(k);
    moments(g, s);
    w -= 0.01 * ((1 - mu(t)) * g / (1 - product) + mu(t + 1) * s[0] / (1 - product * mu(t + 1))) /
         (second(s[1], t) + 1e-3);
  });
  f("radam", update::radam{.learning_rate = 0.01, .epsilon = 1e-3}, [=](double& w, double g, double* s, double t) {
    double const limit = 2 / (1 - 0.999) - 1, power = pow(0.999, t), length = limit - 2 * t * power / (1 - power);
    moments(g, s);
    double const rectified = sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length));
    w -= 0.01 * first(s, t) * (length > 5 ? rectified * sqrt(1 - power) / (sqrt(s[1]) + 1e-3) : 1);
  });
  f("adabelief", update::adabelief{.learning_rate = 0.01, .epsilon = 1e-4},
    [=](double& w, double g, double* s, double t) {
      s[0] = 0.9 * s[0] + 0.1 * g;
      s[1] = 0.999 * s[1] + 0.001 * (g - s[0]) * (g - s[0]) + 1e-4;
      w -= 0.01 * first(s, t) / (second(s[1], t) + 1e-4);
    });
  f("yogi", update::yogi{.learning_rate = 0.01}, [=](double& w, double g, double* s, double t) {
    s[0] = 0.9 * s[0] + 0.1 * g;
    s[1] -= 0.001 * sign_of(s[1] - g * g) * g * g;
    w -= 0.01 * first(s, t) / (second(s[1], t) + 1e-3);
  });
  f("dcasgd", update::dcasgd{0.1, 0.4}, [](double& w, double g, double* s, double t) {
    double const old = t == 1 ? w : s[0];
    s[0] = w;
    w -= 0.1 * (g + 0.4 * g * g * (w - old));
  });
  f("ftrl", update::ftrl{0.1, 0.2, 0.3, 1}, [](double& w, double g, double* s, double) {
    s[0] += g - (sqrt(s[1] + g * g) - sqrt(s[1])) / 0.1 * w;
    s[1] += g * g;
    w = abs(s[0]) <= 0.2 ? 0 : (sign_of(s[0]) * 0.2 - s[0]) / ((1 + sqrt(s[1])) / 0.1 + 0.3);
  });
  f("ftml", update::ftml{.learning_rate = 0.01, .epsilon = 1e-3}, [=](double& w, double g, double* s, double t) {
    s[1] = 0.999 * s[1] + 0.001 * g * g;
    double const d = (1 - pow(0.6, t)) / 0.01 * (second(s[1], t) + 1e-3);
    s[2] = 0.6 * s[2] + 0.4 * g - (d - 0.6 * s[0]) * w;
    s[0] = d;
    w = -s[2] / d;
  });
  f("test", update::test{}, [](double& w, double g, double* s, double) { s[0] = w += g; });
  f("trace", update::trace(0.9) | update::sgd{0.1}, [](double& w, double g, double* s, double) {
    s[0] = g + 0.9 * s[0];
    w -= 0.1 * s[0];
  });
  f("trace, nesterov", update::trace(0.9, true) | update::sgd{0.1}, [](double& w, double g, double* s, double) {
    s[0] = g + 0.9 * s[0];
    w -= 0.1 * (g + 0.9 * s[0]);
  });
  f("ema", update::sgd{0.1} | update::ema(0.9), [](double& w, double g, double* s, double t) {
    w -= 0.1 * g;
    s[0] += 0.1 / (1 - pow(0.9, t)) * (w - s[0]);
  });
  f("ema, no debias", update::ema{update::momentum{0.1, 0.9}, 0.9, false},
    [](double& w, double g, double* s, double t) {
      s[1] = 0.9 * s[1] + g;
      w -= 0.1 * s[1];
      s[0] = t == 1 ? w : 0.9 * s[0] + 0.1 * w;
    });
  f("lookahead", update::lookahead{update::momentum{0.1, 0.9}, 3, 0.4}, [](double& w, double g, double* s, double t) {
    if (t == 1) s[0] = w;
    s[1] = 0.9 * s[1] + g;
    w -= 0.1 * s[1];
    if (static_cast<int>(t) % 3 == 0) w = s[0] = 0.6 * s[0] + 0.4 * w;
  });
  f("decoupled_decay", update::decoupled_decay{update::sgd{0.1}, 0.01},
    [](double& w, double g, double*, double) { w = (1 - 0.01) * w - 0.1 * g; });
  f("clip_weights", update::clip_weights{update::sgd{0.1}, 0.5},
    [](double& w, double g, double*, double) { w = std::clamp(w - 0.1 * g, -0.5, 0.5); });
}

}  // namespace pushpull::test
