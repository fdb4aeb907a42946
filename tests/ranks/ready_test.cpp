/// @file
/// Steps in parts, which begin when their gradients are complete: the bits of update_all.
#include <algorithm>
#include <pushpull/pushpull.hpp>
#include <string>
#include <vector>

#include "ranks/same_bits.hpp"
#include "support/catch.hpp"

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

/// The weights after each of four steps: in parts, or by update_all alone.
template <class Store>
std::vector<std::vector<float>> train(Store& store, test::share const& own, bool in_parts) {
  pp::parameter_store parameters{store};
  parameters.set_bucket_bytes(8192);
  auto const sizes = test::sizes_of_keys();
  for (std::size_t i = 0; i < sizes.size(); ++i) parameters.add(name(i), test::initial_value<float>(i, sizes[i]));
  std::vector<std::vector<float>> result;
  for (std::size_t step = 0; step < 4; ++step) {
    for (std::size_t i = sizes.size(); i-- > 0;) {
      set_gradients(parameters, own, i, step, sizes[i]);
      if (in_parts && (step != 2 || i > 3)) parameters.ready(name(i));  // once update_all begins the rest
    }
    if (!in_parts || step >= 2) parameters.update_all();
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (in_parts) parameters.wait(name(i));
      result.push_back(pp::to_vector(parameters.value(name(i), own.count - 1)));
    }
  }
  return result;
}

template <class Make>
void require_same_bits(Make const& make) {
  auto alone = make(pp::cpu_devices(4), comm::single{});
  auto const expected = train(alone, {0, 4}, false);
  auto in_parts = make(pp::cpu_devices(4), comm::single{});
  REQUIRE((train(in_parts, {0, 4}, true) == expected));
  test::for_each_reach(
      4,
      [&](comm::threads_options const& options) {
        std::vector<std::vector<std::vector<float>>> found(4);
        comm::run_ranks(4, options, [&](comm::threads const& c) {
          auto store = make(pp::cpu_devices(1), c);
          auto const rank = static_cast<std::size_t>(c.rank());
          found[rank] = train(store, {rank, 1}, true);
        });
        for (auto const& weights : found) REQUIRE((weights == expected));
      },
      false);
}

}  // namespace

TEST_CASE("a step in parts gives the bits of a whole step", "[ranks][ready]") {
  require_same_bits([](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
  });
}

TEST_CASE("a rule with sums over elements takes its step when all gradients are complete", "[ranks][ready]") {
  require_same_bits([](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::clip_global_norm(1.0) | update::sgd{.learning_rate = 0.1}, c);
  });
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
