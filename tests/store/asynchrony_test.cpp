/// @file
/// kv_store: calls that return when their work is enqueued, what waits for it, and errors that come later.
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <oneapi/tbb/global_control.h>
#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/counting_device.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using pp::test::counting_device;
using strings = std::vector<std::string>;

constexpr std::size_t large = 40000;  // elements that no caller processes itself

/// What passes wait for until the test lets them go on; false after a time that no working store needs.
class gate {
 public:
  void open() { promise_.set_value(); }
  bool pass() const { return future_.wait_for(std::chrono::seconds(20)) == std::future_status::ready; }

 private:
  std::promise<void> promise_;
  std::shared_future<void> future_ = promise_.get_future().share();
};

template <class Store>
concept PushesTemporaries = requires(Store& store, strings const& keys) { store.push("w", std::vector<float>(3)); };
template <class Store>
concept PushesTemporaryLists =
    requires(Store& store, strings const& keys) { store.push(keys, std::vector<std::vector<float>>(3)); };
template <class Store>
concept PushesViews = requires(Store& store, strings const& keys, std::vector<float>& g) {
  store.push("w", std::span<float const>(g));
  store.push("w", std::vector{pp::view_of(g)});
  store.push(keys, std::vector{std::vector{pp::view_of(g)}});
};

/// A tensor that says, when it ends, whether the work that borrows it was finished.
class borrowed {
 public:
  borrowed(pp::completion const& work, bool& finished) : work_(work), finished_(finished) {}
  borrowed(borrowed const&) = delete;
  borrowed& operator=(borrowed const&) = delete;
  ~borrowed() { finished_ = work_.ready(); }

  std::vector<float> elements = std::vector<float>(large, 1.0F);

 private:
  pp::completion const& work_;
  bool& finished_;
};

/// Opens a gate from another thread once the block of this object ends.
class opens_at_exit {
 public:
  explicit opens_at_exit(gate& g)
      : opener_(std::async(std::launch::async, [&g, ends = ends_.get_future()] {
                  ends.wait();
                  std::this_thread::sleep_for(std::chrono::milliseconds(20));
                  g.open();
                }).share()) {}
  ~opens_at_exit() { ends_.set_value(); }
  /// To be waited for where the gate ends.
  std::shared_future<void> opener() const { return opener_; }

 private:
  std::promise<void> ends_;
  std::shared_future<void> opener_;
};

}  // namespace

TEST_CASE("a store that is declared behind tensors finishes its work before they end, by an exception too",
          "[kv_store][async][lifetime]") {
  for (bool const fails : {false, true}) {
    gate may_go;
    pp::completion work;
    bool gradient_lived = false, output_lived = false;
    std::shared_future<void> opener;
    try {
      borrowed gradient(work, gradient_lived), output(work, output_lived);
      std::vector<counting_device> const devices{counting_device(0)};
      pp::kv_store store{devices, update::sgd{1.0}};
      store.init("w", gradient.elements);
      devices[0].count().before_pass = [&] { may_go.pass(); };
      opens_at_exit const later(may_go);
      opener = later.opener();
      work = store.pushpull("w", gradient.elements, output.elements);
      if (fails) throw std::runtime_error("something else");
    } catch (std::runtime_error const&) {
      REQUIRE(fails);
    }
    opener.wait();
    REQUIRE(gradient_lived);
    REQUIRE(output_lived);
  }
}

TEST_CASE("wait_at_exit finishes a store's work before the tensors ahead of it end, and keeps errors for the next wait",
          "[kv_store][async][lifetime]") {
  std::vector<counting_device> const devices{counting_device(0)};
  pp::kv_store store{devices, update::sgd{1.0}};
  store.init("w", std::vector<float>(large, 1.0F));
  for (bool const fails : {false, true}) {
    gate may_go;
    pp::completion work;
    bool lived = false;
    std::shared_future<void> opener;
    try {
      borrowed gradient(work, lived);
      pp::wait_at_exit const finished{store};
      devices[0].count().before_pass = [&] {
        may_go.pass();
        if (fails) throw std::runtime_error("the pass is broken");
      };
      opens_at_exit const later(may_go);
      opener = later.opener();
      work = store.push("w", gradient.elements);
      if (fails) throw std::logic_error("something else");
    } catch (std::logic_error const&) {
      REQUIRE(fails);
    }
    opener.wait();
    REQUIRE(lived);
    devices[0].count().before_pass = nullptr;
    if (fails) {
      REQUIRE_THROWS_WITH(store.wait(), "the pass is broken");
    } else {
      REQUIRE_NOTHROW(store.wait());
    }
  }
}

