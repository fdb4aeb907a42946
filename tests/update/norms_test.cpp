/// @file
/// Rules and transforms with norms, of each tensor or over all, against independent formulas in double.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/deviation.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using tensor = std::vector<double>;
using tensors = std::vector<tensor>;

double norm(tensor const& x) {
  double sum = 0;
  for (double const e : x) sum += e * e;
  return std::sqrt(sum);
}
double norm(tensors const& all) {
  double sum = 0;
  for (auto const& x : all) sum += norm(x) * norm(x);
  return std::sqrt(sum);
}
void scale(tensor& x, double factor) {
  for (double& e : x) e *= factor;
}

/// The state of a model in the formulas below: weights and states per element; numbers that last.
struct reference {
  tensors w, m, v, s, old;
  int t = 0;
  double d = 0, most = 0, r = 0;
};

// Each changes the model by one step with gradients g, which it may use up.
void lars_step(update::lars const& rule, reference& r, tensors g) {
  for (std::size_t k = 0; k < g.size(); ++k) {
    double const w = norm(r.w[k]), n = norm(g[k]);
    double const rate = rule.learning_rate *
                        (w > 0 && n > 0 ? rule.trust_coefficient * w / (n + rule.weight_decay * w + rule.epsilon) : 1);
    for (std::size_t i = 0; i < g[k].size(); ++i) {
      r.m[k][i] = rule.momentum * r.m[k][i] + rate * (g[k][i] + rule.weight_decay * r.w[k][i]);
      r.w[k][i] -= r.m[k][i];
    }
  }
}
void lamb_step(update::lamb const& rule, reference& r, tensors g) {
  double const c1 = 1 - std::pow(rule.beta1, r.t), c2 = 1 - std::pow(rule.beta2, r.t);
  for (std::size_t k = 0; k < g.size(); ++k) {
    tensor u(g[k].size());
    for (std::size_t i = 0; i < u.size(); ++i) {
      r.m[k][i] = rule.beta1 * r.m[k][i] + (1 - rule.beta1) * g[k][i];
      r.v[k][i] = rule.beta2 * r.v[k][i] + (1 - rule.beta2) * g[k][i] * g[k][i];
      u[i] = r.m[k][i] / c1 / (std::sqrt(r.v[k][i] / c2) + rule.epsilon) + rule.weight_decay * r.w[k][i];
    }
    double const ratio = norm(r.w[k]) > 0 && norm(u) > 0 ? norm(r.w[k]) / norm(u) : 1;
    for (std::size_t i = 0; i < u.size(); ++i) r.w[k][i] -= rule.learning_rate * ratio * u[i];
  }
}
void lans_step(update::lans const& rule, reference& r, tensors g) {
  double const c1 = 1 - std::pow(rule.beta1, r.t), c2 = 1 - std::pow(rule.beta2, r.t);
  for (std::size_t k = 0; k < g.size(); ++k) {
    tensor u(g[k].size()), e = u;
    double const n = norm(g[k]);
    if (n > 0) scale(g[k], 1 / n);
    for (std::size_t i = 0; i < u.size(); ++i) {
      r.m[k][i] = rule.beta1 * r.m[k][i] + (1 - rule.beta1) * g[k][i];
      r.v[k][i] = rule.beta2 * r.v[k][i] + (1 - rule.beta2) * g[k][i] * g[k][i];
      double const y = std::sqrt(r.v[k][i] / c2) + rule.epsilon;
      u[i] = r.m[k][i] / c1 / y + rule.weight_decay * r.w[k][i];
      e[i] = g[k][i] / y + rule.weight_decay * r.w[k][i];
    }
    double const w = norm(r.w[k]);
    double const a = w > 0 && norm(u) > 0 ? w / norm(u) : 1, b = w > 0 && norm(e) > 0 ? w / norm(e) : 1;
    for (std::size_t i = 0; i < u.size(); ++i)
      r.w[k][i] -= rule.learning_rate * (rule.beta1 * a * u[i] + (1 - rule.beta1) * b * e[i]);
  }
}
void mars_step(update::mars const& rule, reference& r, tensors g) {
  double const c1 = 1 - std::pow(rule.beta1, r.t), c2 = 1 - std::pow(rule.beta2, r.t);
  auto const given = g;
  for (std::size_t k = 0; k < g.size(); ++k) {
    for (std::size_t i = 0; r.t > 1 && i < g[k].size(); ++i)
      g[k][i] += rule.gamma * rule.beta1 / (1 - rule.beta1) * (g[k][i] - r.old[k][i]);
    scale(g[k], 1 / std::max(1.0, norm(g[k])));
    for (std::size_t i = 0; i < g[k].size(); ++i) {
      r.m[k][i] = rule.beta1 * r.m[k][i] + (1 - rule.beta1) * g[k][i];
      r.v[k][i] = rule.beta2 * r.v[k][i] + (1 - rule.beta2) * g[k][i] * g[k][i];
      double const u = r.m[k][i] / c1 / (std::sqrt(r.v[k][i] / c2) + rule.epsilon);
      r.w[k][i] -= rule.learning_rate * (u + rule.weight_decay * r.w[k][i]);
    }
  }
  r.old = given;
}
void prodigy_step(update::prodigy const& rule, reference& r, tensors const& g) {
  if (r.t == 1) {
    r.old = r.w;
    r.d = r.most = rule.d0;
  }
  double const b3 = std::sqrt(rule.beta2), d = r.d, rate = d * rule.learning_rate;
  double moved = 0, size = 0;
  for (std::size_t k = 0; k < g.size(); ++k)
    for (std::size_t i = 0; i < g[k].size(); ++i) {
      moved += d / rule.d0 * rate * g[k][i] * (r.old[k][i] - r.w[k][i]);
      r.m[k][i] = rule.beta1 * r.m[k][i] + d * (1 - rule.beta1) * g[k][i];
      r.v[k][i] = rule.beta2 * r.v[k][i] + d * d * (1 - rule.beta2) * g[k][i] * g[k][i];
      r.s[k][i] = b3 * r.s[k][i] + d / rule.d0 * rate * g[k][i];
      size += std::abs(r.s[k][i]);
    }
  r.r = b3 * r.r + moved;
  r.most = std::max(r.most, rule.d_coef * r.r / size);
  r.d = std::min(r.most, d * rule.growth_rate);
  for (std::size_t k = 0; k < g.size(); ++k)
    for (std::size_t i = 0; i < g[k].size(); ++i)
      r.w[k][i] -= rate * (rule.weight_decay * r.w[k][i] + r.m[k][i] / (std::sqrt(r.v[k][i]) + r.d * rule.epsilon));
}
void dadapt_step(update::dadapt_adam const& rule, reference& r, tensors const& g) {
  if (r.t == 1) r.d = rule.d0;
  double const b3 = std::sqrt(rule.beta2), rate = r.d * rule.learning_rate;
  double moved = 0, size = 0;
  for (std::size_t k = 0; k < g.size(); ++k)
    for (std::size_t i = 0; i < g[k].size(); ++i) {
      moved += rate * g[k][i] * r.s[k][i] / (std::sqrt(r.v[k][i]) + rule.epsilon);
      r.m[k][i] = rule.beta1 * r.m[k][i] + rate * (1 - rule.beta1) * g[k][i];
      r.v[k][i] = rule.beta2 * r.v[k][i] + (1 - rule.beta2) * g[k][i] * g[k][i];
      r.s[k][i] = b3 * r.s[k][i] + rate * (1 - b3) * g[k][i];
      size += std::abs(r.s[k][i]);
      r.w[k][i] -= rate * rule.weight_decay * r.w[k][i] + r.m[k][i] / (std::sqrt(r.v[k][i]) + rule.epsilon);
    }
  r.r = b3 * r.r + (1 - b3) * moved;
  r.d = std::max(r.d, std::min(r.r / ((1 - b3) * size), r.d * rule.growth_rate));
}
void sgd_step(double rate, reference& r, tensors const& g) {
  for (std::size_t k = 0; k < g.size(); ++k)
    for (std::size_t i = 0; i < g[k].size(); ++i) r.w[k][i] -= rate * g[k][i];
}
void clip(double limit, tensor& g) { scale(g, std::min(1.0, limit / (norm(g) + 1e-6))); }
void clip(double limit, tensors& all) {
  double const factor = std::min(1.0, limit / (norm(all) + 1e-6));
  for (auto& g : all) scale(g, factor);
}

