/// @file
/// Rows sorted by (id, source, position), and how many of them each owner has.
#include <algorithm>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <random>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace pass = pushpull::pass;
using device = pushpull::cpu_device<>;
using order = pass::row_order<device>;

/// Every element of [begin, end), which an owner has, is in one task of `Grain` elements, in blocks of 4.
template <std::int64_t Grain>
void tasks_cover_once(std::int64_t length, std::int64_t begin, std::int64_t end) {
  INFO("tasks of " << Grain << ", rows of " << length << ", elements " << begin << " to " << end);
  using types = pass::element_types<float, float, float, float, float>;
  using run = pass::plan<device, types, 0>::run_type;
  float element = 0;
  pass::row_counts const none{0, 0, 0, 0};
  pass::all_rows<run> schedule{};
  schedule.operands.slice.master = &element;
  schedule.operands.row_length = length;
  schedule.operands.begin = begin;
  schedule.operands.end = end;
  schedule.operands.counts = &none;
  std::vector<std::pair<std::int64_t, std::int64_t>> parts;
  std::int64_t const rows = (end + length - 1) / length - begin / length;
  for (std::int64_t task = 0; task < pass::row_tasks(length, Grain, 4).count(rows); ++task) {
    std::int64_t elements = 0;
    schedule.for_each_row<Grain, 4>(task, [&](run const& r, std::int64_t first, std::int64_t last) {
      parts.emplace_back(r.first_element + first, r.first_element + last);
      elements += last - first;
    });
    if (elements > Grain) FAIL("a task of " << elements);
  }
  std::ranges::sort(parts);
  std::int64_t at = begin;
  for (auto const& [first, last] : parts) {
    if (first != at || last <= first) FAIL("elements " << first << " to " << last << " after " << at);
    at = last;
  }
  REQUIRE(at == end);
}

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

TEST_CASE("row tasks cover every element of an owner once, whatever the length of rows", "[row_order]") {
  for (std::int64_t const length : {1, 3, 4, 5, 63, 64, 65, 1001})
    for (std::int64_t const rows : {0, 1, 2, 1009}) {
      tasks_cover_once<4>(length, 0, rows * length);
      tasks_cover_once<64>(length, 0, rows * length);
      tasks_cover_once<32768>(length, 0, rows * length);
      tasks_cover_once<64>(length, rows * length / 3, rows * length - rows * length / 4);
    }
  tasks_cover_once<32768>(100'001, 0, 37 * 100'001);
}
