#include "part.hpp"

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <pushpull/pushpull.hpp>

namespace {

namespace pass = pushpull::pass;
namespace update = pushpull::update;

/// Appends the weights and states of `rule` after some steps over runs of one and of three gradients.
template <class Rule>
void append_results(std::vector<float>& results, Rule const& rule) {
  constexpr std::size_t states = pushpull::detail::state_count<Rule>;
  using types = pass::element_types<float, float, float, float, float>;
  constexpr std::size_t size = 4 * pass::padding;
  std::mt19937 random(7);
  auto const numbers = [&] {
    std::vector<float> result(size);
    for (float& x : result) x = static_cast<float>(random() >> 8) * 0x1p-23F - 1;
    return result;
  };
  pushpull::cpu_device<> const device;
  pass::clock_of<Rule, types> clock{};
  std::vector<std::vector<float>> const gradients{numbers(), numbers(), numbers()};
  std::vector<float> weights[] = {numbers(), numbers()};
  std::vector<float> kept[2][states + 1];
  pass::plan<pushpull::cpu_device<>, types, states> plan;
  plan.add_clock(0, true);
  for (std::size_t key = 0; key < 2; ++key) {
    pass::run<types, states> run{};
    run.size = static_cast<std::int64_t>(size);
    run.master = weights[key].data();
    for (std::size_t s = 0; s < states; ++s) {
      kept[key][s].resize(size);
      run.state[s] = kept[key][s].data();
    }
    std::vector<float const*> sources;
    for (auto const& gradient : gradients)
      if (key == 1 || sources.empty()) sources.push_back(gradient.data());
    plan.add(run, sources, std::vector<float*>{});
  }
  plan.commit(device);
  for (int step = 0; step < 5; ++step) {
    plan.begin_step(device, &rule, &clock);
    plan.template launch<Rule, pushpull::reduce::mean, pass::memory::arenas>(device, &rule, &clock);
  }
  for (std::size_t key = 0; key < 2; ++key) {
    results.insert(results.end(), weights[key].begin(), weights[key].end());
    for (std::size_t s = 0; s < states; ++s) results.insert(results.end(), kept[key][s].begin(), kept[key][s].end());
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

std::vector<float> RESULTS() {
  std::vector<float> results;
  append_results(results, update::weight_decay(0.01) | update::momentum{.learning_rate = 0.1});
  append_results(results, update::adam{.learning_rate = 0.01});
  append_results(results, update::nadam{.learning_rate = 0.01});
  append_results(results, update::adagrad{.learning_rate = 0.1});
  append_results(results, update::ftrl{});
  return results;
}
