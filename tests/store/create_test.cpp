/// @file
/// Stores by name: what a name may say, keys of one kind, compression, and what is refused.
#include <concepts>
#include <cstdint>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/counting_device.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using strings = std::vector<std::string>;
using integers = std::vector<std::int64_t>;
using any_keys = std::vector<pp::any_key>;
using floats = std::vector<float>;
using lists = std::vector<floats>;
using rows = pp::row_sparse<float>;
using parameters = pp::compress::parameters;
using two_bit = pp::compressors<pp::compress::two_bit>;

template <class Store>
floats held(Store& store, pp::any_key const& key) {
  floats out(store.shape(key).size());
  store.pull(key, out).wait();
  return out;
}

/// Requires that call() throws an Error that says all `words`, that the key's value has not changed, and that it takes a
/// gradient of ones after it, by sgd at rate 1.
template <class Error, class Store, class F>
void refuses(Store& store, pp::any_key const& key, strings const& words, F const& call) {
  auto expected = held(store, key);
  bool refused = false;
  try {
    call();
  } catch (Error const& e) {
    refused = true;
    for (auto const& word : words) REQUIRE_THAT(e.what(), Catch::Matchers::Contains(word));
  }
  REQUIRE(refused);
  REQUIRE(held(store, key) == expected);
  floats const ones(expected.size(), 1.0F);
  store.push(key, ones).wait();
  for (float& x : expected) x -= 1;
  REQUIRE(held(store, key) == expected);
}

rows one_row(std::int64_t size) {
  rows result(pp::cpu_device<>(), pp::shape{size}, 1);
  result.row_ids()[0] = 1;
  result.values()[0] = 5;
  return result;
}

template <class Name>
concept NamesStore = requires(Name const& name) { pp::create(name, pp::cpu_devices(1)); };

}  // namespace

TEST_CASE("a store's name is a text", "[create]") {
  STATIC_REQUIRE(NamesStore<char const*> && NamesStore<std::string> && NamesStore<std::string_view>);
  STATIC_REQUIRE(!NamesStore<int> && !NamesStore<std::vector<std::string>>);
}

TEST_CASE("whatever the name, what reduces and updates are the devices that the store is given", "[create]") {
  for (char const* const name : {"local", "device", "local_allreduce_cpu", "an unknown word"}) {
    std::vector<pp::test::counting_device> const devices{pp::test::counting_device(0), pp::test::counting_device(1)};
    auto store = pp::create(name, devices);
    store.init("w", floats(4000, 3.0F));
    store.set_optimizer(update::sgd{1.0});
    for (auto const& device : devices) device.count().clear();
    floats const g(4000, 1.0F);
    store.push("w", g).wait();
    for (auto const& device : devices) REQUIRE(device.count().passes == 1);  // a slice each
    REQUIRE(held(store, pp::any_key("w")) == floats(4000, 2.0F));
    REQUIRE(store.type() == name);
  }
}

TEST_CASE("a name of a store of several processes is refused without a communicator, and the next name makes a store",
          "[create][errors]") {
  for (std::string const name : {"dist", "dist_sync", "dist_async", "dist_device_sync", "dist_sync_device", "nccl"}) {
    REQUIRE_THROWS_AS(pp::create(name), pp::invalid_argument);
    REQUIRE_THROWS_WITH(pp::create(name), Catch::Contains("\"" + name + "\" is a store "));
    auto store = pp::create("local");
    store.init("w", floats(3, 4.0F));
    REQUIRE(held(store, pp::any_key("w")) == floats(3, 4.0F));
  }
}

TEST_CASE("keys of the other kind are refused by every call, and the store works on", "[any_store][keys][errors]") {
  auto store = pp::create("local", pp::cpu_devices(2));
  store.init(7, floats(5, 2.0F));
  store.set_optimizer(update::sgd{1.0});
  floats x(5, 1.0F);
  lists const values{x};
  lists outputs{x};
  strings const keys{"a"};
  auto const gradient = one_row(5);
  auto filled = one_row(5);
  auto const refused = [&](auto const& call) {
    refuses<pp::invalid_argument>(store, pp::any_key(7), {"keys are integers", "key \"a\""}, call);
  };
  refused([&] { store.init("a", x); });
  refused([&] { store.init(keys, values); });
  refused([&] { store.push("a", x); });
  refused([&] { store.push(keys, values); });
  refused([&] { store.push("a", gradient); });
  refused([&] { store.pull("a", x); });
  refused([&] { store.pull(keys, outputs); });
  refused([&] { store.pushpull("a", x, x); });
  refused([&] { store.pushpull("a", x); });
  refused([&] { store.pushpull(keys, values, outputs); });
  refused([&] { store.broadcast("a", values[0], x); });
  refused([&] { store.broadcast(keys, values, outputs); });
  refused([&] { store.row_sparse_pull("a", filled, integers{1}); });
  refused([&] { store.wait("a"); });
  refused([&] { store.set_steps("a", 3); });
  REQUIRE(store.size() == 1);
  REQUIRE(x == floats(5, 1.0F));
  REQUIRE(filled.values()[0] == 5);
}

