/// @file
/// Every rule against trajectories that PyTorch recorded: see reference/README.md.
#include <cmath>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "update/reference/pytorch_values.hpp"

namespace {

namespace update = pushpull::update;
namespace reference = pytorch_reference;

/// Runs 10 steps of `updater` over the parameters of a trajectory and compares weights and states after each recorded
/// one.
template <class T, class Updater>
void compare(std::string_view trajectory, Updater const& updater, int devices) {
  using store_type =
      pushpull::kv_store<T, pushpull::cpu_device<>, Updater, pushpull::integer_keys, pushpull::synchronous>;
  store_type store{pushpull::cpu_devices(devices), updater};
  double const tolerance = std::is_same_v<T, double> ? 2e-14 : 5e-7;
  std::vector<std::int64_t> keys;
  std::vector<std::uint32_t> offsets;
  std::vector<std::size_t> sizes;
  for (auto const& r : reference::records<T>())
    if (r.trajectory == trajectory && r.step == 1) {
      keys.push_back(r.parameter);
      offsets.push_back(r.offset);
      sizes.push_back(r.size);
    }
  REQUIRE_FALSE(keys.empty());
  std::vector<std::vector<T>> weights, gradients;
  for (std::size_t p = 0; p < keys.size(); ++p) {
    weights.emplace_back();
    for (std::uint32_t j = 0; j < sizes[p]; ++j)
      weights[p].push_back(static_cast<T>(reference::initial_weight(offsets[p] + j)));
    gradients.emplace_back(sizes[p]);
  }
  store.init(keys, weights);
  int compared = 0;
  for (std::uint32_t step = 1; step <= 10; ++step) {
    for (std::size_t p = 0; p < keys.size(); ++p)
      for (std::uint32_t j = 0; j < sizes[p]; ++j)
        gradients[p][j] = static_cast<T>(reference::gradient(offsets[p] + j, step));
    store.push(keys, gradients);
    for (auto const& r : reference::records<T>()) {
      if (r.trajectory != trajectory || r.step != static_cast<int>(step)) continue;
      std::vector<T> weight(r.size);
      store.pull(r.parameter, weight);
      for (std::size_t j = 0; j < r.size; ++j) {
        INFO(trajectory << " step " << step << " weight " << j);
        REQUIRE(std::abs(double{weight[j]} - double{r.weight[j]}) <= tolerance);
      }
      for (std::size_t s = 0; s < r.state_count; ++s) {
        auto const state = store.state(r.parameter, r.states[s].name);
        for (std::size_t j = 0; j < r.size; ++j) {
          INFO(trajectory << " step " << step << " state " << r.states[s].name << " " << j);
          double const expected{r.states[s].values[j]};
          REQUIRE(std::abs(double{state[j]} - expected) <= tolerance + tolerance * 20 * std::abs(expected));
        }
      }
      ++compared;
    }
  }
  REQUIRE(compared == 2 * static_cast<int>(keys.size()));
  REQUIRE(store.steps(keys[0]) == 10);
}

}  // namespace

TEMPLATE_TEST_CASE("updaters follow PyTorch step by step", "[update]", float, double) {
  using T = TestType;
  for (int const devices : {1, 3}) {
    compare<T>("sgd", update::sgd{.learning_rate = 0.1}, devices);
    compare<T>("sgd_momentum", update::momentum{.learning_rate = 0.1, .momentum = 0.9}, devices);
    compare<T>("sgd_nesterov", update::nesterov{.learning_rate = 0.1, .momentum = 0.9}, devices);
    compare<T>("sgd_momentum_weight_decay",
               update::weight_decay(0.01) | update::momentum{.learning_rate = 0.1, .momentum = 0.9}, devices);
    compare<T>("adam", update::adam{.learning_rate = 0.01}, devices);
    compare<T>("adam_weight_decay", update::weight_decay(0.01) | update::adam{.learning_rate = 0.01}, devices);
    compare<T>("adamw", update::adamw{.learning_rate = 0.01, .weight_decay = 0.1}, devices);
    compare<T>("adam_clip_norm", update::clip_global_norm(0.5) | update::adam{.learning_rate = 0.01}, devices);
    compare<T>("adam_clip_value", update::clip_value(0.3) | update::adam{.learning_rate = 0.01}, devices);
  }
}
