/// @file
/// 8-bit elements on a GPU: the same bits as on a CPU. Without a GPU every case reports that it was skipped.
#include <pushpull/pushpull.cuh>

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/cuda_devices.cuh"
#include "support/float8.hpp"

namespace {

namespace pp = pushpull;
using pp::test::code_of;

/// `from` converted on GPU 0, read and written `offset` elements behind aligned memory.
template <class To, class From>
std::vector<To> converted(std::vector<From> const& from, std::int64_t offset) {
  pp::cuda_device const device(0);
  auto const size = static_cast<std::int64_t>(from.size());
  pp::tensor<From, pp::cuda_device> source(device, pp::shape{size + offset});
  pp::tensor<To, pp::cuda_device> result(device, pp::shape{size + offset});
  pp::tensor_view const source_part(source.data() + offset, pp::shape{size}, device);
  pp::tensor_view const result_part(result.data() + offset, pp::shape{size}, device);
  pp::copy(from, source_part);
  pp::copy(source_part, result_part);
  return pp::to_vector(result_part);
}

bool skipped() { return pp::test::logical_devices(1).empty(); }

}  // namespace

TEMPLATE_TEST_CASE("a GPU stores floats and doubles in 8 bits as a CPU does", "[pass]", pp::float8_e4m3,
                   pp::float8_e5m2) {
  if (skipped()) return;
  std::vector<float> const x = pp::test::float8_inputs<TestType>();
  std::vector<double> const wide(x.begin(), x.end());
  for (std::int64_t const offset : {0, 1, 8}) {
    auto const from_float = converted<TestType>(x, offset);
    auto const from_double = converted<TestType>(wide, offset);
    for (std::size_t i = 0; i < x.size(); ++i) {
      auto const expected = code_of(pp::convert<TestType>(x[i]));
      if (code_of(from_float[i]) != expected || code_of(from_double[i]) != expected)
        FAIL(x[i] << ": " << int{expected} << " expected, got " << int{code_of(from_float[i])} << " and "
                  << int{code_of(from_double[i])});
    }
  }
}

TEMPLATE_TEST_CASE("a GPU reads every 8-bit code as a CPU does", "[pass]", pp::float8_e4m3, pp::float8_e5m2) {
  if (skipped()) return;
  std::vector<TestType> codes(256);
  for (std::size_t code = 0; code < 256; ++code) codes[code] = std::bit_cast<TestType>(static_cast<std::uint8_t>(code));
  for (std::int64_t const offset : {0, 1, 8}) {
    auto const floats = converted<float>(codes, offset);
    auto const doubles = converted<double>(codes, offset);
    for (unsigned code = 0; code < 256; ++code) {
      double const expected = pp::test::float8_value<TestType>(code);
      INFO("code " << code);
      REQUIRE((std::isnan(expected) ? std::isnan(floats[code]) : floats[code] == expected));
      REQUIRE((std::isnan(expected) ? std::isnan(doubles[code]) : doubles[code] == expected));
      REQUIRE((std::isnan(expected) || std::signbit(floats[code]) == std::signbit(expected)));
    }
  }
}
