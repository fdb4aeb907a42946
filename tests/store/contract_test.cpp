/// @file
/// What MXNet's KVStore promises of keys, operations and sums, where no other test says it; and where it is better not to
/// follow.
#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using pp::shape;
using strings = std::vector<std::string>;
using integers = std::vector<std::int64_t>;
using floats = std::vector<float>;
using lists = std::vector<floats>;
using view = pp::tensor_view<float>;
using rows = pp::row_sparse<float>;

template <class Store>
floats pulled(Store& store, auto const& key, std::size_t size) {
  floats out(size);
  store.pull(key, out).wait();
  return out;
}

template <class Store, class Key>
concept Inits = requires(Store& s, Key const& key, floats& x) { s.init(key, x); };
template <class Store, class Key>
concept Pushes = requires(Store& s, Key const& key, floats& x) { s.push(key, x); };
template <class Store, class Key>
concept Pulls = requires(Store& s, Key const& key, floats& x) { s.pull(key, x); };
template <class Store, class Key>
concept PushesAndPulls = requires(Store& s, Key const& key, floats& x) { s.pushpull(key, x, x); };
template <class Store, class Key>
concept Broadcasts = requires(Store& s, Key const& key, floats& x) { s.broadcast(key, x, x); };
template <class Store, class Key>
concept PullsRows =
    requires(Store& s, Key const& key, rows& x, integers const& ids) { s.row_sparse_pull(key, x, ids); };
template <class Store, class Keys>
concept PushesLists = requires(Store& s, Keys const& keys, lists& x) { s.push(keys, x); };

template <class Store, class Key>
constexpr bool takes() {
  return Inits<Store, Key> && Pushes<Store, Key> && Pulls<Store, Key> && PushesAndPulls<Store, Key> &&
         Broadcasts<Store, Key> && PullsRows<Store, Key> && PushesLists<Store, std::vector<Key>>;
}
template <class Store, class Key>
constexpr bool refuses() {
  return !Inits<Store, Key> && !Pushes<Store, Key> && !Pulls<Store, Key> && !PushesAndPulls<Store, Key> &&
         !Broadcasts<Store, Key> && !PullsRows<Store, Key> && !PushesLists<Store, std::vector<Key>>;
}

template <class Store, class Gradient>
concept TakesGradient = requires(Store& s, Gradient& g) { s.push("w", g); };

/// A matrix by compressed rows, which is no Tensor and no RowSparseTensor.
struct csr {
  using value_type = float;
  using device_type = pp::cpu_device<>;
  float const* values() const;
  std::int64_t const* columns() const;
  std::int64_t const* row_ends() const;
  pp::shape shape() const;
  device_type device() const;
};

}  // namespace

TEST_CASE("a push takes dense and row-sparse gradients of the store's element type, and nothing else",
          "[kv_store][push]") {
  using replacing = pp::kv_store<float, pp::cpu_device<>>;
  using updating = pp::kv_store<float, pp::cpu_device<>, update::sgd>;
  STATIC_REQUIRE(TakesGradient<replacing, floats> && TakesGradient<updating, floats>);
  STATIC_REQUIRE(TakesGradient<replacing, rows> && TakesGradient<updating, rows>);
  STATIC_REQUIRE(!TakesGradient<replacing, csr> && !TakesGradient<updating, csr>);
  STATIC_REQUIRE(!TakesGradient<replacing, std::vector<double>> && !TakesGradient<updating, std::vector<double>>);
  STATIC_REQUIRE(!TakesGradient<replacing, pp::row_sparse<double>> && !TakesGradient<updating, pp::row_sparse<double>>);
}

TEST_CASE("a kv_store's type fixes the kind of its keys for every call", "[kv_store][keys]") {
  using named = pp::kv_store<float, pp::cpu_device<>>;
  using numbered = pp::kv_store<float, pp::cpu_device<>, pp::integer_keys>;
  STATIC_REQUIRE(takes<named, std::string>());
  STATIC_REQUIRE(refuses<named, int>());
  STATIC_REQUIRE(takes<numbered, int>());
  STATIC_REQUIRE(refuses<numbered, std::string>());
}

