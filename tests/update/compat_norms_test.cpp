/// @file
/// The forms of MXNet's rules with norms of each tensor, and of its LBSGD, against their formulas in double; and learning
/// rates that are scheduled in forms of other libraries.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/deviation.hpp"

namespace {

namespace pp = pushpull;
namespace mxnet1 = pushpull::compat::mxnet1;
namespace mxnet2 = pushpull::compat::mxnet2;
namespace djl = pushpull::compat::djl;
namespace lr = pushpull::lr_schedule;
namespace update = pushpull::update;
using tensor = std::vector<double>;

constexpr double wd = 0.1, s = 0.5, limit = 0.3;

double norm(tensor const& x) {
  double sum = 0;
  for (double const e : x) sum += e * e;
  return std::sqrt(sum);
}
double clip(double x) { return std::clamp(x, -limit, limit); }

/// One tensor and the states of its rule.
struct model {
  tensor w, m, v;
};

/// 12 steps of a form in double, over tensors of several sizes, against formula(model, gradient, t).
template <class Rule, class Formula>
void compare(char const* name, Rule const& rule, Formula const& formula) {
  std::mt19937 random(5);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<std::string> keys;
  std::vector<tensor> weights;
  std::vector<model> models;
  for (std::size_t const size : {1U, 7U, 64U, 2050U, 0U}) {
    keys.push_back("key" + std::to_string(keys.size()));
    weights.emplace_back(size);
    for (double& x : weights.back()) x = keys.size() == 3 ? 0 : uniform(random);  // one starts at zero
    models.push_back({weights.back(), tensor(size), tensor(size)});
  }
  pp::kv_store<double, pp::cpu_device<>, Rule, pp::synchronous> store{pp::cpu_devices(2), rule};
  store.init(keys, weights);
  for (int t = 1; t <= 12; ++t) {
    auto gradients = weights;
    for (std::size_t k = 0; k < keys.size(); ++k)
      for (double& x : gradients[k]) x = k == 1 && t < 3 ? 0 : uniform(random);  // one has no gradient at first
    store.push(keys, gradients);
    for (std::size_t k = 0; k < keys.size(); ++k) formula(models[k], gradients[k], t);
  }
  store.pull(keys, weights);
  INFO(name);
  double worst = 0;
  for (std::size_t k = 0; k < keys.size(); ++k)
    for (std::size_t i = 0; i < weights[k].size(); ++i)
      worst =
          pp::test::larger_deviation(worst, std::abs(weights[k][i] - models[k].w[i]) / (1 + std::abs(models[k].w[i])));
  CHECK(worst < 1e-12);
}

void momentum_step(model& x, tensor const& g, double rate) {
  for (std::size_t i = 0; i < g.size(); ++i) {
    x.m[i] = 0.9 * x.m[i] - rate * (clip(s * g[i]) + wd * x.w[i]);
    x.w[i] += x.m[i];
  }
}

/// MXNet's ratio: bounded |w| by |u|.
double ratio(tensor const& w, tensor const& u, double lower, double upper) {
  double const r1 = std::clamp(norm(w), lower, upper), r2 = norm(u);
  return r1 == 0 || r2 == 0 ? 1 : r1 / r2;
}

/// After 6 steps of a form whose rate is scheduled, what a rate gives that is set before every step by `form(rate)`.
template <class Form>
void follows_schedule(char const* name, Form const& form) {
  lr::linear const schedule{.base = 0.3, .final = 0.05, .updates = 4};
  auto const train = [&](auto const& rule, auto const& before_step) {
    pp::kv_store store{pp::cpu_devices(2), rule, pp::synchronous{}};
    std::vector<float> w(1000), g(1000);
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i % 13) / 8 - 0.7F;
    store.init("w", w);
    for (int t = 1; t <= 6; ++t) {
      before_step(store, t);
      for (std::size_t i = 0; i < g.size(); ++i)
        g[i] = static_cast<float>((i * 31 + static_cast<std::size_t>(t)) % 17) / 8 - 1;
      store.pushpull("w", g, w);
    }
    return w;
  };
  INFO(name);
  CHECK(train(form(7.0) | update::learning_rate(schedule), [](auto&, int) {}) ==
        train(form(7.0), [&](auto& store, int t) { store.set_hyperparameters(form(schedule(t))); }));
}

}  // namespace

