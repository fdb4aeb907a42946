/// @file
/// Steps in parts, which begin when their gradients are complete: the bits of update_all.
#include <algorithm>
#include <pushpull/pushpull.hpp>
#include <string>
#include <thread>
#include <vector>

#include "ranks/same_bits.hpp"
#include "support/catch.hpp"
#include "support/expect.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace update = pushpull::update;
namespace test = pushpull::test;

std::string name(std::size_t i) { return "parameter " + std::to_string(i); }

/// Sets the gradients of a parameter on all devices.
void set_gradients(auto& parameters, test::share const& own, std::size_t i, std::size_t step, std::size_t size) {
  for (std::size_t n = 0; n < own.count; ++n) {
    auto const gradient = test::gradient_of<float>(i, step, own.first + n, size);
    std::copy(gradient.begin(), gradient.end(), parameters.grad(name(i), n).data());
  }
}

std::vector<pp::tensor_view<float>> own_gradients(auto& parameters, test::share const& own, std::size_t i) {
  std::vector<pp::tensor_view<float>> result;
  for (std::size_t n = 0; n < own.count; ++n) result.push_back(parameters.grad(name(i), n));
  return result;
}

enum class way { whole, in_parts, per_device, in_backward, own_memory, own_list };

/// The weights after each of six steps.
template <class Store>
std::vector<std::vector<float>> train(Store& store, test::share const& own, way how) {
  pp::parameter_store parameters{store};
  parameters.set_bucket_bytes(8192);
  if constexpr (requires { parameters.update_in_backward(); })
    if (how == way::in_backward) parameters.update_in_backward();
  auto const sizes = test::sizes_of_keys();
  for (std::size_t i = 0; i < sizes.size(); ++i)
    parameters.add(name(i), test::initial_value<float>(i, sizes[i]), {.keeps_gradient = how < way::own_memory});
  parameters.materialize();
  std::vector<std::vector<float>> result;
  for (std::size_t step = 0; step < 6; ++step) {
    auto const reports = [&](std::size_t i) { return step != 2 || i > 3; };  // once update_all begins the rest
    if (how == way::per_device) {
      std::vector<std::thread> executors;
      for (std::size_t n = 0; n < own.count; ++n)
        executors.emplace_back([&, n] {
          for (std::size_t i = sizes.size(); i-- > 0;) {
            auto const gradient = test::gradient_of<float>(i, step, own.first + n, sizes[i]);
            std::copy(gradient.begin(), gradient.end(), parameters.grad(name(i), n).data());
            if (reports(i)) parameters.ready(name(i), n);
          }
        });
      for (auto& each : executors) each.join();
    } else if (how == way::own_memory) {
      for (std::size_t i = sizes.size(); i-- > 0;) {
        std::vector<std::vector<float>> gradients;
        for (std::size_t n = 0; n < own.count; ++n)
          gradients.push_back(test::gradient_of<float>(i, step, own.first + n, sizes[i]));
        if constexpr (requires { parameters.update(name(i), gradients); }) parameters.update(name(i), gradients);
      }
    } else if (how == way::own_list) {
      std::vector<std::string> names;
      std::vector<std::vector<std::vector<float>>> gradients(sizes.size());
      std::vector<std::vector<pp::tensor_view<float const>>> views(sizes.size());
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        names.push_back(name(i));
        for (std::size_t n = 0; n < own.count; ++n)
          gradients[i].push_back(test::gradient_of<float>(i, step, own.first + n, sizes[i]));
        for (auto const& gradient : gradients[i])
          views[i].emplace_back(gradient.data(), pp::shape{static_cast<std::int64_t>(gradient.size())});
      }
      parameters.update(names, views);
    } else {
      for (std::size_t i = sizes.size(); i-- > 0;) {
        set_gradients(parameters, own, i, step, sizes[i]);
        if (how != way::whole && reports(i)) parameters.ready(name(i));
      }
    }
    if (how == way::whole || step == 2 || step == 3) parameters.update_all();
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (how != way::whole) parameters.wait(name(i));
      result.push_back(pp::to_vector(parameters.value(name(i), own.count - 1)));
    }
    if constexpr (requires { store.steps(name(0)); })
      test::expect(store.steps(name(1)) == static_cast<std::int64_t>(step) + 1);
  }
  return result;
}

