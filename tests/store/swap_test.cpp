/// @file
/// Weights and averages change places and back: bit for bit, on any number of devices, mirrors included.
#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

std::vector<std::string> const keys{"a", "empty", "b", "c"};
constexpr std::size_t sizes[] = {1, 0, 5003, 65};

template <class T>
std::vector<std::vector<T>> filled(float offset) {
  std::vector<std::vector<T>> result;
  for (std::size_t const size : sizes) {
    result.emplace_back(size);
    for (std::size_t i = 0; i < size; ++i)
      result.back()[i] = pp::convert<T>(offset + static_cast<float>((i * 31) % 17) / 8 - 1);
  }
  return result;
}

/// Values as doubles, which every type converts to exactly.
template <class T>
std::vector<std::vector<double>> exact(std::vector<std::vector<T>> const& tensors) {
  std::vector<std::vector<double>> result;
  for (auto const& tensor : tensors) {
    result.emplace_back();
    for (T const& x : tensor) result.back().push_back(pp::convert<double>(x));
  }
  return result;
}

template <class Store>
auto weights(Store& store) {
  auto values = filled<typename Store::master_type>(0);
  store.pull(keys, values).wait();
  return exact(values);
}
template <class Store>
auto averages(Store& store) {
  std::vector<std::vector<double>> result;
  for (auto const& key : keys) {
    result.emplace_back();
    for (auto const& x : store.state(key, "ema")) result.back().push_back(pp::convert<double>(x));
  }
  return result;
}

template <class T, class... Policies>
void round_trip(int devices) {
  auto const rule = update::adam{.learning_rate = 0.1} | update::ema(0.9);
  using store_type = pp::kv_store<T, pp::cpu_device<>, std::remove_const_t<decltype(rule)>, Policies...>;
  store_type store{pp::cpu_devices(devices), rule}, undisturbed{pp::cpu_devices(1), rule};
  auto const gradients = filled<T>(0.25F);
  for (auto* const s : {&store, &undisturbed}) {
    s->init(keys, filled<float>(0));
    for (int t = 0; t < 3; ++t) s->push(keys, gradients).wait();
  }
  auto const trained = weights(store), average = averages(store);
  REQUIRE(trained != average);
  REQUIRE(trained == weights(undisturbed));
  store.swap("ema");
  REQUIRE(weights(store) == average);
  REQUIRE(averages(store) == trained);
  store.swap("ema");
  REQUIRE(weights(store) == trained);
  REQUIRE(averages(store) == average);
  for (auto* const s : {&store, &undisturbed}) s->push(keys, gradients).wait();
  REQUIRE(weights(store) == weights(undisturbed));
  REQUIRE(averages(store) == averages(undisturbed));
}

}  // namespace

TEST_CASE("two swaps leave a store as it was, and training goes on", "[swap]") {
  for (int const devices : {1, 2, 4, 7}) {
    round_trip<float>(devices);
    round_trip<float, pp::synchronous, pp::placement::owners>(devices);
  }
  round_trip<double>(3);
  round_trip<pp::half>(3);
  round_trip<pp::bfloat16>(3);
  round_trip<pp::bfloat16, pp::element::master<float>>(3);
}

TEST_CASE("some keys are swapped, others stay", "[swap]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{0.5} | update::ema(0.5), pp::synchronous{}};
  store.init(keys, filled<float>(0));
  store.push(keys, filled<float>(0));
  store.push(keys, filled<float>(0));
  auto const trained = weights(store), average = averages(store);
  store.swap("c", "ema");
  store.swap(std::vector<std::string>{"empty", "a"}, "ema");
  auto const mixed = weights(store);
  REQUIRE(mixed[0] == average[0]);
  REQUIRE(mixed[2] == trained[2]);
  REQUIRE(mixed[3] == average[3]);
}

TEST_CASE("a key without updates has no average yet and stays", "[swap]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{} | update::ema(0.5), pp::synchronous{}};
  store.init(keys, filled<float>(0));
  auto const before = weights(store);
  store.push("b", filled<float>(1)[2]);
  auto const average = averages(store);
  store.swap("ema");
  auto const after = weights(store);
  REQUIRE(after[0] == before[0]);
  REQUIRE(after[2] == average[2]);
  REQUIRE(after[3] == before[3]);
}