TEST_CASE("keys of both kinds in one list are refused by every call, and the store works on",
          "[any_store][keys][errors]") {
  auto store = pp::create("local", pp::cpu_devices(2));
  any_keys const mixed{pp::any_key("a"), pp::any_key(7)};
  lists const values(2, floats(5, 1.0F));
  lists outputs = values;
  // Before any init, nothing has fixed the kind, and a call that fails does not.
  REQUIRE_THROWS_WITH(store.init(mixed, values), Catch::Contains("\"a\"") && Catch::Contains("7"));
  REQUIRE_THROWS_AS(store.push(7, values[0]), pp::unknown_key);
  REQUIRE_THROWS_AS(store.pull(mixed, outputs), pp::unknown_key);
  REQUIRE(store.size() == 0);
  store.init("a", floats(5, 2.0F));
  store.set_optimizer(update::sgd{1.0});
  auto const refused = [&](auto const& call) {
    refuses<pp::invalid_argument>(store, pp::any_key("a"), {"keys are strings", "key 7"}, call);
  };
  refused([&] { store.init(mixed, values); });
  refused([&] { store.push(mixed, values); });
  refused([&] { store.pull(mixed, outputs); });
  refused([&] { store.pushpull(mixed, values, outputs); });
  refused([&] { store.pushpull(mixed, outputs); });
  refused([&] { store.broadcast(mixed, values, outputs); });
  REQUIRE(outputs == values);
}

TEST_CASE("gradients and outputs of another element type than the key's are refused where they cannot be converted",
          "[any_store][errors]") {
  auto store = pp::create<float, double>("local", pp::cpu_devices(2));
  store.init("w", floats(5, 2.0F));
  store.set_optimizer(update::sgd{1.0});
  std::vector<double> wide(5, 1.0);
  strings const words{"\"w\"", "float32", "float64"};
  refuses<pp::invalid_argument>(store, pp::any_key("w"), words, [&] { store.push("w", wide); });
  refuses<pp::invalid_argument>(store, pp::any_key("w"), words, [&] { store.pushpull("w", wide, wide); });
  REQUIRE(wide == std::vector<double>(5, 1.0));
  store.pull("w", wide).wait();
  REQUIRE(wide == std::vector<double>(5, 0.0));
}

TEST_CASE("compression that a store cannot have is refused, and the store works on", "[any_store][compress][errors]") {
  auto store = pp::create("device", pp::cpu_devices(2), two_bit());
  auto local = pp::create("local_allreduce_cpu", pp::cpu_devices(2), two_bit());
  auto wide = pp::create<double>("device", pp::cpu_devices(2));
  for (auto* const s : {&store, &local}) {
    s->init("w", floats(5, 2.0F));
    s->set_optimizer(update::sgd{1.0});
  }
  auto const refused = [](auto& s, std::string const& word, parameters const& given) {
    refuses<pp::invalid_argument>(s, pp::any_key("w"), {word}, [&] { s.set_gradient_compression(given); });
  };
  refused(store, "\"type\" expected", {});
  refused(store, "\"type\" expected", {{"threshold", "0.5"}});
  refused(store, "got \"zip\"", {{"type", "zip"}});
  refused(store, "two_bit: threshold", {{"type", "2bit"}, {"threshold", "0"}});
  refused(store, "two_bit: threshold", {{"type", "2bit"}, {"threshold", "-0.5"}});
  refused(store, "a number expected, got \"much\"", {{"type", "2bit"}, {"threshold", "much"}});
  refused(store, "not created with a compressor for \"1bit\"", {{"type", "1bit"}});
  refused(local, "\"local_allreduce_cpu\"", {{"type", "2bit"}});
  std::vector<double> x(5, 2.0);
  wide.init("w", x);
  REQUIRE_THROWS_WITH(wide.set_gradient_compression({{"type", "2bit"}}), Catch::Contains("float64"));
  wide.pushpull("w", x).wait();
  REQUIRE(x == std::vector<double>(5, 2.0));
}

TEST_CASE("rows are refused where gradients are compressed, and dense gradients are not",
          "[any_store][compress][errors]") {
  auto store = pp::create("device", pp::cpu_devices(2), two_bit());
  store.init("w", floats(5, 2.0F));
  store.set_gradient_compression({{"type", "2bit"}, {"threshold", "1"}});
  store.set_optimizer(update::sgd{1.0});
  auto const gradient = one_row(5);
  refuses<pp::invalid_argument>(store, pp::any_key("w"), {"key \"w\"", "row-sparse"},
                                [&] { store.push("w", gradient); });
}

TEST_CASE("compression, the rule and keys may be set in any order", "[any_store][compress]") {
  auto const trained = [](std::string const& order) {
    auto store = pp::create("device", pp::cpu_devices(2), two_bit());
    for (char const step : order) {
      if (step == 'c') store.set_gradient_compression({{"type", "2bit"}, {"threshold", "0.5"}});
      if (step == 'o') store.set_optimizer(update::momentum{.learning_rate = 1.0, .momentum = 0.5});
      if (step == 'i') store.init("w", floats(70, 8.0F));
    }
    floats const g(70, 0.75F);
    for (int t = 0; t < 5; ++t) store.push("w", g);
    return held(store, pp::any_key("w"));
  };
  auto const expected = trained("coi");
  REQUIRE(expected[0] < 8.0F);
  for (char const* const order : {"cio", "oci", "oic", "ico", "ioc"}) REQUIRE(trained(order) == expected);
}
