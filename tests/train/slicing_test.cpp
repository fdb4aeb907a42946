#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <pushpull/train/descriptor.hpp>
#include <pushpull/train/slicing.hpp>
#include <span>
#include <vector>

#include "support/catch.hpp"

using namespace pushpull;
using namespace pushpull::train;

namespace {

/// The sizes of slices, or nothing if the call refuses.
template <class Policy>
std::vector<std::int64_t> sizes(std::int64_t rows, std::vector<double> const& weights, slicing_options options = {}) {
  std::vector<std::int64_t> result;
  try {
    std::int64_t end = 0;
    for (row_range const slice : slice_batch<Policy>(rows, std::span<double const>(weights), options)) {
      REQUIRE(slice.begin == end);
      end = slice.end;
      result.push_back(slice.size());
    }
    REQUIRE(end == rows);
  } catch (empty_slice const&) {
    return {};
  }
  return result;
}

using list = std::vector<std::int64_t>;
std::vector<double> const one_one{1, 1}, one_two_one{1, 2, 1}, three_one{3, 1};
std::vector<double> ones(std::size_t n) { return std::vector<double>(n, 1.0); }

}  // namespace

TEST_CASE("half_even and half_up cut as MXNet's Python and Scala modules [B2.2] [B2.3] [B11-7]", "[train][slicing]") {
  CHECK(sizes<half_even>(5, one_one) == list{2, 3});
  CHECK(sizes<half_up>(5, one_one) == list{3, 2});
  CHECK(sizes<half_even>(7, one_one) == list{4, 3});
  CHECK(sizes<half_up>(7, one_one) == list{4, 3});
  CHECK(sizes<half_even>(9, one_one) == list{4, 5});
  CHECK(sizes<half_up>(9, one_one) == list{5, 4});
  CHECK(sizes<half_even>(10, ones(4)) == list{2, 2, 2, 4});
  CHECK(sizes<half_up>(10, ones(4)) == list{3, 3, 3, 1});
  CHECK(sizes<half_even>(10, one_two_one) == list{2, 5, 3});
  CHECK(sizes<half_up>(10, one_two_one) == list{3, 5, 2});
  for (auto const& both : {sizes<half_even>(8, three_one), sizes<half_up>(8, three_one)}) CHECK(both == list{6, 2});
  for (auto const& both : {sizes<half_even>(10, ones(3)), sizes<half_up>(10, ones(3))}) CHECK(both == list{3, 3, 4});
  CHECK(sizes<half_even>(20, ones(8)) == list{2, 2, 2, 2, 2, 2, 2, 6});
  CHECK(sizes<half_up>(20, ones(8)).empty());
  for (auto const& [rows, devices] : {std::pair{6, 4}, {12, 8}, {3, 4}}) {
    CHECK(sizes<half_even>(rows, ones(static_cast<std::size_t>(devices))).empty());
    CHECK(sizes<half_up>(rows, ones(static_cast<std::size_t>(devices))).empty());
  }
}

TEST_CASE("ceil_step cuts as DJL, and its sizes are those of its slices [A7.1] [A7.2] [A8-13]", "[train][slicing]") {
  CHECK(sizes<ceil_step>(7, ones(3)) == list{3, 3, 1});
  CHECK(sizes<ceil_step>(10, ones(3)) == list{4, 4, 2});
  CHECK(sizes<ceil_step>(10, ones(4)) == list{3, 3, 3, 1});
  CHECK(sizes<ceil_step>(4, ones(1)) == list{4});
  CHECK(sizes<ceil_step>(2, ones(3)).empty());
  CHECK(sizes<ceil_step>(2, ones(3), {.allow_empty = true}) == list{1, 1, 0});
  CHECK(sizes<ceil_step>(5, ones(4)).empty());
  CHECK(sizes<ceil_step>(5, ones(4), {.allow_empty = true}) == list{2, 2, 1, 0});
  CHECK(sizes<ceil_step>(0, ones(2), {.allow_empty = true}) == list{0, 0});
  CHECK_THROWS_AS(sizes<ceil_step>(7, three_one), invalid_argument);
  CHECK_THROWS_AS(sizes<ceil_step>(7, ones(3), {.even = true}), batch_mismatch);
  CHECK(sizes<ceil_step>(6, ones(3), {.even = true}) == list{2, 2, 2});
}