TEST_CASE("a key whose only update was left out has no average either", "[swap]") {
  pp::kv_store store{pp::cpu_devices(2), update::apply_if_finite{} | update::sgd{} | update::ema(0.5),
                     pp::synchronous{}};
  store.init(keys, filled<float>(0));
  auto const before = weights(store);
  auto gradients = filled<float>(0);
  store.push("b", gradients[2]);
  gradients[3][7] = std::numeric_limits<float>::infinity();
  store.push("c", gradients[3]);
  auto const average = averages(store);
  store.swap("ema");
  REQUIRE(weights(store)[2] == average[2]);
  REQUIRE(weights(store)[3] == before[3]);
}

TEST_CASE("a swap that cannot be is refused, and changes nothing", "[swap][errors]") {
  pp::kv_store store{pp::cpu_devices(2), update::momentum{} | update::ema(0.5), pp::synchronous{}};
  store.init(keys, filled<float>(0));
  store.push(keys, filled<float>(0.25F));
  auto const before = weights(store);
  REQUIRE_THROWS_AS(store.swap("slow"), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.swap("nobody", "ema"), pp::unknown_key);
  REQUIRE_THROWS_AS(store.swap(std::vector<std::string>{"a", "nobody"}, "ema"), pp::unknown_key);
  REQUIRE_THROWS_AS(store.swap(std::vector<std::string>{"b", "a", "b"}, "ema"), pp::duplicate_key);
  REQUIRE(weights(store) == before);
}

TEST_CASE("mirrors of a parameter_store follow on every device", "[swap]") {
  auto const check = [](auto const& policy, auto element) {
    using T = decltype(element);
    auto const rule = update::adam{.learning_rate = 0.1} | update::lookahead(2) | update::ema(0.5);
    for (int const devices : {1, 3}) {
      pp::kv_store<T, pp::cpu_device<>, std::remove_const_t<decltype(rule)>, std::remove_cvref_t<decltype(policy)>>
          store{pp::cpu_devices(devices), rule};
      pp::parameter_store parameters{store};
      auto values = filled<T>(0);
      for (std::size_t k = 0; k < keys.size(); ++k) parameters.add(keys[k], values[k]);
      parameters.add("frozen", std::vector<T>(70, pp::convert<T>(0.5F)), {.requires_grad = false});
      auto const step = [&] {
        for (auto const& key : keys)
          for (std::size_t n = 0; n < static_cast<std::size_t>(devices); ++n) {
            auto const g = parameters.grad(key, n);
            for (std::size_t i = 0; i < g.size(); ++i) g.data()[i] = pp::convert<T>(0.25F);
          }
        parameters.update_all();
      };
      auto const mirrors = [&] {
        std::vector<std::vector<double>> all;
        for (std::size_t n = 0; n < static_cast<std::size_t>(devices); ++n)
          for (auto const& key : {"a", "b", "c", "frozen"})
            all.push_back(exact<T>({pp::to_vector(parameters.value(key, n))}).front());
        return all;
      };
      step();
      step();
      auto const trained = mirrors();
      auto const average = averages(store);
      parameters.swap("ema");
      auto const swapped = mirrors();
      for (std::size_t n = 0; n < static_cast<std::size_t>(devices); ++n) {
        REQUIRE(swapped[4 * n + 3] == trained[3]);  // never updated
        for (std::size_t k = 0; k < 3; ++k) {
          auto expected = average[k + (k > 0 ? 1 : 0)];
          for (double& x : expected) x = pp::convert<double>(pp::convert<T>(x));
          REQUIRE(swapped[4 * n + k] == expected);
        }
      }
      parameters.swap("ema");
      REQUIRE(mirrors() == trained);
      REQUIRE_THROWS_AS(parameters.swap("average"), pp::invalid_argument);
    }
  };
  check(pp::element::uniform{}, float{});
  check(pp::element::master<float>{}, pp::bfloat16{});
}

