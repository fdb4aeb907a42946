/// @file
/// Rows sorted by (id, source, position), and how many of them each owner has.
#include <algorithm>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace pass = pushpull::pass;
using device = pushpull::cpu_device<>;
using order = pass::row_order<device>;

}  // namespace

TEST_CASE("row_order sorts by id, then source, then position, and leaves out rows that do not exist", "[row_order]") {
  order sorter{device()};
  std::mt19937 random(5);
  for (int const count : {0, 1, 2, 7, 64, 1009})
    for (std::int64_t const rows : {0, 1, 3, 1000, 100'000}) {
      auto const limit = static_cast<unsigned>(rows + 4);
      std::vector<std::vector<std::int64_t>> given(3);
      for (int i = 0; i < count; ++i) given[random() % 3].push_back(static_cast<std::int64_t>(random() % limit) - 2);
      std::vector<order::source> sources;
      std::vector<std::tuple<std::int64_t, std::int32_t>> expected;
      std::int32_t number = 0;
      for (auto const& ids : given) {
        sources.push_back({ids.data(), static_cast<std::int64_t>(ids.size())});
        for (std::int64_t const id : ids) expected.emplace_back(id < 0 || id > rows ? rows : id, number++);
      }
      std::sort(expected.begin(), expected.end());
      sorter.sort(sources, rows, false);
      REQUIRE(sorter.size() == count);
      std::vector<std::tuple<std::int64_t, std::int32_t>> sorted;
      for (int i = 0; i < count; ++i) sorted.emplace_back(sorter.ids()[i], sorter.number()[i]);
      REQUIRE(sorted == expected);

      std::set<std::int64_t> distinct;
      std::int32_t existing = 0;
      for (auto const& [id, place] : expected)
        if (id < rows) {
          distinct.insert(id);
          ++existing;
        }
      std::int64_t const begin = rows / 3, end = rows - rows / 4;
      pass::row_counts counts{-1, -1, -1, -1};
      sorter.count(&counts, begin, end);
      REQUIRE(counts.given == existing);
      REQUIRE(counts.distinct == static_cast<std::int32_t>(distinct.size()));
      REQUIRE(counts.begin == std::distance(distinct.begin(), distinct.lower_bound(begin)));
      REQUIRE(counts.end == std::distance(distinct.begin(), distinct.lower_bound(end)));
      auto id = distinct.begin();
      for (std::int32_t u = 0; u < counts.distinct; ++u, ++id) {
        std::int32_t const first = sorter.first()[u];
        REQUIRE(sorter.ids()[first] == *id);
        REQUIRE((first == 0 || sorter.ids()[first - 1] < *id));
      }
    }
}

TEST_CASE("row tasks cover every row once, whatever its length", "[row_order]") {
  for (std::int64_t const grain : {4, 64, 32768})
    for (std::int64_t const length : {1, 3, 64, 65, 32767, 32768, 100'001}) {
      pass::detail::row_tasks const tasks(length, grain, 4);
      REQUIRE(tasks.rows * length <= std::max(grain, length));
      REQUIRE(tasks.parts * grain >= length);
      for (std::int64_t const rows : {0, 1, 2, 1009}) REQUIRE(tasks.count(rows) / tasks.parts * tasks.rows >= rows);
    }
}
