/// @file
/// What a store holds; rows that are written past the caches; tensors with more elements than 32 bits count.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <ranges>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "support/catch.hpp"
#include "support/counting_device.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using pp::bfloat16;
using pp::shape;
using device = pp::test::counting_device;

/// A small network's tensors.
std::vector<std::size_t> const sizes{300 * 1000, 1000, 1000 * 1000, 1000, 1000 * 10, 10, 64 * 3 * 49, 64, 1, 2'000'003};
std::size_t const elements = std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});

/// Bytes on all devices of a trainer's store after two steps.
template <class T, class Rule, class... Policies>
std::size_t held(std::size_t devices, Rule const& rule, Policies...) {
  std::vector<device> own;
  for (std::size_t n = 0; n < devices; ++n) own.emplace_back(static_cast<int>(n));
  pp::kv_store<T, device, Rule, Policies...> store{own, rule};
  pp::parameter_store parameters{store};
  for (std::size_t i = 0; i < sizes.size(); ++i)
    parameters.add(std::to_string(i), std::vector<T>(sizes[i], pp::convert<T>(1.0F)));
  for (int step = 0; step < 2; ++step) parameters.update_all();
  store.wait();
  std::size_t total = 0, reported = 0;
  for (std::size_t n = 0; n < devices; ++n) {
    total += own[n].count().held;
    reported += store.bytes(n);
  }
  REQUIRE(reported <= total);
  REQUIRE(static_cast<double>(total) <= 1.01 * static_cast<double>(reported));  // tables of keys and clocks
  return total;
}

TEST_CASE("a store holds states, mirrors and gradients, and nothing else of their size", "[memory]") {
  auto const expect = [](std::size_t total, std::size_t bytes_per_element) {
    auto const least = static_cast<double>(bytes_per_element * elements);
    REQUIRE(static_cast<double>(total) >= least);
    REQUIRE(static_cast<double>(total) <= 1.02 * least);  // padding, and whole pages between arrays
  };
  // On one device the weight is the master; on more each has a mirror and a slice of the states.
  expect(held<float>(1, update::sgd{}), 4 + 4);
  expect(held<float>(1, update::adam{}), 4 + 4 + 2 * 4);
  expect(held<float>(4, update::adam{}), 4 * (4 + 4) + 2 * 4);
  expect(held<float>(3, update::clip_global_norm(1) | update::momentum{}), 3 * (4 + 4) + 4 + 4);  // and the sum
  expect(held<bfloat16>(2, update::adam{}, pp::element::master<float>{}), 2 * (2 + 2) + 4 + 2 * 4);
}

TEST_CASE("a report of memory says how much there is for each purpose", "[memory]") {
  pp::memory_use const one{.masters = 512, .states = 3 * 512};
  pp::memory_use const two{.states = 5 << 20, .exchange = std::size_t{3} << 40};
  REQUIRE(to_string(pp::memory_report{.rank = 2, .devices = {one}}) ==
          "rank 2, device 0: 2.0 KiB: masters 512 B, states 1.5 KiB\n");
  REQUIRE(to_string(pp::memory_report{.rank = 0, .devices = {one, two, {}}}) ==
          "rank 0, device 0: 2.0 KiB: masters 512 B, states 1.5 KiB\n"
          "rank 0, device 1: 3.0 TiB: states 5.0 MiB, exchange 3.0 TiB\n"
          "rank 0, device 2: 0 B\n"
          "rank 0, in total: 3.0 TiB: masters 512 B, states 5.0 MiB, exchange 3.0 TiB\n");
}

