/// @file
/// What holds for every rule in a store: devices do not matter, hyperparameters are checked and can change.
#include <algorithm>
#include <cmath>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace update = pushpull::update;

TEST_CASE("results are bit-identical for any number of devices, norms included", "[update]") {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<std::vector<float>> values, gradients;
  std::vector<std::string> const keys{"a", "b", "c", "d"};
  for (std::size_t const size : {5, 4099, 70001, 64}) {
    values.emplace_back(size);
    gradients.emplace_back(size);
    for (auto* tensor : {&values.back(), &gradients.back()})
      for (float& x : *tensor) x = uniform(random);
  }
  auto const updater = update::clip_global_norm(3) | update::adam{.learning_rate = 0.1};
  std::vector<std::vector<float>> first;
  for (int const devices : {1, 2, 4, 7}) {
    pushpull::kv_store store{pushpull::cpu_devices(devices), updater, pushpull::synchronous{}};
    store.init(keys, values);
    for (int t = 0; t < 5; ++t) store.push(keys, gradients);
    auto results = values;
    store.pull(keys, results);
    if (first.empty()) first = results;
    REQUIRE(results == first);
  }
  REQUIRE(first != values);
}

TEST_CASE("clip_global_norm scales by the norm over all keys of the call", "[update]") {
  double squares = 0;
  std::vector<std::vector<float>> gradients{std::vector<float>(3000, 0.5F), std::vector<float>(77, -2.0F)};
  for (auto const& gradient : gradients)
    for (float const g : gradient) squares += 4 * double{g} * double{g};  // two equal sources
  for (double const limit : {1.0, 1e6}) {
    pushpull::kv_store store{pushpull::cpu_devices(2), update::clip_global_norm(limit) | update::sgd{1.0},
                             pushpull::synchronous{}};
    std::vector<std::string> const keys{"x", "y"};
    store.init(keys, std::vector{std::vector<float>(3000), std::vector<float>(77)});
    store.push(keys, std::vector{std::vector{gradients[0], gradients[0]}, std::vector{gradients[1], gradients[1]}});
    std::vector<float> x(3000), y(77);
    store.pull("x", x);
    store.pull("y", y);
    double const factor = std::min(1.0, limit / (std::sqrt(squares) + 1e-6));
    REQUIRE(x[2999] == Approx(-factor).epsilon(1e-6));
    REQUIRE(y[76] == Approx(4 * factor).epsilon(1e-6));
  }
}

TEST_CASE("rules and transforms refuse hyperparameters that can never be right", "[update]") {
  auto const devices = pushpull::cpu_devices(1);
  auto const nan = std::numeric_limits<double>::quiet_NaN();
  REQUIRE_THROWS_AS((pushpull::kv_store{devices, update::sgd{-1.0}}), pushpull::invalid_argument);
  REQUIRE_THROWS_AS((pushpull::kv_store{devices, update::sgd{nan}}), pushpull::invalid_argument);
  REQUIRE_THROWS_AS((pushpull::kv_store{devices, update::adam{.beta1 = 1.0}}), pushpull::invalid_argument);
  REQUIRE_THROWS_AS((pushpull::kv_store{devices, update::rescale(1) | update::momentum{.momentum = 1.5}}),
                    pushpull::invalid_argument);
  REQUIRE_THROWS_AS(update::clip_value(-1), pushpull::invalid_argument);
  REQUIRE_THROWS_AS(update::clip_global_norm(nan), pushpull::invalid_argument);
}

TEST_CASE("set_hyperparameters takes effect at the next push and keeps states", "[update]") {
  pushpull::kv_store store{pushpull::cpu_devices(2), update::momentum{.learning_rate = 1, .momentum = 0.5},
                           pushpull::synchronous{}};
  std::vector<float> w(100, 0.0F), g(100, 1.0F);
  store.init("w", w);
  store.push("w", g);
  store.set_hyperparameters({.learning_rate = 0.1, .momentum = 0.5});
  store.pushpull("w", g, w);
  REQUIRE(w[99] == Approx(-1 - 0.1 * 1.5));
  REQUIRE(store.state("w", "momentum_buffer")[99] == 1.5F);
  REQUIRE_THROWS_AS(store.set_hyperparameters({.learning_rate = -1}), pushpull::invalid_argument);
  REQUIRE(store.updater().learning_rate == 0.1);
}