TEST_CASE("integer keys have 64 bits", "[kv_store][keys]") {
  pp::kv_store<float, pp::cpu_device<>, pp::integer_keys> store{pp::cpu_devices(2)};
  integers const keys{7, 7 + (std::int64_t{1} << 32), -7, std::numeric_limits<std::int64_t>::min()};
  lists values;
  for (std::size_t i = 0; i < keys.size(); ++i) values.emplace_back(3, static_cast<float>(i));
  store.init(keys, values);
  for (std::size_t i = 0; i < keys.size(); ++i) REQUIRE(pulled(store, keys[i], 3) == values[i]);
  REQUIRE(store.keys() == keys);
}

TEST_CASE("init has copied the value when it returns, and keeps its shape", "[kv_store][init]") {
  pp::kv_store store{pp::cpu_devices(3)};
  floats w(60000, 1.5F);
  store.init("w", view(w.data(), shape{200, 300}));
  std::fill(w.begin(), w.end(), 0.0F);
  REQUIRE(store.shape("w") == shape{200, 300});
  store.pull("w", view(w.data(), shape{200, 300})).wait();
  REQUIRE(w == floats(60000, 1.5F));
}

TEST_CASE("what a push of several sources stored does not change with the sources, nor with the next push's",
          "[kv_store][push]") {
  pp::kv_store store{pp::cpu_devices(2)};
  strings const keys{"a", "b"};
  store.init(keys, lists(2, floats(70)));
  lists sources{floats(70, 1.0F), floats(70, 2.0F), floats(70, 4.0F)};
  store.push("a", sources).wait();
  for (auto& source : sources) source.assign(70, 100.0F);
  store.push("b", sources).wait();
  REQUIRE(pulled(store, "a", 70) == floats(70, 7.0F));
}

TEST_CASE("pushpull without outputs overwrites the gradients: an all-reduce in place", "[kv_store][pushpull]") {
  pp::kv_store store{pp::cpu_devices(2)};
  strings const keys{"a", "b"};
  store.init(keys, lists{floats(70, 9.0F), floats(5, 9.0F)});
  lists single{floats(70, 1.0F), floats(70, 2.0F), floats(70, 4.0F)};
  store.pushpull("a", single).wait();
  REQUIRE(single == lists(3, floats(70, 7.0F)));
  std::vector<lists> several{lists(2, floats(70, 0.5F)), lists(3, floats(5, 2.0F))};
  store.pushpull(keys, several).wait();
  REQUIRE(several == std::vector<lists>{lists(2, floats(70, 1.0F)), lists(3, floats(5, 6.0F))});
}

TEST_CASE("a push leaves its gradients as they were, whatever the rule does to them", "[kv_store][push]") {
  pp::kv_store store{pp::cpu_devices(2), update::rescale(0.5) | update::clip_global_norm(1) | update::adam{}};
  store.init("w", floats(3000));
  lists gradients{floats(3000, 8.0F)};
  for (std::size_t const sources : {1U, 3U}) {
    gradients.resize(sources, floats(3000, -2.0F));
    auto const before = gradients;
    store.push("w", gradients).wait();
    REQUIRE(gradients == before);
  }
}

TEMPLATE_TEST_CASE("the number of a key's sources may change from push to push", "[kv_store][push]", pp::compress::none,
                   pp::compress::two_bit) {
  pp::kv_store<float, pp::cpu_device<>, TestType> store{pp::cpu_devices(3)};
  store.init("w", floats(70));
  for (std::size_t const sources : {2U, 5U, 1U, 9U}) {
    lists const gradients(sources, floats(70, 0.5F));  // what two bits say exactly
    store.push("w", gradients).wait();
    REQUIRE(pulled(store, "w", 70) == floats(70, 0.5F * static_cast<float>(sources)));
  }
}

TEST_CASE("sources are added in the order given, one after the other from the left", "[kv_store][reduce]") {
  float const large = 0x1p25F;  // 1 is less than half a unit in its last place
  pp::kv_store store{pp::cpu_devices(3)};
  store.init("w", floats(1500));
  auto const sum = [&](floats const& terms) {
    lists sources;
    for (float const term : terms) sources.emplace_back(1500, term);
    store.push("w", sources).wait();
    return pulled(store, "w", 1500);
  };
  REQUIRE(sum({large, 1, -large}) == floats(1500, 0.0F));
  REQUIRE(sum({large, -large, 1}) == floats(1500, 1.0F));
  REQUIRE(sum({1, large, -large, 1, 1, 1}) == floats(1500, 3.0F));
  REQUIRE(sum({large, 1, 1, 1, 1, 1, 1, 1, -large, 2}) == floats(1500, 2.0F));
}

