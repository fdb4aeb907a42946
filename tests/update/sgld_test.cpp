/// @file
/// Random numbers that know their element: Philox against its known answers, and noise that no device count changes.
#include <cmath>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/deviation.hpp"

namespace update = pushpull::update;

namespace {

std::vector<std::string> const keys{"a", "b", "c"};
std::vector<std::vector<float>> const zeros{std::vector<float>(5), std::vector<float>(70001), std::vector<float>(64)};

/// Gradient noise: a transform that knows its element. It keeps zeros, as the gaps between keys are.
struct noise {
  static constexpr auto state_names = pushpull::states();
  struct scalars {
    std::int64_t t, element = 0;
    PUSHPULL_HOST_DEVICE auto at(std::int64_t number) const noexcept {
      struct {
        std::int64_t t, element;
      } result{t, number};
      return result;
    }
  };
  template <class A>
  PUSHPULL_HOST_DEVICE scalars prepare(pushpull::step<A> const& s) const {
    return {s.t};
  }
  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const& s, V const&, V& g) const noexcept {
    g *= update::standard_normal<V>(1, s.t, s.element);
  }
};

/// Three keys after `steps` steps of `updater` whose gradients are all `g`.
template <class Updater>
std::vector<std::vector<float>> trained(Updater const& updater, int devices, int steps, float g = 0) {
  pushpull::kv_store store{pushpull::cpu_devices(devices), updater, pushpull::synchronous{}};
  store.init(keys, zeros);
  auto gradients = zeros;
  for (auto& gradient : gradients) gradient.assign(gradient.size(), g);
  for (int t = 0; t < steps; ++t) store.push(keys, gradients);
  auto values = zeros;
  store.pull(keys, values);
  return values;
}

}  // namespace

TEST_CASE("philox gives the known answers of Random123", "[update]") {
  using words = cuda::std::array<std::uint32_t, 4>;
  REQUIRE(update::philox({0, 0, 0, 0}, 0) == words{0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8});
  constexpr std::uint32_t ones = 0xFFFFFFFF;
  REQUIRE(update::philox({ones, ones, ones, ones}, ~std::uint64_t{0}) ==
          words{0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD});
  REQUIRE(update::philox({0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, 0x299F31D0A4093822) ==
          words{0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1});
}

TEMPLATE_TEST_CASE("normal numbers have the moments of their distribution, in registers and as elements", "[update]",
                   float, double) {
  using V = pushpull::pack<TestType, pushpull::detail::simd_register<TestType>>;
  double sums[5] = {}, neighbours = 0, last = 0;
  double most = 0;
  constexpr std::int64_t count = 1 << 20;
  for (std::int64_t i = 0; i < count; i += static_cast<std::int64_t>(V::size)) {
    V const noise = update::standard_normal<V>(7, 3, i);
    for (std::size_t lane = 0; lane < V::size; ++lane) {
      double const x = reinterpret_cast<TestType const*>(&noise)[lane];
      auto const one = update::standard_normal<pushpull::pack<TestType>>(7, 3, i + static_cast<std::int64_t>(lane));
      most = pushpull::test::larger_deviation(most, std::abs(x - static_cast<double>(one.value)));
      double power = 1;
      for (double& sum : sums) sum += power *= x;
      neighbours += last * x;
      last = x;
    }
  }
  REQUIRE(most < (std::is_same_v<TestType, float> ? 1e-5 : 1e-13));
  // Within five standard errors.
  double const error = 5 / std::sqrt(double{count});
  REQUIRE(std::abs(sums[0] / count) < error);
  REQUIRE(std::abs(sums[1] / count - 1) < error * std::sqrt(2));
  REQUIRE(std::abs(sums[2] / count) < error * std::sqrt(15));
  REQUIRE(std::abs(sums[3] / count - 3) < error * std::sqrt(96));
  REQUIRE(std::abs(sums[4] / count) < error * std::sqrt(945));
  REQUIRE(std::abs(neighbours / count) < error);
}

TEST_CASE("sgld's noise is the same for any number of devices, alone and behind a norm", "[update]") {
  auto const first = trained(update::sgld{.seed = 5}, 1, 3);
  for (int const devices : {2, 4, 7}) {
    REQUIRE(trained(update::sgld{.seed = 5}, devices, 3) == first);
    REQUIRE(trained(update::clip_global_norm(1) | update::sgld{.seed = 5}, devices, 3) == first);
  }
  // A transform that tells elements apart, in front of a norm: its terms are those of the elements that the pass sees.
  auto const noisy = [](int devices) {
    return trained(noise{} | update::clip_global_norm(1) | update::sgd{.learning_rate = 1}, devices, 1, 1.0F);
  };
  double squares = 0;
  for (auto const& key : noisy(1))
    for (float const x : key) squares += double{x} * double{x};
  REQUIRE(squares == Approx(1).epsilon(1e-4));
  for (int const devices : {2, 4, 7}) REQUIRE(noisy(devices) == noisy(1));
  REQUIRE(trained(update::sgld{.seed = 6}, 1, 3) != first);
}

TEST_CASE("sgld's noise differs between elements, keys and steps, and has the variance of the rate", "[update]") {
  update::sgld const rule{.learning_rate = 0.25};
  auto const one = trained(rule, 1, 1), two = trained(rule, 1, 2);
  std::vector<float> sorted = one[1];
  std::sort(sorted.begin(), sorted.end());
  // 70001 values of 24 bits: a few pairs meet by chance, not more.
  REQUIRE(std::unique(sorted.begin(), sorted.end()) - sorted.begin() > 69000);
  REQUIRE_FALSE(std::equal(one[0].begin(), one[0].end(), one[1].begin()));
  double squares = 0, product = 0;
  for (std::size_t i = 0; i < one[1].size(); ++i) {
    double const x = one[1][i], next = two[1][i] - one[1][i];
    squares += x * x;
    product += x * next;
  }
  double const count = 70001;
  REQUIRE(squares / count == Approx(0.25).epsilon(5 * std::sqrt(2 / count)));
  REQUIRE(std::abs(product / count) < 0.25 * 5 / std::sqrt(count));
}

TEST_CASE("sgld's noise is the same in a parameter_store and in a kv_store, however keys are placed", "[update]") {
  auto const expected = trained(update::sgld{.seed = 5}, 1, 3);
  auto const check = [&](int devices, auto const& placement) {
    pushpull::kv_store store{pushpull::cpu_devices(devices), update::sgld{.seed = 5}, placement};
    pushpull::parameter_store parameters{store};
    auto values = zeros;
    for (std::size_t k = 0; k < 2; ++k) parameters.add(keys[k], values[k]);
    REQUIRE(parameters.value(keys[0], 0).size() == zeros[0].size());  // makes a group of the first two
    parameters.add(keys[2], values[2]);
    for (int t = 0; t < 3; ++t) parameters.update_all();
    parameters.sync_master();
    REQUIRE(values == expected);
  };
  for (int const devices : {1, 3}) {
    check(devices, pushpull::placement::slices{});
    check(devices, pushpull::placement::owners{});
  }
}

TEST_CASE("sgld's noise does not repeat among the element types of a store", "[update]") {
  pushpull::kv_store<pushpull::type_list<float, double>, pushpull::cpu_device<>, update::sgld> store{
      pushpull::cpu_devices(1)};
  std::vector<float> x(64);
  std::vector<double> y(64);
  store.init("x", x);
  store.init("y", y);
  store.pushpull("x", x, x).wait();
  store.pushpull("y", y, y).wait();
  for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(std::abs(double{x[i]} - y[i]) > 1e-7);
}
