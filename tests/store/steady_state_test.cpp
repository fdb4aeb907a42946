/// @file
/// A step in the steady state: one pass per device, no allocation; and memory that a device cannot reach.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>
#include <pushpull/pushpull.hpp>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/counting_device.hpp"

namespace {

std::atomic<long> heap_allocations{0};

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
  ++heap_allocations;
  if (void* const p = std::malloc(size == 0 ? 1 : size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, std::nothrow_t const&) noexcept {
  ++heap_allocations;
  return std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using pp::test::counting_device;

std::vector<counting_device> devices_of(int count, bool isolated = false) {
  std::vector<counting_device> devices;
  for (int n = 0; n < count; ++n) devices.emplace_back(n, isolated);
  return devices;
}

}  // namespace

TEST_CASE("update_all of 200 tensors is one pass per device and allocates nothing", "[parameter_store]") {
  for (int const count : {1, 3}) {
    auto const devices = devices_of(count);
    pp::kv_store store{devices, update::rescale(0.5) | update::adam{}};
    pp::parameter_store parameters{store};
    for (std::size_t i = 0; i < 200; ++i)
      parameters.add("layer" + std::to_string(i), std::vector<float>((i * 7919) % 3001, 1.0F));
    parameters.update_all();
    parameters.update_all();
    for (auto const& device : devices) device.count().clear();
    long const before = heap_allocations;
    parameters.update_all();
    long const after = heap_allocations;
    REQUIRE(after == before);
    for (auto const& device : devices) {
      REQUIRE(device.count().allocations == 0);
      REQUIRE(device.count().copies == 0);
      REQUIRE(device.count().passes == 1);
    }
  }
}

TEST_CASE("a step in parts, of gradients that are overwritten or added to, allocates nothing", "[parameter_store]") {
  for (bool const in_backward : {false, true}) {
    auto const devices = devices_of(3);
    pp::kv_store store{devices, update::adam{}};
    pp::parameter_store parameters{store};
    parameters.set_bucket_bytes(5000);
    parameters.update_in_backward(in_backward);
    std::vector<std::string> names;
    for (std::size_t i = 0; i < 40; ++i) {
      names.push_back("a layer with a name of some length " + std::to_string(i));
      parameters.add(names.back(), std::vector<float>((i * 7919) % 3001, 1.0F),
                     {.request = i % 3 == 0 ? pp::grad_request::add : pp::grad_request::write});
    }
    auto some = parameters.make_part(std::vector(names.begin() + 3, names.begin() + 9));
    auto const step = [&] {
      for (std::size_t i = names.size(); i-- > 0;)
        for (std::size_t n = 0; n < 3; ++n) {
          if (i % 2 == 0) {
            parameters.grad(names[i], n);
          } else {
            parameters.begin_grad(names[i], n);
          }
          parameters.ready(names[i], n);
        }
      for (auto const& name : names) parameters.wait(name);
      parameters.update(some);
    };
    for (int i = 0; i < 3; ++i) step();
    for (auto const& device : devices) device.count().clear();
    long const before = heap_allocations;
    step();
    long const after = heap_allocations;
    REQUIRE(after == before);
    for (auto const& device : devices) REQUIRE(device.count().allocations == 0);
  }
}

TEST_CASE("pushpull of many keys in one call is one pass per device and allocates nothing", "[kv_store]") {
  auto const devices = devices_of(2);
  pp::kv_store store{devices, update::momentum{}};
  std::vector<std::string> keys;
  for (int i = 0; i < 50; ++i) keys.push_back("a key with a name of some length " + std::to_string(i));
  std::vector const values(50, std::vector<float>(700, 1.0F));
  auto outputs = values;
  store.init(keys, values);
  for (int i = 0; i < 2; ++i) store.pushpull(keys, values, outputs).wait();
  for (auto const& device : devices) device.count().clear();
  long const before = heap_allocations;
  store.pushpull(keys, values, outputs).wait();
  long const after = heap_allocations;
  REQUIRE(after == before);
  for (auto const& device : devices) {
    REQUIRE(device.count().allocations == 0);
    REQUIRE(device.count().passes == 1);
  }
}

TEST_CASE("a model on devices that cannot reach each other's memory is trained through copies, to the same bits",
          "[parameter_store]") {
  constexpr int count = 3, far = count - 1;
  auto const train = [](bool isolated, bool accumulates) {
    auto const devices = devices_of(count, isolated);
    pp::kv_store<pp::half, counting_device, decltype(update::clip_global_norm(1) | update::momentum{}),
                 pp::element::master<float>, pp::accumulate>
        store{devices, update::clip_global_norm(1) | update::momentum{.learning_rate = 0.1}, pp::accumulate{}};
    pp::parameter_store model(store);
    std::vector<pp::half> const initial(9001, pp::convert<pp::half>(1.0F));
    for (char const* const name : {"a", "b"}) model.add(name, initial);
    auto const fill = [&](int t) {
      for (std::size_t n = 0; n < devices.size(); ++n)
        for (char const* const name : {"a", "b"})
          for (std::size_t i = 0; i < initial.size(); ++i)
            model.grad(name, n).data()[i] =
                pp::convert<pp::half>(static_cast<float>((i + n) % 13) - 5 + static_cast<float>(t));
    };
    fill(0);
    model.update_all();
    for (int t = 1; t < 4; ++t) {
      fill(t);
      if (accumulates) model.accumulate_all();
      fill(t + 1);
      for (auto const& device : devices) device.count().clear();
      model.update_all();
      for (auto const& device : devices) {
        // Sums of the norm (1 or 2, and the first device's), gradients of the others, mirrors to the others.
        REQUIRE(device.count().copies >= (isolated ? 3 * far : 0));
        if (t > 1) REQUIRE(device.count().allocations == 0);
      }
    }
    store.push("a", model.grad("a", 1));  // mirrors follow
    std::vector<std::vector<float>> results;
    for (std::size_t n = 0; n < devices.size(); ++n)
      for (char const* const name : {"a", "b"}) {
        store.wait();
        auto const mirror = pp::to_vector(model.value(name, n));
        results.emplace_back();
        for (pp::half const x : mirror) results.back().push_back(pp::convert<float>(x));
      }
    return results;
  };
  for (bool const accumulates : {false, true}) {
    auto const reached = train(false, accumulates);
    REQUIRE(reached == train(true, accumulates));
    REQUIRE(reached[0] == reached[4]);
    REQUIRE(reached[0][5] != 1.0F);
  }
}

TEST_CASE("devices that cannot reach each other's memory give the same bits", "[kv_store]") {
  auto const train = [](bool isolated) {
    auto const devices = devices_of(3, isolated);
    auto const updater = update::clip_global_norm(1) | update::adam{.learning_rate = 0.1};
    pp::kv_store store{devices, updater};
    std::vector<std::string> const keys{"a", "b"};
    store.init(keys, std::vector{std::vector<float>(9001, 1.0F), std::vector<float>(17, 2.0F)});
    std::vector<std::vector<pp::tensor<float, counting_device>>> gradients(2), outputs(2);
    for (auto const& device : devices)
      for (std::size_t k = 0; k < 2; ++k) {
        auto const size = static_cast<std::int64_t>(k == 0 ? 9001 : 17);
        gradients[k].emplace_back(device, pp::shape{size});
        outputs[k].emplace_back(device, pp::shape{size});
        for (std::size_t i = 0; i < gradients[k].back().size(); ++i)
          gradients[k].back().data()[i] = static_cast<float>(i % 13) - 5 + static_cast<float>(device.id());
      }
    for (int t = 0; t < 3; ++t) store.pushpull(keys, gradients, outputs).wait();
    std::vector<std::vector<float>> results;
    for (auto const& key : outputs)
      for (auto const& output : key) results.push_back(pp::to_vector(output));
    return results;
  };
  auto const reached = train(false);
  REQUIRE(reached == train(true));
  REQUIRE(reached[0] == reached[2]);
  REQUIRE(reached[0][5] != 1.0F);
}

namespace {

/// f(store, parameters, keys, gradients, weights), on each rank after the first times.
template <class Make, class Step>
void require_no_allocation_over_ranks(Make const& make, Step const& f) {
  for (int const on_a_node : {1, 2, 4}) {
    CAPTURE(on_a_node);
    std::atomic<long> allocated{0};
    pp::comm::threads_options const options{.deadline = std::chrono::seconds(20), .ranks_per_node = on_a_node};
    pp::comm::run_ranks(4, options, [&](pp::comm::threads const& c) {
      auto store = make(c);
      pp::parameter_store parameters{store};
      for (std::size_t i = 0; i < 20; ++i)
        parameters.add("layer" + std::to_string(i), std::vector<float>((i * 7919) % 3001, 1.0F));
      std::vector<std::string> const keys{"a", "b"};
      std::vector<std::vector<float>> const gradients{std::vector<float>(5000, 1.0F), std::vector<float>(70, 1.0F)};
      auto weights = gradients;
      store.init(keys, gradients);
      auto const step = [&] { f(store, parameters, keys, gradients, weights); };
      for (int t = 0; t < 5; ++t) step();
      c.barrier();
      long const before = heap_allocations;
      c.barrier();
      for (int t = 0; t < 5; ++t) step();
      c.barrier();
      long const after = heap_allocations;
      c.barrier();
      if (c.rank() == 0) allocated = after - before;
    });
    REQUIRE(allocated == 0);
  }
}

auto const steps = [](auto& store, auto& parameters, auto const& keys, auto const& gradients, auto& weights) {
  parameters.update_all();
  store.pushpull(keys, gradients, weights).wait();
};

}  // namespace

TEST_CASE("a step over ranks allocates nothing either", "[parameter_store][ranks]") {
  auto const make = [](pp::comm::threads const& c) {
    return pp::make_kv_store<float>(pp::cpu_devices(1), update::clip_global_norm(1.0) | update::adam{}, c);
  };
  require_no_allocation_over_ranks(make, steps);
}

TEST_CASE("micro-batches over ranks allocate nothing", "[parameter_store][ranks]") {
  auto const make = [](pp::comm::threads const& c) {
    return pp::make_kv_store<float>(pp::cpu_devices(1), update::adam{}, pp::accumulate{}, c);
  };
  require_no_allocation_over_ranks(
      make, [](auto& store, auto& parameters, auto const& keys, auto const& gradients, auto& weights) {
        for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
          parameters.accumulate_all();
          store.accumulate(keys, gradients).wait();
        }
        steps(store, parameters, keys, gradients, weights);
      });
}

TEST_CASE("a step of an any_store over ranks allocates nothing either", "[any_store][ranks]") {
  auto const make = [](pp::comm::threads const& c) {
    auto store = pp::create("dist_sync", pp::cpu_devices(1), c);
    store.set_optimizer(update::adam{});
    return store;
  };
  require_no_allocation_over_ranks(make, steps);
}