TEST_CASE("a program ends with work of a static store under way", "[.exit]") {
  static std::vector<counting_device> const devices{counting_device(0)};
  static pp::kv_store store{devices, update::sgd{1.0}};
  static std::vector<float> gradient(large, 1.0F);
  static pp::completion work;
  static constexpr int finished = 7;
  struct last {
    ~last() { std::_Exit(work.ready() ? finished : finished + 1); }
  };
  static last const ends_first;
  store.init("w", gradient);
  devices[0].count().before_pass = [] { std::this_thread::sleep_for(std::chrono::milliseconds(200)); };
  work = store.push("w", gradient);
  std::exit(4);
}

TEST_CASE("work of a static store is finished before static tensors end", "[kv_store][async][lifetime]") {
  std::string const program = std::filesystem::read_symlink("/proc/self/exe").string();
  int const status =
      std::system(("'" + program + "' 'a program ends with work of a static store under way' > /dev/null").c_str());
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) == 7);
}

TEST_CASE("calls return when their work is enqueued", "[kv_store][async]") {
  std::vector<counting_device> const devices{counting_device(0)};
  pp::kv_store store{devices, update::sgd{1.0}};
  std::vector<float> const w(large, 5.0F), g(large, 1.0F);
  store.init("w", w);
  gate may_go;
  std::atomic<bool> passed{true};
  devices[0].count().before_pass = [&] {
    if (!may_go.pass()) passed = false;
  };
  auto const pushed = store.push("w", g);
  std::vector<float> out(large);
  auto const pulled = store.pull("w", out);
  REQUIRE_FALSE(pushed.ready());
  REQUIRE_FALSE(pulled.ready());
  may_go.open();
  pulled.wait();
  REQUIRE(pushed.ready());
  REQUIRE(passed);
  REQUIRE(out == std::vector<float>(large, 4.0F));
}

TEST_CASE("keys are independent: wait(key) returns while another key's work is under way", "[kv_store][async]") {
  std::vector<counting_device> const devices{counting_device(0)};
  pp::kv_store store{devices};
  std::vector<float> const x(large, 1.0F), y(large, 2.0F);
  store.init("slow", x);
  store.init("quick", x);
  gate begun, may_end;
  std::atomic<int> passes{0};
  std::atomic<bool> passed{true};
  devices[0].count().before_pass = [&] {
    if (passes++ > 0) return;
    begun.open();
    if (!may_end.pass()) passed = false;
  };
  auto const slow = store.push("slow", y);
  REQUIRE(begun.pass());
  std::vector<float> out(large);
  store.push("quick", y);
  store.pull("quick", out);
  store.wait("quick");
  REQUIRE(out == y);
  REQUIRE_FALSE(slow.ready());
  may_end.open();
  store.wait();
  REQUIRE(slow.ready());
  REQUIRE(passed);
  REQUIRE_THROWS_AS(store.wait("never"), pp::unknown_key);
}

TEST_CASE("pulls of one key run at the same time", "[kv_store][async]") {
  std::vector<counting_device> const devices{counting_device(0)};
  pp::kv_store store{devices};
  std::vector<float> const x(large, 1.0F);
  store.init("w", x);
  std::atomic<int> inside{0};
  gate both;
  std::atomic<bool> passed{true};
  devices[0].count().before_pass = [&] {
    if (++inside == 2) both.open();
    if (!both.pass()) passed = false;
  };
  std::vector<float> a(large), b(large);
  store.pull("w", a);
  store.pull("w", b);
  store.wait();
  REQUIRE(passed);
  REQUIRE(a == b);
}

