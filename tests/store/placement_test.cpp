/// @file
/// Who owns what: equal slices, whole keys balanced by size, or as MXNet's servers.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using strings = std::vector<std::string>;

/// Three steps over keys of many sizes, by lists, single keys and the resident plan.
template <class Rule, class Placement>
std::vector<std::vector<float>> trained(Rule const& rule, Placement placement, int devices, bool resident) {
  pp::kv_store store{pp::cpu_devices(devices), rule, placement, pp::synchronous{}};
  strings names;
  std::vector<std::vector<float>> values, gradients;
  std::mt19937 random(7);
  for (std::size_t const size : {0, 1, 700, 64, 65, 40000, 3, 1024, 2047, 5000, 130, 9, 9, 9, 9, 70001}) {
    names.push_back("key" + std::to_string(names.size()));
    values.emplace_back(size, 1.0F);
    gradients.emplace_back(size);
    for (float& g : gradients.back()) g = static_cast<float>(random() % 1000) / 512 - 1;
  }
  if (resident) {
    pp::parameter_store parameters{store};
    for (std::size_t k = 0; k < names.size(); ++k) parameters.add(names[k], values[k], {.requires_grad = k % 5 != 2});
    for (int t = 0; t < 3; ++t) {
      for (std::size_t k = 0; k < names.size(); ++k)
        for (std::size_t n = 0; n < static_cast<std::size_t>(devices) && k % 5 != 2; ++n) {
          auto const grad = parameters.grad(names[k], n);
          if (n == 0) {
            std::copy(gradients[k].begin(), gradients[k].end(), grad.data());
          } else {
            std::fill_n(grad.data(), grad.size(), 0.0F);
          }
        }
      parameters.update_all();
    }
    for (std::size_t k = 0; k < names.size(); ++k)
      for (std::size_t n = 0; n < static_cast<std::size_t>(devices); ++n) {
        auto const mirror = pp::to_vector(parameters.value(names[k], n));
        if (n > 0) REQUIRE(mirror == values[k]);
        values[k] = mirror;
      }
  } else {
    store.init(names, values);
    for (int t = 0; t < 3; ++t) {
      store.pushpull(names, gradients, values);
      store.push(names[3], gradients[3]);
    }
    store.pull(names, values);
    REQUIRE(store.steps(names[3]) == 6);
  }
  return values;
}

}  // namespace

TEST_CASE("whole keys go to the device that owns least, the largest first", "[placement]") {
  std::vector<std::size_t> const sizes{10, 700, 300, 64, 65, 650, 0, 20};
  std::vector<std::int64_t> loads{0, 0};
  std::vector<std::int64_t> const costs(sizes.begin(), sizes.end());
  auto const where = pp::detail::lay_out_owners(sizes, costs, loads);
  REQUIRE(loads == std::vector<std::int64_t>{700 + 65 + 64 + 20 + 10 + 0 - 0, 650 + 300});
  REQUIRE(where.parts.size() == 2);
  REQUIRE(where.parts[0].begin == 0);
  REQUIRE(where.parts[0].end == where.parts[1].begin);
  REQUIRE(where.parts[1].end == where.size);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    bool const second = sizes[i] == 650 || sizes[i] == 300;
    auto const& part = where.parts[second ? 1 : 0];
    REQUIRE(where.offsets[i] >= part.begin);
    REQUIRE(where.offsets[i] + static_cast<std::int64_t>(sizes[i]) <= part.end);
    REQUIRE(where.offsets[i] % 64 == 0);
  }
  std::vector<std::int64_t> of_costs{0, 0};  // which decide, not the sizes
  auto const dear =
      pp::detail::lay_out_owners(std::vector<std::size_t>{64, 128, 256}, std::vector<std::int64_t>{9, 4, 4}, of_costs);
  REQUIRE(of_costs == std::vector<std::int64_t>{9, 8});
  REQUIRE(dear.parts[0].size() == 64);
  REQUIRE(dear.parts[1].size() == 384);
  auto const later = pp::detail::lay_out_owners(std::vector<std::size_t>{100}, std::vector<std::int64_t>{100},
                                                loads);  // a new key alone
  REQUIRE(loads[0] == 959);
  REQUIRE(later.parts[0].size() == 128);
}

TEST_CASE("results do not depend on the placement, nor on the number of devices", "[placement]") {
  for (bool const resident : {false, true}) {
    auto const adam = update::adam{.learning_rate = 0.1};
    auto const expected = trained(adam, pp::placement::slices{}, 1, resident);
    for (int const devices : {2, 3, 7}) {
      REQUIRE(trained(adam, pp::placement::slices{}, devices, resident) == expected);
      REQUIRE(trained(adam, pp::placement::owners{}, devices, resident) == expected);
      for (std::int64_t const bound : {0, 9, 5000, 1000000})
        REQUIRE(trained(adam, pp::placement::mxnet{bound}, devices, resident) == expected);
    }
  }
}

