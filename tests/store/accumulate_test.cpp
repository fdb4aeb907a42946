/// @file
/// Gradient accumulation over micro-batches.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using strings = std::vector<std::string>;

std::vector<float> gradient(std::size_t size, int i) {
  std::vector<float> g(size);
  for (std::size_t j = 0; j < size; ++j)
    g[j] = 0.125F * static_cast<float>((static_cast<int>(j % 64) * 7 + i * 5) % 23 - 11);
  return g;  // sums of these are exact
}

template <class Store>
std::vector<float> value(Store& store, std::string const& key, std::size_t size) {
  std::vector<float> out(size);
  store.pull(key, out);
  return out;
}

template <class T = float, class Rule, class... P>
auto make(int devices, Rule const& rule, P const&... policies) {
  return pp::kv_store<T, pp::cpu_device<>, Rule, pp::synchronous, P...>(pp::cpu_devices(devices), rule,
                                                                        pp::synchronous{}, policies...);
}

}  // namespace

TEST_CASE("every n-th push updates with the sum of n, the others leave the key alone", "[accumulate]") {
  for (int const devices : {1, 2, 4, 7})
    for (std::size_t const size : {0, 1, 67, 5003})
      for (int const sources : {1, 3}) {
        auto store = make(devices, update::adam{}, pp::accumulate{3});
        auto plain = make(1, update::adam{});
        std::vector<float> const w(size, 1);
        store.init("w", w);
        plain.init("w", w);
        for (int step = 0; step < 4; ++step) {
          std::vector<float> sum(size);
          for (int micro = 0; micro < 3; ++micro) {
            auto const before = value(store, "w", size);
            std::vector<std::vector<float>> g;
            for (int k = 0; k < sources; ++k) {
              g.push_back(gradient(size, 10 * step + micro + 100 * k));
              for (std::size_t j = 0; j < size; ++j) sum[j] += g.back()[j];
            }
            std::vector<float> out(size, -1);
            store.pushpull("w", g, out);
            if (micro < 2) {
              REQUIRE(store.steps("w") == step);
              REQUIRE(out == before);
            } else {
              plain.push("w", sum);
              REQUIRE(out == value(plain, "w", size));
            }
          }
          REQUIRE(store.steps("w") == step + 1);
        }
      }
}

TEST_CASE("accumulate adds until a push makes the step", "[accumulate]") {
  auto store = make(2, update::sgd{1}, pp::accumulate{});
  store.init("w", std::vector<float>(100, 0));
  store.push("w", std::vector<float>(100, 1));
  REQUIRE(value(store, "w", 100)[99] == -1);
  for (int i = 0; i < 5; ++i) store.accumulate("w", std::vector<float>(100, 2));
  REQUIRE(value(store, "w", 100)[99] == -1);
  REQUIRE(store.steps("w") == 1);
  store.push("w", std::vector<float>(100, 1));
  REQUIRE(value(store, "w", 100)[99] == -12);
  store.push("w", std::vector<float>(100, 1));  // nothing is left over
  REQUIRE(value(store, "w", 100)[99] == -13);
}

TEST_CASE("keys of a list count for themselves", "[accumulate]") {
  auto store = make(3, update::sgd{1}, pp::accumulate{2});
  strings const keys{"a", "b", "c"};
  store.init(keys, std::vector(3, std::vector<float>{0}));
  std::vector const ones(3, std::vector<float>{1});
  store.push("b", ones[0]);
  std::vector<std::vector<float>> out(3, std::vector<float>(1));
  store.pushpull(keys, ones, out);
  REQUIRE(out == std::vector<std::vector<float>>{{0}, {-2}, {0}});
  store.pushpull(keys, ones, out);
  REQUIRE(out == std::vector<std::vector<float>>{{-2}, {-2}, {-2}});
  store.push(strings{"a", "a"}, std::vector(2, std::vector<float>{1}));  // named twice in a call: one micro-batch
  REQUIRE(value(store, "a", 1)[0] == -2);
}

