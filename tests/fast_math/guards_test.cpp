/// @file
/// Compiled with -ffast-math: guards, refusals and conversions notice what is not finite all the same.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <pushpull/pushpull.hpp>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

static_assert(PUSHPULL_ASSUMES_FINITE);

/// A number that the compiler cannot know.
float of_bits(std::uint32_t bits) {
  std::uint32_t volatile hidden = bits;
  std::uint32_t const read = hidden;
  float x;
  std::memcpy(&x, &read, sizeof x);
  return x;
}
float const not_a_number = of_bits(0x7FC00000), infinity = of_bits(0x7F800000);

template <class Store>
std::vector<float> value(Store& store) {
  std::vector<float> w(100);
  store.pull("w", w).wait();
  return w;
}

}  // namespace

TEST_CASE("minima and maxima keep a NaN that stands first", "[fast_math]") {
  using V = pp::pack<float, pp::detail::simd_register<float>>;
  auto const keeps = [](auto const& x) { return any(is_nan(x)); };
  REQUIRE(keeps(min(V(not_a_number), 1)));
  REQUIRE(keeps(max(V(not_a_number), 1)));
  REQUIRE(keeps(min(max(pp::pack<float>(not_a_number), -1), 1)));
  REQUIRE_FALSE(any(is_finite(V(infinity))));
  REQUIRE(any(is_finite(V(1))));
}

TEST_CASE("a guard leaves out a step whose gradients are not finite, wherever they are", "[fast_math]") {
  for (float const bad : {not_a_number, infinity, -infinity})
    for (std::size_t const place : {0, 31, 99}) {
      pp::kv_store store{pp::cpu_devices(2),
                         update::dynamic_loss_scale{.initial = 4} | update::clip_value(1) |
                             update::clip_global_norm(1e3) | update::sgd{1},
                         pp::synchronous{}};
      store.init("w", std::vector<float>(100, 1));
      std::vector<float> g(100, 2);
      g[place] = bad;
      store.push("w", g).wait();
      REQUIRE(value(store) == std::vector<float>(100, 1));
      REQUIRE(*store.loss_scale(0) == 2);
      REQUIRE(store.steps("w") == 0);
      store.push("w", std::vector<float>(100, 2)).wait();
      REQUIRE(value(store) == std::vector<float>(100, 0));
    }
}

TEST_CASE("hyperparameters that are not finite are refused", "[fast_math]") {
  for (float const bad : {not_a_number, infinity, -infinity}) {
    REQUIRE_THROWS_AS(update::sgd{bad}.validate(), pp::invalid_argument);
    REQUIRE_THROWS_AS(update::rescale(bad), pp::invalid_argument);
    REQUIRE_THROWS_AS(update::adam{.beta1 = bad}.validate(), pp::invalid_argument);
    REQUIRE_FALSE(update::detail::is_valid(update::sgd{bad}));
  }
  REQUIRE_THROWS_AS(update::clip_value(not_a_number), pp::invalid_argument);
  update::clip_value{infinity}.validate();
  pp::lr_schedule::plateau plateau(1, {.patience = 0});
  plateau.step(not_a_number);
  REQUIRE(plateau.learning_rate() < 1);
}

TEST_CASE("conversions keep NaN, and integers have their nearest value for what is out of range", "[fast_math]") {
  std::vector<float> const from(33, not_a_number), large(33, infinity);
  std::vector<pp::bfloat16> narrow(33);
  pp::copy(from, narrow);
  for (auto const x : narrow) REQUIRE(pp::detail::is_nan(pp::convert<float>(x)));
  std::vector<std::int32_t> integers(33, 7);
  pp::copy(from, integers);
  REQUIRE(integers == std::vector<std::int32_t>(33, 0));
  pp::copy(large, integers);
  REQUIRE(integers == std::vector<std::int32_t>(33, 0x7FFFFFFF));
}
