/// @file
/// 8-bit elements in stores: gradients and values without an updater, outputs of any store.
#include <pushpull/pushpull.hpp>
#include <vector>

#include "support/catch.hpp"
#include "support/float8.hpp"

namespace pp = pushpull;

TEMPLATE_TEST_CASE("a store without an updater reduces 8-bit gradients in float and saturates", "[store]",
                   pp::float8_e4m3, pp::float8_e5m2) {
  constexpr std::size_t size = 5003;
  pp::kv_store<TestType, pp::cpu_device<>> store{pp::cpu_devices(2)};
  std::vector<TestType> const zero(size, pp::convert<TestType>(0.0F));
  std::vector<std::vector<TestType>> gradients(3, zero);
  for (std::size_t k = 0; k < 3; ++k)
    for (std::size_t i = 0; i < size; ++i)
      gradients[k][i] = pp::convert<TestType>(i % 100 == 99 ? 50000.0F : static_cast<float>((i * 31 + k * 7) % 17) - 8);
  store.init("a", zero);
  store.push("a", gradients);
  std::vector<TestType> same(size);
  std::vector<double> wide(size);
  store.pull("a", same);
  store.pull("a", wide);
  store.wait();
  bool right = true;
  for (std::size_t i = 0; i < size; ++i) {
    float sum = 0;
    for (auto const& gradient : gradients) sum += pp::convert<float>(gradient[i]);
    auto const expected = pp::test::nearest_float8<TestType>(sum);
    right = right && pp::test::code_of(same[i]) == expected && wide[i] == pp::test::float8_value<TestType>(expected);
  }
  REQUIRE(right);
}

TEMPLATE_TEST_CASE("a store of float weights fills 8-bit outputs", "[store]", pp::float8_e4m3, pp::float8_e5m2) {
  pp::kv_store<float, pp::cpu_device<>, pp::update::sgd> store{pp::cpu_devices(2), pp::update::sgd{1.0}};
  std::vector<float> value(3001);
  for (std::size_t i = 0; i < value.size(); ++i) value[i] = static_cast<float>(i) / 7 - 200;
  store.init("w", value);
  std::vector<float> const gradient(value.size(), 0.25F);
  store.push("w", gradient);
  std::vector<TestType> out(value.size());
  store.pull("w", out);
  store.wait();
  bool right = true;
  for (std::size_t i = 0; i < value.size(); ++i)
    right = right && pp::test::code_of(out[i]) == pp::test::nearest_float8<TestType>(value[i] - 0.25F);
  REQUIRE(right);
}
