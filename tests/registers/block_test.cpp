/// @file
/// Blocks of 16-bit elements: all values, rounding, tails and stores past the caches.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <pushpull/pushpull.hpp>
#include <random>
#include <vector>

#include "support/catch.hpp"

namespace {

using pushpull::bfloat16;
using pushpull::half;
using block = pushpull::pass::host_execution::block_type<float>;

template <class T>
T of_bits(std::uint16_t bits) {
  return std::bit_cast<T>(bits);
}

/// The nearest value of T in double arithmetic, ties to even: independent of any bit trick.
template <class T>
double nearest(float x) {
  constexpr int digits = std::is_same_v<T, half> ? 11 : 8;
  constexpr int min_exponent = std::is_same_v<T, half> ? -14 : -126;
  double const largest = std::is_same_v<T, half> ? 65504.0 : std::ldexp(255.0, 120);
  if (std::isnan(x) || std::isinf(x) || x == 0) return x;
  int const exponent = std::max(std::ilogb(x), min_exponent);
  double const unit = std::ldexp(1.0, exponent - digits + 1);
  double const rounded = std::nearbyint(x / unit) * unit;
  return std::abs(rounded) > largest ? std::copysign(HUGE_VAL, x) : rounded;
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

}  // namespace

TEMPLATE_TEST_CASE("every 16-bit value is loaded exactly and stored as it was", "[pass]", half, bfloat16) {
  std::vector<TestType> all(65536);
  for (std::uint32_t bits = 0; bits < 65536; ++bits) all[bits] = of_bits<TestType>(static_cast<std::uint16_t>(bits));
  std::vector<float> wide(65536);
  std::vector<TestType> back(65536);
  for (std::size_t i = 0; i < all.size(); i += block::size) {
    block b;
    b.load(all.data() + i);
    b.store(wide.data() + i);
    b.store(back.data() + i);
  }
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    double const exact = std::is_same_v<TestType, bfloat16> ? std::bit_cast<float>(bits << 16) : [&] {
      int const exponent = static_cast<int>(bits >> 10 & 31);
      double const fraction = bits & 1023;
      double const magnitude = exponent == 31  ? (fraction != 0 ? std::nan("") : HUGE_VAL)
                               : exponent == 0 ? std::ldexp(fraction, -24)
                                               : std::ldexp(1024 + fraction, exponent - 25);
      return (bits & 0x8000) != 0 ? -magnitude : magnitude;
    }();
    INFO("bits " << bits);
    REQUIRE((same(wide[bits], exact) || (std::isnan(wide[bits]) && std::isnan(exact))));
    if (std::isnan(exact)) {
      REQUIRE(std::isnan(pushpull::convert<float>(back[bits])));
    } else {
      REQUIRE(std::bit_cast<std::uint16_t>(back[bits]) == bits);
    }
  }
}

TEMPLATE_TEST_CASE("floats are stored as the nearest 16-bit value, ties to even", "[pass]", half, bfloat16) {
  std::mt19937 random(11);
  std::vector<float> values;
  for (int i = 0; i < 40000; ++i) values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  for (int i = 0; i < 40000; ++i)  // where half is normal, subnormal and beyond; exact ties among them
    values.push_back(std::ldexp(static_cast<float>(random() % 8192) - 4096, static_cast<int>(random() % 40) - 30));
  for (float const edge : {65504.0F, 65519.996F, 65520.0F, -65520.0F, 0x1p-25F, 0x1.000002p-25F, 0x1p-24F, -0.0F})
    values.push_back(edge);
  values.push_back(HUGE_VALF);
  values.resize((values.size() + block::size - 1) / block::size * block::size);
  alignas(64) TestType out[block::size], streamed[block::size];
  for (std::size_t i = 0; i < values.size(); i += block::size) {
    block b;
    b.load(values.data() + i);
    b.store(static_cast<TestType*>(out));
    b.store(static_cast<TestType*>(streamed), true);
    pushpull::pass::host_execution::end_task();
    for (std::size_t j = 0; j < block::size; ++j) {
      INFO("value " << values[i + j]);
      REQUIRE(same(pushpull::convert<double>(out[j]), nearest<TestType>(values[i + j])));
      REQUIRE(std::memcmp(&streamed[j], &out[j], 2) == 0);
      TestType const one = pushpull::convert<TestType>(values[i + j]);
      if (!std::isnan(values[i + j])) REQUIRE(std::memcmp(&one, &out[j], 2) == 0);
    }
  }
}

TEMPLATE_TEST_CASE("streaming stores write what others do, at any multiple of 16 bytes", "[pass]", float, double, half,
                   bfloat16) {
  float values[block::size];
  for (std::size_t i = 0; i < block::size; ++i) values[i] = static_cast<float>(i) - 9;
  block b;
  b.load(static_cast<float const*>(values));
  alignas(64) TestType memory[block::size + 128 / sizeof(TestType)], stored[block::size];
  b.store(static_cast<TestType*>(stored));
  for (std::size_t offset = 16 / sizeof(TestType); offset <= 80 / sizeof(TestType); offset += 16 / sizeof(TestType)) {
    std::memset(static_cast<void*>(memory), 0x55, sizeof(memory));
    b.store(memory + offset, true);
    pushpull::pass::host_execution::end_task();
    REQUIRE(std::memcmp(memory + offset, stored, sizeof(stored)) == 0);
    auto const* const bytes = reinterpret_cast<unsigned char const*>(memory);
    REQUIRE(bytes[offset * sizeof(TestType) - 1] == 0x55);
    REQUIRE(bytes[offset * sizeof(TestType) + sizeof(stored)] == 0x55);
  }
}

TEMPLATE_TEST_CASE("tails are read and written element by element, nothing around them", "[pass]", float, double, half,
                   bfloat16) {
  std::vector<TestType> from(block::size + 2, pushpull::convert<TestType>(-1)), to(from);
  for (std::int64_t valid = 0; valid <= block::size; ++valid) {
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = pushpull::convert<TestType>(static_cast<float>(i + 1));
    std::fill(to.begin(), to.end(), pushpull::convert<TestType>(-1.0F));
    block b;
    b.load_partial(from.data() + 1, valid);
    b.store_partial(to.data() + 1, valid);
    for (std::size_t i = 0; i < to.size(); ++i) {
      bool const inside = i >= 1 && i < 1 + static_cast<std::size_t>(valid);
      REQUIRE(pushpull::convert<double>(to[i]) == (inside ? static_cast<double>(i + 1) : -1.0));
    }
  }
}
