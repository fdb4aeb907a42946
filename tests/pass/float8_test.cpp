/// @file
/// Blocks of 8-bit elements: all codes, rounding, every alignment and length, stores past the caches.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <pushpull/pushpull.hpp>
#include <vector>

#include "support/catch.hpp"
#include "support/float8.hpp"

namespace {

using pushpull::convert;
using pushpull::float8_e4m3;
using pushpull::float8_e5m2;
using pushpull::test::code_of;
template <class A>
using block_of = pushpull::pass::host_execution::block_type<A>;

template <class T>
T of_code(std::size_t code) {
  return std::bit_cast<T>(static_cast<std::uint8_t>(code));
}

template <class T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

/// to[i] = from[i] by blocks, the last of them a part.
template <class A, class From, class To>
void through_blocks(From const* from, To* to, std::int64_t size, bool streaming = false) {
  using block = block_of<A>;
  for (std::int64_t i = 0; i < size; i += block::size) {
    block b;
    if (size - i < block::size) {
      b.load_partial(from + i, size - i);
      b.store_partial(to + i, size - i);
    } else {
      b.load(from + i);
      b.store(to + i, streaming);
    }
  }
  pushpull::pass::host_execution::end_task();
}

}  // namespace

TEMPLATE_TEST_CASE("every 8-bit code is loaded as one element is converted, and stored as it was", "[pass]",
                   float8_e4m3, float8_e5m2) {
  std::vector<TestType> codes(256), back(256);
  for (std::size_t code = 0; code < 256; ++code) codes[code] = of_code<TestType>(code);
  std::vector<float> wide(256);
  std::vector<double> wider(256);
  through_blocks<float>(codes.data(), wide.data(), 256);
  through_blocks<double>(codes.data(), wider.data(), 256);
  through_blocks<float>(codes.data(), back.data(), 256);
  for (std::size_t code = 0; code < 256; ++code) {
    INFO("code " << code);
    REQUIRE(same_bits(wide[code], convert<float>(codes[code])));
    REQUIRE(same_bits(wider[code], convert<double>(codes[code])));
    bool const infinite = std::isinf(wide[code]);
    std::size_t const expected = std::isnan(wide[code]) ? 0x7F : infinite ? code - 1 : code;
    REQUIRE(code_of(back[code]) == expected);
  }
}

TEMPLATE_TEST_CASE("floats are stored as the nearest 8-bit value, ties to even, past the caches too", "[pass]",
                   float8_e4m3, float8_e5m2) {
  std::vector<float> const x = pushpull::test::float8_inputs<TestType>();
  std::vector<TestType> stored(x.size());
  pushpull::tensor<TestType> streamed(pushpull::cpu_device<>{}, pushpull::shape{static_cast<std::int64_t>(x.size())});
  auto const size = static_cast<std::int64_t>(x.size());
  through_blocks<float>(x.data(), stored.data(), size);
  REQUIRE(reinterpret_cast<std::uintptr_t>(streamed.data()) % 64 == 0);
  through_blocks<float>(x.data(), streamed.data(), size, true);
  for (std::size_t i = 0; i < x.size(); ++i) {
    auto const expected = pushpull::test::nearest_float8<TestType>(x[i]);
    if (code_of(stored[i]) != expected || code_of(streamed.data()[i]) != expected) {
      CAPTURE(x[i], code_of(stored[i]), code_of(streamed.data()[i]), expected);
      REQUIRE(code_of(stored[i]) == expected);
      REQUIRE(code_of(streamed.data()[i]) == expected);
    }
  }
}

TEMPLATE_TEST_CASE("8-bit elements of any alignment and length are loaded and stored, nothing around them", "[pass]",
                   float8_e4m3, float8_e5m2) {
  constexpr std::size_t longest = 200, around = 64;
  std::vector<TestType> codes(longest + 2 * around);
  std::vector<float> wide(codes.size());
  for (std::size_t i = 0; i < codes.size(); ++i) {
    codes[i] = of_code<TestType>(i * 7 % 0x7C);
    wide[i] = convert<float>(codes[i]);
  }
  auto const guard = of_code<TestType>(0xE5);
  for (std::size_t offset = 0; offset < around; ++offset)
    for (std::size_t size = 0; size <= longest; ++size) {
      auto const count = static_cast<std::int64_t>(size);
      std::vector<float> loaded(codes.size(), -1.0F), expected_loaded(loaded);
      std::vector<TestType> stored(codes.size(), guard), expected_stored(stored);
      std::copy_n(wide.data() + offset, size, expected_loaded.begin() + 3);
      std::copy_n(codes.begin() + 5, size, expected_stored.data() + offset);
      through_blocks<float>(codes.data() + offset, loaded.data() + 3, count);
      through_blocks<float>(wide.data() + 5, stored.data() + offset, count);
      if (loaded != expected_loaded || std::memcmp(stored.data(), expected_stored.data(), stored.size()) != 0)
        FAIL("offset " << offset << ", size " << size);
    }
}

TEMPLATE_TEST_CASE("copies between floats and 8 bits convert every element, streamed or not", "[pass]", float8_e4m3,
                   float8_e5m2) {
  // From 2^16 elements on what is aligned goes past the caches.
  for (std::size_t const size : {1U, 63U, 1021U, 65536U, 65537U, 200003U})
    for (std::size_t const offset : {0U, 1U, 16U}) {
      auto const count = static_cast<std::int64_t>(size);
      std::vector<float> from(size + 1);
      for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i % 4099) / 8 - 200;
      pushpull::tensor<TestType> codes(pushpull::cpu_device<>{}, pushpull::shape{count + 64});
      std::vector<float> back(size);
      pushpull::tensor_view const part(codes.data() + offset, pushpull::shape{count});
      pushpull::copy(pushpull::tensor_view(from.data() + 1, pushpull::shape{count}), part);
      pushpull::copy(part, back);
      bool right = true;
      for (std::size_t i = 0; i < size; ++i) {
        auto const expected = convert<TestType>(from[i + 1]);
        right = right && same_bits(part.data()[i], expected) && back[i] == convert<float>(expected);
      }
      for (std::size_t i = 0; i < size + 64; ++i)
        right = right && ((i >= offset && i < offset + size) || code_of(codes.data()[i]) == 0);
      INFO(size << " elements, offset " << offset);
      REQUIRE(right);
    }
}
