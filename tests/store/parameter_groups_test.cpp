/// @file
/// Parameter groups: keys with hyperparameters of their own, in one pass.
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
using store_type = pp::kv_store<float, pp::cpu_device<>, update::adamw>;

bool is_bias(std::string_view key) { return key.ends_with("bias"); }

std::vector<float> ramp(std::size_t size, float first) {
  std::vector<float> x(size);
  for (std::size_t i = 0; i < size; ++i) x[i] = first + 0.25F * static_cast<float>(i % 17);
  return x;
}

/// The value of a key after steps by a rule in a store of its own.
template <class Rule>
std::vector<float> alone(Rule const& rule, std::vector<float> const& w, std::vector<float> const& g, int steps) {
  pp::kv_store<float, pp::cpu_device<>, Rule, pp::synchronous> store{pp::cpu_devices(1), rule};
  store.init("w", w);
  for (int i = 0; i < steps; ++i) store.push("w", g);
  std::vector<float> out(w.size());
  store.pull("w", out);
  return out;
}

template <class Store>
std::vector<float> value(Store& store, std::string const& key, std::size_t size) {
  std::vector<float> out(size);
  store.pull(key, out).wait();
  return out;
}

}  // namespace

TEST_CASE("keys of a group are updated with its hyperparameters, those that come later too", "[kv_store][groups]") {
  update::adamw const rule{.learning_rate = 0.1}, other{.learning_rate = 0.01, .weight_decay = 0};
  for (int const devices : {1, 3}) {
    store_type store{pp::cpu_devices(devices), rule};
    std::vector<float> const w = ramp(4099, 1), g = ramp(4099, -2);
    store.init("a.weight", w);
    store.init("a.bias", w);
    REQUIRE(store.add_group(is_bias, other) == 1);
    store.init(strings{"b.weight", "b.bias"}, std::vector{w, w});
    REQUIRE(store.groups() == 2);
    REQUIRE(store.group("a.weight") == 0);
    REQUIRE(store.group("a.bias") == 1);
    REQUIRE(store.group("b.bias") == 1);
    REQUIRE(store.updater(1).learning_rate == 0.01);
    strings const keys{"a.weight", "a.bias", "b.weight", "b.bias"};
    std::vector<std::vector<float>> const gradients(4, g);
    for (int i = 0; i < 3; ++i) store.push(keys, gradients).wait();
    for (std::string const& key : keys)
      REQUIRE(value(store, key, w.size()) == alone(is_bias(key) ? other : rule, w, g, 3));
  }
}

TEST_CASE("states and step counts stay when a key joins a group", "[kv_store][groups]") {
  update::adamw const rule{.learning_rate = 0.1}, other{.learning_rate = 0.01};
  std::vector<float> const w = ramp(100, 1), g = ramp(100, -2);
  pp::kv_store<float, pp::cpu_device<>, update::adamw, pp::synchronous> store{pp::cpu_devices(2), rule},
      same{pp::cpu_devices(2), rule};
  store.init("x.bias", w);
  same.init("x.bias", w);
  store.push("x.bias", g);
  same.push("x.bias", g);
  store.add_group(is_bias, other);
  same.set_hyperparameters(other);
  store.push("x.bias", g);
  same.push("x.bias", g);
  REQUIRE(store.steps("x.bias") == 2);
  REQUIRE(value(store, "x.bias", 100) == value(same, "x.bias", 100));
}

TEST_CASE("hyperparameters of each group change at run time", "[kv_store][groups]") {
  store_type store{pp::cpu_devices(2), update::adamw{.learning_rate = 0.5}};
  auto const group = store.add_group(is_bias, update::adamw{});
  store.set_hyperparameters(update::adamw{.learning_rate = 0.25}, group);
  REQUIRE(store.updater().learning_rate == 0.5);
  REQUIRE(store.updater(group).learning_rate == 0.25);
  std::vector<float> const w = ramp(100, 1), g = ramp(100, -2);
  store.init("bias", w);
  store.push("bias", g).wait();
  REQUIRE(value(store, "bias", 100) == alone(update::adamw{.learning_rate = 0.25}, w, g, 1));
}