/// @param in_parts  Whether the rule takes steps of some parameters.
template <class Make>
void require_same_bits(Make const& make, bool in_parts = true) {
  for (int const number : {1, 2, 3, 4, 7}) {
    auto const count = static_cast<std::size_t>(number);
    auto const devices = pp::cpu_devices(number);
    auto alone = make(devices, comm::single{});
    auto const expected = train(alone, {0, count}, way::whole);
    for (way const how : {way::in_parts, way::per_device, way::in_backward, way::own_memory, way::own_list}) {
      if (how == way::own_memory && !in_parts) continue;
      auto store = make(devices, comm::single{});
      REQUIRE((train(store, {0, count}, how) == expected));
    }
    if (count != 4) continue;
    test::for_each_reach(
        2,
        [&](comm::threads_options const& options) {
          for (way const how : {way::in_parts, way::in_backward, way::own_memory, way::own_list}) {
            if (how == way::own_memory && !in_parts) continue;
            std::vector<std::vector<std::vector<float>>> found(2);
            comm::run_ranks(2, options, [&](comm::threads const& c) {
              auto store = make(pp::cpu_devices(2), c);
              auto const rank = static_cast<std::size_t>(c.rank());
              found[rank] = train(store, {2 * rank, 2}, how);
            });
            for (auto const& weights : found) REQUIRE((weights == expected));
          }
        },
        false);
  }
}

}  // namespace

TEST_CASE("a step in parts gives the bits of a whole step", "[ranks][ready]") {
  require_same_bits([](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
  });
}

TEST_CASE("a rule with sums over elements takes its step when all gradients are complete", "[ranks][ready]") {
  require_same_bits(
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::clip_global_norm(1.0) | update::sgd{.learning_rate = 0.1}, c);
      },
      false);
}

TEST_CASE("a store of unknown rule takes its step in parts, or whole if its rule sums over all keys",
          "[ranks][ready]") {
  auto const with = [](auto const& rule) {
    return [rule](auto const& devices, auto const& c) {
      pp::any_store<pp::cpu_device<>, pp::compressors<>, float> store("dist_sync", devices, c);
      store.set_optimizer(rule);
      return store;
    };
  };
  require_same_bits(with(update::adam{.learning_rate = 0.1}));
  auto store =
      with(update::clip_global_norm(1.0) | update::sgd{.learning_rate = 0.1})(pp::cpu_devices(2), comm::single{});
  auto whole =
      with(update::clip_global_norm(1.0) | update::sgd{.learning_rate = 0.1})(pp::cpu_devices(2), comm::single{});
  REQUIRE((train(store, {0, 2}, way::in_parts) == train(whole, {0, 2}, way::whole)));
  pp::parameter_store parameters{store};
  REQUIRE_THROWS_AS(parameters.update_in_backward(), pp::invalid_argument);
  REQUIRE_THROWS_AS(parameters.make_part(std::vector<std::string>{}), pp::invalid_argument);
}

TEST_CASE("a step ends when all of its parts have been waited for", "[ready]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{.learning_rate = 1}};
  pp::parameter_store parameters{store};
  parameters.set_bucket_bytes(1);
  for (bool const in_backward : {false, true}) {
    parameters.update_in_backward(in_backward);
    for (auto const* each : {"a", "b"})
      if (!in_backward) parameters.add(each, std::vector<float>(5));
    auto const before = in_backward ? store.steps("a") : 0;
    for (auto const* each : {"b", "a"}) parameters.ready(each);
    for (auto const* each : {"a", "b"}) parameters.wait(each);
    parameters.update_all();  // another step
    REQUIRE(store.steps("a") == before + 2);
    for (auto const* each : {"b", "a"}) parameters.ready(each);
    parameters.wait("a");
    parameters.update_all();  // waits for b
    REQUIRE(store.steps("a") == before + 3);
    REQUIRE(store.steps("b") == before + 3);
  }
}

TEST_CASE("an update of a list leaves frozen parameters out", "[ready]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{.learning_rate = 1}};
  pp::parameter_store parameters{store};
  for (auto const* each : {"a", "b"}) parameters.add(each, std::vector<float>(5), {.keeps_gradient = false});
  std::vector<float> const gradient(5, 1.0F);
  std::vector<std::vector<pp::tensor_view<float const>>> gradients(
      2, {{gradient.data(), pp::shape{5}}, {gradient.data(), pp::shape{5}}});
  std::vector<std::string> const names{"a", "b"};
  auto const value = [&](char const* name) { return static_cast<double>(parameters.value(name, 1).data()[4]); };
  parameters.freeze("a");
  parameters.update(names, gradients);
  REQUIRE((value("a") == Approx(0) && value("b") == Approx(-2)));
  parameters.unfreeze("a");
  parameters.freeze("b");
  parameters.update(names, gradients);
  REQUIRE((value("a") == Approx(-2) && value("b") == Approx(-2)));
  gradients.pop_back();
  REQUIRE_THROWS_AS(parameters.update(names, gradients), pp::invalid_argument);
  REQUIRE_THROWS_AS(parameters.update({"c"}, gradients), pp::unknown_key);
  REQUIRE((value("a") == Approx(-2) && store.steps("a") == 1));
}