TEST_CASE("MXNet's LARS, LAMB and LANS equal their formulas", "[update]") {
  auto const lars = [](double epsilon) {
    return [=](model& x, tensor const& g, int) {
      double const w = norm(x.w), n = s * norm(g);
      momentum_step(x, g, 0.1 * (w > 0 && n > 0 ? 0.2 * w / (n + wd * w + epsilon) : 1));
    };
  };
  compare("mxnet1::lars", mxnet1::lars({0.1, 0.9, 0.2, 0, true, wd, s, limit}), lars(0));
  compare("mxnet2::lars", mxnet2::lars({0.1, 0.9, 0.2, 0.01, true, wd, s, limit}), lars(0.01));
  compare("lars that does not adapt", mxnet1::lars({0.1, 0.9, 0.2, 0, false, wd, s, limit}),
          [](model& x, tensor const& g, int) { momentum_step(x, g, 0.1); });

  auto const lamb = [](double lower, double upper, bool corrected) {
    return [=](model& x, tensor const& g, int t) {
      tensor u(g.size());
      for (std::size_t i = 0; i < g.size(); ++i) {
        double const h = clip(s * g[i]);
        x.m[i] = 0.9 * x.m[i] + 0.1 * h;
        x.v[i] = 0.99 * x.v[i] + 0.01 * h * h;
        double const c1 = corrected ? 1 - std::pow(0.9, t) : 1, c2 = corrected ? 1 - std::pow(0.99, t) : 1;
        u[i] = x.m[i] / c1 / (std::sqrt(x.v[i] / c2) + 1e-3) + wd * x.w[i];
      }
      double const r = ratio(x.w, u, lower, upper);
      for (std::size_t i = 0; i < g.size(); ++i) x.w[i] -= 0.05 * r * u[i];
    };
  };
  double const none = std::numeric_limits<double>::infinity();
  compare("mxnet1::lamb", mxnet1::lamb({0.05, 0.9, 0.99, 1e-3, 0, none, true, wd, s, limit}), lamb(0, none, true));
  compare("mxnet2::lamb", mxnet2::lamb({0.05, 0.9, 0.99, 1e-3, 0.5, 3, false, wd, s, limit}), lamb(0.5, 3, false));

  compare("mxnet2::lans", mxnet2::lans({0.05, 0.9, 0.99, 1e-3, 0.5, 3, wd, s}), [](model& x, tensor const& g, int t) {
    tensor u(g.size()), e(g.size());
    double const n = norm(g) > 0 ? norm(g) : 1;
    for (std::size_t i = 0; i < g.size(); ++i) {
      double const h = g[i] / n;
      x.m[i] = 0.9 * x.m[i] + 0.1 * h;
      x.v[i] = 0.99 * x.v[i] + 0.01 * h * h;
      double const y = std::sqrt(x.v[i] / (1 - std::pow(0.99, t))) + 1e-3;
      u[i] = x.m[i] / (1 - std::pow(0.9, t)) / y + wd * x.w[i];
      e[i] = h / y + wd * x.w[i];
    }
    double const a = ratio(x.w, u, 0.5, 3), b = ratio(x.w, e, 0.5, 3);
    for (std::size_t i = 0; i < g.size(); ++i) x.w[i] -= 0.05 * (0.9 * a * u[i] + 0.1 * b * e[i]);
  });
}

