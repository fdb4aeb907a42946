/// @file
/// Rules and transforms with numbers of rows and columns, against independent formulas in double.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
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
using vec = std::vector<double>;

/// One tensor of the formulas below.
struct reference {
  pp::shape shape;
  vec w, rows, columns;
  int t = 0;
};
using advance_function = std::function<void(reference&, vec)>;

std::size_t first_extent(reference const& r) { return r.shape.rank() == 0 ? 1 : static_cast<std::size_t>(r.shape[0]); }

void centralize(reference const& r, vec& g) {
  if (r.shape.rank() < 2) return;
  std::size_t const columns = g.size() / first_extent(r);
  for (std::size_t row = 0; row < first_extent(r); ++row) {
    double mean = 0;
    for (std::size_t c = 0; c < columns; ++c) mean += g[row * columns + c] / static_cast<double>(columns);
    for (std::size_t c = 0; c < columns; ++c) g[row * columns + c] -= mean;
  }
}
void group_adagrad_step(update::group_adagrad const& rule, reference& r, vec const& g) {
  std::size_t const rows = first_extent(r), columns = g.size() / rows;
  r.rows.resize(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t c = 0; c < columns; ++c)
      r.rows[row] += g[row * columns + c] * g[row * columns + c] / static_cast<double>(columns);
    for (std::size_t c = 0; c < columns; ++c)
      r.w[row * columns + c] -= rule.learning_rate * g[row * columns + c] / std::sqrt(r.rows[row] + rule.epsilon);
  }
}
void adafactor_step(update::adafactor const& rule, reference& r, vec const& g) {
  double const b = std::pow(r.t, rule.beta2_decay), size = static_cast<double>(g.size());
  double const epsilon = rule.epsilon1 > 0 ? rule.epsilon1 : std::numeric_limits<double>::epsilon();
  double norm = 0;
  for (double const w : r.w) norm += w * w;
  double const alpha =
      std::max(rule.epsilon2, std::sqrt(norm / size)) * std::min(rule.learning_rate, 1 / std::sqrt(r.t));
  vec u(g.size());
  if (r.shape.rank() < 2) {
    r.rows.resize(g.size());
    for (std::size_t i = 0; i < g.size(); ++i) {
      r.rows[i] += b * (g[i] * g[i] - r.rows[i]);
      u[i] = g[i] / std::sqrt(std::max(r.rows[i], epsilon * epsilon));
    }
  } else {
    auto const rows = static_cast<std::size_t>(r.shape[r.shape.rank() - 2]),
               columns = static_cast<std::size_t>(r.shape[r.shape.rank() - 1]);
    std::size_t const batches = g.size() / (rows * columns);
    r.rows.resize(batches * rows);
    r.columns.resize(batches * columns);
    for (double& x : r.rows) x *= 1 - b;
    for (double& x : r.columns) x *= 1 - b;
    for (std::size_t i = 0; i < g.size(); ++i) {
      r.rows[i / columns] += b * g[i] * g[i] / static_cast<double>(columns);
      r.columns[i / (rows * columns) * columns + i % columns] += b * g[i] * g[i] / static_cast<double>(rows);
    }
    vec means(batches);
    for (std::size_t k = 0; k < r.rows.size(); ++k) means[k / rows] += r.rows[k] / static_cast<double>(rows);
    for (std::size_t i = 0; i < g.size(); ++i) {
      std::size_t const batch = i / (rows * columns);
      double const v = r.rows[i / columns] * r.columns[batch * columns + i % columns] / std::max(means[batch], epsilon);
      u[i] = g[i] / std::sqrt(std::max(v, epsilon * epsilon));
    }
  }
  double square = 0;
  for (double const x : u) square += x * x;
  double const rate = alpha / std::max(1.0, std::sqrt(square / size) / rule.d);
  for (std::size_t i = 0; i < g.size(); ++i)
    r.w[i] = r.w[i] * (1 - rule.learning_rate * rule.weight_decay) - rate * u[i];
}

std::vector<pp::shape> const shapes{{7},      {13, 17},     {0},  {1, 700},  {701, 1},  {},           {5, 0},
                                    {64, 64}, {2, 3, 5, 7}, {65}, {3, 2053}, {1031, 3}, {4, 130, 33}, {1, 1}};

struct problem {
  std::vector<std::string> names;
  std::vector<std::vector<float>> weights;

