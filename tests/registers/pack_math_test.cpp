/// @file
/// Elementary functions of packs, on registers and on elements, against those of long double.
#include <cmath>
#include <cstddef>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <random>

#include "support/catch.hpp"
#include "support/deviation.hpp"

namespace {

using pushpull::pack;

/// How far x is from y, in units of the last place of y.
template <class A>
long double ulps(A x, long double y) {
  if (static_cast<long double>(x) == y) return 0;
  A const magnitude = std::abs(static_cast<A>(y));
  A const unit = std::nextafter(magnitude, std::numeric_limits<A>::infinity()) - magnitude;
  return std::abs(static_cast<long double>(x) - y) / static_cast<long double>(unit);
}

/// f of packs against `exact` over x in [low, high]: the largest difference in ulps.
template <class V, class F>
long double worst(F const& f, long double (*exact)(long double, long double), double low, double high) {
  using A = typename V::element_type;
  std::mt19937 random(3);
  std::uniform_real_distribution<A> inputs(static_cast<A>(low), static_cast<A>(high)), exponents(-2, 2);
  long double result = 0;
  for (int round = 0; round < 20000; ++round) {
    V x, y;
    for (std::size_t lane = 0; lane < V::size; ++lane) {
      reinterpret_cast<A*>(&x)[lane] = inputs(random);
      reinterpret_cast<A*>(&y)[lane] = exponents(random);
    }
    V const z = f(x, y);
    for (std::size_t lane = 0; lane < V::size; ++lane) {
      auto const at = [lane](V const& v) { return reinterpret_cast<A const*>(&v)[lane]; };
      result = pushpull::test::larger_deviation(result, ulps(at(z), exact(at(x), at(y))));
    }
  }
  return result;
}

template <class V>
void check() {
  using real = long double;
  REQUIRE(worst<V>([](auto x, auto) { return exp(x); }, [](real x, real) { return std::exp(x); }, -80, 80) < 2);
  REQUIRE(worst<V>([](auto x, auto) { return log(x); }, [](real x, real) { return std::log(x); }, 1e-9, 2) < 2);
  REQUIRE(worst<V>([](auto x, auto) { return log(x); }, [](real x, real) { return std::log(x); }, 1, 1e9) < 2);
  REQUIRE(worst<V>([](auto x, auto) { return sin(x); }, [](real x, real) { return std::sin(x); }, -7, 7) < 2);
  REQUIRE(worst<V>([](auto x, auto) { return cos(x); }, [](real x, real) { return std::cos(x); }, -7, 7) < 2);
  // The product with pi is rounded first.
  real const pi = std::acos(real{-1});
  REQUIRE(std::abs(static_cast<real>(cospi(pack<typename V::element_type>(0.25)).value) - std::cos(pi / 4)) < 1e-7L);
  REQUIRE(cospi(pack<typename V::element_type>(1)).value == -1);
  REQUIRE(worst<V>([](auto x, auto y) { return pow(x, y); }, [](real x, real y) { return std::pow(x, y); }, 1e-3, 1e3) <
          2);
}

}  // namespace

TEMPLATE_TEST_CASE("elementary functions are within two units in the last place", "[pass]", float, double) {
  check<pack<TestType>>();
  check<pack<TestType, pushpull::detail::simd_register<TestType>>>();
}

TEMPLATE_TEST_CASE("elementary functions keep infinities and NaN", "[pass]", float, double) {
  using V = pack<TestType, pushpull::detail::simd_register<TestType>>;
  TestType const infinity = std::numeric_limits<TestType>::infinity();
  auto const first = [](V const& v) { return reinterpret_cast<TestType const*>(&v)[V::size - 1]; };
  REQUIRE(first(exp(V(-infinity))) == 0);
  REQUIRE(first(exp(V(infinity))) == infinity);
  REQUIRE(first(log(V(0))) == -infinity);
  REQUIRE(first(log(V(infinity))) == infinity);
  REQUIRE(std::isnan(first(log(V(-1)))));
  REQUIRE(first(pow(V(2), 0.5)) == std::sqrt(TestType(2)));
  REQUIRE(first(pow(2, V(3))) == 8);
  for (auto const& f : {+[](V v) { return exp(v); }, +[](V v) { return log(v); }, +[](V v) { return cos(v); }})
    REQUIRE(std::isnan(first(f(V(std::numeric_limits<TestType>::quiet_NaN())))));
}
