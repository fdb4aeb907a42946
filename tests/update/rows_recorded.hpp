/// @file
/// The trajectories of tensors that other libraries' optimizers recorded: reference/*_rows.txt.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "update/reference/pytorch_inputs.hpp"

namespace pushpull::test {

/// "centralize_3x5" is a trajectory of a tensor of shape (3, 5).
inline shape shape_of_trajectory(std::string const& trajectory) {
  std::vector<std::int64_t> extents;
  std::istringstream text(trajectory.substr(trajectory.rfind('_') + 1));
  for (std::string extent; std::getline(text, extent, 'x');) extents.push_back(std::stoll(extent));
  return shape(extents);
}

/// Weights and states after each recorded step of all trajectories of the rule.
template <class T, class Rule, class D = cpu_device<>>
void compare_rows(std::string const& library, std::string const& name, Rule const& rule, double most,
                  std::vector<D> const& devices = cpu_devices(2)) {
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
    if (trajectory.substr(0, trajectory.rfind('_')) != name || type != dtype_traits<T>::name) continue;
    for (double x = 0; words >> x;) recorded[trajectory][step][tensor].push_back(x);
  }
  REQUIRE(recorded.size() == 6);
  for (auto const& [trajectory, steps] : recorded) {
    REQUIRE(steps.size() == 4);
    pushpull::shape const shape = shape_of_trajectory(trajectory);
    std::vector<T> weight(shape.size()), gradient(shape.size());
    cpu_device<> const where;
    auto const view = [&](std::vector<T>& x) { return tensor_view<T, cpu_device<>>(x.data(), shape, where); };
    for (std::uint32_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<T>(pytorch_reference::initial_weight(i));
    kv_store<T, D, Rule, synchronous> store{devices, rule};
    store.init("w", view(weight));
    std::size_t compared = 0;
    for (std::uint32_t step = 1; step <= 50; ++step) {
      for (std::uint32_t i = 0; i < gradient.size(); ++i)
        gradient[i] = static_cast<T>(pytorch_reference::gradient(i, step));
      store.push("w", view(gradient));
      auto const found = steps.find(step);
      if (found == steps.end()) continue;
      REQUIRE(found->second.contains("weight"));
      ++compared;
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
    REQUIRE(compared == steps.size());
  }
}

}  // namespace pushpull::test
