/// @file
/// Shapes and views.
#include <thrust/host_vector.h>
#include <array>
#include <cstdint>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"

using pushpull::shape;

TEST_CASE("a shape knows its rank, extents and number of elements", "[tensor]") {
  REQUIRE(shape{}.rank() == 0);
  REQUIRE(shape{}.size() == 1);
  REQUIRE(shape{2, 3, 5}.size() == 30);
  REQUIRE(shape{2, 3, 5}[1] == 3);
  REQUIRE(shape{1, 1, 1, 1, 1, 1, 1, 7}.size() == 7);
  REQUIRE(to_string(shape{2, 3}) == "(2, 3)");
  REQUIRE(to_string(shape{}) == "()");
}

TEST_CASE("a zero extent makes a tensor empty, whatever the others are", "[tensor]") {
  auto const huge = std::numeric_limits<std::int64_t>::max();
  REQUIRE(shape{0}.size() == 0);
  REQUIRE(shape{huge, huge, 0}.size() == 0);
  REQUIRE(shape{0, 4} != shape{4, 0});
}

TEST_CASE("shapes that cannot be are refused", "[tensor]") {
  auto const huge = std::numeric_limits<std::int64_t>::max();
  REQUIRE_THROWS_AS((shape{1, 2, 3, 4, 5, 6, 7, 8, 9}), pushpull::invalid_argument);
  REQUIRE_THROWS_AS((shape{-1}), pushpull::invalid_argument);
  REQUIRE_THROWS_AS((shape{huge, 2}), pushpull::invalid_argument);
  REQUIRE_THROWS_AS((shape{0, -3}), pushpull::invalid_argument);
}

TEST_CASE("tensors, rows and views of more bytes than memory can have are refused, with shape and type", "[tensor]") {
  namespace pp = pushpull;
  using Catch::Matchers::Predicate;
  auto const says = [](auto const&... words) {
    return Predicate<pp::error>(
        [=](pp::error const& e) { return ((std::string(e.what()).find(words) != std::string::npos) && ...); });
  };
  constexpr std::int64_t huge = std::int64_t{1} << 61, largest = std::numeric_limits<std::int64_t>::max();
  pp::cpu_device<> const device;
  float element = 0;
  std::int64_t id = 0;
  auto const text = std::to_string(huge);
  REQUIRE_THROWS_MATCHES(pp::tensor<float>(device, shape{huge}), pp::out_of_memory, says("(" + text + ")", "float32"));
  REQUIRE_THROWS_MATCHES(pp::tensor<double>(device, shape{2, huge / 2}), pp::out_of_memory, says("(2, ", "float64"));
  REQUIRE_THROWS_MATCHES(pp::tensor_view<float>(&element, shape{huge}), pp::invalid_argument, says(text, "float32"));
  REQUIRE_THROWS_MATCHES(pp::tensor_view<float const>(&element, shape{huge, 3}), pp::invalid_argument, says(", 3)"));
  REQUIRE(pp::tensor_view<float>(&element, shape{huge - 1}).size() == huge - 1);
  REQUIRE_THROWS_MATCHES(pp::row_sparse<float>(device, shape{4, huge / 4}, 9), pp::out_of_memory,
                         says("9 rows", "float32"));
  REQUIRE_THROWS_MATCHES(pp::row_sparse<float>(device, shape{4, 0}, largest), pp::out_of_memory, says("(4, 0)"));
  REQUIRE_THROWS_MATCHES(pp::row_sparse_view<float>(&element, &id, huge, shape{huge, 1}), pp::invalid_argument,
                         says(text + " rows", "float32"));
  // Without rows a shape has no elements, whatever a row would have.
  REQUIRE_THROWS_MATCHES(pp::row_sparse<float>(device, shape{0, huge, 4}), pp::invalid_argument, says("(0, " + text));
  REQUIRE(pp::row_sparse<float>(device, shape{0, huge, huge, 0}).row_length() == 0);
}

TEST_CASE("contiguous ranges of elements are tensors of rank 1", "[tensor]") {
  std::vector<float> vector(5);
  std::array<double, 3> const array{};
  thrust::host_vector<std::int32_t> host(4);
  REQUIRE(pushpull::view_of(vector).shape() == shape{5});
  REQUIRE(pushpull::view_of(vector).data() == vector.data());
  REQUIRE(pushpull::view_of(std::span(vector).first(2)).size() == 2);
  REQUIRE(pushpull::view_of(host).size() == 4);
  static_assert(std::is_same_v<decltype(pushpull::view_of(array))::value_type, double const>);
  static_assert(!pushpull::TensorLike<std::vector<char>>);
  static_assert(!pushpull::TensorLike<std::vector<bool>>);
  static_assert(pushpull::WritableTensorLikeOf<std::vector<float>&, float>);
  static_assert(!pushpull::WritableTensorLikeOf<std::vector<float> const&, float>);
}