#if defined(__GLIBC__)
/// Bytes per key beside its arrays, of many keys of four elements that come in a list or one by one: so many that no array
/// is rounded up to huge pages.
template <class Rule>
double bytes_beside(Rule const& rule, int devices, bool in_a_list) {
  auto const allocated = [] {
    auto const all = mallinfo2();
    return all.uordblks + all.hblkhd;
  };
  std::vector<float> const four{1, 2, 3, 4};
  std::vector<std::int64_t> keys(5'000);
  std::iota(keys.begin(), keys.end(), 0);
  std::vector<std::vector<float> const*> const values(keys.size(), &four);
  auto const before = allocated();
  pp::kv_store<float, pp::cpu_device<>, Rule, pp::integer_keys> store{pp::cpu_devices(devices), rule};
  if (in_a_list) {
    store.init(keys, values | std::views::transform([](auto const* v) -> auto const& { return *v; }));
  } else {
    for (auto const key : keys) store.init(key, four);
  }
  auto beside = static_cast<double>(allocated() - before);
  for (std::size_t n = 0; n < store.devices().size(); ++n) beside -= static_cast<double>(store.bytes(n));
  return beside / static_cast<double>(keys.size());
}

TEST_CASE("a key takes at most 256 bytes beside its own arrays", "[memory]") {
  for (bool const in_a_list : {true, false}) {
    CAPTURE(in_a_list);
    CHECK(bytes_beside(update::sgd{}, 1, in_a_list) <= 256);
    CHECK(bytes_beside(update::adam{}, 1, in_a_list) <= 256);
    CHECK(bytes_beside(update::adam{}, 2, in_a_list) <= 256 + 64);  // a clock more, in memory that doubles
  }
}
#endif

TEMPLATE_TEST_CASE("outputs beyond the caches receive the rows that were asked for", "[memory]", float, bfloat16) {
  for (std::int64_t const length : {64, 100, 448}) {
    shape const whole{3000, length};
    pp::tensor<TestType> value(pp::cpu_device<>(), whole);
    for (std::size_t i = 0; i < value.size(); ++i)
      value.data()[i] = pp::convert<TestType>(static_cast<double>(i % 251));
    std::vector<std::int64_t> which(2000);
    for (std::size_t i = 0; i < which.size(); ++i) which[i] = static_cast<std::int64_t>((i * 1103) % 3000);
    pp::kv_store<TestType, pp::cpu_device<>, update::sgd> store{pp::cpu_devices(2)};
    store.init("w", value);
    pp::row_sparse<TestType> out(pp::cpu_device<>(), whole);
    store.row_sparse_pull("w", out, which).wait();
    std::sort(which.begin(), which.end());
    REQUIRE(std::vector<std::int64_t>(out.row_ids(), out.row_ids() + out.rows()) == which);
    bool same = true;
    for (std::int64_t i = 0; i < out.rows(); ++i)
      same = same && std::equal(out.values() + i * length, out.values() + (i + 1) * length,
                                value.data() + which[static_cast<std::size_t>(i)] * length);
    REQUIRE(same);
  }
}

/// Of this machine; 0 where it does not say.
std::size_t available_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("MemAvailable:", 0) == 0) return std::stoull(line.substr(13)) * 1024;
  return 0;
}

TEST_CASE("tensors have more than 2^31 elements", "[memory]") {
  constexpr std::int64_t rows = 16'777'300, length = 129;  // 2^31 + 16.8 million
  constexpr auto bytes = static_cast<std::size_t>(rows * length) * sizeof(bfloat16);
  if (available_memory() < 2 * bytes + (std::size_t{2} << 30)) {
    std::puts("skipped: too little memory");
    return;
  }
  shape const whole{rows, length};
  std::vector<std::int64_t> const ids{0, 1, 8'000'000, 16'700'000, rows - 1};
  pp::row_sparse<bfloat16> some(pp::cpu_device<>(), whole, static_cast<std::int64_t>(ids.size()));
  std::copy(ids.begin(), ids.end(), some.row_ids());
  for (std::size_t i = 0; i < ids.size(); ++i)
    for (std::int64_t j = 0; j < length; ++j)
      some.values()[static_cast<std::int64_t>(i) * length + j] =
          pp::convert<bfloat16>(static_cast<double>(i + 1) + (j == 128));

  pp::kv_store<bfloat16, pp::cpu_device<>, update::sgd, pp::element::master<bfloat16>, pp::synchronous> store{
      pp::cpu_devices(2), update::sgd{.learning_rate = 1}};
  store.init("w", some);
  auto const expect = [&](double times) {
    pp::row_sparse<bfloat16> out(pp::cpu_device<>(), whole);
    std::vector<std::int64_t> asked = ids;
    asked.push_back(rows - 2);
    store.row_sparse_pull("w", out, asked);
    REQUIRE(out.rows() == 6);
    bool right = true;
    for (std::int64_t r = 0; r < 6; ++r)
      for (std::int64_t j = 0; j < length; ++j) {
        double const value = r == 4 ? 0 : static_cast<double>(r == 5 ? 5 : r + 1) + (j == 128);
        right = right && pp::convert<double>(out.values()[r * length + j]) == times * value;
      }
    REQUIRE(right);
  };
  expect(1);
  store.push("w", some);
  expect(0);
  store.push("w", some);
  expect(-1);
  // All elements, of which the last ones show whether the pass came to them.
  pp::tensor<bfloat16> gradient(pp::cpu_device<>(), whole);
  for (std::size_t i = 0; i < ids.size(); ++i)
    for (std::int64_t j = 0; j < length; ++j)
      gradient.data()[ids[i] * length + j] = some.values()[static_cast<std::int64_t>(i) * length + j];
  store.push("w", gradient);
  expect(-2);
}

}  // namespace
