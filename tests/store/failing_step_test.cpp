/// @file
/// What a rule prepares, a schedule and a function of the user may throw: then there was no step.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using vector = std::vector<float>;

/// Calls of `maybe_throw` before the one that throws; none does while it is negative. Several threads call.
std::atomic<std::int64_t> calls_left = -1;

void maybe_throw() {
  if (calls_left.fetch_sub(1) == 0) throw std::runtime_error("no rate today");
}

/// A rate that may throw.
constexpr auto failing = [](std::int64_t t) {
  maybe_throw();
  return 0.1 * static_cast<double>(t);
};

auto const plain_rule = update::adagrad{} | update::learning_rate(failing);

/// Runs `step` with the first, second, ... call of `failing` throwing, until none does; `look` must see no change.
/// @returns how many calls threw
template <class Step, class Look>
int fail_every_call(Step const& step, Look const& look) {
  auto const before = look();
  for (int n = 0;; ++n) {
    calls_left = n;
    bool failed = false;
    try {
      step();
    } catch (std::runtime_error const& e) {
      failed = true;
      REQUIRE(std::string(e.what()) == "no rate today");
    }
    calls_left = -1;
    if (!failed) return n;
    REQUIRE(look() == before);
  }
}

vector const gradient_a(3000, 0.5F), gradient_b(70, -0.25F);

/// Everything that a step of the store may change.
template <class Store>
auto all_of(Store& store) {
  std::vector<std::vector<float>> all;
  for (char const* const key : {"a", "b"}) {
    vector value(store.shape(key).size());
    store.pull(key, pp::tensor_view(value.data(), store.shape(key))).wait();
    all.push_back(value);
    for (auto const& name : store.state_names()) all.push_back(store.state(key, name));
    all.push_back({static_cast<float>(store.steps(key))});
  }
  for (double const x : store.carried_numbers()) all.push_back({static_cast<float>(x)});
  return all;
}

template <class Rule, class... Policies>
auto make_store(Rule const& rule, int devices, Policies const&... policies) {
  pp::kv_store store{pp::cpu_devices(devices), rule, policies...};
  store.init(std::vector<std::string>{"a", "b"}, std::vector<vector>{vector(3000, 1.0F), vector(70, 2.0F)});
  return store;
}

/// Two stores, one of which is disturbed by steps that fail: both end the same.
template <class Rule, class... Policies>
void check_undone(Rule const& rule, Policies const&... policies) {
  std::vector<std::string> const keys{"a", "b"};
  for (int const devices : {1, 3}) {
    auto store = make_store(rule, devices, policies...);
    auto undisturbed = make_store(rule, devices, policies...);
    std::vector<vector> const gradients{gradient_a, gradient_b}, of_one_key{gradient_a, gradient_a};
    int failures = 0;
    for (int i = 0; i < 3; ++i) {
      failures += fail_every_call([&] { store.push(keys, gradients).wait(); }, [&] { return all_of(store); });
      undisturbed.push(keys, gradients).wait();
      failures += fail_every_call([&] { store.push("a", of_one_key).wait(); }, [&] { return all_of(store); });
      undisturbed.push("a", of_one_key).wait();
    }
    REQUIRE(failures >= 9);
    REQUIRE(all_of(store) == all_of(undisturbed));
  }
}

}  // namespace

TEST_CASE("a schedule that throws leaves weights, states and step counts of all keys", "[store][errors]") {
  check_undone(plain_rule);
}

TEST_CASE("a schedule that throws behind norms and a loss scale leaves what they carry", "[store][errors]") {
  check_undone(update::dynamic_loss_scale{.initial = 2, .interval = 2} | update::clip_global_norm(1) | update::adam{} |
               update::learning_rate(failing));
}

TEST_CASE("a schedule that throws leaves the numbers of rows and columns", "[store][errors]") {
  check_undone(update::adafactor{.learning_rate = 0.1} | update::learning_rate(failing));
}

