#include "part.hpp"

#include <cstddef>
#include <random>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "update/rule_runner.hpp"

namespace {

namespace update = pushpull::update;

/// Appends the weights and states of `rule` after some steps.
template <class Rule>
void append_results(std::vector<double>& results, Rule const& rule) {
  std::mt19937 random(7);
  auto const numbers = [&] {
    std::vector<double> result(257);
    for (double& x : result) x = static_cast<double>(random() >> 8) * 0x1p-23 - 1;
    return result;
  };
  pushpull::test::rule_runner<float, float, Rule> runner(rule, numbers(), 2);
  for (int step = 0; step < 5; ++step) runner.step(numbers());
  for (std::size_t s = 0; s <= Rule::state_names.size(); ++s) {
    auto const values = runner.values(s);
    results.insert(results.end(), values.begin(), values.end());
  }
}

/// Appends the weights and states of adam with states of those codes.
template <class Codecs>
void append_coded(std::vector<double>& results, Codecs codecs) {
  pushpull::kv_store store{pushpull::cpu_devices(2), update::adam{.learning_rate = 0.01}, codecs};
  std::vector<float> weight(1003, 1.0F), gradient(1003);
  store.init("w", weight);
  std::mt19937 random(7);
  for (int step = 0; step < 5; ++step) {
    for (float& x : gradient) x = static_cast<float>(random() >> 8) * 0x1p-23F - 1;
    store.pushpull("w", gradient, weight).wait();
  }
  results.insert(results.end(), weight.begin(), weight.end());
  for (auto const& name : store.state_names()) {
    auto const state = store.state("w", name);
    results.insert(results.end(), state.begin(), state.end());
  }
}

}  // namespace

double TRAIN(char const* key) {
  std::vector<float> weight(1000, 1.0F);
  std::vector<float> const gradient(1000, 0.5F);
  pushpull::kv_store store{pushpull::cpu_devices(2), update::rescale(0.5) | update::adam{.learning_rate = 0.01}};
  store.init("w", weight);
  store.pushpull(key, gradient, weight);
  store.wait();
  return double{weight[0]};
}

std::vector<double> RESULTS() {
  std::vector<double> results;
  append_results(results, update::weight_decay(0.01) | update::momentum{.learning_rate = 0.1});
  append_results(results, update::adam{.learning_rate = 0.01});
  append_results(results, update::nadam{.learning_rate = 0.01});
  append_results(results, update::adagrad{.learning_rate = 0.1});
  append_results(results, update::ftrl{});
  namespace codec = pushpull::codec;
  append_coded(results, pushpull::state_codecs<256, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float8>>{});
  append_coded(results, pushpull::state_codecs<64, codec::none, codec::of<"exp_avg_sq", codec::unsigned_linear>>{});
  append_coded(results, pushpull::state_codecs<128, codec::none, codec::of<"exp_avg_sq", codec::unsigned_float4>>{});
  return results;
}
