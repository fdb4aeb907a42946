/// @file
/// DJL's parameter store: the defects of its defect table do not occur here.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <map>
#include <pushpull/pushpull.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"

using namespace pushpull;

namespace {

using device_list = std::vector<cpu_device<>>;

/// One rule for all cases: skipped if a gradient is no number, clipped, then momentum.
auto rule(double rate, double momentum = 0, double limit = std::numeric_limits<double>::infinity()) {
  return update::apply_if_finite{} | update::clip_value(limit) |
         update::momentum{.learning_rate = rate, .momentum = momentum};
}

/// A model of one parameter "w" of five elements.
struct model {
  decltype(kv_store{device_list(), rule(1)}) store;
  parameter_store<decltype(store)> parameters{store};
  std::vector<float> master = std::vector<float>(5);

  model(device_list const& on, decltype(rule(1)) const& with) : store{on, with} { parameters.add("w", master); }
  void set_gradients(float x) {
    for (std::size_t n = 0; n < parameters.devices().size(); ++n) set_gradient(n, x);
  }
  void set_gradient(std::size_t n, float x) { std::fill_n(parameters.grad("w", n).data(), 5, x); }
  float weight(std::size_t n) { return parameters.value("w", n).data()[4]; }
};

/// A Store of one device that records the keys of its calls.
struct recording_store {
  using value_type = float;
  using device_type = cpu_device<>;
  using key_type = std::string;
  device_list all = cpu_devices(1);
  std::map<std::string, std::vector<float>> values;
  std::vector<std::string> calls;

  device_list const& devices() const { return all; }
  void init(std::string const& key, auto const& value) { values[key] = to_vector(value); }
  void push(std::string const& key, auto const&) { calls.push_back("push " + key); }
  void pull(std::string const& key, auto&& outputs) {
    for (auto const& out : outputs)
      copy(values[key], tensor_view(out.data(), shape{static_cast<std::int64_t>(out.size())}));
  }
  void pushpull(std::string const& key, auto const&, auto&& outputs) {
    calls.push_back(key);
    pull(key, outputs);
  }
  void broadcast(std::string const& key, auto const& value, auto&& outputs) {
    init(key, value);
    pull(key, outputs);
  }
  void wait() {}
};
static_assert(Store<recording_store>);

}  // namespace

TEST_CASE("A8-3, A8-4: a step counts once, and momentum is the same on all devices", "[train][djl]") {
  for (int const count : {1, 2, 4}) {
    model m(cpu_devices(count), rule(0.1, 0.9));
    float velocity = 0, expected = 0;
    for (int step = 1; step <= 3; ++step) {
      m.set_gradients(2.0F / static_cast<float>(count));  // of two devices 1 each
      m.parameters.update_all();
      velocity = 0.9F * velocity + 2;
      expected -= 0.1F * velocity;
      for (std::size_t n = 0; n < static_cast<std::size_t>(count); ++n) CHECK(m.weight(n) == Approx(expected));
      for (std::size_t n = 1; n < static_cast<std::size_t>(count); ++n)
        CHECK(to_vector(m.parameters.value("w", n)) == to_vector(m.parameters.value("w", std::size_t{0})));
      CHECK(m.store.steps("w") == step);
    }
  }
}

TEST_CASE("A8-2: threads that touch a parameter first get one mirror per device", "[train][djl]") {
  for (int round = 0; round < 20; ++round) {
    model m(cpu_devices(3), rule(1));
    std::array<std::array<float*, 3>, 6> seen{};
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < seen.size(); ++t)
      threads.emplace_back([&, t] {
        for (std::size_t n = 0; n < 3; ++n) seen[t][(n + t) % 3] = m.parameters.value("w", (n + t) % 3).data();
      });
    for (auto& thread : threads) thread.join();
    for (auto const& pointers : seen) CHECK(pointers == seen[0]);
    CHECK(std::set<float*>(seen[0].begin(), seen[0].end()).size() == 3);
  }
}

TEST_CASE("A8-5, A8-6: mirrors are those of their devices, and training reaches the master", "[train][djl]") {
  for (std::size_t const asked_first : {std::size_t{0}, std::size_t{1}, std::size_t{2}}) {
    device_list const on{cpu_device<>(4), cpu_device<>(0), cpu_device<>(2)};  // neither ascending nor descending
    model m(on, rule(1));
    CHECK(m.parameters.value("w", on[asked_first]).device() == on[asked_first]);
    for (std::size_t n = 0; n < 3; ++n) {
      CHECK(m.parameters.value("w", on[n]).device() == on[n]);
      CHECK(m.parameters.value("w", on[n]).data() == m.parameters.value("w", n).data());
    }
    m.set_gradients(1);
    m.parameters.update_all();
    m.parameters.sync_master();
    CHECK(m.master == std::vector<float>(5, -3.0F));
  }
}