constexpr std::size_t sizes[] = {1, 700, 0, 64, 40007, 5, 1024, 3001, 2};
constexpr int steps = 8;

template <class T>
struct problem {
  std::vector<std::string> names;
  std::vector<std::vector<T>> weights;
  std::vector<std::vector<std::vector<std::vector<T>>>> gradients;  // step, key, source

  explicit problem(std::size_t sources) {
    std::mt19937 random(3);
    auto const draw = [&](double width) {
      return pp::convert<T>(static_cast<float>(std::uniform_real_distribution<double>(-width, width)(random)));
    };
    for (std::size_t const size : sizes) {
      names.push_back("key" + std::to_string(names.size()));
      weights.emplace_back(size);
      double const width = names.size() == 4 ? 0 : 1.0 / static_cast<double>(names.size());  // one starts at zero
      for (T& x : weights.back()) x = draw(width);
    }
    for (int t = 0; t < steps; ++t) {
      gradients.emplace_back();
      for (std::size_t k = 0; k < std::size(sizes); ++k) {
        gradients.back().emplace_back(sources, std::vector<T>(sizes[k]));
        for (auto& source : gradients.back().back())
          for (T& x : source) x = k == 6 ? T{} : draw(0.1 * static_cast<double>(k + 1));  // one has no gradient
      }
    }
  }
};

