/// @file
/// Random programs over stores on GPUs against the same programs on CPUs. Each is made from a seed: PUSHPULL_TEST_SEED
/// is the first one, by default drawn and told, and PUSHPULL_TEST_PROGRAMS says how many follow in each case.
#include <pushpull/pushpull.cuh>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/cuda_devices.cuh"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using host_device = pp::cpu_device<pp::serial_system>;
using pp::test::logical_devices;

/// Calls run(seed) for each seed.
template <class F>
void for_each_seed(F const& run) {
  if (logical_devices(1).empty()) return;
  char const *const first = std::getenv("PUSHPULL_TEST_SEED"), *const programs = std::getenv("PUSHPULL_TEST_PROGRAMS");
  unsigned const seed = first ? static_cast<unsigned>(std::atoi(first)) : std::random_device{}() % 1'000'000;
  unsigned const count = programs ? static_cast<unsigned>(std::atoi(programs)) : 4;
  std::printf("PUSHPULL_TEST_SEED=%u PUSHPULL_TEST_PROGRAMS=%u\n", seed, count);
  for (unsigned k = 0; k < count; ++k) {
    INFO("PUSHPULL_TEST_SEED=" << seed + k);
    run(seed + k);
  }
}

/// A multiple of 1/8 up to 2; of integers a number up to 500.
template <class T>
T random_value(std::mt19937& r) {
  if constexpr (std::is_same_v<T, std::int32_t>) {
    return static_cast<T>(r() % 1000) - 500;
  } else {
    return pp::convert<T>(static_cast<float>(static_cast<int>(r() % 33) - 16) / 8);
  }
}
template <class T>
std::vector<T> random_values(std::mt19937& r, std::size_t size) {
  std::vector<T> x(size);
  for (T& e : x) e = random_value<T>(r);
  return x;
}

template <class T>
double to_double(T x) {
  if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<double>(x);
  } else {
    return static_cast<double>(pp::convert<float>(x));
  }
}

template <class T>
void require_close(std::vector<T> const& found, std::vector<T> const& expected, double tolerance) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    double const a = to_double(found[i]), b = to_double(expected[i]);
    if (!(std::abs(a - b) <= tolerance * (1 + std::abs(b)))) FAIL("element " << i << ": " << a << ", expected " << b);
  }
}

/// Lists of arrays: [key][source or output][element].
template <class T>
using lists = std::vector<std::vector<std::vector<T>>>;

/// Arrays on devices that are chosen at random, at any distance behind aligned memory.
template <class T>
class device_arrays {
 public:
  using view = pp::tensor_view<T, pp::cuda_device>;
  device_arrays(std::vector<pp::cuda_device> const& devices, std::mt19937& r) : devices_(devices), random_(r) {}

  std::vector<std::vector<view>> operator()(lists<T> const& values) {
    std::vector<std::vector<view>> views;
    for (auto const& of_key : values) {
      views.emplace_back();
      for (auto const& x : of_key) views.back().push_back(place(x));
    }
    return views;
  }

 private:
  view place(std::vector<T> const& x) {
    auto const size = static_cast<std::int64_t>(x.size());
    auto const offset = static_cast<std::int64_t>(random_() % 2 == 0 ? 0 : random_() % 17);
    pp::cuda_device const& device = devices_[random_() % devices_.size()];
    kept_.emplace_back(device, pp::shape{size + offset + 3});
    view const v(kept_.back().data() + offset, pp::shape{size}, device);
    if (!x.empty()) pp::copy(x, v);
    return v;
  }

  std::vector<pp::cuda_device> const& devices_;
  std::mt19937& random_;
  std::vector<pp::tensor<T, pp::cuda_device>> kept_;  // a tensor's memory stays where it is when the list grows
};

enum class call { push_and_pull, pushpull, pull };

void carry_out(call what, auto& store, auto const& keys, auto const& gradients, auto&& outputs) {
  if (what == call::pushpull) {
    store.pushpull(keys, gradients, outputs);
    return;
  }
  if (what == call::push_and_pull) store.push(keys, gradients);
  store.pull(keys, outputs);
}

