/// @file
/// 8-bit floating-point elements one by one: every code, every rounding.
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <type_traits>
#include <vector>

#include "element/reference/float8_values.hpp"
#include "support/catch.hpp"
#include "support/float8.hpp"

namespace {

using pushpull::convert;
using pushpull::float8_e4m3;
using pushpull::float8_e5m2;
using pushpull::test::code_of;
using pushpull::test::float8_value;
using pushpull::test::nearest_float8;

template <class T>
T of_code(unsigned code) {
  return std::bit_cast<T>(static_cast<std::uint8_t>(code));
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

static_assert(sizeof(float8_e4m3) == 1 && sizeof(float8_e5m2) == 1);
static_assert(pushpull::ElementType<float8_e4m3> && pushpull::ElementType<float8_e5m2>);
static_assert(!pushpull::FloatingElement<float8_e4m3> && !pushpull::FloatingElement<float8_e5m2>);
static_assert(std::is_same_v<pushpull::accumulation_t<float8_e4m3>, float>);
static_assert(pushpull::dtype_traits<float8_e4m3>::name == "float8_e4m3fn");
static_assert(pushpull::dtype_traits<float8_e5m2>::name == "float8_e5m2");

}  // namespace

TEMPLATE_TEST_CASE("every 8-bit code is the value that its definition and ml_dtypes give it", "[tensor]", float8_e4m3,
                   float8_e5m2) {
  auto const& recorded = pushpull::test::is_e4m3<TestType> ? float8_reference::e4m3fn : float8_reference::e5m2;
  for (unsigned code = 0; code < 256; ++code) {
    auto const x = of_code<TestType>(code);
    INFO("code " << code);
    REQUIRE(same(convert<float>(x), float8_value<TestType>(code)));
    REQUIRE(same(convert<float>(x), recorded[code]));
    REQUIRE(same(convert<double>(x), recorded[code]));
    REQUIRE(same(convert<double>(convert<pushpull::half>(x)), recorded[code]));
    REQUIRE(same(convert<double>(convert<pushpull::bfloat16>(x)), recorded[code]));
    if (std::isfinite(recorded[code])) {
      REQUIRE(code_of(convert<TestType>(recorded[code])) == code);
      REQUIRE(convert<std::int64_t>(x) == static_cast<std::int64_t>(recorded[code]));
    }
  }
}

TEMPLATE_TEST_CASE("floats become the nearest 8-bit value, ties to even, never more than the largest", "[tensor]",
                   float8_e4m3, float8_e5m2) {
  for (float const x : pushpull::test::float8_inputs<TestType>()) {
    auto const expected = nearest_float8<TestType>(x);
    if (code_of(convert<TestType>(x)) != expected || code_of(convert<TestType>(static_cast<double>(x))) != expected) {
      CAPTURE(x, code_of(convert<TestType>(x)), code_of(convert<TestType>(static_cast<double>(x))), expected);
      REQUIRE(code_of(convert<TestType>(x)) == expected);
      REQUIRE(code_of(convert<TestType>(static_cast<double>(x))) == expected);
    }
  }
}

TEMPLATE_TEST_CASE("16-bit values become the nearest 8-bit value", "[tensor]", pushpull::half, pushpull::bfloat16) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    auto const x = std::bit_cast<TestType>(static_cast<std::uint16_t>(bits));
    auto const exact = convert<double>(x);
    bool const right = code_of(convert<float8_e4m3>(x)) == nearest_float8<float8_e4m3>(exact) &&
                       code_of(convert<float8_e5m2>(x)) == nearest_float8<float8_e5m2>(exact);
    if (!right) FAIL("bits " << bits);
  }
}

TEMPLATE_TEST_CASE("doubles are rounded once, not through a float", "[tensor]", float8_e4m3, float8_e5m2) {
  for (unsigned code = 0; code < pushpull::test::finite_codes<TestType>; ++code) {
    if (code + 1 == pushpull::test::finite_codes<TestType>) break;
    double const middle = (float8_value<TestType>(code) + float8_value<TestType>(code + 1)) / 2;
    for (double const x : {std::nextafter(middle, 0.0), middle, std::nextafter(middle, HUGE_VAL)}) {
      INFO("around " << middle);
      REQUIRE(code_of(convert<TestType>(x)) == nearest_float8<TestType>(x));
      REQUIRE(code_of(convert<TestType>(-x)) == nearest_float8<TestType>(-x));
    }
  }
  for (double const x : {0.0, 5e-324, 1e-310, 1e39, 1e308, HUGE_VAL}) {
    REQUIRE(code_of(convert<TestType>(x)) == nearest_float8<TestType>(x));
    REQUIRE(code_of(convert<TestType>(-x)) == nearest_float8<TestType>(-x));
  }
  REQUIRE(code_of(convert<TestType>(std::numeric_limits<double>::quiet_NaN())) == 0x7F);
}

TEST_CASE("what 8 bits cannot hold becomes the largest finite value, NaN stays NaN", "[tensor]") {
  for (double const x : {449.0, 1e30, HUGE_VAL}) REQUIRE(convert<float>(convert<float8_e4m3>(x)) == 448.0F);
  for (double const x : {-57345.0, -1e30, -HUGE_VAL}) REQUIRE(convert<float>(convert<float8_e5m2>(x)) == -57344.0F);
  REQUIRE(convert<float>(convert<float8_e4m3>(std::int64_t{-1} << 40)) == -448.0F);
  REQUIRE(convert<float>(convert<float8_e4m3>(convert<float8_e5m2>(57344.0F))) == 448.0F);
  REQUIRE(convert<float>(convert<float8_e4m3>(of_code<float8_e5m2>(0xFC))) == -448.0F);  // infinity
  REQUIRE(std::isnan(convert<float>(convert<float8_e4m3>(of_code<float8_e5m2>(0x7D)))));
  REQUIRE(std::isnan(convert<float>(convert<float8_e5m2>(of_code<float8_e4m3>(0xFF)))));
}