TEMPLATE_TEST_CASE("sums of 16-bit gradients are computed in float and rounded once", "[kv_store][reduce]", pp::half,
                   pp::bfloat16) {
  using T = TestType;
  float const large = std::is_same_v<T, pp::half> ? 2048.0F : 256.0F;  // 1 is half a unit in its last place
  pp::kv_store<T, pp::cpu_device<>> store{pp::cpu_devices(2)};
  store.init("w", floats(1500));
  std::vector<T> const one(1500, pp::convert<T>(1.0F)), first(1500, pp::convert<T>(large));
  store.push("w", std::vector{pp::view_of(first), pp::view_of(one), pp::view_of(one)}).wait();
  REQUIRE(pulled(store, "w", 1500) == floats(1500, large + 2));
}

TEST_CASE("an update of a list equals updates of its keys one by one", "[kv_store][push]") {
  auto const rule = update::clip_value(0.5) | update::adam{.learning_rate = 0.1};
  pp::kv_store together{pp::cpu_devices(2), rule}, apart{pp::cpu_devices(2), rule};
  strings const keys{"a", "b", "c"};
  lists values{floats(70, 1.0F), floats(3, 2.0F), floats(1500, -3.0F)}, gradients = values;
  together.init(keys, values);
  apart.init(keys, values);
  for (int t = 0; t < 3; ++t) {
    together.pushpull(keys, gradients, values).wait();
    for (std::size_t k = 0; k < 3; ++k) {
      apart.push(keys[k], gradients[k]).wait();
      REQUIRE(pulled(apart, keys[k], values[k].size()) == values[k]);
    }
  }
}

TEST_CASE("updates in the store, and updates of summed gradients outside of it, give the same weights", "[kv_store]") {
  pp::kv_store weights{pp::cpu_devices(2), update::momentum{.learning_rate = 0.5, .momentum = 0.5}};
  pp::kv_store sums{pp::cpu_devices(2)};
  weights.init("w", floats(70, 1.0F));
  sums.init("w", floats(70));
  lists inside(2, floats(70)), outside(2, floats(70, 1.0F));
  floats momentum(70);
  for (int t = 1; t <= 3; ++t) {
    lists gradients{floats(70, 0.25F), floats(70, -0.125F * static_cast<float>(t))};
    weights.pushpull("w", gradients, inside).wait();
    sums.pushpull("w", gradients).wait();
    for (std::size_t i = 0; i < 70; ++i) momentum[i] = 0.5F * momentum[i] + gradients[0][i];
    for (auto& copy : outside)
      for (std::size_t i = 0; i < 70; ++i) copy[i] -= 0.5F * momentum[i];
    REQUIRE(inside == outside);
  }
}

TEST_CASE("MXNet's environment variables change nothing", "[kv_store]") {
  auto const train = [] {
    pp::kv_store store{pp::cpu_devices(3), update::clip_global_norm(0.5) | update::adam{.learning_rate = 0.1}};
    floats w(5003), g(5003);
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = static_cast<float>(i % 13) / 7 - 1;
    store.init("w", w);
    for (int t = 0; t < 3; ++t) store.pushpull("w", std::vector(5, view(g.data(), shape{5003})), w).wait();
    return w;
  };
  auto const before = train();
  strings const names{"MXNET_KVSTORE_REDUCTION_NTHREADS", "MXNET_KVSTORE_BIGARRAY_BOUND", "MXNET_KVSTORE_USETREE",
                      "MXNET_KVSTORE_TREE_ARRAY_BOUND",   "MXNET_KVSTORE_SERIAL_PUSH",    "MXNET_UPDATE_ON_KVSTORE"};
  for (auto const& name : names) ::setenv(name.c_str(), "1", 1);
  auto const after = train();
  for (auto const& name : names) ::unsetenv(name.c_str());
  REQUIRE(after == before);
}