/// Pushes and pulls of some keys with any number of sources and outputs, on the host and on devices.
template <class T, class... Policies>
void push_and_pull_at_random(unsigned seed, double tolerance, Policies const&... policies) {
  std::mt19937 r(seed);
  auto const devices = logical_devices(static_cast<int>(1 + r() % 4));
  pp::kv_store<T, pp::cuda_device, Policies...> store{devices, policies...};
  pp::kv_store<T, host_device, Policies...> reference{pp::cpu_devices<pp::serial_system>(2), policies...};
  std::vector<std::string> keys;
  std::vector<std::vector<T>> initial;
  for (std::size_t k = 0, n = 1 + r() % 12; k < n; ++k) {
    keys.push_back("k" + std::to_string(k));
    initial.push_back(random_values<T>(r, r() % 8 == 0 ? r() % 5000 : r() % 2 ? r() % 70 : r() % 700));
  }
  store.init(keys, initial);
  reference.init(keys, initial);
  for (int step = 0; step < 5; ++step) {
    std::vector<std::string> some;
    lists<T> gradients, found;
    std::size_t const sources = 1 + (r() % 4 == 0 ? r() % 20 : r() % 4),
                      outputs = 1 + (r() % 4 == 0 ? r() % 14 : r() % 3);
    for (std::size_t k = 0; k < keys.size(); ++k) {
      if (r() % 3 == 0) continue;
      some.push_back(keys[k]);
      gradients.emplace_back();
      for (std::size_t s = 0; s < sources; ++s) gradients.back().push_back(random_values<T>(r, initial[k].size()));
      found.emplace_back(outputs, std::vector<T>(initial[k].size()));
    }
    if (some.empty()) continue;
    lists<T> expected = found;
    auto const what = static_cast<call>(r() % 3);
    carry_out(what, reference, some, gradients, expected);
    reference.wait();
    if (r() % 3 == 0) {
      carry_out(what, store, some, gradients, found);
      store.wait();
    } else {
      device_arrays<T> arrays(devices, r);
      auto const sent = arrays(gradients);
      auto const received = arrays(found);
      carry_out(what, store, some, sent, received);
      if (r() % 2 == 0) store.wait();
      for (std::size_t k = 0; k < some.size(); ++k)
        for (std::size_t o = 0; o < outputs; ++o)
          if (!found[k][o].empty()) found[k][o] = pp::to_vector(received[k][o]);
      store.wait();
    }
    for (std::size_t k = 0; k < some.size(); ++k)
      for (std::size_t o = 0; o < outputs; ++o) {
        INFO("step " << step << ", key " << some[k] << ", output " << o << ", " << sources << " sources");
        require_close(found[k][o], expected[k][o], tolerance);
      }
  }
}

/// The parameters of a model after some updates. Gradients lie in the model's own memory; one parameter is frozen.
template <class D, class Rule>
std::vector<std::vector<float>> trained_model(std::vector<D> const& devices, Rule const& rule, bool has_average,
                                              unsigned seed) {
  std::mt19937 r(seed);
  pp::kv_store store{devices, rule};
  pp::parameter_store model{store};
  std::vector<std::string> names;
  std::vector<std::size_t> sizes;
  for (std::size_t k = 0, n = 1 + r() % 10; k < n; ++k) {
    names.push_back("p" + std::to_string(k));
    sizes.push_back(1 + (r() % 5 == 0 ? r() % 5000 : r() % 300));
    model.add(names.back(), random_values<float>(r, sizes.back()));
  }
  for (int t = 0; t < 5; ++t) {
    for (std::size_t k = 0; k < names.size(); ++k) {
      if (!model.requires_grad(names[k])) continue;
      for (std::size_t n = 0; n < devices.size(); ++n)
        pp::copy(random_values<float>(r, sizes[k]), model.grad(names[k], n));
    }
    model.update_all();
    if (t == 2) model.freeze(names[r() % names.size()]);
    if (has_average && t == 3) {
      model.swap("ema");
      model.swap("ema");
    }
  }
  std::vector<std::vector<float>> values;
  for (auto const& name : names) {
    values.push_back(pp::to_vector(model.value(name, 0)));
    for (std::size_t n = 1; n < devices.size(); ++n) REQUIRE(pp::to_vector(model.value(name, n)) == values.back());
  }
  return values;
}

void train_at_random(unsigned seed, auto const& rule, bool has_average) {
  int const count = 1 + static_cast<int>(seed % 4);
  auto const found = trained_model(logical_devices(count), rule, has_average, seed);
  auto const expected = trained_model(pp::cpu_devices<pp::serial_system>(count), rule, has_average, seed);
  for (std::size_t k = 0; k < found.size(); ++k) require_close(found[k], expected[k], 1e-5);
}

}  // namespace

TEST_CASE("random calls of a store on CUDA devices do what they do on CPU devices, gradients compressed", "[cuda]") {
  for_each_seed([](unsigned seed) {
    push_and_pull_at_random<float>(seed, 1e-6, update::sgd{0.125}, pp::compress::two_bit{}, pp::reduce::mean{});
  });
}

TEST_CASE("random calls of a store on CUDA devices do what they do on CPU devices, of bfloat16 with masters",
          "[cuda]") {
  for_each_seed([](unsigned seed) {
    push_and_pull_at_random<pp::bfloat16>(
        seed, 1e-2, update::clip_global_norm(2) | update::momentum{.learning_rate = 0.1}, pp::element::master<float>{});
  });
}

TEST_CASE("random calls of a store on CUDA devices do what they do on CPU devices, of integers", "[cuda]") {
  for_each_seed(
      [](unsigned seed) { push_and_pull_at_random<std::int32_t>(seed, 0, pp::no_updater{}, pp::reduce::max{}); });
}

TEST_CASE("random models on CUDA devices learn what they learn on CPU devices", "[cuda]") {
  for_each_seed([](unsigned seed) {
    train_at_random(seed, update::adam{0.01} | update::ema(0.5), true);
    train_at_random(seed, update::clip_global_norm(1) | update::lamb{.learning_rate = 0.01}, false);
  });
}
