/// @file
/// Steps that are left out: dynamic loss scaling and apply_if_finite.
#include <cmath>
#include <cstdint>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using strings = std::vector<std::string>;
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

template <class Store>
std::vector<float> value(Store& store, std::string const& key, std::size_t size) {
  std::vector<float> out(size);
  store.pull(key, out).wait();
  return out;
}

auto scaled_adam(update::dynamic_loss_scale scale) { return scale | update::adam{.learning_rate = 0.1}; }

/// torch.amp.GradScaler, as its documentation states it.
struct grad_scaler {
  double scale, growth, backoff;
  std::int64_t interval, good = 0;

  void update(bool finite) {
    if (!finite) {
      scale *= backoff;
      good = 0;
    } else if (++good == interval) {
      scale *= growth;
      good = 0;
    }
  }
};

}  // namespace

TEST_CASE("a loss scale backs off and grows as PyTorch's GradScaler, and the rule sees unscaled gradients",
          "[loss_scale]") {
  for (int const devices : {1, 2, 4, 7})
    for (std::size_t const size : {1, 67, 5003}) {
      pp::kv_store store{pp::cpu_devices(devices), scaled_adam({.initial = 1024, .interval = 3}), pp::synchronous{}};
      pp::kv_store plain{pp::cpu_devices(devices), update::adam{.learning_rate = 0.1}, pp::synchronous{}};
      std::vector<float> const w(size, 1);
      store.init("w", w);
      plain.init("w", w);
      grad_scaler scaler{1024, 2, 0.5, 3};
      std::int64_t steps = 0;
      for (int i = 0; i < 20; ++i) {
        bool const finite = i % 7 != 2;
        std::vector<float> gradient(size);
        for (std::size_t j = 0; j < size; ++j) gradient[j] = std::sin(static_cast<float>(j) + static_cast<float>(i));
        auto scaled = gradient;
        for (float& x : scaled) x *= static_cast<float>(scaler.scale);  // a power of 2: exact
        if (!finite) scaled[size * 2 / 3] = i % 2 == 0 ? infinity : not_a_number;
        auto const before = value(store, "w", size);
        store.push("w", scaled).wait();
        if (finite) {
          plain.push("w", gradient).wait();
          ++steps;
        } else {
          REQUIRE(value(store, "w", size) == before);
        }
        scaler.update(finite);
        REQUIRE(store.steps("w") == steps);
        for (int n = 0; n < devices; ++n) REQUIRE(*store.loss_scale(static_cast<std::size_t>(n)) == scaler.scale);
        REQUIRE(value(store, "w", size) == value(plain, "w", size));
        REQUIRE(store.state("w", "exp_avg_sq") == plain.state("w", "exp_avg_sq"));
      }
      REQUIRE(store.carried<update::dynamic_loss_scale>()[2] == static_cast<double>(scaler.good));
    }
}

TEST_CASE("one bad gradient leaves out the whole step: all keys of the call", "[loss_scale]") {
  for (int const devices : {1, 3}) {
    pp::kv_store store{pp::cpu_devices(devices), scaled_adam({.initial = 4}), pp::synchronous{}};
    strings const keys{"a", "b", "c"};
    store.init(keys, std::vector(3, std::vector<float>(100, 1)));
    std::vector gradients(3, std::vector(2, std::vector<float>(100, 1)));
    gradients[1][1][99] = -infinity;
    std::vector outs(3, std::vector<float>(100));
    store.pushpull(keys, gradients, outs).wait();
    for (auto const& out : outs) REQUIRE(out == std::vector<float>(100, 1));  // outputs are written all the same
    for (auto const& key : keys) REQUIRE(store.steps(key) == 0);
    store.push("a", gradients[0]).wait();
    REQUIRE(store.steps("a") == 1);
  }
}

TEST_CASE("a loss scale stands before stages with phases of their own", "[loss_scale]") {
  auto const rule = update::dynamic_loss_scale{.initial = 8} | update::clip_global_norm(1) | update::sgd{1};
  pp::kv_store store{pp::cpu_devices(2), rule, pp::synchronous{}};
  store.init(strings{"a", "b"}, std::vector{std::vector<float>{0}, std::vector<float>{0}});
  store.push(strings{"a", "b"}, std::vector{std::vector<float>{24}, std::vector<float>{32}}).wait();
  REQUIRE(value(store, "a", 1)[0] == Approx(-0.6));
  REQUIRE(value(store, "b", 1)[0] == Approx(-0.8));
  store.push(strings{"a", "b"}, std::vector{std::vector<float>{not_a_number}, std::vector<float>{32}}).wait();
  REQUIRE(value(store, "b", 1)[0] == Approx(-0.8));
  REQUIRE(*store.loss_scale(0) == 4);
}

