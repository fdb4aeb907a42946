/// @file
/// Steps on GPUs that are left out, delayed, rounded at random, made by rules of groups or with states of 8 or 4 bits, against the same
/// on CPUs. Without a GPU every case reports that it was skipped.
#include <pushpull/pushpull.cuh>

#include <algorithm>
#include <cmath>
#include <cstddef>
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

using floats = std::vector<float>;
namespace codec = pp::codec;
using eighths = pp::state_codecs<256, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float8>>;
std::vector<std::size_t> const sizes{0, 1, 63, 64, 65, 251, 256, 257, 1021, 9001};

/// A rule of a user's. Products with powers of 2 are exact: processors that fuse products and sums compute the same.
struct five_states {
  static constexpr auto state_names = pp::states("fast", "slow", "square", "fourth", "count");
  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V& w, V const& g, V& fast, V& slow, V& square, V& fourth,
                                       V& count) const noexcept {
    square = 0.5 * square + g * g;
    fourth = 0.5 * fourth + g * g * g * g;
    fast = 0.5 * fast + g;
    slow = 0.5 * slow + fast;
    count += 1;
    w -= 0.125 * slow / count;
  }
};

/// The weights of all keys after some steps with gradients of type T, then their decoded states. Each call has all keys.
template <class T = float>
std::vector<floats> trained_codes(auto&& store, std::size_t sources) {
  strings keys;
  std::vector<floats> values;
  for (std::size_t const size : sizes) {
    keys.push_back(std::to_string(size));
    values.emplace_back(size, 1.0F);
  }
  store.init(keys, values);
  for (int t = 0; t < 5; ++t) {
    std::vector<std::vector<std::vector<T>>> gradients;
    for (std::size_t const size : sizes) {
      gradients.emplace_back(sources);
      for (std::size_t k = 0; k < sources; ++k)
        for (float const x : gradient(size, 5 * t + static_cast<int>(k)))
          gradients.back()[k].push_back(pp::convert<T>(x));
    }
    store.push(keys, gradients);
    store.wait();
  }
  store.pull(keys, values);
  store.wait();
  for (auto const& key : keys)
    for (auto const& name : store.state_names()) values.push_back(store.state(key, name));
  return values;
}

/// The same of a model, of which every device has a mirror and a gradient.
template <class Store>
std::vector<floats> trained_model(Store&& store, std::size_t devices) {
  pp::parameter_store model{store};
  for (std::size_t const size : sizes) model.add(std::to_string(size), floats(size, 1.0F));
  for (int t = 0; t < 3; ++t) {
    for (std::size_t const size : sizes)
      for (std::size_t n = 0; n < devices; ++n)
        pp::copy(gradient(size, 5 * t + static_cast<int>(n)), model.grad(std::to_string(size), n));
    model.update_all();
  }
  std::vector<floats> values;
  for (std::size_t const size : sizes) {
    values.push_back(pp::to_vector(model.value(std::to_string(size), devices - 1)));
    REQUIRE(pp::to_vector(model.value(std::to_string(size), 0)) == values.back());
  }
  for (std::size_t const size : sizes)
    for (auto const& name : store.state_names()) values.push_back(store.state(std::to_string(size), name));
  return values;
}

