/// @file
/// Stores whose rules have no, one and two states against scalar formulas in double: sizes, element types, numbers of
/// sources and of devices.
#include <cmath>
#include <cstdint>
#include <functional>
#include <pushpull/pushpull.hpp>
#include <random>
#include <vector>

#include "support/catch.hpp"
#include "support/deviation.hpp"

namespace {

namespace update = pushpull::update;
using pushpull::bfloat16;
using pushpull::half;

/// Rounding may differ near ties, by a unit in some steps.
constexpr double most_units = 3;

/// One weight of the reference: changed in place by the step's gradient.
struct scalar {
  double w = 0, a = 0, b = 0;
};
using formula = std::function<void(scalar&, double g, int t)>;

formula const sgd = [](scalar& x, double g, int) { x.w -= 0.1 * g; };
formula const momentum = [](scalar& x, double g, int t) {
  x.a = t == 1 ? g : 0.9 * x.a + 0.5 * g;
  x.w -= 0.1 * x.a;
};
formula const adam = [](scalar& x, double g, int t) {
  x.a = 0.9 * x.a + 0.1 * g;
  x.b = 0.999 * x.b + 0.001 * g * g;
  x.w -= 0.01 * (x.a / (1 - std::pow(0.9, t))) / (std::sqrt(x.b / (1 - std::pow(0.999, t))) + 1e-3);
};

/// 10 steps of `updater` on `sources` gradients of `size` elements; weights, compared with `expected` applied to
/// `before(sum of gradients, w)`, whose weights and states are rounded to `Stored` after each step as the store's are.
template <class T, class Stored, class Updater, class... Policies>
void compare(char const* name, Updater const& updater, formula const& expected,
             std::function<double(double, double)> const& before, std::size_t size, std::size_t sources, int devices) {
  pushpull::kv_store<T, pushpull::cpu_device<>, Updater, pushpull::synchronous, Policies...> store{
      pushpull::cpu_devices(devices), updater};
  std::mt19937 random(static_cast<unsigned>(17 * size + sources));
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<T> weight(size);
  std::vector<scalar> reference(size);
  for (std::size_t i = 0; i < size; ++i) {
    weight[i] = pushpull::convert<T>(uniform(random));
    reference[i].w = pushpull::convert<double>(weight[i]);
  }
  store.init("w", weight);
  std::vector<std::vector<T>> gradients(sources, std::vector<T>(size));
  std::vector<double> sum(size);
  for (int t = 1; t <= 10; ++t) {
    sum.assign(size, 0);
    for (auto& gradient : gradients)
      for (std::size_t i = 0; i < size; ++i) {
        gradient[i] = pushpull::convert<T>(uniform(random) / static_cast<double>(sources));
        sum[i] += pushpull::convert<double>(gradient[i]);
      }
    store.push("w", gradients);
    for (std::size_t i = 0; i < size; ++i) {
      auto& [w, a, b] = reference[i];
      expected(reference[i], before(sum[i], w), t);
      w = pushpull::test::rounded<Stored>(w);
      a = pushpull::test::rounded<Stored>(a);
      b = pushpull::test::rounded<Stored>(b);
    }
  }
  std::vector<double> result(size);
  store.pull("w", result);
  double worst = 0;
  for (std::size_t i = 0; i < size; ++i)
    worst = pushpull::test::larger_deviation(worst, pushpull::test::deviation<Stored>(result[i], reference[i].w));
  INFO(name << ", " << size << " elements, " << sources << " sources, " << devices << " devices: off by " << worst
            << " units");
  REQUIRE(worst <= most_units);
  REQUIRE(store.steps("w") == 10);
}

template <class T, class Stored, class... Policies>
void all_rules(std::size_t size, std::size_t sources, int devices) {
  auto const plain = [](double g, double) { return g; };
  auto const run = [&]<class U>(char const* name, U const& rule, formula const& f, auto const& before) {
    compare<T, Stored, U, Policies...>(name, rule, f, before, size, sources, devices);
  };
  run("adam", update::adam{.learning_rate = 0.01, .epsilon = 1e-3}, adam, plain);
  run("rescale | clip_value | weight_decay | momentum",
      update::rescale(2) | update::clip_value(0.5) | update::weight_decay(0.1) |
          update::momentum{.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.5},
      momentum, [](double g, double w) { return std::min(std::max(2 * g, -0.5), 0.5) + 0.1 * w; });
  // formula_test runs every rule on every type, without a store.
  if constexpr (std::is_same_v<T, float>) {
    run("weight_decay | clip_value | sgd", update::weight_decay(0.1) | update::clip_value(0.5) | update::sgd{0.1}, sgd,
        [](double g, double w) { return std::min(std::max(g + 0.1 * w, -0.5), 0.5); });
  }
}

}  // namespace

TEMPLATE_TEST_CASE("rules equal their formulas in double for every size and number of sources", "[update]", float,
                   double) {
  for (std::size_t const size : {0, 1, 3, 63, 64, 65, 1000}) all_rules<TestType, TestType>(size, 1 + size % 4, 2);
  for (std::size_t sources = 1; sources <= 9; ++sources) all_rules<TestType, TestType>(777, sources, 1);
  all_rules<TestType, TestType>(5000, 20, 3);
}

TEST_CASE("rules on 16-bit weights are off by their rounding only", "[update]") {
  for (std::size_t const size : {1, 3, 65, 1000}) all_rules<half, half>(size, 2, 2);
}

TEST_CASE("rules with 16-bit gradients over a float master are as exact as in float", "[update]") {
  for (std::size_t sources = 1; sources <= 9; ++sources)
    all_rules<bfloat16, float, pushpull::element::master<float>>(129 * sources, sources, 2);
}

TEST_CASE("rules cover a million and three elements", "[update]") {
  compare<float, float>(
      "adam", update::adam{.learning_rate = 0.01, .epsilon = 1e-3}, adam, [](double g, double) { return g; }, 1000003,
      3, 4);
  compare<bfloat16, float, update::adam, pushpull::element::master<float>>(
      "adam", update::adam{.learning_rate = 0.01, .epsilon = 1e-3}, adam, [](double g, double) { return g; }, 1000003,
      2, 3);
}