TEST_CASE("an update in backward is made in the call that completes the gradients", "[ready]") {
  static std::thread::id made_by;
  struct rate {
    double operator()(std::int64_t) const {
      made_by = std::this_thread::get_id();
      return 1;
    }
  };
  pp::kv_store store{pp::cpu_devices(2), update::sgd{} | update::learning_rate(rate{})};
  pp::parameter_store parameters{store};
  parameters.update_in_backward();
  parameters.set_bucket_bytes(1);
  for (auto const* each : {"a", "b"}) parameters.add(each, std::vector<float>(5));
  parameters.materialize();
  parameters.ready("a", 0);
  made_by = {};
  std::fill_n(parameters.grad("a", 1).data(), 5, 1.0F);
  parameters.ready("a", 1);
  REQUIRE(made_by == std::this_thread::get_id());
  REQUIRE(parameters.value("a", 1).data()[4] == -1.0F);
  REQUIRE(store.steps("b") == 0);
}

TEST_CASE("over ranks the value of rank 0 is written to the mirrors of all", "[ranks][set_value]") {
  test::for_each_reach(
      3,
      [](comm::threads_options const& options) {
        comm::run_ranks(3, options, [](comm::threads const& c) {
          auto store =
              pp::make_kv_store<float>(pp::cpu_devices(2), update::sgd{.learning_rate = 1} | update::ema(0.5), c);
          pp::parameter_store parameters{store};
          for (auto const* each : {"a", "b"}) parameters.add(each, std::vector<float>(4099));
          auto const of_rank = [&](float x) { return std::vector<float>(4099, x + static_cast<float>(10 * c.rank())); };
          auto const expect_value = [&](char const* each, float x) {
            for (std::size_t n = 0; n < 2; ++n)
              test::expect(pp::to_vector(parameters.value(each, n)) == std::vector<float>(4099, x));
          };
          parameters.set_value("a", of_rank(1));
          expect_value("a", 1);
          for (auto const* each : {"a", "b"})
            for (std::size_t n = 0; n < 2; ++n) std::fill_n(parameters.grad(each, n).data(), 4099, 0.5F);
          parameters.update_all();
          expect_value("a", -2);
          parameters.set_value(std::vector<std::string>{"b", "a"}, std::vector{of_rank(2), of_rank(3)});
          expect_value("a", 3);
          expect_value("b", 2);
          parameters.swap("ema");
          test::expect_throws<pp::invalid_argument>([&] { parameters.set_value("a", of_rank(7)); });
          parameters.swap("ema");
          expect_value("a", 3);
        });
      },
      false);
}

TEST_CASE("parameters that change their requests amid a step in parts do so after it", "[ready]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{.learning_rate = 1}};
  pp::parameter_store parameters{store};
  parameters.set_bucket_bytes(1);
  for (auto const* each : {"a", "b"}) parameters.add(each, std::vector<float>(5), {.request = pp::grad_request::add});
  auto const add = [&] {
    for (auto const* each : {"a", "b"})
      for (std::size_t n = 0; n < 2; ++n) std::fill_n(parameters.grad(each, n).data(), 5, 1.0F);
  };
  add();
  parameters.ready("b");
  parameters.freeze("a");
  parameters.add("c", std::vector<float>(5));
  parameters.update_all();  // the rest of the step: a
  REQUIRE(store.steps("a") == 1);
  REQUIRE(store.steps("b") == 1);
  REQUIRE(pp::to_vector(parameters.value("a", std::size_t{1})) == std::vector<float>(5, -2.0F));
  REQUIRE(parameters.begin_grad("b", 0) == pp::grad_request::write);  // the step has used the sum
  REQUIRE(parameters.begin_grad("b", 0) == pp::grad_request::add);
  parameters.update_all();
  REQUIRE(store.steps("a") == 1);
  REQUIRE(store.steps("b") == 2);
  REQUIRE(store.steps("c") == 1);
  REQUIRE(parameters.begin_grad("b", 0) == pp::grad_request::write);
  for (auto const* each : {"c", "b"}) parameters.ready(each);
  for (auto const* each : {"b", "c"}) parameters.wait(each);
  REQUIRE(parameters.begin_grad("b", 0) == pp::grad_request::write);
}

