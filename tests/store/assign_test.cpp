/// @file
/// Weights that are replaced while a store is trained: what follows, what stays, and what starts again.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using strings = std::vector<std::string>;
using floats = std::vector<float>;
using Catch::Matchers::Contains;

constexpr std::size_t size = 5003;

floats filled(float first) {
  floats x(size);
  for (std::size_t i = 0; i < size; ++i) x[i] = first + static_cast<float>(i % 17) / 8;
  return x;
}

template <class Store>
floats pulled(Store& store, std::string const& key) {
  floats out(size);
  store.pull(key, out).wait();
  return out;
}

}  // namespace

TEST_CASE("assign replaces a weight between two pushes; states and t stay", "[store][assign]") {
  pp::kv_store store{pp::cpu_devices(3), update::momentum{.learning_rate = 1.0, .momentum = 0.5}};
  floats const w = filled(1), v = filled(-3), g(size, 1.0F);
  store.init(strings{"a", "w"}, std::vector{w, w});
  store.push("w", g);
  store.assign("w", v);
  REQUIRE(pulled(store, "w") == v);
  REQUIRE(pulled(store, "a") == w);
  REQUIRE(store.steps("w") == 1);
  REQUIRE(store.state("w", "momentum_buffer") == g);
  store.push("w", g).wait();
  REQUIRE(pulled(store, "w")[0] == v[0] - 1.5F);  // the buffer goes on
  REQUIRE(store.steps("w") == 2);
}

TEST_CASE("assign with rule_states::reset is a new beginning", "[store][assign]") {
  auto const rule = update::adam{.learning_rate = 0.1} | update::ema(0.5);
  pp::kv_store store{pp::cpu_devices(2), rule, pp::accumulate{2}}, fresh{pp::cpu_devices(2), rule, pp::accumulate{2}};
  floats const w = filled(1), v = filled(-3), g(size, 1.0F), h(size, 0.5F);
  store.init("w", w);
  fresh.init("w", v);
  for (int i = 0; i < 3; ++i) store.push("w", g);  // the third begins a step
  store.assign("w", v, pp::rule_states::reset);
  REQUIRE(store.steps("w") == 0);
  REQUIRE(store.state("w", "ema") == floats(size, 0.0F));
  for (auto* const each : {&store, &fresh})
    for (int i = 0; i < 4; ++i) each->push("w", h).wait();
  REQUIRE(pulled(store, "w") == pulled(fresh, "w"));
  REQUIRE(store.state("w", "ema") == fresh.state("w", "ema"));
}

TEST_CASE("assign resets residuals of compressed gradients, and rows and columns of a rule", "[store][assign]") {
  floats const w = filled(1), g(size, 0.375F);
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0}, pp::compress::two_bit{0.5F}};
  store.init("w", w);
  store.push("w", g);
  store.assign("w", w, pp::rule_states::reset);
  store.push("w", g);
  REQUIRE(pulled(store, "w") == w);  // 0.375 is below the threshold, twice that would not be
  store.assign("w", w);
  store.push("w", g);
  REQUIRE(pulled(store, "w")[0] == w[0] - 0.5F);

  pp::kv_store factored{pp::cpu_devices(2), update::adafactor{}}, fresh{pp::cpu_devices(2), update::adafactor{}};
  pp::tensor_view const matrix(w.data(), pp::shape{2, 3}), gradient(g.data(), pp::shape{2, 3});
  factored.init("m", matrix);
  fresh.init("m", matrix);
  factored.push("m", gradient);
  factored.assign("m", matrix, pp::rule_states::reset);
  for (auto* const each : {&factored, &fresh}) each->push("m", gradient).wait();
  for (std::string const& name : factored.state_names()) REQUIRE(factored.state("m", name) == fresh.state("m", name));
}

TEST_CASE("assign takes any element type; masters and resident mirrors follow", "[store][assign]") {
  auto store = pp::make_kv_store<pp::bfloat16>(pp::cpu_devices(3), update::sgd{1.0}, pp::element::master<float>{});
  pp::parameter_store parameters{store};
  floats w = filled(1);
  floats const v = filled(-3.001F);
  std::vector<double> const d(size, 0.1);
  std::vector<int> const n(size, 7);
  parameters.add("w", w);
  parameters.materialize();
  store.assign("w", v);
  REQUIRE(pulled(store, "w") == v);  // not rounded to 16 bits
  for (std::size_t k = 0; k < 3; ++k)
    REQUIRE(pp::convert<float>(parameters.value("w", k).data()[size - 1]) ==
            pp::convert<float>(pp::convert<pp::bfloat16>(v[size - 1])));
  store.assign("w", d);
  REQUIRE(pulled(store, "w")[17] == 0.1F);
  store.assign(strings{"w"}, std::vector(1, n));
  REQUIRE(pulled(store, "w")[size - 1] == 7.0F);
}

