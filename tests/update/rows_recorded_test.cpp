/// @file
/// Rules with numbers of rows and columns against 50 steps that PyTorch, optax and packages recorded: see reference/README.md.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "update/reference/pytorch_values.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

/// "centralize_3x5" is a trajectory of a tensor of shape (3, 5).
pp::shape shape_of(std::string const& trajectory) {
  std::vector<std::int64_t> extents;
  std::istringstream text(trajectory.substr(trajectory.rfind('_') + 1));
  for (std::string extent; std::getline(text, extent, 'x');) extents.push_back(std::stoll(extent));
  return pp::shape(extents);
}

/// Weights and states after each recorded step of all trajectories of the rule, on 2 devices.
template <class T, class Rule>
void compare(std::string const& library, std::string const& name, Rule const& rule, double most) {
  std::string const path = std::string(PUSHPULL_TEST_REFERENCE) + "/" + library + "_rows.txt";
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::map<std::string, std::map<std::uint32_t, std::map<std::string, std::vector<double>>>> recorded;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream words(line);
    std::string trajectory, type, tensor;
    std::uint32_t step = 0;
    words >> trajectory >> type >> step >> tensor;
    if (trajectory.substr(0, trajectory.rfind('_')) != name || type != pp::dtype_traits<T>::name) continue;
    for (double x = 0; words >> x;) recorded[trajectory][step][tensor].push_back(x);
  }
  REQUIRE(recorded.size() == 6);
  for (auto const& [trajectory, steps] : recorded) {
    REQUIRE(steps.size() == 4);
    pp::shape const shape = shape_of(trajectory);
    std::vector<T> weight(shape.size()), gradient(shape.size());
    pp::cpu_device<> const host;
    auto const view = [&](std::vector<T>& x) { return pp::tensor_view<T, pp::cpu_device<>>(x.data(), shape, host); };
    for (std::uint32_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<T>(pytorch_reference::initial_weight(i));
    pp::kv_store<T, pp::cpu_device<>, Rule, pp::synchronous> store{pp::cpu_devices(2), rule};
    store.init("w", view(weight));
    for (std::uint32_t step = 1; step <= 50; ++step) {
      for (std::uint32_t i = 0; i < gradient.size(); ++i)
        gradient[i] = static_cast<T>(pytorch_reference::gradient(i, step));
      store.push("w", view(gradient));
      auto const found = steps.find(step);
      if (found == steps.end()) continue;
      for (auto const& [tensor, expected] : found->second) {
        if (tensor == "weight") store.pull("w", view(weight));
        auto const got = tensor == "weight" ? weight : store.state("w", tensor);
        REQUIRE(got.size() == expected.size());
        for (std::size_t i = 0; i < got.size(); ++i) {
          INFO(trajectory << ", step " << step << ", " << tensor << " " << i << ": " << double{got[i]} << ", "
                          << expected[i]);
          CHECK(std::abs(double{got[i]} - expected[i]) <= most * (1 + std::abs(expected[i])));
        }
      }
    }
  }
}

/// Both round in every step, each in its own order.
template <class T>
double const most = std::is_same_v<T, double> ? 1e-13 : 4e-6;

}  // namespace

TEMPLATE_TEST_CASE("adafactor follows PyTorch for 50 steps", "[update][rows]", float, double) {
  compare<TestType>("pytorch", "adafactor", update::adafactor{}, most<TestType>);
  compare<TestType>("pytorch", "adafactor_decayed",
                    update::adafactor{.learning_rate = 0.05,
                                      .beta2_decay = -0.5,
                                      .epsilon1 = 1e-4,
                                      .epsilon2 = 1e-2,
                                      .d = 1.5,
                                      .weight_decay = 0.1},
                    most<TestType>);
}

TEMPLATE_TEST_CASE("centralize follows optax for 50 steps", "[update][rows]", float, double) {
  compare<TestType>("optax", "centralize", update::centralize{} | update::sgd{0.1}, most<TestType>);
}

TEMPLATE_TEST_CASE("adam_mini follows its authors' package for 50 steps", "[update][rows]", float, double) {
  update::adam_mini const rule{.learning_rate = 0.02, .beta2 = 0.99, .weight_decay = 0.1};
  compare<TestType>("packages", "adam_mini", rule, most<TestType>);
}