TEST_CASE("a schedule that throws leaves the sum of micro-batches", "[store][errors]") {
  auto const rule = update::clip_global_norm(1) | update::momentum{} | update::learning_rate(failing);
  auto store = make_store(rule, 2, pp::accumulate{2});
  auto undisturbed = make_store(rule, 2, pp::accumulate{2});
  for (int i = 0; i < 4; ++i) {
    int const failures = fail_every_call([&] { store.push("a", gradient_a).wait(); }, [&] { return all_of(store); });
    undisturbed.push("a", gradient_a).wait();
    REQUIRE((failures > 0) == (i % 2 == 1));
  }
  // Of a list one key makes a step that fails, and the other must not gather its micro-batch.
  std::vector<std::string> const keys{"a", "b"};
  std::vector<vector> const gradients{gradient_a, gradient_b};
  for (int i = 0; i < 4; ++i) {
    if (i == 0) store.push("a", gradient_a).wait();
    REQUIRE(fail_every_call([&] { store.push(keys, gradients).wait(); }, [&] { return all_of(store); }) > 0);
    if (i == 0) undisturbed.push("a", gradient_a).wait();
    undisturbed.push(keys, gradients).wait();
  }
  REQUIRE(all_of(store) == all_of(undisturbed));
}

TEST_CASE("a schedule that throws leaves the residuals of a compressor", "[store][errors]") {
  check_undone(update::clip_global_norm(1) | update::momentum{} | update::learning_rate(failing),
               pp::compress::two_bit{0.4F});
}

TEST_CASE("a schedule that throws leaves the rows of a key", "[store][errors]") {
  for (bool const whole : {false, true}) {
    pp::kv_store store{pp::cpu_devices(3), plain_rule};
    store.init("a", pp::tensor_view(gradient_a.data(), pp::shape{300, 10}));
    store.init("b", gradient_b);
    std::vector<std::int64_t> const ids{299, 0, 150, 0};
    vector const values(40, 1.0F);
    pp::row_sparse_view const rows(values.data(), ids.data(), 4, pp::shape{300, 10});
    int const failures = fail_every_call(
        [&] {
          if (whole) {
            store.push("a", rows, pp::row_updates::standard).wait();
          } else {
            store.push("a", rows).wait();
          }
        },
        [&] { return all_of(store); });
    REQUIRE(failures == 3);
    REQUIRE(store.steps("a") == 1);
  }
}

TEST_CASE("a schedule that throws leaves the rows of all keys of a list", "[store][errors]") {
  pp::kv_store store{pp::cpu_devices(3), plain_rule};
  std::vector<std::string> const keys{"a", "b"};
  for (auto const& key : keys) store.init(key, pp::tensor_view(gradient_a.data(), pp::shape{300, 10}));
  std::vector<std::int64_t> const ids{299, 0, 150, 0};
  vector const values(40, 1.0F);
  pp::row_sparse_view const rows(values.data(), ids.data(), 4, pp::shape{300, 10});
  std::vector const of_keys(2, rows);
  for (auto const how : {pp::row_updates::lazy, pp::row_updates::standard}) {
    store.push("b", rows).wait();
    REQUIRE(fail_every_call([&] { store.push(keys, of_keys, how).wait(); }, [&] { return all_of(store); }) == 6);
  }
  REQUIRE(store.steps("a") == 2);
  REQUIRE(store.steps("b") == 4);
}

