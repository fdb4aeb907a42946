/// @file
/// parameter_store: mirrors and gradients of whole models.
#include <algorithm>
#include <pushpull/pushpull.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

/// A store that offers what the concept Store asks for and nothing else.
class plain_store {
 public:
  using value_type = float;
  using device_type = pp::cpu_device<>;
  using key_type = std::string;

  explicit plain_store(std::vector<device_type> const& devices) : store_{devices, update::adam{.learning_rate = 0.1}} {}
  std::vector<device_type> const& devices() const { return store_.devices(); }
  void init(std::string const& key, auto const& value) { store_.init(key, value); }
  void push(std::string const& key, auto const& gradients) { store_.push(key, gradients); }
  void pull(std::string const& key, auto&& outputs) { store_.pull(key, outputs); }
  void pushpull(std::string const& key, auto const& gradients, auto&& outputs) {
    store_.pushpull(key, gradients, outputs);
  }
  void broadcast(std::string const& key, auto const& value, auto&& outputs) { store_.broadcast(key, value, outputs); }
  void wait() { store_.wait(); }

 private:
  pp::kv_store<float, pp::cpu_device<>, update::adam> store_;
};
static_assert(pp::Store<plain_store> && !pp::ResidentStore<plain_store>);

void fill(auto const& view, float x) { std::fill_n(view.data(), view.size(), x); }

/// Trains three parameters for `steps` steps with gradients whose sum over the devices is the same for any number.
std::vector<std::vector<float>> train(auto& parameters, std::size_t devices, int steps) {
  for (int t = 1; t <= steps; ++t) {
    for (std::size_t n = 0; n < devices; ++n)
      for (std::string const name : {"a", "b"})
        fill(parameters.grad(name, n), static_cast<float>(t % 3) / static_cast<float>(devices));
    parameters.update_all();
    for (std::string const name : {"a", "b", "statistics"})
      for (std::size_t n = 1; n < devices; ++n)
        REQUIRE(pp::to_vector(parameters.value(name, n)) == pp::to_vector(parameters.value(name, std::size_t{0})));
  }
  std::vector<std::vector<float>> results;
  for (std::string const name : {"a", "b", "statistics"})
    results.push_back(pp::to_vector(parameters.value(name, std::size_t{0})));
  return results;
}

void add_parameters(auto& parameters, std::vector<float>& a, std::vector<float> const& b) {
  parameters.add("a", pp::tensor_view(a.data(), pp::shape{100, 41}));
  parameters.add("statistics", std::vector<float>(5, 0.5F), {.requires_grad = false});
  parameters.add("b", b);
}

}  // namespace

TEST_CASE("parameter_store gives equal results for 1, 2 and 4 devices and over a plain Store", "[parameter_store]") {
  std::vector<std::vector<float>> first;
  for (int const count : {1, 2, 4}) {
    std::vector<float> a(4100, 1.0F);
    std::vector<float> const b(3, 2.0F);
    pp::kv_store store{pp::cpu_devices(count), update::adam{.learning_rate = 0.1}};
    pp::parameter_store parameters{store};
    add_parameters(parameters, a, b);
    auto const results = train(parameters, static_cast<std::size_t>(count), 7);
    if (first.empty()) first = results;
    REQUIRE(results == first);
    REQUIRE(store.steps("a") == 7);  // once per step, whatever the number of devices
    REQUIRE(a[0] == 1.0F);
    parameters.close();
    REQUIRE(a == first[0]);
    REQUIRE(b[0] == 2.0F);

    std::vector<float> c(4100, 1.0F);
    plain_store plain(pp::cpu_devices(count));
    pp::parameter_store fallback{plain};
    add_parameters(fallback, c, b);
    REQUIRE(train(fallback, static_cast<std::size_t>(count), 7) == first);
  }
}

TEST_CASE("parameter_store places each mirror at its device, whoever asks first", "[parameter_store]") {
  std::vector<pp::cpu_device<>> const devices{pp::cpu_device<>(3), pp::cpu_device<>(1)};
  pp::kv_store store{devices, update::sgd{1.0}};
  pp::parameter_store parameters{store};
  parameters.add("w", std::vector<float>(10, 4.0F));
  auto const second = parameters.value("w", devices[1]);
  REQUIRE(second.device() == devices[1]);
  REQUIRE(second.data() == parameters.value("w", std::size_t{1}).data());
  REQUIRE(second.data() != parameters.value("w", devices[0]).data());
  REQUIRE(second.data()[9] == 4.0F);
}

TEST_CASE("parameters freeze and unfreeze at any time", "[parameter_store]") {
  pp::kv_store store{pp::cpu_devices(2), update::momentum{.learning_rate = 1}};
  pp::parameter_store parameters{store};
  for (std::string const name : {"a", "b", "c"}) parameters.add(name, std::vector<float>(100), {name != "c"});
  auto const step = [&] {
    for (std::string const name : {"a", "b", "c"})
      if (parameters.requires_grad(name))
        for (std::size_t n = 0; n < 2; ++n) fill(parameters.grad(name, n), 0.5F);
    parameters.update_all();
  };
  auto const value = [&](char const* name) { return parameters.value(name, std::size_t{1}).data()[99]; };
  step();
  parameters.freeze("a");
  REQUIRE_THROWS_AS(parameters.grad("a", std::size_t{0}), pp::invalid_argument);
  step();
  REQUIRE(value("a") == Approx(-1));
  REQUIRE(value("b") == Approx(-2.9));
  REQUIRE(store.steps("a") == 1);
  parameters.unfreeze("a");
  parameters.unfreeze("c");
  parameters.add("late", std::vector<float>(3));
  step();
  REQUIRE(value("a") == Approx(-2.9));  // its momentum is that of its own first step
  REQUIRE(value("b") == Approx(-2.9 - 2.71));
  REQUIRE(value("c") == Approx(-1));
  REQUIRE(store.steps("c") == 1);
  REQUIRE(store.steps("b") == 3);
  REQUIRE(parameters.value("late", std::size_t{1}).data()[2] == 0);
  std::vector<float> const ones(100, 1.0F);
  store.push("b", ones).wait();  // apart from its neighbours: mirrors follow
  REQUIRE(value("b") == Approx(-2.9 - 2.71 - 3.439));
  step();
  REQUIRE(store.steps("b") == 5);
  REQUIRE(store.steps("a") == 3);
}