  problem() {
    std::mt19937 random(5);
    std::uniform_real_distribution<float> draw(-1, 1);
    for (auto const& s : shapes) {
      names.push_back("key" + std::to_string(names.size()));
      weights.emplace_back(s.size());
      for (float& x : weights.back())
        x = names.size() == 2 ? 0 : draw(random) / static_cast<float>(names.size());  // one starts at zero
    }
  }
  /// Of step t, all keys; one key's are zero.
  static std::vector<std::vector<std::vector<float>>> gradients(int t, std::size_t sources) {
    std::mt19937 random(static_cast<unsigned>(t) * 7 + 1);
    std::uniform_real_distribution<float> draw(-1, 1);
    std::vector<std::vector<std::vector<float>>> result;
    for (auto const& s : shapes) {
      result.emplace_back(sources, std::vector<float>(s.size()));
      for (auto& source : result.back())
        for (std::size_t i = 0; i < source.size(); ++i)
          source[i] = result.size() == 8 ? 0 : draw(random) * (0.2F + static_cast<float>(i % 5)) + 0.1F;
    }
    return result;
  }
};

template <class T, class D>
auto view(std::vector<T>& x, pp::shape const& s, D const& device) {
  return pp::tensor_view<T, D>(x.data(), s, device);
}

/// Trains by lists of views and compares with `advance(reference, gradient)`.
template <class Rule>
void compare(Rule const& rule, advance_function const& advance, double tolerance, int steps = 50) {
  problem const p;
  pp::cpu_device<> const host;
  for (std::size_t const sources : {1U, 3U}) {
    std::vector<reference> r;
    for (std::size_t k = 0; k < shapes.size(); ++k)
      r.push_back({shapes[k], vec(p.weights[k].begin(), p.weights[k].end()), {}, {}, 0});
    std::vector<std::vector<double>> first;
    for (int const devices : {1, 2, 4, 7}) {
      pp::kv_store<float, pp::cpu_device<>, Rule, pp::element::master<double>, pp::synchronous> store{
          pp::cpu_devices(devices), rule};
      auto weights = p.weights;
      std::vector<pp::tensor_view<float, pp::cpu_device<>>> views;
      for (std::size_t k = 0; k < shapes.size(); ++k) views.push_back(view(weights[k], shapes[k], host));
      store.init(p.names, views);
      for (int t = 1; t <= steps; ++t) {
        auto gradients = problem::gradients(t, sources);
        std::vector<std::vector<pp::tensor_view<float, pp::cpu_device<>>>> given;
        for (std::size_t k = 0; k < shapes.size(); ++k) {
          given.emplace_back();
          for (auto& g : gradients[k]) given.back().push_back(view(g, shapes[k], host));
        }
        store.push(p.names, given);
        if (devices > 1) continue;
        for (std::size_t k = 0; k < shapes.size(); ++k) {
          vec g(shapes[k].size());
          for (auto const& source : gradients[k])
            for (std::size_t i = 0; i < g.size(); ++i) g[i] += static_cast<double>(source[i]);
          ++r[k].t;
          if (!g.empty()) advance(r[k], g);
        }
      }
      std::vector<std::vector<double>> results;
      std::vector<pp::tensor_view<double, pp::cpu_device<>>> out;
      for (auto const& s : shapes) results.emplace_back(s.size());
      for (std::size_t k = 0; k < shapes.size(); ++k) out.push_back(view(results[k], shapes[k], host));
      store.pull(p.names, out);
      if (devices == 1) {
        first = results;
        double worst = 0;
        for (std::size_t k = 0; k < shapes.size(); ++k)
          for (std::size_t i = 0; i < results[k].size(); ++i)
            worst = pp::test::larger_deviation(worst, std::abs(results[k][i] - r[k].w[i]) / (1 + std::abs(r[k].w[i])));
        CAPTURE(worst);
        REQUIRE(worst < tolerance);
      }
      REQUIRE(results == first);  // bit-identical: no zero of another sign, no NaN
    }
  }
}

}  // namespace

TEST_CASE("centralize takes the means of rows away, on any number of devices", "[update][rows]") {
  compare(
      update::centralize{} | update::sgd{0.1},
      [](reference& r, vec g) {
        centralize(r, g);
        for (std::size_t i = 0; i < g.size(); ++i) r.w[i] -= 0.1 * g[i];
      },
      1e-12);
}

TEST_CASE("group_adagrad has a rate per row", "[update][rows]") {
  update::group_adagrad const rule{0.1, 1e-3};
  compare(rule, [&](reference& r, vec const& g) { group_adagrad_step(rule, r, g); }, 1e-12);
}