TEST_CASE("the last group that claims a key has it", "[kv_store][groups]") {
  store_type store{pp::cpu_devices(1)};
  store.init("bias", std::vector<float>(3));
  store.add_group(is_bias, update::adamw{});
  REQUIRE(store.add_group([](std::string_view) { return true; }, update::adamw{.learning_rate = 0.5}) == 2);
  store.init("other", std::vector<float>(3));
  REQUIRE(store.group("bias") == 2);
  REQUIRE(store.group("other") == 2);
}

TEST_CASE("a group that does not exist, or an empty predicate, is refused and changes nothing",
          "[kv_store][groups][errors]") {
  store_type store{pp::cpu_devices(1)};
  REQUIRE_THROWS_WITH(store.set_hyperparameters(update::adamw{}, 1), Catch::Contains("1 parameter groups, number 1"));
  REQUIRE_THROWS_AS(store.updater(7), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.add_group({}, update::adamw{}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.add_group(is_bias, update::adamw{.beta1 = 2}), pp::invalid_argument);
  REQUIRE(store.groups() == 1);
}

TEST_CASE("a predicate that throws leaves the store as it was", "[kv_store][groups][errors]") {
  store_type store{pp::cpu_devices(1)};
  store.add_group([](std::string_view key) -> bool { return key == "bad" ? throw std::runtime_error("no") : false; },
                  update::adamw{});
  REQUIRE_THROWS_AS(store.init("bad", std::vector<float>(3)), std::runtime_error);
  REQUIRE_FALSE(store.contains("bad"));
  store.init("good", std::vector<float>(3));
  REQUIRE(store.size() == 1);
}

TEST_CASE("row-sparse gradients and resident plans take the group's rule", "[kv_store][groups]") {
  pp::kv_store<float, pp::cpu_device<>, update::sgd, pp::synchronous> store{pp::cpu_devices(2), update::sgd{1}};
  auto const group = store.add_group(is_bias, update::sgd{0.5});
  store.init("bias", std::vector<float>{1, 1, 1, 1});
  pp::row_sparse<float> rows(pp::cpu_device<>(), {4}, 1);
  rows.row_ids()[0] = 2;
  rows.values()[0] = 1;
  store.push("bias", rows);
  REQUIRE(value(store, "bias", 4) == std::vector<float>{1, 1, 0.5F, 1});

  pp::parameter_store parameters(store);
  parameters.add("a.weight", std::vector<float>(70, 1));
  parameters.add("a.bias", std::vector<float>(70, 1));
  parameters.add("b.weight", std::vector<float>(70, 1));
  auto const fill = [&] {
    for (auto const* name : {"a.weight", "a.bias", "b.weight"})
      for (std::size_t n = 0; n < 2; ++n)
        for (std::size_t i = 0; i < 70; ++i) parameters.grad(name, n).data()[i] = 0.25F;
  };
  fill();
  parameters.update_all();
  REQUIRE(parameters.value("a.weight", 1).data()[69] == 0.5F);
  REQUIRE(parameters.value("a.bias", 1).data()[69] == 0.75F);
  REQUIRE(parameters.value("b.weight", 1).data()[69] == 0.5F);
  // A plan that is laid out sees a key that joins another group.
  store.add_group([](std::string_view key) { return key == "b.weight"; }, update::sgd{0});
  store.set_hyperparameters(update::sgd{2}, group);
  fill();
  parameters.update_all();
  REQUIRE(parameters.value("a.weight", 0).data()[0] == 0.0F);
  REQUIRE(parameters.value("a.bias", 0).data()[0] == -0.25F);
  REQUIRE(parameters.value("b.weight", 0).data()[0] == 0.5F);
}

TEST_CASE("a norm over all keys goes over all groups, each of which clips with its own limit", "[kv_store][groups]") {
  using rule_type = decltype(update::clip_global_norm(1) | update::sgd{1});
  pp::kv_store<float, pp::cpu_device<>, rule_type, pp::synchronous> store{pp::cpu_devices(2),
                                                                          update::clip_global_norm(1) | update::sgd{1}};
  store.add_group(is_bias, update::clip_global_norm(10) | update::sgd{1});
  store.init(strings{"weight", "bias"}, std::vector{std::vector<float>{0}, std::vector<float>{0}});
  store.push(strings{"weight", "bias"}, std::vector{std::vector<float>{3}, std::vector<float>{4}});
  REQUIRE(value(store, "weight", 1)[0] == Approx(-0.6));
  REQUIRE(value(store, "bias", 1)[0] == Approx(-4));
}

TEST_CASE("a store of several element types has groups over all of them", "[typed_kv_store][groups]") {
  pp::kv_store<pp::type_list<float, double>, pp::cpu_device<>, update::sgd, pp::synchronous> store{pp::cpu_devices(1),
                                                                                                   update::sgd{1}};
  auto const group = store.add_group(is_bias, update::sgd{0.5});
  store.init("a.bias", std::vector<float>{0});
  store.init("b.bias", std::vector<double>{0});
  store.push("a.bias", std::vector<float>{1});
  store.push("b.bias", std::vector<double>{1});
  std::vector<double> out(1);
  store.pull("b.bias", out);
  REQUIRE(out[0] == -0.5);
  REQUIRE(store.group("b.bias") == group);
}

TEST_CASE("a predicate that throws leaves all parts of a store as they were", "[typed_kv_store][groups][errors]") {
  pp::kv_store<pp::type_list<float, double>, pp::cpu_device<>, update::sgd, pp::synchronous> store{pp::cpu_devices(1)};
  store.init("a", std::vector<float>{0});
  store.init("b", std::vector<double>{0});
  auto const fails = [](std::string_view key) -> bool { return key == "b" ? throw std::runtime_error("no") : true; };
  REQUIRE_THROWS_AS(store.add_group(fails, update::sgd{0.5}), std::runtime_error);
  REQUIRE(store.of<float>().groups() == 1);
  REQUIRE(store.of<double>().groups() == 1);
  REQUIRE(store.add_group(is_bias, update::sgd{0.5}) == 1);
  REQUIRE(store.group("a") == 0);
}

TEST_CASE("groups may be added while other threads push", "[kv_store][groups][threads]") {
  store_type store{pp::cpu_devices(2)};
  store.init("bias", std::vector<float>(5000, 1));
  std::vector<float> const g(5000, 0.5F);
  std::thread pushing([&] {
    for (int i = 0; i < 200; ++i) store.push("bias", g);
  });
  for (int i = 0; i < 20; ++i) store.add_group(is_bias, update::adamw{});
  pushing.join();
  store.wait();
  REQUIRE(store.group("bias") == 20);
  REQUIRE(value(store, "bias", 5000) == alone(update::adamw{}, std::vector<float>(5000, 1), g, 200));
}

TEST_CASE("multipliers change rates and decays wherever they stand", "[update][groups]") {
  using namespace update;
  REQUIRE(with_multipliers(sgd{0.5}, 0.5).learning_rate == 0.25);
  REQUIRE(with_multipliers(adamw{.learning_rate = 0.5, .weight_decay = 0.1}, 2, 0).weight_decay == 0);
  auto const pipe = with_multipliers(clip_value(1) | update::weight_decay(0.5) | sgd{0.5}, 2, 3);
  REQUIRE(get<update::weight_decay>(pipe).decay == 1.5);
  REQUIRE(get<sgd>(pipe).learning_rate == 1);
  REQUIRE(with_multipliers(decoupled_decay{sgd{0.5}, 0.25}, 0.5, 0.5).rate == 0.0625);
  auto const scheduled =
      with_multipliers(adamw{.weight_decay = 0.5} | learning_rate(pp::lr_schedule::constant{0.5}), 4, 2);
  REQUIRE(scheduled.at(1).learning_rate == 2);
  REQUIRE(scheduled.at(1).weight_decay == 1);
  REQUIRE_THROWS_AS(with_multipliers(sgd{}, -1), pp::invalid_argument);
}
