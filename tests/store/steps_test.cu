/// @file
/// Steps on GPUs that are left out, delayed, rounded at random or made by rules of groups, against the same on CPUs. Without
/// a GPU every case reports that it was skipped.
#include <pushpull/pushpull.cuh>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/cuda_devices.cuh"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using pp::test::logical_devices;
using strings = std::vector<std::string>;

/// Multiples of 1/8, of which sums are exact.
std::vector<float> gradient(std::size_t size, int t) {
  std::vector<float> g(size);
  for (std::size_t i = 0; i < size; ++i)
    g[i] = static_cast<float>((static_cast<int>(i % 128) * 31 + t * 7) % 17) / 8 - 1;
  return g;
}

}  // namespace

TEST_CASE("groups, micro-batches and left-out steps on CUDA devices equal those on CPU devices", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  auto const trained = [](auto const& where) {
    auto const rule = [](double rate) {
      return update::dynamic_loss_scale{.initial = 2, .interval = 2} | update::momentum{.learning_rate = rate};
    };
    pp::kv_store store{where, rule(0.5), pp::accumulate{2}};
    store.add_group([](std::string_view key) { return key == "bias"; }, rule(0.25));
    strings const keys{"weight", "bias"};
    std::vector<std::vector<float>> values{std::vector<float>(5003, 1), std::vector<float>(70, 1)};
    store.init(keys, values);
    for (int t = 0; t < 12; ++t) {
      std::vector const g{gradient(5003, t), gradient(70, t)};
      auto bad = g;
      bad[1][69] = std::numeric_limits<float>::infinity();
      store.pushpull(keys, t == 5 ? bad : g, values);
      store.wait();
    }
    std::vector<double> const scale = store.carried_numbers();
    REQUIRE(store.steps("weight") == 5);
    values[0].push_back(static_cast<float>(scale[1]));
    return values;
  };
  REQUIRE(trained(devices) == trained(pp::cpu_devices(2)));
  REQUIRE(trained(devices) == trained(std::vector{devices[0]}));
}

TEST_CASE("stochastic rounding on CUDA devices is that of CPU devices", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  auto const trained = [](auto const& where) {
    using device = typename std::remove_cvref_t<decltype(where)>::value_type;
    pp::kv_store<pp::bfloat16, device, update::sgd, pp::element::stochastic<pp::bfloat16>> store{where,
                                                                                                 update::sgd{0.125}};
    std::vector<float> w(5003, 1);
    store.init("w", w);
    for (int t = 0; t < 5; ++t) {
      std::vector<pp::bfloat16> g;
      for (float const x : gradient(5003, t)) g.push_back(pp::convert<pp::bfloat16>(x / 64));
      store.push("w", g);
      store.wait();
    }
    store.pull("w", w);
    store.wait();
    return w;
  };
  REQUIRE(trained(devices) == trained(pp::cpu_devices(1)));
}

TEST_CASE("a model on CUDA devices, and on all GPUs, accumulates in its own memory", "[cuda]") {
  auto const logical = logical_devices();
  if (logical.empty()) return;
  for (auto const& devices : {logical, pp::cuda_devices()}) {
    pp::kv_store<float, pp::cuda_device, update::sgd, pp::accumulate> store{devices, update::sgd{1}, pp::accumulate{}};
    pp::parameter_store model{store};
    model.add("w", std::vector<float>(3001, 0));
    std::vector<float> const ones(3001, 1);
    for (int t = 0; t < 4; ++t) {
      for (std::size_t n = 0; n < devices.size(); ++n) pp::copy(ones, model.grad("w", n));
      t < 3 ? model.accumulate_all() : model.update_all();
    }
    float const sources = static_cast<float>(devices.size());
    for (std::size_t n = 0; n < devices.size(); ++n)
      REQUIRE(pp::to_vector(model.value("w", n)) == std::vector<float>(3001, -4 * sources));
    // A source on every GPU, and an output on the last.
    std::vector<pp::tensor<float, pp::cuda_device>> gradients;
    for (auto const& device : devices) pp::copy(ones, gradients.emplace_back(device, pp::shape{3001}));
    pp::tensor<float, pp::cuda_device> out(devices.back(), pp::shape{3001});
    store.pushpull("w", gradients, out);
    REQUIRE(pp::to_vector(out) == std::vector<float>(3001, -5 * sources));
    model.update_all();
    for (std::size_t n = 0; n < devices.size(); ++n)
      REQUIRE(pp::to_vector(model.value("w", n)) == std::vector<float>(3001, -6 * sources));
  }
}
