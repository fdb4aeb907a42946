/// @file
/// Row-sparse gradients of rules that keep a number per row: FBGEMM's row-wise AdaGrad, Adam-mini.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/deviation.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using rows = pp::row_sparse<float>;
using doubles = std::vector<double>;

constexpr std::size_t steps = 12;

/// Row ids with repetitions, of two sources, and their values; the second step names no row.
struct problem {
  std::int64_t count, length;
  std::vector<float> weight;
  std::vector<std::vector<std::vector<std::int64_t>>> ids;  // step, source
  std::vector<std::vector<std::vector<float>>> values;

  problem(std::int64_t rows_, std::int64_t length_) : count(rows_), length(length_) {
    std::mt19937 random(static_cast<unsigned>(rows_ * 31 + length_));
    std::uniform_real_distribution<float> uniform(-1, 1);
    weight.resize(static_cast<std::size_t>(count * length));
    for (float& w : weight) w = uniform(random);
    for (std::size_t t = 0; t < steps; ++t) {
      ids.emplace_back(2);
      values.emplace_back(2);
      for (std::size_t source = 0; source < 2; ++source) {
        ids[t][source].resize(t == 1 ? 0 : 1 + random() % static_cast<unsigned>(2 * count));
        for (auto& id : ids[t][source]) id = static_cast<std::int64_t>(random()) % count;
        values[t][source].resize(ids[t][source].size() * static_cast<std::size_t>(length));
        for (float& g : values[t][source]) g = uniform(random);
      }
    }
  }
  pp::shape shape() const { return {count, length}; }
  rows gradient(std::size_t t, std::size_t source) const {
    rows result(pp::cpu_device<>(), shape(), static_cast<std::int64_t>(ids[t][source].size()));
    std::copy(ids[t][source].begin(), ids[t][source].end(), result.row_ids());
    std::copy(values[t][source].begin(), values[t][source].end(), result.values());
    return result;
  }
  /// Gradients of the step summed by rows, and which rows it names.
  doubles dense(std::size_t t, std::vector<bool>& named) const {
    doubles g(weight.size());
    named.assign(static_cast<std::size_t>(count), false);
    for (std::size_t source = 0; source < 2; ++source)
      for (std::size_t k = 0; k < ids[t][source].size(); ++k) {
        auto const row = static_cast<std::size_t>(ids[t][source][k]), n = static_cast<std::size_t>(length);
        named[row] = true;
        for (std::size_t c = 0; c < n; ++c) g[row * n + c] += static_cast<double>(values[t][source][k * n + c]);
      }
    return g;
  }
};

/// Weights and the number of each row after all steps, on several numbers of devices, against `formula(w, m, number, g, n, t)`
/// of a row.
template <class Rule, class Formula>
void compare(Rule const& rule, std::string const& state, pp::row_updates which, Formula const& formula) {
  for (auto const& [count, length] : {std::pair<std::int64_t, std::int64_t>{7, 1}, {5, 3}, {13, 64}, {3, 5003}}) {
    problem const p(count, length);
    auto const n = static_cast<std::size_t>(length);
    doubles w(p.weight.begin(), p.weight.end()), m(w.size()), number(static_cast<std::size_t>(count));
    for (std::size_t t = 0; t < steps; ++t) {
      std::vector<bool> named;
      auto const g = p.dense(t, named);
      for (std::size_t row = 0; row < named.size(); ++row)
        if (named[row] || which == pp::row_updates::standard)
          formula(&w[row * n], &m[row * n], number[row], &g[row * n], n, static_cast<int>(t + 1));
    }
    std::vector<float> first;
    for (int const devices : {1, 2, 4, 7}) {
      pp::kv_store store{pp::cpu_devices(devices), rule, pp::synchronous{}};
      store.init("w", pp::tensor_view(p.weight.data(), p.shape()));
      for (std::size_t t = 0; t < steps; ++t) {
        std::vector<rows> gradients;
        for (std::size_t source = 0; source < 2; ++source) gradients.push_back(p.gradient(t, source));
        store.push("w", gradients, which).wait();
      }
      std::vector<float> result(w.size());
      store.pull("w", pp::tensor_view(result.data(), p.shape())).wait();
      auto const numbers = store.state("w", state);
      INFO(count << " rows of " << length << " on " << devices << " devices");
      REQUIRE(store.steps("w") == steps);
      REQUIRE(numbers.size() == number.size());
      for (std::size_t i = 0; i < numbers.size(); ++i) REQUIRE(numbers[i] == Approx(number[i]).epsilon(1e-5));
      double worst = 0;
      for (std::size_t i = 0; i < w.size(); ++i)
        worst = pp::test::larger_deviation(worst, std::abs(static_cast<double>(result[i]) - w[i]));
      REQUIRE(worst < 3e-6);
      result.insert(result.end(), numbers.begin(), numbers.end());
      if (first.empty()) first = result;
      REQUIRE(result == first);
    }
  }
}