TEST_CASE("norms go over the sum of the micro-batches", "[accumulate][norms]") {
  for (int const devices : {1, 3})
    for (bool const mixed : {false, true}) {
      auto const rule = update::clip_global_norm(1) | update::sgd{1};
      auto store = make(devices, rule, pp::accumulate{});
      strings const keys{"a", "b"};
      store.init(keys, std::vector{std::vector<float>{0}, std::vector<float>{0}});
      if (mixed) {
        store.accumulate("a", std::vector<float>{2});
      } else {
        store.accumulate(keys, std::vector{std::vector<float>{2}, std::vector<float>{3}});
      }
      store.push(keys, std::vector{std::vector<float>{1}, std::vector<float>{mixed ? 4.0F : 1.0F}});
      REQUIRE(value(store, "a", 1)[0] == Approx(-0.6));
      REQUIRE(value(store, "b", 1)[0] == Approx(-0.8));
    }
}

TEST_CASE("a sum of bfloat16 micro-batches is kept in float", "[accumulate]") {
  using pp::bfloat16;
  auto store = make<bfloat16>(2, update::sgd{1}, pp::accumulate{256}, pp::element::master<float>{});
  store.init("w", std::vector<float>(70, 0));
  std::vector<bfloat16> const g(70, pp::convert<bfloat16>(1.0F));
  for (int i = 0; i < 256; ++i) store.push("w", g);
  REQUIRE(value(store, "w", 70)[69] == -256);
}

TEST_CASE("compressed micro-batches are decoded into the sum", "[accumulate][compress]") {
  auto store = make(2, update::sgd{1}, pp::accumulate{2}, pp::compress::two_bit{0.5F});
  store.init("w", std::vector<float>(100, 0));
  store.push("w", std::vector<float>(100, 0.75F));  // sent 0.5, kept 0.25
  store.push("w", std::vector<float>(100, 0.25F));  // sent 0.5
  REQUIRE(value(store, "w", 100) == std::vector<float>(100, -1));
}

TEST_CASE("the mean over sources is taken per micro-batch", "[accumulate]") {
  auto store = make(1, update::sgd{1}, pp::accumulate{2}, pp::reduce::mean{});
  store.init("w", std::vector<float>{0});
  for (int i = 0; i < 2; ++i) store.push("w", std::vector{std::vector<float>{2}, std::vector<float>{4}});
  REQUIRE(value(store, "w", 1)[0] == -6);
}

TEST_CASE("a whole model accumulates in one pass per micro-batch", "[accumulate][parameter_store]") {
  for (int const devices : {1, 3})
    for (std::int64_t const n : {0, 3}) {
      auto const rule = update::momentum{.learning_rate = 0.5};
      auto store = make(devices, rule, pp::accumulate{n});
      auto plain = make(devices, rule);
      pp::parameter_store model(store);
      pp::parameter_store reference(plain);
      strings const names{"a", "b", "c"};
      auto const each = [&](auto& parameters, auto const& f) {
        for (auto const& name : names)
          for (std::size_t d = 0; d < static_cast<std::size_t>(devices); ++d)
            for (std::size_t i = 0; i < 1500; ++i) f(parameters.grad(name, d).data()[i], i);
      };
      for (auto const& name : names) {
        model.add(name, std::vector<float>(1500, 1));
        reference.add(name, std::vector<float>(1500, 1));
      }
      for (int step = 0; step < 3; ++step) {
        each(reference, [](float& g, std::size_t) { g = 0; });
        for (int micro = 0; micro < 3; ++micro) {
          each(model,
               [&](float& g, std::size_t i) { g = 0.25F * static_cast<float>(micro + static_cast<int>(i % 5)); });
          each(reference,
               [&](float& g, std::size_t i) { g += 0.25F * static_cast<float>(micro + static_cast<int>(i % 5)); });
          n == 0 && micro < 2 ? model.accumulate_all() : model.update_all();
          REQUIRE(store.steps("b") == step + (micro == 2));
          if (step == 1 && micro == 0 && n == 0) {  // a key that has more than the others
            std::vector<float> const extra(1500, 0.5F);
            store.accumulate("b", extra);
            for (std::size_t i = 0; i < 1500; ++i) reference.grad("b", 0).data()[i] += 0.5F;
          }
        }
        reference.update_all();
        for (auto const& name : names)
          for (std::size_t i = 0; i < 1500; ++i)
            REQUIRE(model.value(name, 0).data()[i] == reference.value(name, 0).data()[i]);
      }
    }
}