TEST_CASE("a pull sees the pushes of its key that were made before it, and none made after it", "[kv_store][async]") {
  std::vector<counting_device> const devices{counting_device(0)};
  pp::kv_store store{devices, update::sgd{1.0}};
  std::vector<float> const w(large, 8.0F), g(large, 1.0F);
  store.init("w", w);
  gate may_go;
  std::atomic<bool> passed{true};
  devices[0].count().before_pass = [&] {
    if (!may_go.pass()) passed = false;
  };
  std::vector outs(4, std::vector<float>(large));
  for (int k = 0; k < 4; ++k) {
    store.pull("w", outs[static_cast<std::size_t>(k)], pp::priority{k});  // which never moves it before a push
    store.push("w", g, pp::priority{k % 2});
  }
  may_go.open();
  store.wait();
  REQUIRE(passed);
  for (int k = 0; k < 4; ++k)
    REQUIRE(outs[static_cast<std::size_t>(k)] == std::vector<float>(large, 8.0F - static_cast<float>(k)));
}

TEST_CASE("of the keys whose work could run that of the highest priority runs first, 0 unless it is told",
          "[kv_store][async]") {
  tbb::global_control const one_thread(tbb::global_control::max_allowed_parallelism, 1);
  pp::kv_store store{pp::cpu_devices(1)};
  strings const keys{"first", "none", "low", "high", "also none", "middle"};
  std::vector<float> const x(3, 1.0F);
  for (auto const& key : keys) store.init(key, x);
  gate begun, may_go, finished;
  strings order;  // by one thread
  store.set_updater([&](std::string_view key, auto const&, auto const&) {
    order.emplace_back(key);
    if (key == "first") {
      begun.open();
      may_go.pass();
    }
    if (order.size() == keys.size()) finished.open();
  });
  store.push("first", x);
  REQUIRE(begun.pass());
  store.push("none", x);
  store.push("low", x, pp::priority{-3});
  store.push("high", x, pp::priority{7});
  store.push("also none", x, pp::priority{0});
  store.push("middle", x, pp::priority{5});
  may_go.open();
  REQUIRE(finished.pass());  // this thread does not help
  store.wait();
  REQUIRE(order == strings{"first", "high", "middle", "none", "also none", "low"});
}

TEST_CASE("work that fails later tells its handle, wait(key) or wait, and changes nothing", "[kv_store][async]") {
  std::vector<counting_device> const devices{counting_device(0, true), counting_device(1, true)};
  pp::kv_store store{devices, update::clip_global_norm(1e9) | update::momentum{.learning_rate = 1.0}};
  std::vector<float> const w(large, 5.0F);
  pp::tensor<float, counting_device> g(devices[1], {large});
  std::fill_n(g.data(), large, 1.0F);
  store.init("w", w);
  // Device 0 needs memory for a copy of its part of the gradient.
  devices[0].count().before_allocation = [] { throw pp::out_of_memory("no room"); };
  auto const handle = store.push("w", g);
  REQUIRE_THROWS_WITH(handle.wait(), "no room");
  REQUIRE_THROWS_WITH(handle.wait(), "no room");
  store.wait("w");
  store.wait();
  store.push("w", g);
  REQUIRE_THROWS_WITH(store.wait("w"), "no room");
  store.wait();
  store.push("w", g);
  REQUIRE_THROWS_WITH(store.wait(), "no room");
  store.wait();
  REQUIRE(store.steps("w") == 0);
  devices[0].count().before_allocation = nullptr;
  store.push("w", g);
  std::vector<float> out(large);
  store.pull("w", out).wait();
  REQUIRE(out == std::vector<float>(large, 4.0F));
  REQUIRE(store.steps("w") == 1);
}