auto const rowwise_adagrad = [](double* w, double*, double& number, double const* g, std::size_t n, int) {
  for (std::size_t c = 0; c < n; ++c) number += g[c] * g[c] / static_cast<double>(n);
  for (std::size_t c = 0; c < n; ++c) w[c] -= 0.05 * g[c] / (std::sqrt(number) + 1e-3);
};
auto const adam_mini = [](double* w, double* m, double& number, double const* g, std::size_t n, int t) {
  number *= 0.99;
  for (std::size_t c = 0; c < n; ++c) number += 0.01 * g[c] * g[c] / static_cast<double>(n);
  for (std::size_t c = 0; c < n; ++c) {
    m[c] = 0.9 * m[c] + 0.1 * g[c];
    double const v = std::sqrt(number / (1 - std::pow(0.99, t)));
    w[c] -= 0.01 * m[c] / (1 - std::pow(0.9, t)) / (v + 1e-3);
  }
};

}  // namespace

TEST_CASE("rows that came with a gradient move their numbers, the others keep them", "[update][rows][row_sparse]") {
  update::basic_group_adagrad<update::epsilon_outside_root> const rule{0.05, 1e-3};
  compare(rule, "history", pp::row_updates::lazy, rowwise_adagrad);
  compare(update::adam_mini{.learning_rate = 0.01, .beta2 = 0.99, .epsilon = 1e-3}, "exp_avg_sq", pp::row_updates::lazy,
          adam_mini);
}

TEST_CASE("a standard update moves the numbers of all rows", "[update][rows][row_sparse]") {
  compare(update::rescale(1) | update::adam_mini{.learning_rate = 0.01, .beta2 = 0.99, .epsilon = 1e-3}, "exp_avg_sq",
          pp::row_updates::standard, adam_mini);
}

TEST_CASE("rows and dense gradients take turns on the numbers of rows", "[update][rows][row_sparse]") {
  update::basic_group_adagrad<update::epsilon_outside_root> const rule{0.05, 1e-3};
  pp::kv_store<pp::bfloat16, pp::cpu_device<>, std::remove_const_t<decltype(rule)>, pp::element::master<float>> store{
      pp::cpu_devices(2), rule};
  pp::shape const shape{2, 2};
  std::vector<float> w{1, 2, 3, 4};
  store.init("w", pp::tensor_view(w.data(), shape));
  pp::row_sparse<pp::bfloat16> row(pp::cpu_device<>(), shape, 1);
  row.row_ids()[0] = 1;
  row.values()[0] = pp::convert<pp::bfloat16>(3);
  row.values()[1] = pp::convert<pp::bfloat16>(-1);
  store.push("w", row).wait();
  REQUIRE(store.state("w", "history") == std::vector<float>{0, 5});
  std::vector<pp::bfloat16> const dense(4, pp::convert<pp::bfloat16>(2));
  store.push("w", pp::tensor_view(dense.data(), shape)).wait();
  REQUIRE(store.state("w", "history") == std::vector<float>{4, 9});
  row.values()[0] = pp::convert<pp::bfloat16>(0);
  row.values()[1] = pp::convert<pp::bfloat16>(1e30F);  // its square is no float
  store.push("w", row).wait();
  auto const numbers = store.state("w", "history");
  REQUIRE(numbers[0] == 4);
  REQUIRE(std::isfinite(numbers[1]));
  store.pull("w", pp::tensor_view(w.data(), shape)).wait();
  for (float const x : w) REQUIRE(std::isfinite(x));
}