TEST_CASE("balanced leaves no device idle that has a load and a row [B2.1] [B2.4] [B11-7]", "[train][slicing]") {
  CHECK(sizes<balanced>(10, ones(4)) == list{3, 3, 2, 2});
  CHECK(sizes<balanced>(20, ones(8)) == list{3, 3, 3, 3, 2, 2, 2, 2});
  CHECK(sizes<balanced>(10, one_two_one) == list{3, 5, 2});
  CHECK(sizes<balanced>(2, {1000, 1}) == list{1, 1});
  CHECK(sizes<balanced>(3, {1, 0, 1}, {.allow_empty = true}) == list{2, 0, 1});
  CHECK(sizes<balanced>(3, ones(4)).empty());
  CHECK(sizes<balanced>(3, ones(4), {.allow_empty = true}) == list{1, 1, 1, 0});
  CHECK(sizes<balanced>(0, ones(2), {.allow_empty = true}) == list{0, 0});
  CHECK(slice_batch(5, 2) == std::vector<row_range>{{0, 3}, {3, 5}});
  int checked = 0;
  for (std::int64_t rows : {1, 2, 3, 5, 7, 13, 64, 1009})
    for (std::size_t n = 1; n <= static_cast<std::size_t>(rows) && n <= 17; ++n) {
      auto const equal = sizes<balanced>(rows, ones(n));
      CHECK(*std::max_element(equal.begin(), equal.end()) - *std::min_element(equal.begin(), equal.end()) <= 1);
      std::vector<double> weights;
      for (std::size_t k = 0; k < n; ++k) weights.push_back(1 + static_cast<double>((k * 7 + n) % 5));
      double const sum = std::accumulate(weights.begin(), weights.end(), 0.0);
      auto const uneven = sizes<balanced>(rows, weights);
      REQUIRE(uneven.size() == n);
      std::vector<double> quota;
      for (double const w : weights) quota.push_back(w / sum * static_cast<double>(rows));
      if (*std::min_element(quota.begin(), quota.end()) < 1) continue;  // some device gets a row that others lose
      ++checked;
      // Each size is the quota, rounded down, or up for the largest remainders.
      double least_up = 1, most_down = 0;
      for (std::size_t k = 0; k < n; ++k) {
        double const down = std::floor(quota[k] + 1e-9), remainder = quota[k] - down;
        auto const size = static_cast<double>(uneven[k]);
        REQUIRE((size >= down && size <= down + 1));
        (size > down ? least_up : most_down) =
            size > down ? std::min(least_up, remainder) : std::max(most_down, remainder);
      }
      CHECK(least_up > most_down - 1e-9);
    }
  CHECK(checked > 40);
  for (auto const& wrong : {std::vector<double>{}, {0.0, 0.0}, {1, -1}, {1, std::nan("")}, {1, INFINITY}})
    CHECK_THROWS_AS(sizes<balanced>(4, wrong), invalid_argument);
  CHECK_THROWS_AS(sizes<balanced>(-1, one_one), invalid_argument);
}

TEST_CASE("The axis of the samples is the place of N in the layout [B1.1]", "[train][descriptor]") {
  CHECK(batch_axis("NCHW") == 0);
  CHECK(batch_axis("TNC") == 1);
  CHECK(batch_axis("NT") == 0);
  CHECK(batch_axis("") == 0);
  CHECK(batch_axis("HW") == -1);
  descriptor const d{.name = "data", .shape = shape{5, 7}};
  CHECK(d.layout == "NCHW");
  CHECK(d.dtype == "float32");
  CHECK(d.rows() == 5);
  CHECK((descriptor{.name = "data", .shape = shape{5, 7}, .layout = "TN"}).rows() == 7);
  CHECK((descriptor{.name = "data", .shape = shape{5, 7}, .layout = "HW"}).rows() == -1);
  CHECK_THROWS_AS((descriptor{.name = "data", .shape = shape{5}, .layout = "TN"}).rows(), shape_mismatch);
  CHECK(with_rows(shape{5, 7}, 1, 2) == shape{5, 2});
}