TEST_CASE("parameter_store's errors leave it as it was", "[parameter_store][errors]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0}};
  pp::parameter_store parameters{store};
  parameters.add("w", std::vector<float>(3, 1.0F));
  REQUIRE_THROWS_AS(parameters.add("w", std::vector<float>(3)), pp::duplicate_key);
  REQUIRE_THROWS_AS(parameters.value("v", std::size_t{0}), pp::unknown_key);
  REQUIRE_THROWS_AS(parameters.value("w", std::size_t{2}), pp::unknown_device);
  REQUIRE_THROWS_AS(parameters.value("w", pp::cpu_device<>(7)), pp::unknown_device);
  REQUIRE_THROWS_AS(parameters.freeze("v"), pp::unknown_key);
  REQUIRE(parameters.size() == 1);
  fill(parameters.grad("w", std::size_t{1}), 1.0F);
  parameters.update_all();
  REQUIRE(parameters.value("w", std::size_t{0}).data()[2] == 0.0F);
}

TEST_CASE("several threads may ask for mirrors first", "[parameter_store]") {
  pp::kv_store store{pp::cpu_devices(4), update::sgd{1.0}};
  pp::parameter_store parameters{store};
  parameters.add("w", std::vector<float>(1000, 3.0F));
  std::vector<float> seen(4);
  std::vector<std::thread> threads;
  for (std::size_t n = 0; n < 4; ++n) threads.emplace_back([&, n] { seen[n] = parameters.value("w", n).data()[999]; });
  for (auto& thread : threads) thread.join();
  REQUIRE(seen == std::vector<float>(4, 3.0F));
}

TEST_CASE("a name that is a key of the store is refused, and nothing else suffers", "[parameter_store]") {
  pp::kv_store store{pp::cpu_devices(1), update::sgd{1.0}};
  pp::parameter_store parameters{store};
  std::vector<float> w(10, 1.0F);
  store.init("taken", w);
  REQUIRE_THROWS_AS(parameters.add("taken", w), pp::duplicate_key);
  parameters.add("later", w);
  parameters.add("w", w);
  store.init("later", w);
  REQUIRE_THROWS_AS(parameters.value("w", 0), pp::duplicate_key);
  REQUIRE(parameters.size() == 1);
  fill(parameters.grad("w", 0), 0.5F);
  parameters.update_all();
  parameters.close();
  REQUIRE(w == std::vector<float>(10, 0.5F));
}

TEST_CASE("values go in and out in the masters' precision", "[parameter_store]") {
  pp::kv_store<pp::bfloat16, pp::cpu_device<>, update::sgd, pp::element::master<float>> store{pp::cpu_devices(2),
                                                                                              update::sgd{1.0}};
  pp::parameter_store parameters{store};
  std::vector<float> w(100, 1.001F), statistics(3, 0.001F);
  std::vector<double> wide(5, 0.1);
  parameters.add("w", w);
  parameters.add("statistics", statistics, {.requires_grad = false});
  parameters.add("wide", wide);
  for (std::size_t n = 0; n < 2; ++n)
    for (std::string const name : {"w", "wide"})
      std::fill_n(parameters.grad(name, n).data(), parameters.grad(name, n).size(),
                  pp::convert<pp::bfloat16>(0.0078125F));
  parameters.update_all();
  *parameters.value("statistics", 0).data() = pp::convert<pp::bfloat16>(2.0F);
  parameters.sync_master();
  REQUIRE(w == std::vector<float>(100, 1.001F - 0.015625F));
  REQUIRE(wide[4] == double{0.1F - 0.015625F});
  REQUIRE(statistics[0] == 2.0F);
}

TEST_CASE("a key that was pushed alone keeps a step count of its own", "[parameter_store]") {
  std::vector<float> const w(70, 1.0F), g(70, 0.5F);
  auto const rule = update::adam{.learning_rate = 0.1, .epsilon = 0.1};
  pp::kv_store store{pp::cpu_devices(2), rule}, alone{pp::cpu_devices(1), rule};
  pp::parameter_store parameters{store};
  std::vector<std::string> const names{"a", "b", "c"};
  for (auto const& name : names) {
    parameters.add(name, w);
    alone.init(name, w);
  }
  for (auto const& name : names)  // now that all are in one arena
    for (std::size_t n = 0; n < 2; ++n) fill(parameters.grad(name, n), 0.25F);
  parameters.update_all();
  for (int t = 0; t < 3; ++t) store.push("b", g);
  parameters.update_all();
  std::vector<float> out(70);
  for (auto const& [name, steps] : {std::pair{"a", 2}, {"b", 5}, {"c", 2}}) {
    for (int t = 0; t < steps; ++t) alone.pushpull(name, g, out).wait();
    REQUIRE(store.steps(name) == steps);
    REQUIRE(pp::to_vector(parameters.value(name, 1)) == out);
  }
}
