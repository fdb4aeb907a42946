/// @file
/// Top-k selection against a sort, and the stores that send it.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <pushpull/pushpull.hpp>
#include <random>
#include <vector>

#include "compress/compare_stores.hpp"
#include "support/catch.hpp"
#include "support/counting_device.hpp"
#include "support/sanitized.hpp"

namespace {

namespace pp = pushpull;
namespace compress = pushpull::compress;
namespace update = pushpull::update;
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// One source: a stable sort by magnitude.
struct model {
  compress::top_k compressor;
  std::vector<float> residual = {};

  std::size_t values(std::size_t size) const {
    double const share = std::floor(compressor.ratio * static_cast<double>(size) + 0.5);
    double const k = compressor.count != 0 ? static_cast<double>(compressor.count) : std::max(1.0, share);
    return std::min(size, static_cast<std::size_t>(k));
  }
  std::vector<float> push(std::vector<float> const& gradient) {
    residual.resize(gradient.size());
    for (std::size_t i = 0; i < gradient.size(); ++i) residual[i] += gradient[i];
    std::vector<std::size_t> order(gradient.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    auto const rank = [&](std::size_t i) {
      return std::isnan(residual[i]) ? 2.0 * double{infinity} : std::abs(double{residual[i]});
    };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      if (std::isnan(residual[a]) != std::isnan(residual[b])) return std::isnan(residual[a]);
      return rank(a) > rank(b);
    });
    std::vector<float> decoded(gradient.size(), 0.0F);
    for (std::size_t n = 0; n < values(gradient.size()); ++n) std::swap(decoded[order[n]], residual[order[n]]);
    return decoded;
  }
};

/// The elements that masks, offsets and values stand for.
std::vector<float> decoded(compress::sparse_code::source_type const& from, std::size_t size) {
  std::vector<float> elements((size + 63) / 64 * 64, 0.0F);
  std::uint32_t next = 0;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (i % 64 == 0) REQUIRE(from.offsets[i / 64] == next);
    if ((from.masks[i / 64] >> (i % 64) & 1U) != 0) elements[i] = from.values[next++];
  }
  for (std::size_t i = size; i < elements.size(); ++i) REQUIRE((from.masks[i / 64] >> (i % 64) & 1U) == 0);
  elements.resize(size);
  return elements;
}

std::size_t sent(compress::sparse_code::source_type const& from, std::size_t size) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < size; ++i) count += from.masks[i / 64] >> (i % 64) & 1U;
  return count;
}

template <class T>
void compare_source(compress::top_k const& compressor, std::size_t size, unsigned seed) {
  INFO(pp::dtype_traits<T>::name << ", " << size << " elements, ratio " << compressor.ratio << ", count "
                                 << compressor.count);
  std::mt19937 random(seed);
  pp::test::one_source<compress::top_k, T> source(compressor, size);
  model reference{compressor};
  for (int t = 0; t < 4; ++t) {
    auto const gradient = pp::test::random_gradient<T>(random, size);
    auto const expected = reference.push(pp::test::floats(gradient));
    auto const codes = source.push(gradient);
    if (size == 0) continue;
    REQUIRE(decoded(codes, size) == expected);
    REQUIRE(sent(codes, size) == reference.values(size));
    for (std::size_t i = 0; i < source.residual.size(); ++i)
      REQUIRE(source.residual[i] == (i < size ? reference.residual[i] : 0.0F));
  }
}

template <class T, class Rule>
void train(Rule const& rule, compress::top_k const& compressor, std::size_t size, std::size_t sources) {
  for (int const devices : {1, 2, 3})
    pp::test::compare_stores<T>(pp::cpu_devices(devices), rule, compressor, model{compressor}, size, sources);
}

}  // namespace