TEST_CASE("MXNet's LBSGD warms up by its strategies", "[update]") {
  // 8 batches per update, ramps of 5 * 10 batches that begin at batch 10: over from the fifth update on.
  auto const check = [](lr::ramp strategy, auto const& share) {
    compare("lbsgd", mxnet1::lbsgd({0.01, 0.9, strategy, 5, 8, 10, 1, wd, s, limit}),
            [&](model& x, tensor const& g, int t) {
              double const n = 10 + 8 * t;
              momentum_step(x, g, 0.01 * (n >= 50 ? 8 : 1 + 7 * share(n / 50)));
            });
  };
  check(lr::ramp::linear, [](double x) { return x; });
  check(lr::ramp::square, [](double x) { return x * x; });
  check(lr::ramp::square_root, [](double x) { return std::sqrt(x); });
  compare("lbsgd, lars", mxnet1::lbsgd_lars({0.01, 0.9, wd, s, limit}), [](model& x, tensor const& g, int) {
    double const w2 = norm(x.w) * norm(x.w), g2 = norm(g) * norm(g);
    momentum_step(x, g, 0.01 * std::clamp(std::sqrt(w2 / (g2 + wd * w2 + 1e-18)), 0.01, 100.0));
  });
  REQUIRE_THROWS_AS(mxnet1::lbsgd({.batch_scale = 0}).validate(), pp::invalid_argument);
}

TEST_CASE("forms of other libraries have the rate that a schedule gives, wherever their formula has it", "[update]") {
  follows_schedule("mxnet1::sgd_momentum", [](double rate) { return mxnet1::sgd_momentum({rate, 0.9, wd, s, limit}); });
  follows_schedule("mxnet1::nag", [](double rate) { return mxnet1::nag({rate, 0.9, wd, s, limit}); });
  follows_schedule("mxnet1::adam", [](double rate) { return mxnet1::adam({.learning_rate = rate, .wd = wd}); });
  follows_schedule("mxnet1::adagrad", [](double rate) { return mxnet1::adagrad({rate, 1e-3, wd, s, limit}); });
  follows_schedule("mxnet1::rmsprop",
                   [](double rate) { return mxnet1::rmsprop({rate, 0.9, 1e-3, 1.5, wd, s, limit}); });
  follows_schedule("mxnet1::rmsprop_centered",
                   [](double rate) { return mxnet1::rmsprop_centered({rate, 0.9, 0.9, 1e-3, 0, wd, s, limit}); });
  follows_schedule("mxnet1::lars", [](double rate) { return mxnet1::lars({rate, 0.9, 0.2, 0, true, wd, s, limit}); });
  follows_schedule("mxnet2::adamw", [](double rate) { return mxnet2::adamw({.learning_rate = rate, .wd = wd}); });
  follows_schedule("mxnet2::dcasgd_momentum",
                   [](double rate) { return mxnet2::dcasgd_momentum({rate, 0.9, 0.4, wd, s, limit}); });
  follows_schedule("djl::sgd_momentum", [](double rate) { return djl::sgd_momentum({rate, 0.9, wd, s, limit}); });
  follows_schedule("djl::adamw", [](double rate) { return djl::adamw({.learning_rate = rate, .weight_decays = wd}); });
}

TEST_CASE("the multipliers of a parameter group reach the rate and the decay of such forms", "[update]") {
  auto const rule = update::with_multipliers(mxnet1::adagrad({0.5, 1e-3, wd, s, limit}), 2, 3);
  using decay = pp::compat::rated_decay<update::basic_adagrad<update::epsilon_inside_root>>;
  REQUIRE(get<decay>(rule).weight_decay == Approx(3 * wd));
  REQUIRE(get<decay>(rule).rule.learning_rate == 1);
  auto const momentum = update::with_multipliers(mxnet1::sgd_momentum({.learning_rate = 0.5}), 2);
  REQUIRE(get<pp::compat::rated_momentum>(momentum).learning_rate == 1);
}