/// Trains by lists and compares with `advance(reference, gradients)`.
template <class T, class Rule, class Advance>
void compare(Rule const& rule, Advance const& advance, double tolerance) {
  for (std::size_t const sources : {1, 3}) {
    problem<T> const p(sources);
    reference r;
    for (auto const& w : p.weights) {
      r.w.emplace_back();
      for (T const& x : w) r.w.back().push_back(pp::convert<double>(x));
      r.m.emplace_back(w.size());
      r.v.emplace_back(w.size());
      r.s.emplace_back(w.size());
      r.old.emplace_back(w.size());
    }
    std::vector<std::vector<std::vector<T>>> results;
    for (int const devices : {1, 2, 3, 7}) {
      pp::kv_store<T, pp::cpu_device<>, Rule, pp::element::master<double>, pp::synchronous> store{
          pp::cpu_devices(devices), rule};
      store.init(p.names, p.weights);
      for (int t = 0; t < steps; ++t) store.push(p.names, p.gradients[static_cast<std::size_t>(t)]);
      results.push_back(p.weights);
      store.pull(p.names, results.back());
      std::vector<std::vector<double>> fine;
      for (auto const& w : p.weights) fine.emplace_back(w.size());
      store.pull(p.names, fine);
      if (devices > 1) {
        for (std::size_t k = 0; k < results.back().size(); ++k)
          REQUIRE(std::ranges::equal(std::as_bytes(std::span(results.back()[k])),
                                     std::as_bytes(std::span(results.front()[k]))));
        continue;
      }
      for (int t = 0; t < steps; ++t) {
        tensors g;
        for (auto const& key : p.gradients[static_cast<std::size_t>(t)]) {
          g.emplace_back(key.front().size());
          for (auto const& source : key)
            for (std::size_t i = 0; i < source.size(); ++i) g.back()[i] += pp::convert<double>(source[i]);
        }
        ++r.t;
        advance(r, g);
      }
      double worst = 0;
      for (std::size_t k = 0; k < fine.size(); ++k)
        for (std::size_t i = 0; i < fine[k].size(); ++i)
          worst = pp::test::larger_deviation(worst, std::abs(fine[k][i] - r.w[k][i]) / (1 + std::abs(r.w[k][i])));
      REQUIRE(worst < tolerance);
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("per-tensor rules follow their papers, on any number of devices", "[update][norms]", float, double) {
  // Accumulated in double: the masters are double.
  update::lars const lars{.learning_rate = 0.5, .momentum = 0.8, .weight_decay = 0.01, .trust_coefficient = 0.1};
  compare<TestType>(lars, [&](reference& r, tensors const& g) { lars_step(lars, r, g); }, 1e-12);
  update::lamb const lamb{.learning_rate = 0.05, .weight_decay = 0.02};
  compare<TestType>(lamb, [&](reference& r, tensors const& g) { lamb_step(lamb, r, g); }, 1e-10);
  update::lans const lans{.learning_rate = 0.05, .weight_decay = 0.02};
  compare<TestType>(lans, [&](reference& r, tensors const& g) { lans_step(lans, r, g); }, 1e-10);
}

TEST_CASE("clip_norm goes by key, clip_global_norm over all", "[update][norms]") {
  compare<float>(
      update::clip_norm(0.5) | update::sgd{0.5},
      [](reference& r, tensors g) {
        for (auto& x : g) clip(0.5, x);
        sgd_step(0.5, r, g);
      },
      1e-12);
  compare<float>(
      update::clip_global_norm(0.5) | update::sgd{0.5},
      [](reference& r, tensors g) {
        clip(0.5, g);
        sgd_step(0.5, r, g);
      },
      1e-12);
}

TEST_CASE("rules with the gradient or weight before follow their papers, on any number of devices", "[update][norms]") {
  update::mars const mars{.learning_rate = 0.05, .weight_decay = 0.02, .gamma = 0.1};
  compare<float>(mars, [&](reference& r, tensors const& g) { mars_step(mars, r, g); }, 1e-10);
  // Gradients towards 0: the rates rise.
  auto const pulled = [](reference const& r, tensors g) {
    for (std::size_t k = 0; k < g.size(); ++k)
      for (std::size_t i = 0; i < g[k].size(); ++i) g[k][i] += 4 * r.w[k][i];
    return g;
  };
  double rate = 0;
  update::prodigy const prodigy{.learning_rate = 2, .weight_decay = 0.02, .d0 = 1e-3, .growth_rate = 3};
  compare<float>(
      update::weight_decay(4) | prodigy,
      [&](reference& r, tensors const& g) {
        prodigy_step(prodigy, r, pulled(r, g));
        rate = r.d;
      },
      1e-9);
  REQUIRE(rate > 2e-3);
  update::dadapt_adam const dadapt{.beta2 = 0.99, .weight_decay = 0.02, .d0 = 1e-3, .growth_rate = 2};
  compare<float>(
      update::weight_decay(4) | dadapt,
      [&](reference& r, tensors const& g) {
        dadapt_step(dadapt, r, pulled(r, g));
        rate = r.d;
      },
      1e-9);
  REQUIRE(rate > 2e-3);
}

TEST_CASE("a cautious rule moves weights with their gradients alone, by the share of such in each tensor",
          "[update][norms]") {
  update::adam const adam{.learning_rate = 0.05};
  compare<float>(
      update::clip_global_norm(0.7) | adam | update::cautious(),
      [&](reference& r, tensors g) {
        clip(0.7, g);
        for (std::size_t k = 0; k < g.size(); ++k) {
          tensor u(g[k].size());
          double count = 0;
          for (std::size_t i = 0; i < u.size(); ++i) {
            r.m[k][i] = 0.9 * r.m[k][i] + 0.1 * g[k][i];
            r.v[k][i] = 0.999 * r.v[k][i] + 0.001 * g[k][i] * g[k][i];
            double const v = std::sqrt(r.v[k][i] / (1 - std::pow(0.999, r.t)));
            u[i] = r.m[k][i] / (1 - std::pow(0.9, r.t)) / (v + adam.epsilon);
            if (!(u[i] * g[k][i] > 0)) u[i] = 0;
            count += u[i] * g[k][i] > 0 ? 1 : 0;
          }
          double const mean = std::max(count / static_cast<double>(u.size()), 1e-3);
          for (std::size_t i = 0; i < u.size(); ++i) r.w[k][i] -= 0.05 * u[i] / mean;
        }
      },
      1e-10);
}

TEST_CASE("phases follow one another: each sees the gradient as the stages before leave it", "[update][norms]") {
  update::lamb const lamb{.learning_rate = 0.05, .weight_decay = 0.02};
  compare<float>(
      update::clip_global_norm(0.7) | lamb,
      [&](reference& r, tensors g) {
        clip(0.7, g);
        lamb_step(lamb, r, g);
      },
      1e-10);
  compare<float>(
      update::clip_norm(0.6) | update::clip_global_norm(0.7) | update::sgd{0.5},
      [](reference& r, tensors g) {
        for (auto& x : g) clip(0.6, x);
        clip(0.7, g);
        sgd_step(0.5, r, g);
      },
      1e-12);
  compare<float>(
      update::rescale(2) | update::rescale(0.25) | lamb,  // a pipe without sums before a rule with several
      [&](reference& r, tensors g) {
        for (auto& x : g) scale(x, 0.5);
        lamb_step(lamb, r, g);
      },
      1e-10);
  update::lans const lans{.learning_rate = 0.05};
  compare<float>(
      update::clip_global_norm(0.7) | update::rescale(3) | lans,
      [&](reference& r, tensors g) {
        clip(0.7, g);
        for (auto& x : g) scale(x, 3);
        lans_step(lans, r, g);
      },
      1e-10);
}

TEST_CASE("wrappers pass on the phases of the rule inside, with the weights and states that it sees",
          "[update][norms]") {
  update::lamb const lamb{.learning_rate = 0.05, .weight_decay = 0.02};
  compare<float>(
      update::decoupled_decay{update::clip_global_norm(0.7) | lamb, 0.1},
      [&](reference& r, tensors g) {
        for (auto& w : r.w) scale(w, 0.9);
        clip(0.7, g);
        lamb_step(lamb, r, g);
      },
      1e-10);
  update::lars const lars{.learning_rate = 0.5, .momentum = 0.8, .weight_decay = 0.01, .trust_coefficient = 0.1};
  compare<float>(
      update::clip_weights{lars, 0.6},
      [&](reference& r, tensors const& g) {
        lars_step(lars, r, g);
        for (auto& w : r.w)
          for (double& x : w) x = std::clamp(x, -0.6, 0.6);
      },
      1e-12);
  update::lans const lans{.learning_rate = 0.05, .weight_decay = 0.02};
  compare<float>(
      update::clip_norm(0.6) | lans | update::ema(0.9),
      [&](reference& r, tensors g) {
        for (auto& x : g) clip(0.6, x);
        lans_step(lans, r, g);
      },
      1e-10);
  tensors slow;
  compare<float>(
      update::lookahead{update::clip_norm(0.6) | update::clip_global_norm(0.7) | lamb, 3, 0.4} |
          update::learning_rate(pp::lr_schedule::constant{0.05}),
      [&](reference& r, tensors g) {
        if (r.t == 1) slow = r.w;
        for (auto& x : g) clip(0.6, x);
        clip(0.7, g);
        lamb_step(lamb, r, g);
        if (r.t % 3 == 0)
          for (std::size_t k = 0; k < slow.size(); ++k)
            for (std::size_t i = 0; i < slow[k].size(); ++i) r.w[k][i] = slow[k][i] += 0.4 * (r.w[k][i] - slow[k][i]);
      },
      1e-10);
}

TEST_CASE("a step over a resident model has the norms that a list has", "[update][norms]") {
  auto const rule = update::clip_global_norm(0.7) | update::lamb{.learning_rate = 0.05, .weight_decay = 0.02};
  problem<float> const p(1);
  for (int const devices : {1, 3})
    for (bool const whole : {false, true}) {
      auto const train = [&](auto placement) {
        pp::kv_store listed{pp::cpu_devices(1), rule, placement, pp::synchronous{}};
        listed.init(p.names, p.weights);
        pp::kv_store store{pp::cpu_devices(devices), rule, placement};
        pp::parameter_store parameters{store};
        for (std::size_t k = 0; k < p.names.size(); ++k) parameters.add(p.names[k], p.weights[k]);
        for (int t = 0; t < 3; ++t) {
          for (std::size_t k = 0; k < p.names.size(); ++k) {
            for (std::size_t n = 1; n < static_cast<std::size_t>(devices); ++n) {
              auto const grad = parameters.grad(p.names[k], n);
              std::fill_n(grad.data(), grad.size(), 0.0F);
            }
            auto const& g = p.gradients[static_cast<std::size_t>(t)][k][0];
            std::copy(g.begin(), g.end(), parameters.grad(p.names[k], std::size_t{0}).data());
          }
          parameters.update_all();
          listed.push(p.names, p.gradients[static_cast<std::size_t>(t)]);
        }
        auto expected = p.weights;
        listed.pull(p.names, expected);
        for (std::size_t k = 0; k < p.names.size(); ++k)
          REQUIRE(pp::to_vector(parameters.value(p.names[k], static_cast<std::size_t>(devices) - 1)) == expected[k]);
      };
      whole ? train(pp::placement::owners{}) : train(pp::placement::slices{});
    }
}
