/// @file
/// Packs: every operation on registers equals the same operation on each element.
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <random>

#include "support/catch.hpp"

namespace {

using pushpull::pack;

template <class A>
using register_pack = pack<A, pushpull::detail::simd_register<A>>;

template <class A>
struct values {
  register_pack<A> x;

  A operator[](std::size_t lane) const { return reinterpret_cast<A const*>(&x)[lane]; }
  A& operator[](std::size_t lane) { return reinterpret_cast<A*>(&x)[lane]; }
};

/// f of registers against f of single elements, over random lanes and the values that go wrong most often.
template <class A, class F>
void same_in_every_lane(F const& f) {
  std::mt19937 random(3);
  std::uniform_real_distribution<A> uniform(-4, 4);
  A const special[] = {0, -A(0), 1, -1, std::numeric_limits<A>::infinity(), std::numeric_limits<A>::quiet_NaN()};
  for (int round = 0; round < 100; ++round) {
    values<A> a, b;
    for (std::size_t lane = 0; lane < register_pack<A>::size; ++lane) {
      a[lane] = random() % 4 == 0 ? special[random() % 6] : uniform(random);
      b[lane] = random() % 4 == 0 ? special[random() % 6] : uniform(random);
    }
    values<A> const result{f(a.x, b.x)};
    for (std::size_t lane = 0; lane < register_pack<A>::size; ++lane) {
      A const expected = f(pack<A>(a[lane]), pack<A>(b[lane])).value;
      INFO("of " << a[lane] << " and " << b[lane]);
      if (std::isnan(expected)) {
        REQUIRE(std::isnan(result[lane]));
      } else {
        REQUIRE(result[lane] == expected);
      }
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("operations on registers equal those on elements", "[pass]", float, double) {
  using A = TestType;
  same_in_every_lane<A>([](auto a, auto b) { return a + b; });
  same_in_every_lane<A>([](auto a, auto b) { return a - b; });
  same_in_every_lane<A>([](auto a, auto b) { return a * b; });
  same_in_every_lane<A>([](auto a, auto b) { return a / b; });
  same_in_every_lane<A>([](auto a, auto) { return -a; });
  same_in_every_lane<A>([](auto a, auto) { return sqrt(a); });
  same_in_every_lane<A>([](auto a, auto) { return abs(a); });
  same_in_every_lane<A>([](auto a, auto b) { return min(a, b); });
  same_in_every_lane<A>([](auto a, auto b) { return max(a, b); });
  same_in_every_lane<A>([](auto a, auto b) { return select(a < b, a, b); });
  same_in_every_lane<A>([](auto a, auto b) { return select(a <= b, a, 7); });
  same_in_every_lane<A>([](auto a, auto b) { return select(a > b, 7, b); });
  same_in_every_lane<A>([](auto a, auto b) { return select(a >= b, a + b, a - b); });
  same_in_every_lane<A>([](auto a, auto b) { return select(a == b, a, b * 2); });
  same_in_every_lane<A>([](auto a, auto b) { return select(a != b, a, b * 2); });
  same_in_every_lane<A>([](auto a, auto b) { return select(a < b && a > 0, a, b * 2); });
  same_in_every_lane<A>([](auto a, auto b) { return select(a < b || a > 0, a, b * 2); });
  same_in_every_lane<A>([](auto a, auto b) { return select(!(a < b), a, b * 2); });
  same_in_every_lane<A>([](auto a, auto) { return sign(a); });
}

TEMPLATE_TEST_CASE("scalars of any type mix with packs and are converted first", "[pass]", float, double) {
  using A = TestType;
  same_in_every_lane<A>([](auto a, auto) { return 0.1 * a + 3; });
  same_in_every_lane<A>([](auto a, auto) { return 1.0F / (2 - a); });
  same_in_every_lane<A>([](auto a, auto) { return min(0.5, a); });
  same_in_every_lane<A>([](auto a, auto) { return max(-1, a); });
  same_in_every_lane<A>([](auto a, auto b) {
    a += 1;
    a *= b;
    a -= 0.5;
    a /= 3U;
    return a;
  });
  REQUIRE((0.1 * pack<A>(A(3))).value == static_cast<A>(0.1) * A(3));
}

TEST_CASE("min and max keep a NaN that stands first", "[pass]") {
  float const nan = std::numeric_limits<float>::quiet_NaN();
  REQUIRE(std::isnan(min(pack<float>(nan), 1.0F).value));
  REQUIRE(std::isnan(max(pack<float>(nan), 1.0F).value));
  REQUIRE(max(pack<float>(1.0F), nan).value == 1.0F);
}

TEMPLATE_TEST_CASE("is_finite and is_nan go by bits, on registers and elements", "[pass]", float, double) {
  using A = TestType;
  using limits = std::numeric_limits<A>;
  A const numbers[] = {0,
                       -A(0),
                       1,
                       -1,
                       limits::max(),
                       limits::lowest(),
                       limits::min(),
                       limits::denorm_min(),
                       limits::infinity(),
                       -limits::infinity(),
                       limits::quiet_NaN(),
                       -limits::quiet_NaN(),
                       limits::signaling_NaN()};
  int n = 0;
  for (A const& number : numbers) {
    bool const finite = n < 8, nan = n > 9;
    ++n;
    REQUIRE(is_finite(pack<A>(number)) == finite);
    REQUIRE(is_nan(pack<A>(number)) == nan);
    for (std::size_t lane = 0; lane < register_pack<A>::size; ++lane) {
      values<A> x{register_pack<A>(A(1))};
      std::memcpy(&x[lane], &number, sizeof(A));
      values<A> const is{select(is_finite(x.x), 1, register_pack<A>(A(0)))},
          is_not{select(is_nan(x.x), 1, register_pack<A>(A(0)))};
      for (std::size_t i = 0; i < register_pack<A>::size; ++i) {
        REQUIRE(is[i] == A(i != lane || finite));
        REQUIRE(is_not[i] == A(i == lane && nan));
      }
      REQUIRE(any(is_nan(x.x)) == nan);
      REQUIRE(any(!is_finite(x.x)) == !finite);
    }
  }
}

TEST_CASE("masks are joined as bools are", "[pass]") {
  pack<float> const x(2.0F);
  for (int const low : {1, 3})
    for (int const high : {1, 3}) {
      REQUIRE((x > low && x < high) == (low == 1 && high == 3));
      REQUIRE((x > low || x < high) == (low == 1 || high == 3));
    }
  REQUIRE(!(x < 1));
}

TEST_CASE("the sign of zero and of NaN is zero", "[pass]") {
  REQUIRE(sign(pack<float>(-0.1F)).value == -1);
  REQUIRE(sign(pack<float>(3)).value == 1);
  REQUIRE(sign(pack<float>(-0.0F)).value == 0);
  REQUIRE(sign(pack<float>(std::numeric_limits<float>::quiet_NaN())).value == 0);
}
