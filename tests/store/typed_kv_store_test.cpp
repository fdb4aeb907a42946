/// @file
/// kv_store of several element types, and keys of either kind.
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using strings = std::vector<std::string>;

}  // namespace

TEST_CASE("a store of several element types keeps each key in its own", "[typed_kv_store]") {
  pp::kv_store<pp::type_list<float, pp::bfloat16, double>, pp::cpu_device<>, update::momentum> store{
      pp::cpu_devices(2), update::momentum{.learning_rate = 1.0}};
  std::vector<float> const f(700, 5.0F), gradient_f(700, 1.0F);
  std::vector<pp::bfloat16> const b(30, pp::convert<pp::bfloat16>(7.0F)),
      gradient_b(30, pp::convert<pp::bfloat16>(2.0F));
  std::vector<double> const d(9, 1.0 / 3);
  store.init("f", f);
  store.init("b", b);
  store.init(strings{"d", "e"}, std::vector{d, d});
  store.init<pp::bfloat16>("converted", f);
  REQUIRE(store.keys() == strings{"f", "b", "d", "e", "converted"});
  REQUIRE(store.size() == 5);
  REQUIRE(store.dtype("b") == "bfloat16");
  REQUIRE(store.dtype("converted") == "bfloat16");
  REQUIRE(store.shape("d") == pp::shape{9});
  store.push("f", gradient_f);
  store.push("b", std::vector(2, pp::view_of(gradient_b)));
  std::vector<std::vector<double>> out(2, std::vector<double>(9));
  auto const gradients = out;
  store.pushpull(strings{"d", "e"}, gradients, out);
  std::vector<float> result(700), wide(30);
  store.pull("f", result);
  store.pull("b", wide);
  store.wait();
  REQUIRE(result == std::vector<float>(700, 4.0F));
  REQUIRE(wide == std::vector<float>(30, 3.0F));
  REQUIRE(out == std::vector{d, d});
  REQUIRE(store.steps("f") == 1);
  REQUIRE(store.steps("converted") == 0);
  REQUIRE(store.of<pp::bfloat16>().state("b", "momentum_buffer").size() == 30);
  auto rule = store.updater();
  rule.learning_rate = 2.0;
  store.set_hyperparameters(rule);
  REQUIRE(store.of<double>().updater().learning_rate == 2.0);
}