TEST_CASE("a schedule that throws leaves the parameters of a plan and their mirrors", "[store][errors]") {
  pp::kv_store store{pp::cpu_devices(2), plain_rule};
  pp::parameter_store parameters{store};
  vector a = gradient_a, b = gradient_b;
  parameters.add("a", a);
  parameters.add("b", b);
  auto const fill = [&] {
    for (std::size_t n = 0; n < 2; ++n) {
      std::fill_n(parameters.grad("a", n).data(), a.size(), 0.5F);
      std::fill_n(parameters.grad("b", n).data(), b.size(), 0.5F);
    }
  };
  fill();
  auto const look = [&] {
    auto all = all_of(store);
    for (std::size_t n = 0; n < 2; ++n) {
      auto const mirror = parameters.value("a", n);
      all.emplace_back(mirror.data(), mirror.data() + mirror.size());
    }
    return all;
  };
  REQUIRE(fail_every_call([&] { parameters.update_all(); }, look) > 0);
  REQUIRE(store.steps("a") == 1);
  REQUIRE(store.steps("b") == 1);
}

TEST_CASE("an updater function that throws leaves the values and the residuals of a compressor", "[store][errors]") {
  pp::kv_store<float, pp::cpu_device<>, pp::compress::two_bit> store{pp::cpu_devices(2), pp::compress::two_bit{0.4F}};
  pp::kv_store<float, pp::cpu_device<>, pp::compress::two_bit> undisturbed{pp::cpu_devices(2),
                                                                           pp::compress::two_bit{0.4F}};
  std::vector<std::string> const keys{"a", "b"};
  auto const function = [](std::string_view, auto const& received, auto const& stored) {
    for (std::size_t i = 0; i < stored.size(); ++i) stored.data()[i] += received.data()[i];
    maybe_throw();
  };
  for (auto* const s : {&store, &undisturbed}) {
    s->init(keys, std::vector<vector>{vector(3000, 1.0F), vector(70, 2.0F)});
    s->set_updater(function);
  }
  std::vector<vector> const gradients{gradient_a, gradient_b};
  auto const look = [&] {
    std::vector<vector> all{vector(3000), vector(70)};
    store.pull(keys, all).wait();
    return all;
  };
  for (int i = 0; i < 3; ++i) {
    REQUIRE(fail_every_call([&] { store.push(keys, gradients).wait(); }, look) == 2);
    undisturbed.push(keys, gradients).wait();
  }
  std::vector<vector> expected{vector(3000), vector(70)};
  undisturbed.pull(keys, expected).wait();
  REQUIRE(look() == expected);
}

TEST_CASE("a handle of several works is waited for as a whole", "[store][errors]") {
  pp::kv_store failing_store{pp::cpu_devices(1), plain_rule};
  pp::kv_store<float, pp::cpu_device<>, pp::compress::two_bit> slow{pp::cpu_devices(1), pp::compress::two_bit{0.4F}};
  vector const large(70000, 1.0F);  // no work for the calling thread
  failing_store.init("a", large);
  slow.init("a", large);
  std::atomic<bool> done = false;
  slow.set_updater([&](auto&&...) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    done = true;
  });
  calls_left = 0;
  pp::completion const both(std::vector{failing_store.push("a", large), slow.push("a", large)});
  REQUIRE_THROWS_AS(both.wait(), std::runtime_error);
  REQUIRE(done);
  calls_left = -1;
}

TEST_CASE("a predicate that throws adds no group and no key", "[store][errors]") {
  pp::kv_store store{pp::cpu_devices(2), plain_rule};
  store.init("a", gradient_a);
  store.init("b", gradient_b);
  auto const belongs = [](std::string_view key) {
    maybe_throw();
    return key != "a";
  };
  REQUIRE(fail_every_call([&] { store.add_group(belongs, plain_rule); },
                          [&] { return std::tuple(store.groups(), store.group("a"), store.group("b")); }) >= 2);
  REQUIRE(store.group("b") == 1);
  std::vector<std::string> const more{"c", "d"};
  REQUIRE(fail_every_call([&] { store.init(more, std::vector<vector>{gradient_a, gradient_b}); },
                          [&] { return std::tuple(store.size(), store.contains("c"), store.contains("d")); }) == 2);
  REQUIRE(store.group("c") == 1);
}
