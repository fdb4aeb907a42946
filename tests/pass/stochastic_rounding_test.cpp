/// @file
/// Stochastic rounding: right on average, independent, the same for any devices.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using pp::bfloat16;
using pp::half;
using one = pp::pack<float>;
using several = pp::pack<float, pp::detail::simd_register<float>>;

template <class T>
float rounded(float x, std::int64_t t, std::uint32_t array, std::int64_t element) {
  return pp::pass::round_stochastically<T>(one(x), t, array, element).value;
}
template <class T>
float nearest(float x) {
  return pp::convert<float>(pp::convert<T>(x));
}

/// The numbers of type T around x, which T cannot hold.
template <class T>
std::pair<float, float> around(float x) {
  float const step = std::abs(x) * 0x1p-12F + (std::is_same_v<T, half> ? 0x1p-26F : 0.0F);
  float low = nearest<T>(x), high = low;
  for (float y = x; low >= x || std::isnan(low); low = nearest<T>(y)) y = y - step;
  for (float y = x; high <= x; high = nearest<T>(y)) y = y + step;
  return {low, high};
}

}  // namespace

TEMPLATE_TEST_CASE("stochastic rounding gives a neighbour, and the exact value on average", "[stochastic_rounding]",
                   half, bfloat16) {
  using T = TestType;
  for (float const x : {1.001F, -1.001F, 3.14159F, 1e-3F, -7e-6F, 2.5e-7F, 60000.3F, 0.1F}) {
    auto const [low, high] = around<T>(x);
    int const n = 100000;
    int up = 0;
    for (int i = 0; i < n; ++i) {
      float const y = rounded<T>(x, 1 + i % 3, static_cast<std::uint32_t>(i % 4), 1000000007LL * (i % 2) + i);
      REQUIRE((y == low || y == high));
      up += y == high;
    }
    double const p = (static_cast<double>(x) - low) / (static_cast<double>(high) - low);
    INFO(x << " between " << low << " and " << high);
    REQUIRE(std::abs(up - p * n) < 5 * std::sqrt(n * p * (1 - p)) + 2);
  }
}

TEMPLATE_TEST_CASE("what the type holds is not rounded", "[stochastic_rounding]", half, bfloat16) {
  using T = TestType;
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (std::int64_t i = 0; i < 1000; ++i) {
    for (float const x : {0.0F, -0.0F, 1.0F, -0.375F, nearest<T>(1e-3F), nearest<T>(3e-7F), infinity, -infinity})
      REQUIRE(std::bit_cast<std::uint32_t>(rounded<T>(x, i, 0, 3 * i) + 0.0F) ==
              std::bit_cast<std::uint32_t>(x + 0.0F));
    REQUIRE(std::isnan(rounded<T>(std::numeric_limits<float>::quiet_NaN(), i, 0, i)));
  }
}

TEMPLATE_TEST_CASE("what rounding to nearest keeps finite stays finite", "[stochastic_rounding]", half, bfloat16) {
  float const largest = nearest<TestType>(std::is_same_v<TestType, half> ? 65504.0F : 0x1.FEp127F);
  float const unit = std::is_same_v<TestType, half> ? 32.0F : 0x1p120F;
  float const kept = largest + 0.25F * unit, lost = largest + 0.75F * unit;
  bool infinite = false;
  for (std::int64_t i = 0; i < 1000; ++i) {
    REQUIRE(rounded<TestType>(kept, i, 0, i) == largest);
    REQUIRE(rounded<TestType>(-kept, i, 0, i) == -largest);
    infinite = infinite || std::isinf(nearest<TestType>(rounded<TestType>(lost, i, 0, i)));
  }
  REQUIRE(infinite);
}

TEST_CASE("rounding is independent between elements, steps and arrays", "[stochastic_rounding]") {
  int const n = 100000;
  auto const up = [](std::int64_t t, std::uint32_t array, std::int64_t element) {
    return rounded<bfloat16>(1 + 0x1p-8F, t, array, element) > 1 ? 1 : -1;
  };
  int elements = 0, steps = 0, arrays = 0;
  for (int i = 0; i < n; ++i) {
    elements += up(1, 0, i) * up(1, 0, i + 1);
    steps += up(1, 0, i) * up(2, 0, i);
    arrays += up(1, 0, i) * up(1, 1, i);
  }
  for (int const correlation : {elements, steps, arrays}) REQUIRE(std::abs(correlation) < 5 * std::sqrt(n));
}

TEST_CASE("registers round as single elements do", "[stochastic_rounding]") {
  several x;
  auto* const lanes = reinterpret_cast<float*>(&x);
  for (std::int64_t first :
       {std::int64_t{0}, (std::int64_t{1} << 32) - std::int64_t{several::size}, std::int64_t{1} << 40}) {
    for (std::size_t i = 0; i < several::size; ++i) lanes[i] = 1 + 0x1p-9F * static_cast<float>(i);
    auto const y = pp::pass::round_stochastically<bfloat16>(x, 7, 2, first);
    for (std::size_t i = 0; i < several::size; ++i)
      REQUIRE(reinterpret_cast<float const*>(&y)[i] ==
              rounded<bfloat16>(lanes[i], 7, 2, first + static_cast<std::int64_t>(i)));
  }
}

TEST_CASE("bfloat16 weights without a float master learn from small gradients", "[stochastic_rounding][kv_store]") {
  std::size_t const size = 4099;
  auto const trained = [&](auto element, int devices) {
    pp::kv_store<bfloat16, pp::cpu_device<>, update::sgd, decltype(element), pp::synchronous> store{
        pp::cpu_devices(devices), update::sgd{1}};
    store.init("w", std::vector<float>(size, 1));
    std::vector<bfloat16> const g(size, pp::convert<bfloat16>(-1e-4F));
    for (int i = 0; i < 200; ++i) store.push("w", g);
    std::vector<float> out(size);
    store.pull("w", out);
    return out;
  };
  REQUIRE(trained(pp::element::uniform{}, 1) == std::vector<float>(size, 1));  // none is ever large enough
  auto const w = trained(pp::element::stochastic<bfloat16>{}, 1);
  double mean = 0;
  for (float const x : w) mean += static_cast<double>(x) / static_cast<double>(size);
  REQUIRE(mean == Approx(1 + 200 * static_cast<double>(nearest<bfloat16>(1e-4F))).epsilon(5e-4));
  for (int const devices : {2, 4, 7}) REQUIRE(trained(pp::element::stochastic<bfloat16>{}, devices) == w);
}

TEST_CASE("states in bfloat16 keep their mean", "[stochastic_rounding][kv_store]") {
  std::size_t const size = 20011;
  pp::kv_store<float, pp::cpu_device<>, update::adam, pp::element::stochastic<float, bfloat16>, pp::synchronous> store{
      pp::cpu_devices(3), update::adam{.learning_rate = 0}};
  store.init("w", std::vector<float>(size, 1));
  std::vector<float> const g(size, 0.7F);
  for (int i = 0; i < 100; ++i) store.push("w", g);
  double mean = 0;
  for (bfloat16 const v : store.state("w", "exp_avg_sq"))
    mean += static_cast<double>(pp::convert<float>(v)) / static_cast<double>(size);
  REQUIRE(mean == Approx(0.49 * (1 - std::pow(0.999, 100))).epsilon(2e-3));
}
