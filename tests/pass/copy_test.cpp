/// @file
/// Copies between all element types and between devices.
#include <cmath>
#include <cstdint>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/counting_device.hpp"
#include "support/sanitized.hpp"

namespace {

using pushpull::bfloat16;
using pushpull::convert;
using pushpull::half;
using pushpull::shape;

#if PUSHPULL_TEST_SANITIZED
using element_types = std::tuple<float, bfloat16, pushpull::float8_e4m3, std::int64_t>;
#else
using element_types = std::tuple<float, double, half, bfloat16, pushpull::float8_e4m3, pushpull::float8_e5m2,
                                 std::int32_t, std::int64_t, std::uint8_t>;
#endif

/// Integers below this are exact in both types, and so is 80.
template <class From, class To>
constexpr std::size_t exact_below = pushpull::detail::Float8<From> || pushpull::detail::Float8<To> ? 9 : 128;

template <class From, class To>
void copy_pair() {
  for (std::size_t const size : {0, 1, 7, 64, 1031}) {
    std::vector<From> from(size + 1);
    std::vector<To> to(size + 3, convert<To>(80.0F));
    for (std::size_t i = 0; i < from.size(); ++i)
      from[i] = convert<From>(static_cast<float>(i % exact_below<From, To>));
    auto const count = static_cast<std::int64_t>(size);
    pushpull::copy(pushpull::tensor_view(from.data() + 1, shape{count}),
                   pushpull::tensor_view(to.data() + 1, shape{count}));
    REQUIRE(convert<double>(to[0]) == 80);
    REQUIRE(convert<double>(to[size + 1]) == 80);
    for (std::size_t i = 0; i < size; ++i)
      REQUIRE(convert<double>(to[i + 1]) == static_cast<double>((i + 1) % exact_below<From, To>));
  }
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("copy converts every element type to every other", "[tensor]", element_types) {
  std::apply([](auto... to) { (copy_pair<TestType, decltype(to)>(), ...); }, element_types{});
}

TEST_CASE("copy rounds to nearest even and truncates towards integers", "[tensor]") {
  std::vector<double> const from{1 + 0x1p-24, 1 + 0x1.8p-23, -2.75, 2.75};
  std::vector<float> to(4);
  pushpull::copy(from, to);
  REQUIRE(to == std::vector<float>{1.0F, 1 + 0x1p-22F, -2.75F, 2.75F});
  std::vector<std::int32_t> integers(4);
  pushpull::copy(from, integers);
  REQUIRE(integers == std::vector<std::int32_t>{1, 1, -2, 2});
}

namespace {

/// What is not in the range of `To`, and what just is, copied from elements of type `From` in packs and one by one.
template <class To, class From>
void saturates() {
  using limits = std::numeric_limits<To>;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  double const lowest = static_cast<double>(limits::min()), bound = std::ldexp(1.0, limits::digits);
  double const below = limits::is_signed ? 2 * lowest : -300;
  std::vector<std::pair<double, To>> const cases{{infinity, limits::max()},
                                                 {-infinity, limits::min()},
                                                 {bound, limits::max()},
                                                 {2 * bound, limits::max()},
                                                 {lowest, limits::min()},
                                                 {below, limits::min()},
                                                 {-0.75, 0},
                                                 {1.5, 1},
                                                 {bound / 2, static_cast<To>(limits::max() / 2 + 1)},
                                                 {std::nan(""), 0},
                                                 {-std::nan(""), 0}};
  std::vector<From> from;
  std::vector<To> expected;
  for (int round = 0; round < 8; ++round)  // whole blocks and a tail
    for (auto const& [x, result] : cases) {
      from.push_back(convert<From>(x));
      double const stored = convert<double>(from.back());
      if (stored == x || std::isnan(x)) {
        expected.push_back(result);
      } else {  // the element type has no such number: what it has instead counts
        expected.push_back(stored >= bound    ? limits::max()
                           : stored <= lowest ? limits::min()
                                              : static_cast<To>(stored));
      }
      REQUIRE(convert<To>(from.back()) == expected.back());
    }
  std::vector<To> to(from.size());
  pushpull::copy(from, to);
  REQUIRE(to == expected);
}

}  // namespace

TEMPLATE_TEST_CASE("floats that an integer cannot hold become its nearest value, and NaN becomes 0", "[tensor]", float,
                   double, half, bfloat16, pushpull::float8_e4m3, pushpull::float8_e5m2) {
  saturates<std::int32_t, TestType>();
  saturates<std::int64_t, TestType>();
  saturates<std::uint8_t, TestType>();
}

TEST_CASE("copy keeps all 64 bits of integers", "[tensor]") {
  std::vector<std::int64_t> const from{(std::int64_t{1} << 62) + 1, -1};
  REQUIRE(pushpull::to_vector(from) == from);
  std::vector<std::uint8_t> bytes(2);
  pushpull::copy(from, bytes);
  REQUIRE(bytes == std::vector<std::uint8_t>{1, 255});
}

TEST_CASE("copy refuses another shape and leaves the destination alone", "[tensor]") {
  std::vector<float> const from(6, 1.0F);
  std::vector<float> to(7, 2.0F);
  REQUIRE_THROWS_AS(pushpull::copy(from, to), pushpull::shape_mismatch);
  REQUIRE_THROWS_AS(pushpull::copy(from, pushpull::tensor_view(to.data(), shape{2, 3})), pushpull::shape_mismatch);
  REQUIRE(to == std::vector<float>(7, 2.0F));
}

TEST_CASE("tensors are zero at first and live on their device", "[tensor]") {
  pushpull::test::counting_device const device(3);
  pushpull::tensor<bfloat16, pushpull::test::counting_device> t(device, shape{3, 0});
  REQUIRE(t.size() == 0);
  pushpull::tensor<double, pushpull::test::counting_device> other(device, shape{5});
  REQUIRE(pushpull::to_vector(other) == std::vector<double>(5, 0.0));
  REQUIRE(other.device() == device);
  pushpull::copy(std::vector<float>{1, 2, 3, 4, 5}, other);
  REQUIRE(pushpull::to_vector(other)[4] == 5.0);
}
