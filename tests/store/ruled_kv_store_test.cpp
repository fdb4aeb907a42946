/// @file
/// Rules of different types in one store.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using strings = std::vector<std::string>;
using lists = std::vector<std::vector<float>>;

bool is_bias(std::string_view name) { return name.ends_with("bias"); }
bool is_embedding(std::string_view name) { return name.starts_with("embedding"); }

pp::rules const three{update::adamw{.learning_rate = 0.1}, pp::where(is_bias, update::sgd{0.5}),
                      pp::where(is_embedding, update::adagrad{.learning_rate = 0.1})};

template <class Rule>
std::vector<float> alone(Rule const& rule, std::vector<float> w, std::vector<float> const& g, int steps) {
  pp::kv_store store{pp::cpu_devices(1), rule, pp::synchronous{}};
  store.init("w", w);
  for (int i = 0; i < steps; ++i) store.push("w", g);
  store.pull("w", w);
  return w;
}

std::vector<float> expected(std::string const& key, std::vector<float> const& w, std::vector<float> const& g,
                            int steps) {
  switch (three.of(key)) {
    case 0: return alone(std::get<0>(three.values), w, g, steps);
    case 1: return alone(std::get<1>(three.values), w, g, steps);
    default: return alone(std::get<2>(three.values), w, g, steps);
  }
}

strings const names{"a.weight", "a.bias", "embedding.table", "b.weight", "embedding.bias"};

}  // namespace

TEST_CASE("each parameter has the last rule that claims its name", "[rules]") {
  REQUIRE(three.of("a.weight") == 0);
  REQUIRE(three.of("a.bias") == 1);
  REQUIRE(three.of("embedding.bias") == 2);
}

TEST_CASE("lists, single keys and pushpull reach the rule of each key", "[rules]") {
  for (int const devices : {1, 3}) {
    pp::kv_store store{pp::cpu_devices(devices), three, pp::synchronous{}};
    lists values, gradients;
    for (std::size_t i = 0; i < names.size(); ++i) {
      values.emplace_back(70 * i + 1, 1.0F);
      gradients.emplace_back(70 * i + 1, 0.25F + static_cast<float>(i));
    }
    lists outs = values;
    store.init(names, values);
    store.push(names, gradients);
    store.pushpull(names, gradients, outs);
    for (std::size_t i = 0; i < names.size(); ++i) {
      REQUIRE(outs[i] == expected(names[i], values[i], gradients[i], 2));
      store.push(names[i], gradients[i]);
      REQUIRE(store.steps(names[i]) == 3);
    }
    store.pull(names, outs);
    for (std::size_t i = 0; i < names.size(); ++i) REQUIRE(outs[i] == expected(names[i], values[i], gradients[i], 3));
    REQUIRE(store.keys() == names);
    REQUIRE(store.size() == names.size());
    REQUIRE(store.rule("b.weight") == 0);
    REQUIRE(store.state_names("a.bias").empty());
    REQUIRE(store.state("a.weight", "exp_avg").size() == 1);
  }
}

TEST_CASE("sources of several devices are reduced for every rule", "[rules]") {
  pp::kv_store store{pp::cpu_devices(2), three};
  lists const values(2, std::vector<float>(100, 1));
  strings const keys{"a.weight", "a.bias"};
  std::vector<lists> const gradients(2, lists(3, std::vector<float>(100, 0.5F)));
  store.init(keys, values);
  lists outs(2, std::vector<float>(100));
  store.pushpull(keys, gradients, outs).wait();
  for (std::size_t i = 0; i < 2; ++i)
    REQUIRE(outs[i] == expected(keys[i], values[i], std::vector<float>(100, 1.5F), 1));
}

TEST_CASE("a model trains with a pass per device and rule", "[rules][parameter_store]") {
  pp::kv_store store{pp::cpu_devices(2), three};
  pp::parameter_store model{store};
  for (auto const& name : names) model.add(name, std::vector<float>(100, 1));
  for (auto const& name : names)
    for (std::size_t n = 0; n < 2; ++n)
      for (std::size_t i = 0; i < 100; ++i) model.grad(name, n).data()[i] = 0.25F;
  model.update_all();
  for (auto const& name : names)
    for (std::size_t n = 0; n < 2; ++n) {
      auto const view = model.value(name, n);
      REQUIRE(std::vector<float>(view.data(), view.data() + 100) ==
              expected(name, std::vector<float>(100, 1), std::vector<float>(100, 0.5F), 1));
    }
}