TEST_CASE("a store of several element types swaps them all", "[swap]") {
  auto const rule = update::momentum{.learning_rate = 0.5, .momentum = 0} | update::ema(0.5);
  pp::kv_store<pp::type_list<float, double>, pp::cpu_device<>, std::remove_const_t<decltype(rule)>> store{
      pp::cpu_devices(2), rule};
  std::vector<float> const x(70, 1.0F), g(70, 1.0F);
  std::vector<double> const y(70, 2.0), h(70, 1.0);
  store.init("x", x);
  store.init("y", y);
  for (int t = 0; t < 2; ++t) {
    store.push("x", g).wait();
    store.push("y", h).wait();
  }
  std::vector<float> a(70);
  std::vector<double> b(70);
  auto const expect = [&](double first, double second) {
    store.pull("x", a).wait();
    store.pull("y", b).wait();
    REQUIRE(a[69] == Approx(first));
    REQUIRE(b[69] == Approx(second));
  };
  double const above = 0.5 / 3;  // the average of 1/2 behind and 0 with weights 1/3 and 2/3
  expect(0, 1);
  store.swap("ema");
  expect(above, 1 + above);
  store.swap(std::vector<std::string>{"x", "y"}, "ema");
  expect(0, 1);
  store.swap("y", "ema");
  expect(0, 1 + above);

  // A model of both element types is swapped, or copied out, as a whole.
  pp::parameter_store parameters{store};
  std::vector<float> p(70, 1.0F);
  std::vector<double> q(70, 2.0);
  parameters.add("p", p);
  parameters.add("q", q);
  for (std::size_t n = 0; n < 2; ++n) {
    std::fill_n(parameters.grad<float>("p", n).data(), 70, 1.0F);
    std::fill_n(parameters.grad<double>("q", n).data(), 70, 1.0);
  }
  parameters.update_all();
  store.swap("q", "momentum_buffer");
  auto const first = [&] { return parameters.value<float>("p", 1).data()[69]; };
  REQUIRE(first() == Approx(0));
  REQUIRE_THROWS_AS(parameters.swap("ema"), pp::invalid_argument);
  REQUIRE(store.swapped("p").empty());
  REQUIRE(first() == Approx(0));
  REQUIRE_THROWS_AS(parameters.sync_master(), pp::invalid_argument);
  REQUIRE(p == std::vector<float>(70, 1.0F));
  store.swap("q", "momentum_buffer");
  parameters.swap("ema");
  REQUIRE(store.swapped("p") == "ema");
  REQUIRE(store.swapped("q") == "ema");
  parameters.swap("ema");
  parameters.sync_master();
  REQUIRE(p[69] == Approx(0));
  REQUIRE(q[69] == Approx(1));
}

TEST_CASE("what trains, sets or saves a key is refused while a state stands in the place of its weights",
          "[swap][errors]") {
  using Catch::Matchers::Contains;
  auto const rule = update::momentum{} | update::lookahead(2) | update::ema(0.5);
  pp::kv_store<float, pp::cpu_device<>, std::remove_const_t<decltype(rule)>> store{pp::cpu_devices(2), rule};
  auto const gradients = filled<float>(0.25F);
  store.init(keys, filled<float>(0));
  store.push(keys, gradients).wait();
  auto const trained = weights(store);
  store.swap("b", "ema");
  REQUIRE(store.swapped("b") == "ema");
  REQUIRE(store.swapped("c").empty());
  auto const swapped = weights(store);
  auto const states = store.state("b", "momentum_buffer");
  auto const refused = [&](auto const& call) {
    REQUIRE_THROWS_AS(call(), pp::invalid_argument);
    REQUIRE_THROWS_WITH(call(), Contains("key \"b\"") && Contains("\"ema\"") && Contains("swap it back"));
    REQUIRE(weights(store) == swapped);
    REQUIRE(store.state("b", "momentum_buffer") == states);
    REQUIRE(store.steps("b") == 1);
  };
  auto out = gradients;
  refused([&] { store.push("b", gradients[2]); });
  refused([&] { store.push(keys, gradients); });
  refused([&] { store.pushpull(keys, gradients, out); });
  refused([&] { store.set_steps("b", 5); });
  refused([&] { store.set_state("b", "momentum_buffer", states); });
  refused([&] { store.swap("b", "slow"); });
  refused([&] { store.swap("slow"); });
  REQUIRE_NOTHROW(store.push("c", gradients[3]).wait());  // each key for itself
  store.swap("b", "ema");
  REQUIRE(store.swapped("b").empty());
  REQUIRE(weights(store)[2] == trained[2]);
  REQUIRE_NOTHROW(store.push(keys, gradients).wait());

  pp::kv_store rows{pp::cpu_devices(2), update::sgd{} | update::ema(0.5)};
  rows.init("b", std::vector<float>(70, 1.0F));
  pp::row_sparse<float> row(pp::cpu_device<>(0), pp::shape{70}, 1);
  row.row_ids()[0] = 3;
  row.values()[0] = 1;
  rows.push("b", row).wait();
  rows.swap("ema");
  REQUIRE_THROWS_WITH(rows.push("b", row), Contains("key \"b\"") && Contains("\"ema\""));
  rows.swap("ema");
  REQUIRE_NOTHROW(rows.push("b", row).wait());
}

