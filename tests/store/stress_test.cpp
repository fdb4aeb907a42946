/// @file
/// Random operations of several threads on many keys, with random priorities, against a serial replay.
#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

using rule = update::momentum;
using store_type = pp::kv_store<float, pp::cpu_device<pp::serial_system>, rule, pp::integer_keys>;
using replay_type = pp::kv_store<float, pp::cpu_device<pp::serial_system>, rule, pp::integer_keys, pp::synchronous>;

constexpr std::size_t threads = 3, calls_per_thread = 14, key_count = 9;

/// One call: its kind, its keys (of equal size where a list), what it brings and what it gets.
struct call {
  enum kind_type { push, pull, pushpull, in_place, list, wait_key, steps } kind = push;
  std::vector<std::int64_t> keys;
  std::vector<std::vector<std::vector<float>>> gradients;  // per key and source
  std::vector<std::vector<float>> outputs;
  int priority = 0;

  bool operator==(call const&) const = default;
};

std::size_t size_of(std::int64_t key) {
  static constexpr std::array<std::size_t, key_count> sizes{0, 1, 7, 64, 997, 1024, 3001, 5, 17000};
  return sizes[static_cast<std::size_t>(key)];
}

call random_call(std::mt19937& random, std::vector<std::int64_t> const& keys) {
  auto const below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
  call c;
  c.kind = static_cast<call::kind_type>(below(7));
  c.priority = static_cast<int>(below(5)) - 2;
  std::size_t const count = c.kind == call::list ? 1 + below(4) : 1;
  for (std::size_t i = 0; i < count; ++i) {
    c.keys.push_back(keys[below(keys.size())]);
    std::size_t const size = size_of(c.keys.back());
    c.gradients.emplace_back(1 + below(3), std::vector<float>(size));
    for (auto& gradient : c.gradients.back()) {
      auto const first = static_cast<float>(below(100));
      for (std::size_t e = 0; e < size; ++e) gradient[e] = first + static_cast<float>(e % 5);
    }
    c.outputs.emplace_back(size);
  }
  return c;
}

template <class Store>
void make(Store& store, call& c) {
  pp::priority const when{c.priority};
  switch (c.kind) {
    case call::push: store.push(c.keys[0], c.gradients[0], when); break;
    case call::pull: store.pull(c.keys[0], c.outputs[0], when); break;
    case call::pushpull: store.pushpull(c.keys[0], c.gradients[0], c.outputs[0], when); break;
    case call::in_place: store.pushpull(c.keys[0], c.gradients[0], when); break;
    case call::list: store.pushpull(c.keys, c.gradients, c.outputs, when); break;
    case call::wait_key: store.wait(c.keys[0]); break;
    case call::steps: store.steps(c.keys[0]); break;
  }
}

}  // namespace

TEST_CASE("random calls of several threads give what a serial replay gives", "[kv_store][async][stress]") {
  std::vector<std::vector<float>> initial;
  std::vector<std::int64_t> keys;
  for (std::size_t k = 0; k < key_count; ++k) {
    keys.push_back(static_cast<std::int64_t>(k));
    initial.emplace_back(size_of(keys.back()), static_cast<float>(k));
  }
  rule const updater{.learning_rate = 0.1, .momentum = 0.5};
  for (unsigned seed = 0; seed < 1000; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random(seed);
    int const devices = 1 + static_cast<int>(seed % 3);
    // Either all threads use all keys, and note the order in which they call, or each has keys of its own.
    bool const shared = seed % 2 == 0;
    std::array<std::vector<call>, threads> calls;
    for (std::size_t t = 0; t < threads; ++t) {
      std::vector<std::int64_t> own;
      for (auto const key : keys)
        if (shared || static_cast<std::size_t>(key) % threads == t) own.push_back(key);
      for (std::size_t i = 0; i < calls_per_thread; ++i) calls[t].push_back(random_call(random, own));
    }
    auto replayed = calls;

    std::vector<std::pair<std::size_t, std::size_t>> order;
    store_type store{pp::cpu_devices<pp::serial_system>(devices), updater};
    store.init(keys, initial);
    std::mutex mutex;
    {
      std::vector<std::thread> running;
      for (std::size_t t = 0; t < threads; ++t)
        running.emplace_back([&, t] {
          for (std::size_t i = 0; i < calls_per_thread; ++i) {
            if (shared) {
              std::lock_guard const lock(mutex);
              order.emplace_back(t, i);
              make(store, calls[t][i]);
            } else {
              make(store, calls[t][i]);
            }
          }
        });
      for (auto& thread : running) thread.join();
    }
    std::vector<std::vector<float>> values = initial, expected = initial;
    store.pull(keys, values).wait();
    store.wait();
    if (!shared)
      for (std::size_t t = 0; t < threads; ++t)
        for (std::size_t i = 0; i < calls_per_thread; ++i) order.emplace_back(t, i);

    replay_type serial{pp::cpu_devices<pp::serial_system>(devices), updater};
    serial.init(keys, initial);
    for (auto const& [t, i] : order) make(serial, replayed[t][i]);
    serial.pull(keys, expected);
    REQUIRE(values == expected);
    REQUIRE(calls == replayed);  // all that was pulled on the way, and gradients that were not to change
    for (auto const key : keys) REQUIRE(store.steps(key) == serial.steps(key));
  }
}

TEST_CASE("keys that several threads add at once have step counts of their own", "[kv_store][stress]") {
  auto const devices = pp::cpu_devices<pp::serial_system>(2);
  std::vector<float> const ones(5, 1.0F);
  for (int turn = 0; turn < 20; ++turn) {
    store_type store(devices, rule{});
    auto const add_keys = [&](std::int64_t first) {
      for (std::int64_t key = first; key < first + 8; ++key) store.init(key, ones);
    };
    std::thread one(add_keys, 0), other(add_keys, 8);
    one.join();
    other.join();
    for (std::int64_t key = 0; key < 16; ++key) {
      for (std::int64_t push = 0; push < key; ++push) store.push(key, ones);
      store.wait();
    }
    for (std::int64_t key = 0; key < 16; ++key) REQUIRE(store.steps(key) == key);
  }
}
