/// @file
/// Norms of gradients whose squares no float can hold.
#include <cmath>
#include <pushpull/pushpull.hpp>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "update/rule_runner.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
namespace compat = pushpull::compat;

std::vector<double> waves(std::size_t size, double height, double shift) {
  std::vector<double> x(size);
  for (std::size_t i = 0; i < size; ++i) x[i] = height * std::sin(0.37 * static_cast<double>(i) + shift);
  return x;
}

/// What floats become under the rule is what doubles become, whose squares do not overflow.
template <class Rule>
void same_as_in_double(std::string const& name, Rule const& rule, double weight, double gradient) {
  INFO(name << " of weights of " << weight << " and gradients of " << gradient);
  std::size_t const size = 3001;
  auto const w = waves(size, weight, 0.5);
  pp::test::rule_runner<float, float, Rule> floats(rule, w, 3);
  pp::test::rule_runner<double, double, Rule> doubles(rule, w, 1);
  for (int t = 0; t < 3; ++t) {
    auto const g = waves(size, gradient, t);
    floats.step(g);
    doubles.step(g);
  }
  auto const got = floats.values(0), expected = doubles.values(0);
  double largest = 0, moved = 0;
  for (std::size_t i = 0; i < size; ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    moved = std::max(moved, std::abs(expected[i] - w[i]));
  }
  REQUIRE(moved > 1e-6 * largest);
  for (std::size_t i = 0; i < size; ++i) REQUIRE(std::abs(got[i] - expected[i]) < 2e-6 * largest);
}

}  // namespace

TEST_CASE("norms of floats whose squares overflow are what they are in double", "[update][norms]") {
  for (double const gradient : {1e20, 1e30}) {
    same_as_in_double("clip_norm", update::clip_norm(0.5) | update::sgd{1}, 1, gradient);
    same_as_in_double("clip_global_norm", update::clip_global_norm(0.5) | update::sgd{1}, 1, gradient);
    same_as_in_double("rescaled", update::rescale(0.5) | update::clip_global_norm(0.5) | update::momentum{1}, 1,
                      gradient);
    for (double const weight : {1.0, 1e22}) {
      same_as_in_double("lars", update::lars{.learning_rate = 1, .trust_coefficient = 0.1}, weight, gradient);
      same_as_in_double("lans", update::lans{.learning_rate = 0.1}, weight, gradient);
      same_as_in_double("mxnet's lars", compat::mxnet1::lars({.learning_rate = 1, .momentum = 0.5, .eta = 0.1}), weight,
                        gradient);
    }
    same_as_in_double("mxnet's lbsgd", compat::mxnet1::lbsgd_lars({.learning_rate = 0.1}), 1e3 * gradient, gradient);
  }
  same_as_in_double("lamb", update::lamb{.learning_rate = 0.1}, 1e25, 1);
}

TEST_CASE("a store clips gradients of 1e30 to their norm, on any number of devices bit for bit", "[update][norms]") {
  std::vector<std::vector<float>> first;
  for (int const devices : {1, 3}) {
    pp::kv_store store{pp::cpu_devices(devices), update::clip_global_norm(1) | update::sgd{1}, pp::synchronous{}};
    std::vector<std::string> const keys{"a", "b"};
    std::vector<std::vector<float>> weights(2, std::vector<float>(3001, 0));
    store.init(keys, weights);
    std::vector<std::vector<std::vector<float>>> gradients(2, std::vector(2, std::vector<float>(3001)));
    double squares = 0;
    for (std::size_t key = 0; key < 2; ++key)
      for (std::size_t i = 0; i < 3001; ++i) {
        for (auto& source : gradients[key]) source[i] = 1e30F * static_cast<float>(1 + (i * 7 + key) % 5);
        squares += std::pow(2.0 * static_cast<double>(gradients[key][0][i]), 2);
      }
    store.push(keys, gradients).wait();
    store.pull(keys, weights).wait();
    for (std::size_t key = 0; key < 2; ++key)
      for (std::size_t i = 0; i < 3001; ++i)
        REQUIRE(weights[key][i] ==
                Approx(-2.0 * static_cast<double>(gradients[key][0][i]) / std::sqrt(squares)).epsilon(1e-6));
    if (first.empty()) first = weights;
    REQUIRE(first == weights);
  }
}

TEMPLATE_TEST_CASE("numbers of rows stay finite where squares overflow, and the rule takes steps of its size",
                   "[update][rows]", update::adafactor, update::group_adagrad) {
  pp::kv_store store{pp::cpu_devices(1), TestType{.learning_rate = 0.1}, pp::synchronous{}};
  std::vector<float> w(300 * 5, 1), g(300 * 5);
  pp::shape const shape{5, 300};
  store.init("w", pp::tensor_view(w.data(), shape));
  for (float const size : {1e12F, 1e30F, -1e30F, 1.0F, 0.0F}) {
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = size * static_cast<float>(1 + i % 3);
    store.push("w", pp::tensor_view(g.data(), shape)).wait();
    auto const before = w;
    store.pull("w", pp::tensor_view(w.data(), shape)).wait();
    for (std::size_t i = 0; i < w.size(); ++i) {
      REQUIRE(std::isfinite(w[i]));
      if constexpr (std::is_same_v<TestType, update::adafactor>) REQUIRE(std::abs(w[i] - before[i]) < 1);
    }
  }
  for (auto const& name : store.state_names())
    for (double const x : store.state("w", name)) REQUIRE(std::isfinite(x));
}