TEST_CASE("the two largest of eight are sent, and what stays is sent later", "[compress]") {
  pp::test::one_source<compress::top_k, float> source({.count = 2}, 8);
  std::vector<float> const gradient{1, -4, 2, 0, 4, -4, 3, 0.5F}, none(8);
  auto const codes = source.push(gradient);
  REQUIRE(codes.masks[0] == 0b0001'0010U);  // of three fours the first two
  REQUIRE(codes.values[0] == -4);
  REQUIRE(codes.values[1] == 4);
  source.residual.resize(8);
  REQUIRE(source.residual == std::vector<float>{1, 0, 2, 0, 0, -4, 3, 0.5F});
  source.residual.resize(64);
  REQUIRE(decoded(source.push(none), 8) == std::vector<float>{0, 0, 0, 0, 0, -4, 3, 0});
  REQUIRE(decoded(source.push(none), 8) == std::vector<float>{1, 0, 2, 0, 0, 0, 0, 0});
  REQUIRE(decoded(source.push(none), 8) == std::vector<float>{0, 0, 0, 0, 0, 0, 0, 0.5F});
  REQUIRE(decoded(source.push(none), 8) == none);
}

TEST_CASE("exactly the k largest elements are sent, of equal ones the first", "[compress]") {
  for (std::size_t const size : std::vector<std::size_t>{0, 1, 2, 63, 64, 65, 127, 1023, 5003, 40009})
    for (double const ratio : {1e-9, 0.01, 0.3, 1.0}) compare_source<float>({.ratio = ratio}, size, 5);
  for (std::int64_t const count : {1, 7, 64, 1000, 5003, 6000}) {
    compare_source<float>({.count = count}, 5003, 6);
    compare_source<pp::half>({.count = count}, 5003, 7);
    compare_source<pp::bfloat16>({.count = count}, 1023, 8);
  }
}

TEST_CASE("equal magnitudes, infinity and NaN have an order too", "[compress]") {
  std::vector<float> gradient(1000, -2.5F);
  auto const compare = [&] {
    pp::test::one_source<compress::top_k, float> source({.ratio = 0.1}, gradient.size());
    model reference{{.ratio = 0.1}};
    for (int t = 0; t < 3; ++t) {
      auto const expected = reference.push(gradient);
      REQUIRE(pp::test::same_bits(decoded(source.push(gradient), gradient.size()), expected));
      source.residual.resize(gradient.size());
      REQUIRE(pp::test::same_bits(source.residual, reference.residual));
      source.residual.resize(1024);
    }
  };
  compare();
  gradient.assign(1000, 0.0F);
  compare();
  gradient[70] = gradient[71] = 1e-44F;  // not normal
  compare();
  gradient[500] = infinity;
  gradient[501] = -infinity;
  gradient[3] = std::numeric_limits<float>::max();
  compare();
  gradient[900] = not_a_number;
  gradient[2] = not_a_number;
  compare();
}

TEST_CASE("what was sent and what waits add up to the gradients", "[compress]") {
  std::mt19937 random(3);
  std::vector<float> gradient(5003);
  pp::test::one_source<compress::top_k, float> source({.ratio = 0.05}, gradient.size());
  std::vector<double> given(gradient.size()), seen(gradient.size());
  for (int t = 0; t < 20; ++t) {
    for (std::size_t i = 0; i < gradient.size(); ++i)  // few bits: float adds them exactly
      given[i] += double{gradient[i] = static_cast<float>(static_cast<int>(random() % 513) - 256) / 16};
    auto const now = decoded(source.push(gradient), gradient.size());
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      seen[i] += double{now[i]};
      REQUIRE(seen[i] + double{source.residual[i]} == given[i]);
    }
  }
}

TEST_CASE("stores train on the largest gradients, on any number of devices", "[compress]") {
  for (std::size_t const size : std::vector<std::size_t>{0, 1, 63, 64, 65, 1023, 5003}) {
    std::size_t const sources = 1 + size % 5;
    train<pp::bfloat16>(update::adam{}, {.ratio = 0.5}, size, sources);
#if !PUSHPULL_TEST_SANITIZED
    train<float>(pp::no_updater{}, {.ratio = 0.1}, size, sources);
    train<float>(update::momentum{}, {.count = 3}, size, sources);
    train<float>(update::clip_global_norm(3) | update::sgd{.learning_rate = 0.5}, {}, size, sources);
#endif
  }
  for (std::size_t const sources : std::vector<std::size_t>{1, 2, 3, 4, 5, 11})
    train<float>(update::sgd{}, {.ratio = 0.2}, 3001, sources);
}

TEST_CASE("the largest gradients reach devices that reach no other's memory", "[compress]") {
  using device = pp::test::counting_device;
  std::vector const devices{device(0, true), device(1, true), device(2, true)};
  for (std::size_t const size : std::vector<std::size_t>{1, 65, 5003}) {
    compress::top_k const compressor{.ratio = 0.1};
    pp::test::compare_stores<float>(devices, update::momentum{}, compressor, model{compressor}, size, 3);
  }
}

TEST_CASE("compressed pushes allocate nothing in the steady state and survive memory that is not there", "[compress]") {
  using device = pp::test::counting_device;
  std::vector const devices{device(0, true), device(1, true)};
  auto const run = [&](auto const& compressor) {
    pp::kv_store store{devices, pp::no_updater{}, compressor};
    std::vector<float> const gradient(5003, 2.0F), initial(5003, 7.0F);
    std::vector const both{gradient, gradient};
    std::vector<float> out(5003);
    store.init("w", initial);
    for (auto const& d : devices) d.count().before_allocation = [] { throw pp::out_of_memory("none left"); };
    REQUIRE_THROWS_AS(store.push("w", both).wait(), pp::out_of_memory);
    for (auto const& d : devices) d.count().before_allocation = nullptr;
    store.pull("w", out).wait();
    REQUIRE(out == initial);
    for (int t = 0; t < 3; ++t) {
      for (auto const& d : devices) d.count().clear();
      store.pushpull("w", both, out).wait();
    }
    for (auto const& d : devices) {
      REQUIRE(d.count().allocations == 0);
      REQUIRE(d.count().passes == 1);
    }
    REQUIRE(out == std::vector<float>(5003, 4.0F));
  };
  run(compress::top_k{.ratio = 1});
  run(compress::cast<pp::float8_e4m3>{});
  run(compress::cast<pp::half>{true});
}

TEST_CASE("ratios and counts that can never be right are refused", "[compress]") {
  auto const devices = pp::cpu_devices(1);
  for (double const ratio : {0.0, -0.1, 1.1, double{not_a_number}})
    REQUIRE_THROWS_AS((pp::kv_store{devices, update::sgd{}, compress::top_k{.ratio = ratio}}), pp::invalid_argument);
  REQUIRE_THROWS_AS((pp::kv_store{devices, update::sgd{}, compress::top_k{.count = -1}}), pp::invalid_argument);
}