TEST_CASE("a negative number of micro-batches is refused", "[accumulate][errors]") {
  REQUIRE_THROWS_AS(make(1, update::sgd{}, pp::accumulate{-1}), pp::invalid_argument);
}

namespace {

/// A model of one float per parameter, whose rule is w -= g: every gradient that reaches a step can be read off.
template <class Store>
struct counted_model {
  Store& store;
  pp::parameter_store<Store> parameters;

  explicit counted_model(Store& s) : store(s), parameters(s) {}
  void add(std::string const& name) { parameters.add(name, std::vector<float>{0}); }
  /// A micro-batch whose gradients are `g`, of all parameters that take part.
  void batch(strings const& names, float g, bool steps = true) {
    for (auto const& name : names)
      for (std::size_t n = 0; n < parameters.devices().size(); ++n)
        *parameters.grad(name, n).data() = n == 0 ? g : 0.0F;
    if (steps) {
      parameters.update_all();
    } else {
      parameters.accumulate_all();
    }
  }
  float operator[](std::string const& name) { return -*parameters.value(name, 0).data(); }
};
template <class Store>
counted_model(Store&) -> counted_model<Store>;

}  // namespace

TEST_CASE("a parameter that is frozen amid a step forgets its micro-batches, and joins again when a step begins",
          "[accumulate][parameter_store]") {
  float const nan = std::nanf("");
  for (int const devices : {1, 3}) {
    auto store = make(devices, update::sgd{1}, pp::accumulate{3});
    counted_model model(store);
    model.add("a");
    model.add("b");
    model.batch({"a", "b"}, 1);
    model.batch({"a"}, 10);  // b's gradient is still there: 1
    REQUIRE(store.micro_batches("b") == 2);
    REQUIRE(store.gradient_sum("b") == std::vector<float>{2});
    model.parameters.freeze("b");
    REQUIRE(store.micro_batches("b") == 0);
    REQUIRE(store.gradient_sum("b") == std::vector<float>{0});
    model.batch({"a"}, 100);
    REQUIRE(model["a"] == 111);
    REQUIRE(model["b"] == 0);

    model.batch({"a"}, 1000);
    model.parameters.unfreeze("b");
    model.batch({"a", "b"}, 1000);  // b misses this step's first, and so waits for the next
    model.batch({"a", "b"}, 1000);
    REQUIRE(model["a"] == 3111);
    REQUIRE(model["b"] == 0);
    REQUIRE(store.steps("b") == 0);
    for (float const g : {1.0F, 2.0F, 4.0F}) model.batch({"a", "b"}, g);
    REQUIRE(model["a"] == 3118);
    REQUIRE(model["b"] == 7);

    model.batch({"a", "b"}, nan);  // what is forgotten does no harm
    model.parameters.freeze("b");
    model.parameters.unfreeze("b");
    model.parameters.freeze("a");
    for (float const g : {8.0F, 16.0F, 32.0F}) model.batch({"b"}, g);
    REQUIRE(model["a"] == 3118);
    REQUIRE(model["b"] == 63);
  }
}

TEST_CASE("a parameter that is added amid a step waits for the next, with a number of micro-batches or without",
          "[accumulate][parameter_store]") {
  for (std::int64_t const n : {0, 2}) {
    auto store = make(2, update::sgd{1}, pp::accumulate{n});
    counted_model model(store);
    model.add("a");
    model.batch({"a"}, 1, n != 0);
    model.add("late");
    model.batch({"a", "late"}, 2);
    REQUIRE(model["a"] == 3);
    REQUIRE(model["late"] == 0);
    model.batch({"a", "late"}, 4, n != 0);
    model.batch({"a", "late"}, 8);
    REQUIRE(model["a"] == 15);
    REQUIRE(model["late"] == 12);
  }
}