TEST_CASE("norms do not depend on the number of devices that own whole keys", "[placement]") {
  for (bool const resident : {false, true}) {
    auto const clipped = update::clip_global_norm(0.5) | update::momentum{.learning_rate = 0.1};
    auto const expected = trained(clipped, pp::placement::owners{}, 1, resident);
    for (int const devices : {2, 3, 7}) {
      REQUIRE(trained(clipped, pp::placement::owners{}, devices, resident) == expected);
      REQUIRE(trained(clipped, pp::placement::mxnet{5000}, devices, resident) == expected);
    }
    auto const sliced = trained(clipped, pp::placement::slices{}, 2, resident);
    for (std::size_t k = 0; k < sliced.size(); ++k)
      for (std::size_t i = 0; i < sliced[k].size(); ++i) REQUIRE(sliced[k][i] == Approx(expected[k][i]).epsilon(1e-5));
  }
}

TEST_CASE("a negative bound of MXNet's placement is refused", "[placement]") {
  auto const refused = [] { pp::kv_store store{pp::cpu_devices(2), update::sgd{}, pp::placement::mxnet{-1}}; };
  REQUIRE_THROWS_MATCHES(refused(), pp::invalid_argument,
                         Catch::Matchers::Message("placement::mxnet: a bound of at least 0 elements expected, got -1"));
}

TEST_CASE("devices own about equally much, in whole keys too", "[placement]") {
  strings names;
  std::vector<std::vector<float>> values;
  for (std::size_t k = 0; k < 1000; ++k) {
    names.push_back(std::to_string(k));
    values.emplace_back(64 * (1 + k % 9));
  }
  pp::kv_store store{pp::cpu_devices(4), update::adam{}, pp::placement::owners{}, pp::synchronous{}};
  store.init(names, values);
  std::size_t least = store.bytes(0), most = least, total = 0;
  for (std::size_t n = 0; n < 4; ++n) {
    least = std::min(least, store.bytes(n));
    most = std::max(most, store.bytes(n));
    total += store.bytes(n);
  }
  REQUIRE(most - least <= 3 * 576 * sizeof(float));
  std::size_t elements = 0;
  for (auto const& value : values) elements += value.size();
  REQUIRE(total <= 3 * elements * sizeof(float) + 4 * 4 * 8192);
}

TEST_CASE("keys of a loop of inits belong to all devices alike", "[placement]") {
  auto const held = [](std::vector<std::size_t> const& sizes, int devices, auto placement) {
    pp::kv_store store{pp::cpu_devices(devices), update::adam{}, placement, pp::synchronous{}};
    std::size_t number = 0;
    for (std::size_t const size : sizes) store.init(std::to_string(number++), std::vector<float>(size));
    std::vector<std::size_t> bytes;
    for (std::size_t n = 0; n < static_cast<std::size_t>(devices); ++n) bytes.push_back(store.bytes(n));
    return bytes;
  };
  std::vector<std::size_t> sizes(2000);
  for (std::size_t k = 0; k < sizes.size(); ++k) sizes[k] = 64 * (k % 16);
  auto const loop = held(sizes, 4, pp::placement::slices{});
  auto const [least, most] = std::minmax_element(loop.begin(), loop.end());
  REQUIRE(static_cast<double>(*most) < 1.5 * static_cast<double>(*least));
  REQUIRE(held({10}, 2, pp::placement::slices{}).back() == 0);
  REQUIRE(held({900, 900}, 2, pp::placement::slices{}).back() > 0);
  auto const few = held({1025, 10}, 4, pp::placement::slices{});
  REQUIRE(std::count(few.begin(), few.end(), 0) == 1);
}

TEST_CASE("inits of few leaves go to the owners that hold least, in order", "[placement]") {
  std::vector<std::int64_t> loads(5);
  std::mt19937 random(3);
  for (int i = 0; i < 500; ++i) {
    std::size_t const size = random() % 7000;
    auto const before = loads;
    auto const where = pp::detail::lay_out_slices(std::vector{size}, std::vector<bool>{true}, loads);
    std::int64_t end = 0;
    for (std::size_t owner = 0; owner < loads.size(); ++owner) {
      REQUIRE(where.parts[owner].begin == end);
      end = where.parts[owner].end;
      REQUIRE((end % 1024 == 0 || end == where.size));
      REQUIRE(loads[owner] == before[owner] + where.parts[owner].size());
    }
    REQUIRE(end == where.size);
    REQUIRE(*std::max_element(loads.begin(), loads.end()) - *std::min_element(loads.begin(), loads.end()) <= 4 * 1024);
  }
}
