/// @file
/// kv_store: operations, forms of arguments, errors that leave it as it was.
#include <array>
#include <cmath>
#include <limits>
#include <list>
#include <pushpull/pushpull.hpp>
#include <span>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/ranges.hpp"
#include "support/sanitized.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using strings = std::vector<std::string>;

template <class T>
std::vector<T> pulled(auto& store, auto key, std::size_t size) {
  std::vector<T> out(size);
  store.pull(key, out);
  return out;
}

using element_types = pp::test::first_if_sanitized<float, double, std::int32_t, std::int64_t, std::uint8_t>;

}  // namespace

TEMPLATE_LIST_TEST_CASE("kv_store without an updater replaces by the reduced sum", "[kv_store][push]", element_types) {
  using T = TestType;
  for (int const devices : {1, 3})
    for (std::size_t const size : {0, 1, 3, 64, 4099})
      for (std::size_t const k : {1, 2, 9, 20}) {
        pp::kv_store<T, pp::cpu_device<>, pp::synchronous> store{pp::cpu_devices(devices)};
        store.init("w", std::vector<T>(size, T(7)));
        std::vector<std::vector<T>> gradients;
        for (std::size_t i = 0; i < k; ++i) gradients.emplace_back(size, static_cast<T>(i + 1));
        store.push("w", gradients);
        store.push("w", gradients);  // replaces, does not accumulate
        REQUIRE(pulled<T>(store, "w", size) == std::vector<T>(size, static_cast<T>(k * (k + 1) / 2)));
      }
}

TEST_CASE("integer sums wrap", "[kv_store][push]") {
  pp::kv_store<std::uint8_t, pp::cpu_device<>, pp::synchronous> store{pp::cpu_devices(1)};
  std::vector<std::uint8_t> const x(10, 200);
  store.init("w", x);
  store.push("w", std::vector{x, x});
  REQUIRE(pulled<std::uint8_t>(store, "w", 10)[9] == 144);
}

TEMPLATE_TEST_CASE("mean and max reduce elementwise", "[kv_store][reduce]", pp::reduce::mean, pp::reduce::max) {
  pp::kv_store<float, pp::cpu_device<>, TestType, pp::synchronous> store{pp::cpu_devices(2)};
  store.init("w", std::vector<float>(2000));
  for (int k = 1; k <= 9; ++k) {
    std::vector<std::vector<float>> gradients;
    for (int i = 1; i <= k; ++i) gradients.emplace_back(2000, static_cast<float>(i));
    store.push("w", gradients);
    float const expected =
        std::is_same_v<TestType, pp::reduce::max> ? static_cast<float>(k) : static_cast<float>(k + 1) / 2;
    REQUIRE(pulled<float>(store, "w", 2000)[1999] == Approx(expected));
    gradients[static_cast<std::size_t>(k / 2)][1999] = std::numeric_limits<float>::quiet_NaN();  // of any source
    store.push("w", gradients);
    REQUIRE(std::isnan(pulled<float>(store, "w", 2000)[1999]));
  }
}

TEST_CASE("kv_store takes every form of tensors and of lists", "[kv_store]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0}, pp::synchronous{}};
  std::vector<float> w(6, 0.0F);
  store.init("w", pp::tensor_view(w.data(), pp::shape{2, 3}));
  pp::tensor<float> g(pp::cpu_device<>(), pp::shape{2, 3});
  std::fill_n(g.data(), 6, 1.0F);
  store.push("w", g);
  store.push("w", g.view());
  store.push("w", std::array{g.view(), g.view()});
  store.push("w", std::list{g.view()});
  store.push("w", ranges::views::iota(0, 3) | ranges::views::transform([&](int) { return g.view(); }));
  pp::tensor<float> out(pp::cpu_device<>(), pp::shape{2, 3});
  store.pull("w", out);
  REQUIRE(out.data()[5] == -8);
  store.init("v", std::array<float, 3>{1, 2, 3});
  std::vector<float> v(3, 1.0F);
  store.pushpull("v", std::span<float const>(v), std::span<float>(v));  // in place
  REQUIRE(v == std::vector<float>{0, 1, 2});
  std::vector<std::string> const keys{"a", "b"};
  store.init(keys, std::list{std::vector<float>(2, 5.0F), std::vector<float>(2, 6.0F)});
  std::vector outs(2, std::vector(2, std::vector<float>(2)));
  store.pushpull(keys, std::vector(2, std::vector<float>(2, 1.0F)), outs);
  REQUIRE(outs[0][1] == std::vector<float>{4, 4});
  REQUIRE(outs[1][0] == std::vector<float>{5, 5});
  store.broadcast("c", std::vector<float>(3, 9.0F), outs[0][0] = std::vector<float>(3));
  REQUIRE(outs[0][0] == std::vector<float>{9, 9, 9});
}