TEST_CASE("a key without updates is not trained either before it is swapped back", "[swap][errors]") {
  pp::kv_store store{pp::cpu_devices(1), update::sgd{1} | update::ema(0.5), pp::synchronous{}};
  std::vector<float> const w(70, 1.0F), g(70, 0.5F);
  store.init("w", w);
  store.swap("ema");
  REQUIRE_THROWS_AS(store.push("w", g), pp::invalid_argument);  // the second swap would be the first that exchanges
  store.swap("ema");
  store.push("w", g);
  std::vector<float> out(70);
  store.pull("w", out);
  REQUIRE(out == std::vector<float>(70, 0.5F));
}

TEST_CASE("a model is neither stepped nor written back while averages stand in the place of its weights",
          "[swap][errors]") {
  using Catch::Matchers::Contains;
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1} | update::ema(0.5), pp::accumulate{}};
  pp::parameter_store parameters{store};
  std::vector<float> w(70, 1.0F);
  parameters.add("w", w);
  for (int step = 0; step < 2; ++step) {
    for (std::size_t n = 0; n < 2; ++n) std::fill_n(parameters.grad("w", n).data(), 70, 0.25F);
    parameters.update_all();
  }
  parameters.swap("ema");
  auto const average = pp::to_vector(parameters.value("w", 1));
  for (int call = 0; call < 2; ++call) {
    REQUIRE_THROWS_WITH(parameters.update_all(), Contains("\"w\"") && Contains("\"ema\""));
    REQUIRE_THROWS_WITH(parameters.accumulate_all(), Contains("\"w\"") && Contains("\"ema\""));
    REQUIRE_THROWS_WITH(parameters.sync_master(), Contains("\"w\"") && Contains("\"ema\""));
  }
  REQUIRE(pp::to_vector(parameters.value("w", 1)) == average);
  REQUIRE(w == std::vector<float>(70, 1.0F));
  parameters.swap("ema");
  parameters.update_all();
  parameters.sync_master();
  REQUIRE(w == std::vector<float>(70, -0.5F));
}

TEST_CASE("a step of several element types or rules is refused as a whole where one key holds its average",
          "[swap][errors]") {
  auto const rule = update::sgd{1} | update::ema(0.5);
  pp::kv_store<pp::type_list<float, double>, pp::cpu_device<>, std::remove_const_t<decltype(rule)>> typed{
      pp::cpu_devices(2), rule};
  pp::parameter_store both{typed};
  both.add("f", std::vector<float>(70, 1.0F));
  both.add("d", std::vector<double>(70, 1.0));
  both.materialize();
  std::fill_n(both.grad<float>("f", 0).data(), 70, 0.5F);
  both.update_all();
  typed.swap("d", "ema");
  REQUIRE_THROWS_AS(both.update_all(), pp::invalid_argument);
  REQUIRE(both.value<float>("f", 1).data()[69] == 0.5F);
  REQUIRE(typed.steps("f") == 1);
  typed.swap("d", "ema");
  both.update_all();
  REQUIRE(both.value<float>("f", 1).data()[69] == 0.0F);

  auto const is_b = [](std::string_view name) { return name == "b"; };
  pp::kv_store ruled{pp::cpu_devices(2), pp::rules{update::sgd{1}, pp::where(is_b, rule)}, pp::synchronous{}};
  pp::parameter_store model{ruled};
  for (auto const* const name : {"a", "b"}) model.add(name, std::vector<float>(70, 1.0F));
  model.materialize();
  std::fill_n(model.grad("a", 0).data(), 70, 0.5F);
  model.update_all();
  ruled.of<std::remove_const_t<decltype(rule)>>().swap("b", "ema");
  REQUIRE(ruled.swapped("b") == "ema");
  std::vector const gradients(2, std::vector<float>(70, 0.5F));
  REQUIRE_THROWS_AS(ruled.push(std::vector<std::string>{"a", "b"}, gradients), pp::invalid_argument);
  REQUIRE_THROWS_AS(model.update_all(), pp::invalid_argument);
  REQUIRE(model.value("a", 1).data()[69] == 0.5F);
}