namespace {

std::atomic<bool> fails = false, is_slow = false, slow_is_done = false;

/// The rate of the first rule, which throws when it is told to, and of the second, which may take long.
double failing(std::int64_t) {
  if (fails) throw std::runtime_error("no rate today");
  return 0.1;
}
double slow(std::int64_t) {
  if (is_slow) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    slow_is_done = true;
  }
  return 0.1;
}

}  // namespace

TEST_CASE("a step in parts that fails for one rule is waited for with all rules", "[rules][parameter_store][errors]") {
  pp::kv_store store{pp::cpu_devices(1), pp::rules{update::sgd{} | update::learning_rate(&failing),
                                                   pp::where(is_bias, update::sgd{} | update::learning_rate(&slow))}};
  pp::parameter_store model{store};
  // More elements than the calling thread steps itself.
  for (char const* const name : {"a.weight", "a.bias"}) model.add(name, std::vector<float>(70000, 1));
  for (char const* const name : {"a.weight", "a.bias"}) std::fill_n(model.grad(name, 0).data(), 70000, 1.0F);
  fails = is_slow = true;
  model.ready("a.bias");
  model.ready("a.weight");
  REQUIRE_THROWS_AS(model.update_all(), std::runtime_error);
  REQUIRE(slow_is_done);
  fails = is_slow = false;
  REQUIRE(store.steps("a.weight") == 0);
  REQUIRE(store.steps("a.bias") == 1);
  REQUIRE(std::vector<float>(model.value("a.weight", 0).data(), model.value("a.weight", 0).data() + 3) ==
          lists{{1, 1, 1}}[0]);
  model.update_all();
  REQUIRE(store.steps("a.weight") == 1);
  REQUIRE(store.steps("a.bias") == 2);
}

TEST_CASE("a list with one bad entry changes nothing, whatever the rules", "[rules][errors]") {
  pp::kv_store store{pp::cpu_devices(1), three};
  strings const keys{"a.weight", "a.bias"};
  lists const values(2, std::vector<float>(3, 1));
  store.init(keys, values);
  lists const wrong{std::vector<float>(3, 1), std::vector<float>(4, 1)}, good(2, std::vector<float>(3, 1));
  REQUIRE_THROWS_AS(store.push(keys, wrong), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.push(strings{"a.weight", "no"}, good), pp::unknown_key);
  REQUIRE_THROWS_AS(store.push(strings{"a.weight"}, good), pp::shape_mismatch);
  std::vector<lists> const none(2);
  REQUIRE_THROWS_AS(store.push(keys, none), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.init(strings{"new", "a.bias"}, good), pp::duplicate_key);
  REQUIRE_THROWS_AS(store.init(strings{"new", "new"}, good), pp::duplicate_key);
  REQUIRE_FALSE(store.contains("new"));
  for (auto const& key : keys) REQUIRE(store.steps(key) == 0);
  lists outs(2, std::vector<float>(3));
  store.pull(keys, outs).wait();
  REQUIRE(outs == values);
  REQUIRE_THROWS_AS((pp::rules{update::sgd{}, pp::where({}, update::adam{})}), pp::invalid_argument);
}

TEST_CASE("hyperparameters change by the type of the rule", "[rules]") {
  pp::kv_store store{pp::cpu_devices(1), three, pp::synchronous{}};
  store.init("bias", std::vector<float>{1});
  store.set_hyperparameters(update::sgd{1});
  store.of<update::sgd>().add_group([](std::string_view name) { return name == "x.bias"; }, update::sgd{2});
  store.init("x.bias", std::vector<float>{1});
  store.push("bias", std::vector<float>{1});
  store.push("x.bias", std::vector<float>{1});
  lists outs(2, std::vector<float>(1));
  store.pull(strings{"bias", "x.bias"}, outs);
  REQUIRE(outs == lists{{0}, {-1}});
}