TEST_CASE("adam_mini has a second moment per row", "[update][rows]") {
  update::adam_mini const rule{.learning_rate = 0.05, .beta2 = 0.99, .epsilon = 1e-3, .weight_decay = 0.1};
  compare(
      rule,
      [&](reference& r, vec const& g) {
        std::size_t const rows = first_extent(r), columns = g.size() / rows;
        r.rows.resize(rows);
        r.columns.resize(g.size());  // the first moment
        for (std::size_t row = 0; row < rows; ++row) {
          r.rows[row] *= 0.99;
          for (std::size_t c = row * columns; c < (row + 1) * columns; ++c)
            r.rows[row] += 0.01 * g[c] * g[c] / static_cast<double>(columns);
          double const size = std::sqrt(r.rows[row] / (1 - std::pow(0.99, r.t))) + 1e-3;
          for (std::size_t c = row * columns; c < (row + 1) * columns; ++c) {
            r.columns[c] = 0.9 * r.columns[c] + 0.1 * g[c];
            r.w[c] -= 0.05 * (0.1 * r.w[c] + r.columns[c] / (1 - std::pow(0.9, r.t)) / size);
          }
        }
      },
      1e-12);
}

TEST_CASE("centralize_change takes the mean of each row off the rule's changes", "[update][rows]") {
  compare(
      update::momentum{.learning_rate = 0.05, .momentum = 0.9} | update::centralize_change(),
      [&](reference& r, vec const& g) {
        r.rows.resize(g.size());  // the momentum
        for (std::size_t i = 0; i < g.size(); ++i) r.rows[i] = 0.9 * r.rows[i] + g[i];
        vec change = r.rows;
        centralize(r, change);
        for (std::size_t i = 0; i < g.size(); ++i) r.w[i] -= 0.05 * change[i];
      },
      1e-12);
}

TEST_CASE("adafactor has a rate per row and column", "[update][rows]") {
  update::adafactor const rule{.learning_rate = 0.05};
  compare(rule, [&](reference& r, vec const& g) { adafactor_step(rule, r, g); }, 1e-11);
  update::adafactor const other{
      .learning_rate = 0.5, .beta2_decay = -0.5, .epsilon1 = 1e-2, .epsilon2 = 0.5, .d = 2, .weight_decay = 0.1};
  compare(other, [&](reference& r, vec const& g) { adafactor_step(other, r, g); }, 1e-11, 10);
}

TEST_CASE("numbers of rows and columns are of the gradient as it comes to the stage", "[update][rows]") {
  auto const clip = [](vec& g) {
    for (double& x : g) x = std::clamp(x, -1.0, 1.0);
  };
  update::adafactor const rule{.learning_rate = 0.05};
  compare(
      update::clip_value(1) | update::centralize{} | rule,
      [&](reference& r, vec g) {
        clip(g);
        centralize(r, g);
        adafactor_step(rule, r, g);
      },
      1e-11, 10);
  auto const norm = [](vec const& g) {
    double sum = 0;
    for (double const x : g) sum += x * x;
    return std::sqrt(sum);
  };
  compare(
      update::centralize{} | update::clip_norm(0.5) | update::group_adagrad{0.1, 1e-3},
      [&](reference& r, vec g) {
        centralize(r, g);
        double const factor = std::min(1.0, 0.5 / (norm(g) + 1e-6));
        for (double& x : g) x *= factor;
        group_adagrad_step({0.1, 1e-3}, r, g);
      },
      1e-11, 10);
  // States of elements before those of rows, wrappers, and a schedule.
  compare(
      update::decoupled_decay{update::trace(0.5) | update::centralize{} | rule, 0.01} |
          update::learning_rate(pp::lr_schedule::constant{0.02}),
      [&, m = std::vector<vec>(shapes.size())](reference& r, vec const& g) mutable {
        std::size_t k = 0;
        while (!(shapes[k] == r.shape)) ++k;
        m[k].resize(g.size());
        if (r.t == 1) std::fill(m[k].begin(), m[k].end(), 0.0);
        for (double& w : r.w) w *= 0.99;
        for (std::size_t i = 0; i < g.size(); ++i) m[k][i] = g[i] + 0.5 * m[k][i];
        vec h = m[k];
        centralize(r, h);
        adafactor_step({.learning_rate = 0.02}, r, h);
      },
      1e-10, 10);
}