TEST_CASE("pushes, plans and other plans over the same keys count as micro-batches of each key", "[accumulate]") {
  for (int const devices : {1, 3}) {
    auto store = make(devices, update::sgd{1}, pp::accumulate{3});
    counted_model model(store);
    for (auto const* const name : {"a", "b", "c"}) model.add(name);
    model.parameters.materialize();
    store.push("b", std::vector<float>{100});
    auto plan = store.make_plan(strings{"c", "b"});
    model.batch({"a", "b", "c"}, 1);  // 1, 2 and 1
    REQUIRE(store.micro_batches("b") == 2);
    store.update(plan);  // 1, a step, and 2
    REQUIRE(model["b"] == 102);
    REQUIRE(model["c"] == 0);
    model.batch({"a", "b", "c"}, 10);  // 2, 1, a step
    REQUIRE(model["c"] == 12);
    REQUIRE(model["a"] == 0);
    model.batch({"a", "b", "c"}, 1000);  // a step, 2, 1
    REQUIRE(model["a"] == 1011);
    model.batch({"a", "b", "c"}, 4000);  // 1, a step, 2
    REQUIRE(model["b"] == 5112);
    store.push(strings{"c", "a"}, std::vector{std::vector<float>{1}, std::vector<float>{2}});  // 2, 0, a step
    REQUIRE(model["c"] == 5013);
    for (auto const* const name : {"a", "b", "c"}) REQUIRE(store.steps(name) == (std::string(name) == "a" ? 1 : 2));
  }
}

TEST_CASE("a sum can be read, set and discarded between micro-batches", "[accumulate]") {
  for (int const devices : {1, 2, 7}) {
    auto store = make(devices, update::sgd{1}, pp::accumulate{3});
    std::size_t const size = 5003;
    store.init("w", std::vector<float>(size, 0));
    store.push("w", gradient(size, 1));
    REQUIRE(store.micro_batches("w") == 1);
    auto const sum = store.gradient_sum("w");
    REQUIRE(sum == gradient(size, 1));
    store.push("w", gradient(size, 2));
    store.discard_micro_batches("w");
    store.discard_micro_batches("w");
    REQUIRE(store.gradient_sum("w") == std::vector<float>(size));
    store.set_micro_batches("w", 2, sum);
    store.push("w", gradient(size, 3));  // the third
    auto expected = gradient(size, 1);
    for (std::size_t i = 0; i < size; ++i) expected[i] = -expected[i] - gradient(size, 3)[i];
    REQUIRE(value(store, "w", size) == expected);
    REQUIRE(store.steps("w") == 1);
    REQUIRE_THROWS_AS(store.set_micro_batches("w", -1, sum), pp::invalid_argument);
    REQUIRE_THROWS_AS(store.set_micro_batches("w", 1, std::vector<float>(7)), pp::shape_mismatch);
    REQUIRE_THROWS_AS(store.micro_batches("nobody"), pp::unknown_key);
  }
}

TEST_CASE("a model of several element types and one of several rules accumulate", "[accumulate][parameter_store]") {
  pp::kv_store<pp::type_list<float, double>, pp::cpu_device<>, update::sgd, pp::accumulate> typed{
      pp::cpu_devices(2), update::sgd{1}, pp::accumulate{}};
  pp::parameter_store both(typed);
  both.add("f", std::vector<float>(70, 0));
  both.add("d", std::vector<double>(70, 0));
  both.materialize();
  for (std::size_t n = 0; n < 2; ++n) {
    std::fill_n(both.grad<float>("f", n).data(), 70, 1.0F);
    std::fill_n(both.grad<double>("d", n).data(), 70, 2.0);
  }
  both.accumulate_all();
  REQUIRE(typed.micro_batches("d") == 1);
  both.update_all();
  REQUIRE(both.value<float>("f", 1).data()[69] == -4);
  REQUIRE(both.value<double>("d", 1).data()[69] == -8);

  pp::rules const chosen{update::sgd{1},
                         pp::where([](std::string_view name) { return name == "b"; }, update::momentum{1})};
  pp::kv_store ruled{pp::cpu_devices(2), chosen, pp::synchronous{}, pp::accumulate{2}};
  strings const keys{"a", "b"};
  std::vector const ones(2, std::vector<float>{1});
  ruled.init(keys, std::vector(2, std::vector<float>{0}));
  ruled.push(keys, ones);
  REQUIRE(ruled.micro_batches("b") == 1);
  REQUIRE(ruled.gradient_sum("a") == std::vector<float>{1});
  ruled.discard_micro_batches("b");
  ruled.push(keys, ones);
  REQUIRE(ruled.steps("a") == 1);
  REQUIRE(ruled.steps("b") == 0);
}