TEMPLATE_TEST_CASE("errors that need only metadata are thrown by the call", "[kv_store][async][errors]",
                   pp::asynchronous, pp::synchronous) {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0}, TestType{}};
  std::vector<float> const g(large, 1.0F), shorter(3);
  std::vector<float> out(large);
  store.init("w", g);
  REQUIRE_THROWS_AS(store.push("v", g), pp::unknown_key);
  REQUIRE_THROWS_AS(store.push("w", shorter), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.push(strings{"w", "v"}, std::vector{pp::view_of(g), pp::view_of(g)}), pp::unknown_key);
  store.pushpull("w", g, out).wait();
  store.wait();
  REQUIRE(out == std::vector<float>(large, 0.0F));
  REQUIRE(store.steps("w") == 1);
}

TEST_CASE("a handle outlives its store, a store with work under way may be moved and destroyed", "[kv_store][async]") {
  std::vector<float> const w(large, 5.0F), g(large, 1.0F);
  std::vector<float> out(large);
  pp::completion handle;
  {
    pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0}};
    store.init("w", w);
    for (int t = 0; t < 4; ++t) store.push("w", g);
    auto moved = std::move(store);
    handle = moved.pull("w", out);
  }
  REQUIRE(handle.ready());
  handle.wait();
  REQUIRE(out == std::vector<float>(large, 1.0F));
}

TEST_CASE("a change of hyperparameters applies to the pushes that follow", "[kv_store][async]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0}};
  std::vector<float> const w(large, 10.0F), g(large, 1.0F);
  std::vector<float> out(large);
  store.init("w", w);
  for (double const rate : {1.0, 2.0, 0.5}) {
    store.set_hyperparameters(update::sgd{rate});
    store.push("w", g);
  }
  store.pull("w", out).wait();
  REQUIRE(out == std::vector<float>(large, 6.5F));
}

TEST_CASE("new keys may be added while work is under way", "[kv_store][async]") {
  pp::kv_store<float, pp::cpu_device<>, update::adam, pp::integer_keys> store{pp::cpu_devices(3)};
  std::vector<float> const w(large, 1.0F), g(large, 1.0F);
  std::vector<std::vector<float>> out(40, std::vector<float>(large));
  for (int key = 0; key < 40; ++key) {
    store.init(key, w);
    for (int earlier = 0; earlier <= key; ++earlier) store.push(earlier, g);
  }
  for (int key = 0; key < 40; ++key) store.pull(key, out[static_cast<std::size_t>(key)]);
  store.wait();
  for (int key = 0; key < 40; ++key) {
    REQUIRE(store.steps(key) == 40 - key);
    REQUIRE(out[static_cast<std::size_t>(key)][large - 1] ==
            Approx(1.0 - 1e-3 * (40 - key)).epsilon(1e-4));  // equal gradients: each Adam step is the learning rate
  }
}

TEST_CASE("devices and keys wait for each other", "[kv_store][async]") {
  auto const devices = pp::cpu_devices(2);
  pp::kv_store store{devices, update::sgd{1.0}};
  std::vector<float> const w(large, 5.0F), g(large, 1.0F);
  std::vector<float> out(large);
  store.init("w", w);
  store.key_waits_for("w", devices[1]);
  store.pushpull("w", g, out);
  store.device_waits_for(devices[0], "w");
  REQUIRE(out[large - 1] == 4.0F);
  REQUIRE_THROWS_AS(store.device_waits_for(devices[0], "v"), pp::unknown_key);
  REQUIRE_THROWS_AS(store.key_waits_for("v", devices[0]), pp::unknown_key);
}

TEST_CASE("what ends with the call is refused where work may go on after it", "[kv_store][async]") {
  using asynchronous = pp::kv_store<float, pp::cpu_device<>>;
  using synchronous = pp::kv_store<float, pp::cpu_device<>, pp::synchronous>;
  STATIC_REQUIRE(!PushesTemporaries<asynchronous> && PushesTemporaries<synchronous>);
  STATIC_REQUIRE(!PushesTemporaryLists<asynchronous> && PushesTemporaryLists<synchronous>);
  STATIC_REQUIRE(PushesViews<asynchronous> && PushesViews<synchronous>);
}