TEST_CASE("A8-7: freezing reaches all mirrors, and what was added frozen gets gradients", "[train][djl]") {
  model m(cpu_devices(2), rule(1));
  m.parameters.add("late", std::vector<float>(3), {.requires_grad = false});
  m.set_gradients(1);
  m.parameters.update_all();
  CHECK(m.weight(1) == Approx(-2));
  m.parameters.freeze("w");
  m.parameters.unfreeze("late");
  for (std::size_t n = 0; n < 2; ++n) std::fill_n(m.parameters.grad("late", n).data(), 3, 0.5F);
  m.parameters.update_all();
  for (std::size_t n = 0; n < 2; ++n) {
    CHECK(m.weight(n) == Approx(-2));
    CHECK(m.parameters.value("late", n).data()[2] == Approx(-1));
  }
  m.parameters.unfreeze("w");
  m.set_gradients(1);
  m.parameters.freeze("late");
  m.parameters.update_all();
  CHECK(m.weight(0) == Approx(-4));
}

TEST_CASE("A8-8: a schedule has the same value for an update whenever it is asked", "[train][djl]") {
  lr_schedule::multi_step_decay const schedule{.base = 1, .milestones = {2, 5}, .gamma = 0.5};
  std::vector<double> forward, backward;
  for (std::int64_t t = 1; t <= 8; ++t) forward.push_back(schedule(t));
  for (std::int64_t t = 8; t >= 1; --t) backward.insert(backward.begin(), schedule(t));
  CHECK(forward == backward);
  CHECK(forward == std::vector<double>{1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25});  // strictly after its step
}

TEST_CASE("A8-9, A8-11: a device named twice, an unknown one and an unknown parameter are typed errors",
          "[train][djl]") {
  CHECK_THROWS_AS(model({cpu_device<>(1), cpu_device<>(0), cpu_device<>(1)}, rule(1)), duplicate_device);
  model m(cpu_devices(2), rule(1));
  CHECK_THROWS_AS(m.parameters.value("w", cpu_device<>(2)), unknown_device);
  CHECK_THROWS_AS(m.parameters.grad("w", std::size_t{2}), unknown_device);
  CHECK_THROWS_AS(m.parameters.value("v", std::size_t{0}), unknown_key);
  CHECK_THROWS_AS(m.parameters.add("w", std::vector<float>(5)), duplicate_key);
  m.set_gradients(1);
  m.parameters.update_all();
  CHECK(m.weight(1) == Approx(-2));
}

TEST_CASE("A8-10: parameters take part in the order of their registration, in every step", "[train][djl]") {
  recording_store store;
  parameter_store parameters{store};
  for (std::string const name : {"z", "b", "a", "y"}) parameters.add(name, std::vector<float>(2));
  for (int step = 0; step < 3; ++step) {
    store.calls.clear();
    parameters.update_all();
    CHECK(store.calls == std::vector<std::string>{"z", "b", "a", "y"});
  }
}

TEST_CASE("A8-14: gradients are clipped from above and from below, on all devices", "[train][djl]") {
  for (float const x : {7.0F, -7.0F}) {
    model m(cpu_devices(2), rule(1, 0, 0.5));
    m.set_gradients(x);
    m.parameters.update_all();
    CHECK(m.weight(0) == Approx(x > 0 ? -0.5 : 0.5));
    CHECK(m.weight(1) == Approx(x > 0 ? -0.5 : 0.5));
  }
}

TEST_CASE("A8-15: gradients that cancel are a step, and those that are no numbers are found in every step",
          "[train][djl]") {
  model m(cpu_devices(2), rule(1, 0.5));
  m.set_gradient(0, 1);
  m.set_gradient(1, -1);
  m.parameters.update_all();
  CHECK(m.store.steps("w") == 1);
  m.set_gradients(1);
  m.parameters.update_all();
  m.set_gradient(1, std::nanf(""));
  m.parameters.update_all();
  CHECK(m.store.steps("w") == 2);
  CHECK(m.weight(0) == Approx(-2));
}

TEST_CASE("A8-16: pulls without a push return the same, and gradients are kept", "[train][djl]") {
  kv_store store{cpu_devices(2), rule(1)};
  store.init("w", std::vector<float>(4, 1.0F));
  std::vector<std::vector<float>> const gradients(2, std::vector<float>(4, 0.25F));
  store.push("w", gradients);
  std::vector<float> first(4), second(4);
  store.pull("w", first);
  store.pull("w", second);
  store.wait();
  CHECK(first == std::vector<float>(4, 0.5F));
  CHECK(second == first);
  CHECK(gradients[0] == std::vector<float>(4, 0.25F));
}