TEST_CASE("with per-tensor norms behind it a left-out step changes nothing", "[loss_scale]") {
  auto const rule = update::dynamic_loss_scale{.initial = 2} | update::lamb{};
  for (int const devices : {1, 3}) {
    pp::kv_store store{pp::cpu_devices(devices), rule, pp::synchronous{}},
        clean{pp::cpu_devices(1), rule, pp::synchronous{}};
    strings const keys{"a", "b"};
    std::vector const w(2, std::vector<float>(3001, 0.5F)), g(2, std::vector<float>(3001, 0.25F));
    auto bad = g;
    bad[0][3000] = not_a_number;
    for (auto* s : {&store, &clean}) s->init(keys, w);
    store.push(keys, bad).wait();
    store.set_carried_numbers(clean.carried_numbers());
    for (auto* s : {&store, &clean}) s->push(keys, g).wait();
    REQUIRE(value(store, "b", 3001) == value(clean, "b", 3001));
  }
}

TEST_CASE("a scale stays where it and its inverse are normal floats, however long gradients are good", "[loss_scale]") {
  pp::kv_store store{pp::cpu_devices(1), scaled_adam({.initial = 0x1p125, .growth = 3, .interval = 1}),
                     pp::synchronous{}};
  store.init("w", std::vector<float>(3));
  for (int i = 0; i < 3; ++i) {
    store.push("w", std::vector<float>(3)).wait();
    REQUIRE(*store.loss_scale(0) == 0x1p126);
  }
}

TEST_CASE("a scale goes no lower than its minimum, and training goes on when gradients are good again",
          "[loss_scale]") {
  pp::kv_store store{pp::cpu_devices(2), scaled_adam({.initial = 8, .interval = 2}), pp::synchronous{}};
  store.init("w", std::vector<float>(3, 1));
  for (int i = 0; i < 200; ++i) store.push("w", std::vector<float>(3, not_a_number)).wait();
  REQUIRE(*store.loss_scale(1) == 1);
  store.push("w", std::vector<float>(3, 1)).wait();
  for (float const x : value(store, "w", 3)) REQUIRE(x == Approx(0.9));
  store.push("w", std::vector<float>(3, 1)).wait();
  REQUIRE(*store.loss_scale(1) == 2);
  store.set_hyperparameters(scaled_adam({.initial = 0x1p-3, .minimum = 0x1p-4}));
  for (int i = 0; i < 200; ++i) store.push("w", std::vector<float>(3, infinity)).wait();
  REQUIRE(*store.loss_scale(0) == 0x1p-4);
  store.set_hyperparameters(scaled_adam({.interval = 1}));  // whose minimum is 1
  store.push("w", std::vector<float>(3, infinity)).wait();
  REQUIRE(*store.loss_scale(0) == 0x1p-4);
  store.push("w", std::vector<float>(3, 1)).wait();
  REQUIRE(*store.loss_scale(0) == 1);
}

TEST_CASE("a scale that a broken checkpoint brings makes no gradient infinite", "[loss_scale]") {
  pp::kv_store store{pp::cpu_devices(1), scaled_adam({}), pp::synchronous{}};
  store.init("w", std::vector<float>(3, 1));
  for (double const scale : {0.0, 1e-300, 0x1p-140}) {
    store.set_carried_numbers(std::vector<double>{0, scale, 0});
    store.push("w", std::vector<float>{0, 1e-40F, 1e-3F}).wait();
    for (float const x : value(store, "w", 3)) REQUIRE(std::isfinite(x));
  }
}

TEST_CASE("counts that a broken checkpoint brings let no bad gradient in, and do not stop a scale", "[loss_scale]") {
  for (double const count : {double{not_a_number}, -1e300, -1.0}) {
    pp::kv_store guarded{pp::cpu_devices(1), update::apply_if_finite{2} | update::sgd{1}, pp::synchronous{}};
    guarded.init("w", std::vector<float>(3, 1));
    guarded.set_carried_numbers(std::vector<double>{0, count, count});
    for (int i = 0; i < 2; ++i) {
      guarded.push("w", std::vector<float>(3, not_a_number)).wait();
      REQUIRE(value(guarded, "w", 3) == std::vector<float>(3, 1));
    }
    guarded.push("w", std::vector<float>(3, infinity)).wait();  // the third
    REQUIRE_FALSE(std::isfinite(value(guarded, "w", 3)[0]));

    pp::kv_store scaled{pp::cpu_devices(1), scaled_adam({.initial = 8, .interval = 2}), pp::synchronous{}};
    scaled.init("w", std::vector<float>(3, 1));
    scaled.set_carried_numbers(std::vector<double>{0, 8, count});
    for (int i = 0; i < 2; ++i) scaled.push("w", std::vector<float>(3, 1)).wait();
    REQUIRE(*scaled.loss_scale(0) == 16);
  }
}

