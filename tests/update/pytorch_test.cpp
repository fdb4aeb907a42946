/// @file
/// Every rule against trajectories that PyTorch recorded: see reference/README.md.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "update/reference/pytorch_values.hpp"
#include "update/rule_runner.hpp"

namespace {

namespace update = pushpull::update;
namespace reference = pytorch_reference;

/// Compares `weight` and each `state(name)` with one record.
template <class T, class State>
void compare_with(reference::record<T> const& r, auto const& weight, State const& state) {
  double const tolerance = std::is_same_v<T, double> ? 2e-14 : 5e-7;
  REQUIRE(weight.size() == r.size);
  for (std::size_t j = 0; j < r.size; ++j) {
    INFO(r.trajectory << " step " << r.step << " weight " << j);
    REQUIRE(std::abs(double{weight[j]} - double{r.weight[j]}) <= tolerance);
  }
  for (std::size_t s = 0; s < r.state_count; ++s) {
    auto const values = state(r.states[s].name);
    REQUIRE(values.size() == r.size);
    for (std::size_t j = 0; j < r.size; ++j) {
      INFO(r.trajectory << " step " << r.step << " state " << r.states[s].name << " " << j);
      double const expected{r.states[s].values[j]};
      REQUIRE(std::abs(double{values[j]} - expected) <= tolerance + tolerance * 20 * std::abs(expected));
    }
  }
}

/// What a trajectory starts with: a record for each of its parameters.
template <class T>
std::vector<reference::record<T>> parameters_of(std::string_view trajectory) {
  std::vector<reference::record<T>> result;
  for (auto const& r : reference::records<T>())
    if (r.trajectory == trajectory && r.step == 1) result.push_back(r);
  REQUIRE_FALSE(result.empty());
  return result;
}

template <class T>
std::vector<T> gradient_of(reference::record<T> const& parameter, std::uint32_t step) {
  std::vector<T> result(parameter.size);
  for (std::uint32_t j = 0; j < parameter.size; ++j)
    result[j] = static_cast<T>(reference::gradient(parameter.offset + j, step));
  return result;
}
template <class T>
std::vector<T> initial_weight_of(reference::record<T> const& parameter) {
  std::vector<T> result(parameter.size);
  for (std::uint32_t j = 0; j < parameter.size; ++j)
    result[j] = static_cast<T>(reference::initial_weight(parameter.offset + j));
  return result;
}

/// Runs 10 steps of `rule`, which looks at one element at a time, over the parameters of a trajectory; compares weights
/// and states after each recorded step.
template <class T, class Rule>
void compare(std::string_view trajectory, Rule const& rule) {
  for (auto const& parameter : parameters_of<T>(trajectory)) {
    auto const weight = initial_weight_of(parameter);
    pushpull::test::rule_runner<T, T, Rule> runner(rule, {weight.begin(), weight.end()}, 1);
    int compared = 0;
    for (std::uint32_t step = 1; step <= 10; ++step) {
      auto const gradient = gradient_of(parameter, step);
      runner.step({gradient.begin(), gradient.end()});
      for (auto const& r : reference::records<T>()) {
        if (r.trajectory != trajectory || r.parameter != parameter.parameter || r.step != static_cast<int>(step))
          continue;
        compare_with(r, runner.values(0), [&](std::string_view name) {
          for (std::size_t s = 0; s < Rule::state_names.size(); ++s)
            if (Rule::state_names[s] == name) return runner.values(s + 1);
          throw std::runtime_error("the rule has no state " + std::string(name));
        });
        ++compared;
      }
    }
    REQUIRE(compared == 2);
  }
}

/// The same in a store, for a rule that looks at all parameters.
template <class T, class Rule>
void compare_stores(std::string_view trajectory, Rule const& rule, int devices) {
  pushpull::kv_store<T, pushpull::cpu_device<>, Rule, pushpull::integer_keys, pushpull::synchronous> store{
      pushpull::cpu_devices(devices), rule};
  auto const parameters = parameters_of<T>(trajectory);
  std::vector<std::int64_t> keys;
  std::vector<std::vector<T>> values;
  for (auto const& p : parameters) {
    keys.push_back(p.parameter);
    values.push_back(initial_weight_of(p));
  }
  store.init(keys, values);
  int compared = 0;
  for (std::uint32_t step = 1; step <= 10; ++step) {
    for (std::size_t p = 0; p < parameters.size(); ++p) values[p] = gradient_of(parameters[p], step);
    store.push(keys, values);
    for (auto const& r : reference::records<T>()) {
      if (r.trajectory != trajectory || r.step != static_cast<int>(step)) continue;
      std::vector<T> weight(r.size);
      store.pull(r.parameter, weight);
      compare_with(r, weight, [&](std::string_view name) { return store.state(r.parameter, name); });
      ++compared;
    }
  }
  REQUIRE(compared == 2 * static_cast<int>(keys.size()));
  REQUIRE(store.steps(keys[0]) == 10);
}

}  // namespace

TEMPLATE_TEST_CASE("updaters follow PyTorch step by step", "[update]", float, double) {
  using T = TestType;
  compare<T>("sgd", update::sgd{.learning_rate = 0.1});
  compare<T>("sgd_momentum", update::momentum{.learning_rate = 0.1, .momentum = 0.9});
  compare<T>("sgd_nesterov", update::nesterov{.learning_rate = 0.1, .momentum = 0.9});
  compare<T>("sgd_momentum_weight_decay",
             update::weight_decay(0.01) | update::momentum{.learning_rate = 0.1, .momentum = 0.9});
  compare<T>("adam", update::adam{.learning_rate = 0.01});
  compare<T>("adam_weight_decay", update::weight_decay(0.01) | update::adam{.learning_rate = 0.01});
  compare<T>("adamw", update::adamw{.learning_rate = 0.01, .weight_decay = 0.1});
  compare<T>("adam_clip_value", update::clip_value(0.3) | update::adam{.learning_rate = 0.01});
  for (int const devices : {1, 3})
    compare_stores<T>("adam_clip_norm", update::clip_global_norm(0.5) | update::adam{.learning_rate = 0.01}, devices);
}
