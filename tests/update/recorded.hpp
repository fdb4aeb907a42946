/// @file
/// The trajectories that other libraries' optimizers recorded: reference/*_updaters.txt.
#pragma once

#include <fstream>
#include <map>
#include <pushpull/pushpull.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "support/catch.hpp"
#include "update/reference/pytorch_values.hpp"
#include "update/rule_runner.hpp"

namespace pushpull::test {

/// What one library recorded.
class recording {
 public:
  explicit recording(std::string const& library) {
    std::string const path = std::string(PUSHPULL_TEST_REFERENCE) + "/" + library + "_updaters.txt";
    std::ifstream file(path);
    if (!file) throw std::runtime_error("cannot read " + path);
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with('#')) continue;
      std::istringstream words(line);
      std::string trajectory, type, tensor;
      int step = 0;
      words >> trajectory >> type >> step >> tensor;
      std::vector<double> values;
      for (double x = 0; words >> x;) values.push_back(x);
      if (values.empty()) throw std::runtime_error(path + ": a line without values: " + line);
      tensors_[{trajectory, type}][{step, tensor}] = values;
    }
  }

  /// 50 steps of `rule`; its weight and every recorded state after each recorded step.
  /// @param most  The largest |difference| / (1 + |recorded|) allowed.
  template <class T, class Rule>
  void compare(std::string const& trajectory, Rule const& rule, double most) const {
    auto const found = tensors_.find({trajectory, std::string(dtype_traits<T>::name)});
    INFO(trajectory << ", " << dtype_traits<T>::name);
    REQUIRE(found != tensors_.end());
    auto const& recorded = found->second;
    std::size_t const size = recorded.begin()->second.size();
    std::vector<double> weight(size), gradient(size);
    for (std::uint32_t i = 0; i < size; ++i) weight[i] = pytorch_reference::initial_weight(i);
    rule_runner<T, T, Rule> runner(rule, weight, 1);
    std::size_t compared = 0;
    for (std::uint32_t step = 1; step <= 50; ++step) {
      for (std::uint32_t i = 0; i < size; ++i) gradient[i] = pytorch_reference::gradient(i, step);
      runner.step(gradient);
      for (auto const& [at, expected] : recorded) {
        if (at.first != static_cast<int>(step)) continue;
        auto const got = runner.values(number_of<Rule>(at.second));
        for (std::size_t i = 0; i < size; ++i) {
          INFO(trajectory << ", " << dtype_traits<T>::name << ", step " << step << ", " << at.second << " " << i);
          CHECK(std::abs(got[i] - expected[i]) <= most * (1 + std::abs(expected[i])));
        }
        ++compared;
      }
    }
    REQUIRE(compared == recorded.size());
  }

 private:
  /// As rule_runner::values counts: 0 the weight, then the states.
  template <class Rule>
  static std::size_t number_of(std::string const& tensor) {
    if (tensor == "weight") return 0;
    for (std::size_t s = 0; s < Rule::state_names.size(); ++s)
      if (Rule::state_names[s] == tensor) return s + 1;
    throw std::runtime_error("the rule has no state " + tensor);
  }

  std::map<std::pair<std::string, std::string>, std::map<std::pair<int, std::string>, std::vector<double>>> tensors_;
};

}  // namespace pushpull::test
