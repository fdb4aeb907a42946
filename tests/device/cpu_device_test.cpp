/// @file
/// What every host device must do, for each system.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <pushpull/pushpull.hpp>
#include <set>
#include <vector>

#if defined(_OPENMP)
#include <pushpull/device/openmp_system.hpp>
#endif

#include "support/catch.hpp"
#include "support/counting_device.hpp"
#include "support/thread_system.hpp"

namespace {

/// Leaf i is the sum of 1000 i + t over its threads t.
struct leaf_sum {
  double operator()(std::int64_t leaf, std::int32_t thread, std::int32_t threads) const {
    double sum = 0;
    for (std::int32_t t = thread; t < 100; t += threads) sum += static_cast<double>(1000 * leaf + t);
    return sum;
  }
  std::int64_t slot(std::int64_t leaf) const { return leaf + 2; }
};

template <class D>
void conforms(D const& device, D const& other) {
  REQUIRE(device == D(device));
  REQUIRE(!(device == other));
  REQUIRE(device.can_access(device));
  REQUIRE(!device.name().empty());

  for (std::size_t const bytes : {std::size_t{0}, std::size_t{1}, std::size_t{5000}, std::size_t{9} << 20}) {
    void* const p = device.allocate(bytes);
    REQUIRE(reinterpret_cast<std::uintptr_t>(p) % 64 == 0);
    std::memset(p, 0xA5, bytes);
    device.fill_zero(p, bytes);
    device.synchronize();
    REQUIRE(std::count(static_cast<char*>(p), static_cast<char*>(p) + bytes, 0) == static_cast<std::ptrdiff_t>(bytes));
    device.deallocate(p, bytes);
  }

  for (std::int64_t const n : {0, 1, 2, 1000, 100003}) {
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(n));
    device.for_each(n, [&](std::int64_t i) { ++seen[static_cast<std::size_t>(i)]; });
    device.synchronize();
    for (auto const& count : seen) REQUIRE(count == 1);
  }

  std::vector<double> out(52, -1.0);
  device.for_each_leaf(50, leaf_sum{}, out.data());
  device.synchronize();
  REQUIRE(out[0] == -1);
  for (std::size_t i = 0; i < 50; ++i) REQUIRE(out[i + 2] == static_cast<double>(100 * 1000 * i + 4950));

  std::vector<int> const from{1, 2, 3};
  std::vector<int> to(3);
  device.copy(to.data(), from.data(), sizeof(int) * 3);
  device.wait_for(other);
  device.synchronize();
  REQUIRE(to == from);
  device.copy(nullptr, nullptr, 0);
  device.fill_zero(nullptr, 0);
}

template <class System>
void system_conforms() {
  conforms(pushpull::cpu_device<System>(0), pushpull::cpu_device<System>(1));
}

}  // namespace

TEST_CASE("a cpu_device conforms on every system", "[device]") {
  SECTION("tbb") { system_conforms<pushpull::tbb_system>(); }
  SECTION("serial") { system_conforms<pushpull::serial_system>(); }
  SECTION("threads") { system_conforms<pushpull::test::thread_system>(); }
#if defined(_OPENMP)
  SECTION("openmp") { system_conforms<pushpull::openmp_system>(); }
#endif
  SECTION("counting") { conforms(pushpull::test::counting_device(0), pushpull::test::counting_device(1)); }
}

TEST_CASE("cpu devices have indexes and names; others are refused", "[device]") {
  auto const devices = pushpull::cpu_devices(3);
  REQUIRE(devices.size() == 3);
  REQUIRE(devices[2].id() == 2);
  REQUIRE(devices[2].name() == "cpu:2");
  REQUIRE_THROWS_AS(pushpull::cpu_devices(0), pushpull::invalid_argument);
  REQUIRE_THROWS_AS(pushpull::cpu_device<>(-1), pushpull::invalid_argument);
}

TEST_CASE("memory that cannot be had is an error", "[device]") {
  REQUIRE_THROWS_AS(pushpull::cpu_device<>().allocate(~std::size_t{0} - 100), pushpull::out_of_memory);
}