TEST_CASE("parts of a model take steps apart from one another, as two models do", "[ranks][ready]") {
  auto const train_both = [](auto& store, test::share const& own, bool in_parts) {
    pp::parameter_store parameters{store};
    auto const sizes = test::sizes_of_keys();
    std::vector<std::string> names[2];
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      parameters.add(name(i), test::initial_value<float>(i, sizes[i]));
      names[i % 2].push_back(name(i));
    }
    auto generator = parameters.make_part(names[0]), critic = parameters.make_part(names[1]);
    for (std::size_t step = 0; step < 9; ++step) {
      std::size_t const turn = step % 3 == 2 ? 0 : 1;
      if (step == 5) parameters.unfreeze(name(1));
      for (std::size_t i = 0; i < sizes.size(); ++i) set_gradients(parameters, own, i, step, sizes[i]);
      if (step == 4) parameters.freeze(name(1));
      if (in_parts) {
        parameters.update(turn == 0 ? generator : critic);
      } else {
        for (std::size_t i = 0; i < sizes.size(); ++i)
          if (i % 2 == turn && parameters.requires_grad(name(i)))
            store.push(name(i), own_gradients(parameters, own, i));
        store.wait();
      }
    }
    std::vector<std::vector<float>> result;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      result.push_back(pp::to_vector(parameters.value(name(i), own.count - 1)));
    return result;
  };
  for (int const number : {1, 2, 3, 7}) {
    auto const count = static_cast<std::size_t>(number);
    auto const make = [](auto const& devices, auto const& c) {
      return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
    };
    auto apart = make(pp::cpu_devices(number), comm::single{});
    auto const expected = train_both(apart, {0, count}, false);
    auto in_parts = make(pp::cpu_devices(number), comm::single{});
    REQUIRE((train_both(in_parts, {0, count}, true) == expected));
    if (count != 2) continue;
    std::vector<std::vector<float>> found[2];
    comm::run_ranks(2, [&](comm::threads const& c) {
      auto store = make(pp::cpu_devices(1), c);
      auto const rank = static_cast<std::size_t>(c.rank());
      found[rank] = train_both(store, {rank, 1}, true);
    });
    for (auto const& weights : found) REQUIRE((weights == expected));
  }
}

TEST_CASE("a gradient is complete once in a step, on each device", "[ready]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{.learning_rate = 1}};
  pp::parameter_store parameters{store};
  parameters.add("a", std::vector<float>(5, 1.0F));
  parameters.materialize();
  parameters.ready("a", 1);
  REQUIRE_THROWS_WITH(parameters.ready("a", 1),
                      Catch::Matchers::Contains("twice") && Catch::Matchers::Contains("number 1"));
  REQUIRE_THROWS_AS(parameters.ready("a", 2), pp::unknown_device);
  REQUIRE(store.steps("a") == 0);
  parameters.ready("a", 0);
  parameters.wait("a");
  REQUIRE(store.steps("a") == 1);
  parameters.ready("a", 1);
  parameters.update_all();  // whatever has not been reported
  parameters.ready("a", 1);
  REQUIRE(store.steps("a") == 2);
  parameters.ready("a", 0);  // a whole step, for which nobody waits,
  parameters.ready("a", 1);
  parameters.update_all();  // and another
  REQUIRE(store.steps("a") == 4);
}

TEST_CASE("a gradient is complete once in a step", "[ready]") {
  pp::kv_store store{pp::cpu_devices(1), update::sgd{.learning_rate = 1}};
  pp::parameter_store parameters{store};
  parameters.add("a", std::vector<float>(5, 1.0F));
  parameters.add("b", std::vector<float>(5, 1.0F));
  for (auto const* each : {"a", "b"}) std::fill_n(parameters.grad(each, std::size_t{0}).data(), 5, 1.0F);
  parameters.ready("a");
  REQUIRE_THROWS_WITH(parameters.ready("a"),
                      Catch::Matchers::Contains("parameter \"a\"") && Catch::Matchers::Contains("twice"));
  REQUIRE_THROWS_AS(parameters.ready("c"), pp::unknown_key);
  parameters.wait("a");  // its bucket has not begun
  REQUIRE(pp::to_vector(parameters.value("a", std::size_t{0})) == std::vector<float>(5, 1.0F));
  parameters.ready("b");
  parameters.wait("a");
  REQUIRE(pp::to_vector(parameters.value("a", std::size_t{0})) == std::vector<float>(5, 0.0F));
  parameters.ready("a");  // of the next step
  parameters.ready("b");
  parameters.update_all();
  REQUIRE(pp::to_vector(parameters.value("b", std::size_t{0})) == std::vector<float>(5, -1.0F));
  REQUIRE(store.steps("a") == 2);
}