/// Weights are close, since GPUs compute powers with errors of their own, and states are equal.
void require_same_codes(std::vector<floats> const& found, std::vector<floats> const& expected) {
  for (std::size_t k = 0; k < expected.size(); ++k) {
    INFO("array " << k);
    REQUIRE(found[k].size() == expected[k].size());
    if (k >= sizes.size()) {
      REQUIRE(found[k] == expected[k]);
    } else {
      for (std::size_t i = 0; i < expected[k].size(); ++i)
        if (!(std::abs(found[k][i] - expected[k][i]) <= 4e-6F))
          FAIL("element " << i << ": " << found[k][i] << " " << expected[k][i]);
    }
  }
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

TEST_CASE("states of 8 bits on CUDA devices are the codes of CPU devices", "[cuda][state_codecs]") {
  if (logical_devices().empty()) return;
  update::adam const rule{.learning_rate = 0.125, .beta1 = 0.5, .beta2 = 0.5};
  for (int const count : {1, 2, 3, 4}) {
    auto const devices = logical_devices(count);
    for (std::size_t const sources : {count, count + 8}) {
      auto const found = trained_codes(pp::kv_store{devices, rule, eighths{}}, sources);
      require_same_codes(found, trained_codes(pp::kv_store{pp::cpu_devices(2), rule, eighths{}}, sources));
      REQUIRE(found == trained_codes(pp::kv_store{std::vector{devices[0]}, rule, eighths{}}, sources));
    }
    pp::kv_store store{devices, rule, eighths{}};
    pp::kv_store on_host{pp::cpu_devices(count), rule, eighths{}};
    require_same_codes(trained_model(store, devices.size()), trained_model(on_host, devices.size()));
  }
}

TEST_CASE("states of 8 bits continue bit for bit from CPU to CUDA devices; an infinity makes its block NaN",
          "[cuda][state_codecs]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  update::adam const rule{.learning_rate = 0.125, .beta1 = 0.5, .beta2 = 0.5};
  pp::kv_store there{devices, rule, eighths{}};
  pp::kv_store here{pp::cpu_devices(3), rule, eighths{}};
  auto g = gradient(70001, 0);
  here.init("w", g);
  there.init("w", g);
  here.push("w", g).wait();
  for (auto const& name : here.state_names()) {
    there.set_state("w", name, here.state("w", name));
    REQUIRE(there.state("w", name) == here.state("w", name));
  }
  there.set_steps("w", 1);
  for (int t = 1; t < 4; ++t) {
    g = gradient(70001, t);
    here.push("w", g).wait();
    there.push("w", g).wait();
  }
  for (auto const& name : here.state_names()) REQUIRE(there.state("w", name) == here.state("w", name));
  g[8000] = std::numeric_limits<float>::infinity();
  there.push("w", g).wait();
  for (auto const& name : there.state_names()) {
    auto const state = there.state("w", name);
    for (std::size_t i = 0; i < state.size(); ++i)
      if (std::isnan(state[i]) != (i / 256 == 8000 / 256)) FAIL("element " << i << ": " << state[i]);
  }
}

TEST_CASE(
    "states of 8 and 4 bits of a user's rule on CUDA devices are those of CPU devices, with 16-bit gradients and rows",
    "[cuda][state_codecs]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  auto const trained = [](auto const& where) {
    using device = typename std::remove_cvref_t<decltype(where)>::value_type;
    using codecs =
        pp::state_codecs<64, codec::of<"fast", codec::float8>, codec::of<"slow", codec::unsigned_linear>,
                         codec::of<"square", codec::unsigned_float4>, codec::of<"fourth", codec::unsigned_dynamic>>;
    pp::kv_store<pp::bfloat16, device, five_states, pp::element::master<float>, codecs> store{where, five_states{}};
    auto values = trained_codes<pp::bfloat16>(store, 2);
    pp::shape const whole{11, 192};
    std::vector<std::int64_t> const ids{0, 7, 10};
    std::vector<pp::bfloat16> rows;
    for (float const x : gradient(std::size_t{3} * 192, 1)) rows.push_back(pp::convert<pp::bfloat16>(x));
    for (auto const which : {pp::row_updates::lazy, pp::row_updates::standard}) {
      std::string const key = which == pp::row_updates::lazy ? "lazy" : "standard";
      floats table(whole.size(), 1.0F);
      store.init(key, pp::tensor_view(table.data(), whole));
      for (int t = 0; t < 2; ++t)
        store.push(key, pp::row_sparse_view<pp::bfloat16 const>(rows.data(), ids.data(), 3, whole), which).wait();
      store.pull(key, pp::tensor_view(table.data(), whole)).wait();
      values.push_back(table);
      for (auto const& name : store.state_names()) values.push_back(store.state(key, name));
    }
    return values;
  };
  auto const found = trained(devices);
  REQUIRE(found == trained(pp::cpu_devices(3)));
  REQUIRE(found == trained(std::vector{devices[0]}));
}

TEST_CASE("norms of states of 8 and 4 bits on CUDA devices are those of CPU devices", "[cuda][state_codecs]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  using codecs = pp::state_codecs<1024, codec::dynamic, codec::of<"exp_avg_sq", codec::unsigned_float4>>;
  update::lamb const rule{.learning_rate = 0.125, .beta1 = 0.5, .beta2 = 0.5};
  require_same_codes(trained_codes(pp::kv_store{devices, rule, codecs{}}, 2),
                     trained_codes(pp::kv_store{pp::cpu_devices(1), rule, codecs{}}, 2));
}