TEST_CASE("apply_if_finite leaves out so many steps in a row, then makes one", "[loss_scale]") {
  pp::kv_store store{pp::cpu_devices(2), update::apply_if_finite{2} | update::sgd{1}, pp::synchronous{}};
  store.init("w", std::vector<float>{1, 2});
  std::vector<float> const bad{infinity, 1}, good{1, 1};
  auto const push = [&](std::vector<float> const& g) { store.push("w", g).wait(); };
  push(bad);
  push(good);
  push(bad);
  push(bad);
  REQUIRE(value(store, "w", 2) == std::vector<float>{0, 1});
  REQUIRE(store.steps("w") == 1);
  auto const numbers = store.carried<update::apply_if_finite>();
  REQUIRE(numbers[1] == 2);
  REQUIRE(numbers[2] == 3);
  push(bad);
  REQUIRE(value(store, "w", 2) == std::vector<float>{-infinity, 0});
  REQUIRE(store.steps("w") == 2);
}

TEST_CASE("keys that lost different steps no longer share a clock", "[loss_scale][parameter_store]") {
  using store_type = pp::kv_store<float, pp::cpu_device<>, decltype(scaled_adam({})), pp::synchronous>;
  store_type store{pp::cpu_devices(2), scaled_adam({.initial = 1})};
  pp::parameter_store parameters(store);
  for (auto const* name : {"a", "b"}) parameters.add(name, std::vector<float>(70, 1));
  auto const fill = [&](float x) {
    for (auto const* name : {"a", "b"})
      for (std::size_t n = 0; n < 2; ++n)
        for (std::size_t i = 0; i < 70; ++i) parameters.grad(name, n).data()[i] = x;
  };
  fill(1);
  parameters.update_all();
  store.push("a", std::vector<float>(70, not_a_number)).wait();
  store.push("b", std::vector<float>(70, 1)).wait();
  fill(1);
  parameters.update_all();
  REQUIRE(store.steps("a") == 2);
  REQUIRE(store.steps("b") == 3);
  fill(infinity);
  parameters.update_all();
  REQUIRE(store.steps("a") == 2);
  REQUIRE(store.steps("b") == 3);
}

TEST_CASE("threads may push to a store whose steps share a scale", "[loss_scale][threads]") {
  pp::kv_store store{pp::cpu_devices(2), scaled_adam({.initial = 65536, .interval = 1 << 30})};
  for (auto const* key : {"a", "b", "c"}) store.init(key, std::vector<float>(5000, 1));
  std::vector<std::thread> threads;
  std::vector<float> const good(5000, 1), bad(5000, not_a_number);
  for (char const* const key : {"a", "b", "c"})
    threads.emplace_back([&, key] {
      for (int i = 0; i < 40; ++i) store.push(key, i % 10 == 9 ? bad : good);
    });
  for (auto& thread : threads) thread.join();
  store.wait();
  REQUIRE(*store.loss_scale(0) == 65536 * 0x1p-12);
  for (auto const* key : {"a", "b", "c"}) REQUIRE(store.steps(key) == 36);
}

TEST_CASE("bad scales are refused", "[loss_scale][errors]") {
  using scale = update::dynamic_loss_scale;
  for (scale const bad :
       {scale{.initial = 0}, scale{.growth = 1}, scale{.backoff = 1}, scale{.backoff = 0}, scale{.interval = 0},
        scale{.initial = infinity}, scale{.initial = 0.5}, scale{.minimum = 0}, scale{.initial = 4, .maximum = 2},
        scale{.initial = 0x1p127}, scale{.growth = not_a_number}, scale{.minimum = 0x1p-127}})
    REQUIRE_THROWS_AS((pp::kv_store{pp::cpu_devices(1), scaled_adam(bad)}), pp::invalid_argument);
  pp::kv_store store{pp::cpu_devices(1), scaled_adam({}), pp::synchronous{}};
  REQUIRE_THROWS_AS(store.set_carried_numbers(std::vector<double>(1)), pp::shape_mismatch);
  REQUIRE(*store.loss_scale(0) == 65536);
}