TEST_CASE("assign of a list changes all keys or none", "[store][assign][errors]") {
  pp::kv_store store{pp::cpu_devices(2)};
  floats const w = filled(1), v = filled(-3), shorter(3);
  store.init(strings{"a", "b"}, std::vector{w, w});
  auto const one = std::vector(1, v);
  auto const two = std::vector{v, v};
  REQUIRE_THROWS_AS(store.assign("c", v), pp::unknown_key);
  REQUIRE_THROWS_AS(store.assign(strings{"a", "c"}, two), pp::unknown_key);
  REQUIRE_THROWS_AS(store.assign("a", shorter), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.assign(strings{"a", "b"}, std::vector{v, shorter}), pp::shape_mismatch);
  REQUIRE_THROWS_WITH(store.assign(strings{"a", "b"}, one), "assign: 2 keys, 1 value");
  REQUIRE_THROWS_WITH(store.assign(strings{"a", "a"}, two), "assign: key \"a\" stands twice in one call");
  REQUIRE_THROWS_AS(store.assign(strings{}, std::vector<floats>{}), pp::invalid_argument);
  for (std::string const key : {"a", "b"}) REQUIRE(pulled(store, key) == w);
  store.assign(strings{"b", "a"}, std::vector{w, v});
  REQUIRE(pulled(store, "a") == v);
  REQUIRE(pulled(store, "b") == w);
}

TEST_CASE("assign reaches keys of every rule and element type", "[store][assign]") {
  floats const w = filled(1), v = filled(-3);
  auto const is_bias = [](std::string_view name) { return name.starts_with("b"); };
  pp::kv_store by_rule{pp::cpu_devices(2), pp::rules{update::adam{}, pp::where(is_bias, update::sgd{1.0})}};
  by_rule.init(strings{"w", "b"}, std::vector{w, w});
  REQUIRE_THROWS_AS(by_rule.assign(strings{"w", "b", "b"}, std::vector(3, v)), pp::duplicate_key);
  REQUIRE(pulled(by_rule, "w") == w);
  by_rule.assign(strings{"w", "b"}, std::vector{v, v});
  by_rule.assign("w", w, pp::rule_states::reset);
  REQUIRE(pulled(by_rule, "w") == w);
  REQUIRE(pulled(by_rule, "b") == v);

  pp::kv_store<pp::type_list<float, double>, pp::cpu_device<>> typed{pp::cpu_devices(2)};
  std::vector<double> const d(size, 1.0 / 3);
  typed.init("f", w);
  typed.init("d", d);
  typed.assign("f", d);
  typed.assign("d", v);
  REQUIRE(pulled(typed, "f")[3] == 1.0F / 3);
  REQUIRE(pulled(typed, "d") == v);
  REQUIRE_THROWS_AS(typed.assign(strings{"d"}, std::vector(1, v)), pp::invalid_argument);
}

TEST_CASE("parameter_store assigns trained, frozen and new parameters", "[parameter_store][assign]") {
  pp::kv_store store{pp::cpu_devices(2), update::momentum{.learning_rate = 1.0, .momentum = 0.5}};
  pp::parameter_store parameters{store};
  floats w = filled(1), statistics = filled(2);
  floats const v = filled(-3);
  parameters.add("w", w);
  parameters.add("statistics", statistics, {.requires_grad = false});
  parameters.assign("w", v);
  parameters.assign("statistics", v);
  for (std::size_t k = 0; k < 2; ++k) {
    std::fill_n(parameters.grad("w", k).data(), size, 0.5F);
    REQUIRE(parameters.value("statistics", k).data()[size - 1] == v[size - 1]);
  }
  parameters.update_all();
  REQUIRE(parameters.value("w", 1).data()[0] == v[0] - 1.0F);
  parameters.freeze("w");
  parameters.assign("w", v, pp::rule_states::reset);
  REQUIRE(store.steps("w") == 0);
  REQUIRE(parameters.value("w", 0).data()[0] == v[0]);
  parameters.sync_master();
  REQUIRE(w == v);
  REQUIRE(statistics == v);
  REQUIRE_THROWS_AS(parameters.assign("other", v), pp::unknown_key);
  REQUIRE_THROWS_AS(parameters.assign("w", floats(3)), pp::shape_mismatch);
}