TEST_CASE("a key of another element type is refused by name and type, and nothing changes",
          "[typed_kv_store][errors]") {
  pp::kv_store<pp::type_list<float, double>, pp::cpu_device<>, pp::synchronous> store{pp::cpu_devices(2)};
  std::vector<float> const f(7, 5.0F);
  std::vector<double> const d(7, 6.0);
  std::vector<double> out(7);
  store.init("f", f);
  store.init("d", d);
  using Catch::Matchers::Contains;
  REQUIRE_THROWS_AS(store.push("f", d), pp::invalid_argument);
  REQUIRE_THROWS_WITH(store.push("f", d), Contains("\"f\"") && Contains("float32") && Contains("float64"));
  REQUIRE_THROWS_AS(store.push(strings{"d", "f"}, std::vector{d, d}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.init("f", d), pp::duplicate_key);
  REQUIRE_THROWS_AS(store.init(strings{"g", "f"}, std::vector{d, d}), pp::duplicate_key);
  REQUIRE_THROWS_AS(store.init(strings{"g", "g"}, std::vector{d, d}), pp::duplicate_key);
  REQUIRE_FALSE(store.contains("g"));
  REQUIRE_THROWS_AS(store.push("g", d), pp::unknown_key);
  REQUIRE_THROWS_AS(store.pull("g", out), pp::unknown_key);
  REQUIRE_THROWS_AS(store.wait("g"), pp::unknown_key);
  REQUIRE(store.size() == 2);
  store.pull("f", out);
  REQUIRE(out == std::vector<double>(7, 5.0));
  store.init("g", f);
  REQUIRE(store.dtype("g") == "float32");
}

TEST_CASE("a model of several element types is updated by one pass per device and type",
          "[typed_kv_store][parameter_store]") {
  pp::kv_store<pp::type_list<float, pp::bfloat16>, pp::cpu_device<>, update::sgd, pp::element::master<float>> store{
      pp::cpu_devices(2), update::sgd{1.0}};
  pp::parameter_store parameters{store};
  std::vector<float> weight(3001, 5.0F), norm(17, 2.0F), fine(8, 1.0F);
  std::vector<pp::bfloat16> const narrow(70, pp::convert<pp::bfloat16>(3.0F));
  parameters.add("weight", weight);
  parameters.add("norm", norm, {.requires_grad = false});
  parameters.add("narrow", narrow);
  parameters.add<pp::bfloat16>("fine", fine);
  REQUIRE(parameters.size() == 4);
  REQUIRE_THROWS_AS(parameters.add("narrow", weight), pp::duplicate_key);
  REQUIRE_THROWS_AS(parameters.value<float>("narrow", 0), pp::unknown_key);
  REQUIRE_THROWS_AS(parameters.value<float>("other", 0), pp::unknown_key);
  for (std::size_t n = 0; n < 2; ++n) {
    std::fill_n(parameters.grad<float>("weight", n).data(), 3001, 0.5F);
    std::fill_n(parameters.grad<pp::bfloat16>("narrow", n).data(), 70, pp::convert<pp::bfloat16>(0.25F));
    std::fill_n(parameters.grad<pp::bfloat16>("fine", n).data(), 8, pp::convert<pp::bfloat16>(1.0F / 1024));
  }
  parameters.update_all();
  parameters.freeze("narrow");
  REQUIRE_FALSE(parameters.requires_grad("narrow"));
  parameters.update_all();
  REQUIRE(pp::to_vector(parameters.value<float>("weight", pp::cpu_device<>(1))) == std::vector<float>(3001, 3.0F));
  REQUIRE(pp::convert<float>(parameters.value<pp::bfloat16>("narrow", 1).data()[69]) == 2.5F);
  parameters.close();
  REQUIRE(weight[3000] == 3.0F);
  REQUIRE(norm[3] == 2.0F);
  REQUIRE(fine[7] == 1.0F - 4.0F / 1024);  // float masters lose nothing
  REQUIRE(store.dtype("fine") == "bfloat16");
}

TEST_CASE("any_keys takes integers and strings", "[any_keys]") {
  pp::kv_store<float, pp::cpu_device<>, pp::any_keys, pp::synchronous> store{pp::cpu_devices(1)};
  std::string const text = "a name that is longer than a small string";
  store.init(7, std::vector<float>(3, 7.0F));
  store.init(text, std::vector<float>(3, 8.0F));
  store.init("7", std::vector<float>(3, 9.0F));
  std::vector<float> out(3);
  store.pull(std::int64_t{7}, out);
  REQUIRE(out[0] == 7.0F);
  store.pull(std::string_view(text), out);
  REQUIRE(out[0] == 8.0F);
  store.pull("7", out);
  REQUIRE(out[0] == 9.0F);
  REQUIRE(store.keys() == std::vector{pp::any_key(7), pp::any_key(text), pp::any_key("7")});
  std::vector outs(2, out);
  store.pull(std::vector<unsigned>{7, 7}, outs);
  REQUIRE(outs[1][2] == 7.0F);
  REQUIRE_THROWS_WITH(store.pull(8, out), Catch::Matchers::Contains("key 8"));
  REQUIRE_THROWS_WITH(store.pull("8", out), Catch::Matchers::Contains("key \"8\""));
}

TEST_CASE("a key of either kind says which it is, and gives no other", "[any_keys]") {
  pp::any_key_view const number(7), text("seven");
  pp::any_key const owned(text);
  REQUIRE(number.is_integer());
  REQUIRE_FALSE(number.is_string());
  REQUIRE(number.integer() == 7);
  REQUIRE(owned.is_string());
  REQUIRE_FALSE(owned.is_integer());
  REQUIRE(owned.string() == "seven");
  REQUIRE(pp::any_key(7).integer() == 7);
  REQUIRE_THROWS_WITH(number.string(),
                      Catch::Matchers::Contains("a string expected") && Catch::Matchers::Contains("7"));
  REQUIRE_THROWS_AS(owned.integer(), pp::invalid_argument);
}

TEST_CASE("make_kv_store deduces policies for any element type, or several", "[kv_store]") {
  auto const rule = update::clip_value(1) | update::adamw{};
  auto narrow =
      pp::make_kv_store<pp::bfloat16>(pp::cpu_devices(2), rule, pp::element::master<float>{}, pp::integer_keys{});
  static_assert(
      std::same_as<decltype(narrow), pp::kv_store<pp::bfloat16, pp::cpu_device<>, std::remove_const_t<decltype(rule)>,
                                                  pp::element::master<float>, pp::integer_keys>>);
  std::vector<float> const w(10, 1.0F);
  std::vector<pp::bfloat16> const g(10);
  narrow.init(3, w);
  narrow.push(3, g);
  REQUIRE(narrow.steps(3) == 1);
  auto several = pp::make_kv_store<pp::type_list<float, double>>(pp::cpu_devices(1), update::sgd{}, pp::synchronous{});
  several.init("w", w);
  several.push("w", w);
  REQUIRE(several.of<float>().steps("w") == 1);
  REQUIRE(pp::make_kv_store<std::int64_t>(pp::cpu_devices(1)).size() == 0);
}