TEST_CASE("kv_store pulls into other element types, rounded to nearest", "[kv_store][pull]") {
  pp::kv_store<float, pp::cpu_device<>, pp::integer_keys, pp::synchronous> store{pp::cpu_devices(3)};
  store.init(-4, std::vector<double>(5000, 1.0 / 3));
  REQUIRE(pulled<double>(store, -4, 5000)[4999] == double{1.0F / 3});
  REQUIRE(pp::convert<float>(pulled<pp::bfloat16>(store, -4, 5000)[4999]) == 0.333984375F);
  REQUIRE(pulled<std::int32_t>(store, -4, 5000)[0] == 0);
}

TEST_CASE("kv_store never aliases the caller's memory", "[kv_store]") {
  pp::kv_store<float, pp::cpu_device<>, pp::synchronous> store{pp::cpu_devices(1)};
  std::vector<float> x(100, 1.0F);
  store.init("w", x);
  x.assign(100, 2.0F);
  REQUIRE(pulled<float>(store, "w", 100)[0] == 1);
  store.push("w", x);
  x.assign(100, 3.0F);
  REQUIRE(pulled<float>(store, "w", 100)[99] == 2);
}

TEST_CASE("kv_store's errors say what is wrong and leave it as it was", "[kv_store][errors]") {
  pp::kv_store store{pp::cpu_devices(2), update::momentum{.learning_rate = 1}, pp::synchronous{}};
  std::vector<std::string> const keys{"w", "v"};
  std::vector<float> x(12, 1.0F), y(12);
  store.init(keys, std::vector{x, x});
  store.push(keys, std::vector{x, x});
  using Catch::Matchers::Contains;
  REQUIRE_THROWS_WITH(store.push("u", x), Contains("\"u\"") && Contains("never"));
  REQUIRE_THROWS_AS(store.push("u", x), pp::unknown_key);
  REQUIRE_THROWS_AS(store.pull("u", x), pp::unknown_key);
  REQUIRE_THROWS_AS(store.pushpull("u", x, x), pp::unknown_key);
  REQUIRE_THROWS_AS(store.steps("u"), pp::unknown_key);
  REQUIRE_THROWS_AS(store.init("w", x), pp::duplicate_key);
  REQUIRE_THROWS_AS(store.init(strings{"q", "q"}, std::vector{x, x}), pp::duplicate_key);
  REQUIRE_THROWS_AS(store.init(strings{"q", "w"}, std::vector{x, x}), pp::duplicate_key);
  REQUIRE_FALSE(store.contains("q"));
  REQUIRE_THROWS_AS(store.broadcast("w", x, y), pp::duplicate_key);
  REQUIRE_THROWS_WITH(store.push("w", std::vector<float>(11)), Contains("(12)") && Contains("(11)"));
  REQUIRE_THROWS_AS(store.push("w", pp::tensor_view(x.data(), pp::shape{3, 4})), pp::shape_mismatch);
  std::vector<float> longer(13);
  REQUIRE_THROWS_AS(store.pushpull("w", x, longer), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.push(keys, std::vector{x, std::vector<float>(3)}), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.push(keys, std::vector<std::vector<float>>{x}), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.push(keys, std::vector{x, x, x}), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.push("w", std::vector<std::vector<float>>{}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.state("w", "exp_avg"), pp::invalid_argument);
  for (auto const& key : keys) {
    REQUIRE(pulled<float>(store, key, 12) == std::vector<float>(12, 0.0F));
    REQUIRE(store.state(key, "momentum_buffer") == x);
    REQUIRE(store.steps(key) == 1);
  }
  store.push(keys, std::vector{x, x});
  REQUIRE(pulled<float>(store, "v", 12)[11] == Approx(-1.9));
  std::vector<pp::cpu_device<>> const twice(2), none;
  REQUIRE_THROWS_AS((pp::kv_store{twice, update::sgd{}}), pp::duplicate_device);
  REQUIRE_THROWS_AS((pp::kv_store{none, update::sgd{}}), pp::invalid_argument);
}

TEST_CASE("equal keys of one list are grouped: summed for push, all filled for pull", "[kv_store]") {
  std::vector<float> const one(70, 1.0F), two(70, 2.0F), four(70, 4.0F);
  strings const keys{"b", "a", "b"};
  pp::kv_store plain{pp::cpu_devices(2), pp::synchronous{}};
  plain.init(strings{"a", "b"}, std::vector{one, one});
  plain.push(keys, std::vector{one, two, four});
  std::vector<std::vector<float>> out(3, std::vector<float>(70));
  plain.pull(keys, out);
  REQUIRE(out == std::vector{std::vector<float>(70, 5.0F), two, std::vector<float>(70, 5.0F)});

  pp::kv_store trained{pp::cpu_devices(2), update::clip_global_norm(1e9) | update::sgd{1.0}, pp::synchronous{}};
  trained.init(strings{"a", "b"}, std::vector{four, four});
  trained.pushpull(keys, std::vector{one, two, one}, out);
  REQUIRE(out == std::vector(3, two));
  REQUIRE(trained.steps("b") == 1);
}

TEST_CASE("sums over keys do not depend on the caller's order", "[kv_store]") {
  std::vector<std::vector<float>> values(3, std::vector<float>(3001));
  for (std::size_t k = 0; k < 3; ++k)
    for (std::size_t i = 0; i < 3001; ++i) values[k][i] = 0.1F * static_cast<float>((i * 7 + k) % 13);
  auto const rule = update::clip_global_norm(0.5) | update::sgd{1.0};
  pp::kv_store forwards{pp::cpu_devices(1), rule, pp::synchronous{}};
  pp::kv_store backwards{pp::cpu_devices(1), rule, pp::synchronous{}};
  strings const keys{"x", "y", "z"}, reversed{"z", "y", "x"};
  forwards.init(keys, values);
  backwards.init(keys, values);
  forwards.push(keys, values);
  backwards.push(reversed, std::vector{values[2], values[1], values[0]});
  for (auto const& key : keys) REQUIRE(pulled<float>(forwards, key, 3001) == pulled<float>(backwards, key, 3001));
}

TEST_CASE("broadcast of a list stores and fills all, or nothing", "[kv_store]") {
  pp::kv_store store{pp::cpu_devices(2), pp::synchronous{}};
  strings const keys{"a", "b"};
  std::vector<std::vector<float>> const values{std::vector<float>(5, 1.0F), std::vector<float>(70, 2.0F)};
  std::vector<std::vector<float>> out{std::vector<float>(5), std::vector<float>(69)};
  REQUIRE_THROWS_AS(store.broadcast(keys, values, out), pp::shape_mismatch);
  REQUIRE(store.size() == 0);
  out[1].resize(70);
  store.broadcast(keys, values, out);
  REQUIRE(out == values);
}

TEST_CASE("a list may make its keys as it goes; policies may be given as values", "[kv_store]") {
  pp::kv_store store{pp::cpu_devices(2), update::rescale(2) | update::sgd{1.0}, pp::reduce::mean{}, pp::integer_keys{},
                     pp::synchronous{}};
  store.init(7, std::vector<float>(9));
  store.push(7, std::vector(4, std::vector<float>(9, 3.0F)));
  REQUIRE(pulled<float>(store, 7, 9)[8] == -6.0F);
  auto rule = store.updater();
  get<update::sgd>(rule).learning_rate = 0.5;
  get<update::rescale>(rule).factor = -1;
  store.set_hyperparameters(rule);
  store.push(7, std::vector<float>(9, 2.0F));
  REQUIRE(pulled<float>(store, 7, 9)[0] == -5.0F);
  get<update::rescale>(rule).factor = std::numeric_limits<double>::infinity();
  REQUIRE_THROWS_AS(store.set_hyperparameters(rule), pp::invalid_argument);

  pp::kv_store named{pp::cpu_devices(1), pp::synchronous{}};
  auto const names = ranges::views::iota(0, 3) | ranges::views::transform([](int i) {
                       return "a name beyond the small buffer " + std::to_string(i);
                     });
  named.init(names, std::vector(3, std::vector<float>(4, 2.0F)));
  named.push(names, std::vector(3, std::vector<float>(4, 1.0F)));
  REQUIRE(pulled<float>(named, "a name beyond the small buffer 2", 4)[3] == 1.0F);
}

TEST_CASE("states and step counts can be taken out and put into another store", "[kv_store]") {
  auto const rule = update::adam{.learning_rate = 0.1};
  pp::kv_store one{pp::cpu_devices(1), rule, pp::synchronous{}}, three{pp::cpu_devices(3), rule, pp::synchronous{}};
  std::vector<float> w(5003), g(5003);
  for (std::size_t i = 0; i < w.size(); ++i) g[i] = static_cast<float>(i % 13) - 6;
  one.init("w", w);
  for (int t = 0; t < 4; ++t) one.push("w", g);
  one.pull("w", w);
  three.init("w", w);
  REQUIRE(one.keys() == strings{"w"});
  for (auto const& name : one.state_names()) three.set_state("w", name, one.state("w", name));
  three.set_steps("w", one.steps("w"));
  std::vector<float> a(5003), b(5003);
  one.pushpull("w", g, a);
  three.pushpull("w", g, b);
  REQUIRE(a == b);
  REQUIRE(three.steps("w") == 5);
  REQUIRE_THROWS_AS(three.set_steps("w", -1), pp::invalid_argument);
  REQUIRE_THROWS_AS(three.set_state("w", "exp_avg", std::vector<float>(5002)), pp::shape_mismatch);
  REQUIRE_THROWS_AS(three.set_state("w", "none", w), pp::invalid_argument);
  REQUIRE_THROWS_AS(three.set_state("v", "exp_avg", w), pp::unknown_key);
  REQUIRE(three.state("w", "exp_avg") == one.state("w", "exp_avg"));
}
