/// @file
/// Gradient noise: its distribution, and that neither devices nor gaps between keys change it.
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

std::vector<std::string> const keys{"a", "b", "c"};

std::vector<std::vector<float>> filled(float x) {
  return {std::vector<float>(5, x), std::vector<float>(70001, x), std::vector<float>(67, x)};
}

/// Three keys that begin at 1, after `steps` steps whose gradients are all 0.
template <class Updater>
std::vector<std::vector<float>> trained(Updater const& updater, int devices, int steps, float start = 1) {
  pp::kv_store store{pp::cpu_devices(devices), updater, pp::synchronous{}};
  store.init(keys, filled(start));
  for (int t = 0; t < steps; ++t) store.push(keys, filled(0));
  auto values = filled(0);
  store.pull(keys, values);
  return values;
}

}  // namespace

TEST_CASE("gradient noise is normal, with a variance that falls with t", "[update]") {
  update::add_noise const noise(0.3, 0.7, 9);
  auto before = filled(1);
  for (int t = 1; t <= 4; ++t) {
    auto const now = trained(noise | update::sgd{1}, 2, t);
    double sums[4] = {};
    double const deviation = std::sqrt(0.3 / std::pow(t, 0.7)), count = static_cast<double>(now[1].size());
    for (std::size_t i = 0; i < now[1].size(); ++i) {
      double const x = (double{before[1][i]} - double{now[1][i]}) / deviation;
      double power = 1;
      for (double& sum : sums) sum += power *= x;
    }
    double const error = 5 / std::sqrt(count);  // five standard errors
    INFO("step " << t);
    CHECK(std::abs(sums[0] / count) < error);
    CHECK(std::abs(sums[1] / count - 1) < error * std::sqrt(2));
    CHECK(std::abs(sums[2] / count) < error * std::sqrt(15));
    CHECK(std::abs(sums[3] / count - 3) < error * std::sqrt(96));
    before = now;
  }
  REQUIRE(trained(update::add_noise(0) | update::sgd{1}, 2, 3) == filled(1));
}

TEST_CASE("gradient noise is the same for any number of devices", "[update]") {
  auto const check = [](auto const& rule) {
    auto const one = trained(rule, 1, 3);
    for (int const devices : {2, 4, 7}) REQUIRE(trained(rule, devices, 3) == one);
    return one;
  };
  auto const plain = check(update::add_noise(0.1, 0.5, 3) | update::sgd{0.1});
  check(update::add_noise(0.1, 0.5, 3) | update::clip_global_norm(1) | update::adam{});
  REQUIRE(check(update::add_noise(0.1, 0.5, 4) | update::sgd{0.1}) != plain);
}

TEST_CASE("a norm behind gradient noise goes over the elements alone", "[update]") {
  // Whatever the gaps hold, the step has the length that the norm was clipped to; weight decay reads them again.
  auto const rule = update::weight_decay(0.5) | update::add_noise(4, 0) | update::clip_global_norm(1) | update::sgd{1};
  for (int const devices : {1, 3}) {
    pp::kv_store store{pp::cpu_devices(devices), rule};
    pp::parameter_store parameters{store};
    std::vector<std::vector<float>> before;
    for (std::size_t k = 0; k < 40; ++k) {  // mostly gaps
      before.emplace_back(1 + k % 3, 1.0F);
      parameters.add(std::to_string(k), before.back());
    }
    for (int t = 0; t < 4; ++t) {
      parameters.update_all();
      double squares = 0;
      for (std::size_t k = 0; k < before.size(); ++k) {
        auto const now = pp::to_vector(parameters.value(std::to_string(k), std::size_t{0}));
        for (std::size_t i = 0; i < now.size(); ++i)
          squares += (double{now[i]} - double{before[k][i]}) * (double{now[i]} - double{before[k][i]});
        before[k] = now;
      }
      REQUIRE(squares == Approx(1).epsilon(1e-4));
    }
  }
}

TEST_CASE("what is exactly 0, with a gradient of 0, gets no gradient noise", "[update]") {
  REQUIRE(trained(update::add_noise(1) | update::sgd{1}, 2, 3, 0) == filled(0));
}
