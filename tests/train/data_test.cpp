/// @file
/// Sources of batches: arrays, ranges, prefetched ones, CSV files.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <pushpull/train/data/array_source.hpp>
#include <pushpull/train/data/csv.hpp>
#include <pushpull/train/data/prefetcher.hpp>
#include <pushpull/train/data/range_source.hpp>

#include "support/catch.hpp"
#include "support/message_of.hpp"
#include "support/ranges.hpp"
#include "support/temporary_folder.hpp"

using namespace pushpull;
using namespace pushpull::train;
using namespace pushpull::train::data;

namespace {

/// Row i holds 10 i, 10 i + 1; its label is i.
struct arrays {
  std::vector<float> values;
  std::vector<std::int32_t> labels;

  explicit arrays(std::int64_t rows) {
    for (std::int64_t i = 0; i < rows; ++i) {
      values.insert(values.end(), {static_cast<float>(10 * i), static_cast<float>(10 * i + 1)});
      labels.push_back(static_cast<std::int32_t>(i));
    }
  }
  array_source<float, std::int32_t> source(array_options options) const {
    auto const rows = static_cast<std::int64_t>(labels.size());
    return {{{"data", tensor_view(values.data(), shape{rows, 2})}},
            {{"label", tensor_view(labels.data(), shape{rows})}},
            options};
  }
};

using ids = std::vector<std::int32_t>;

/// The labels of a batch without padding, checked against its data.
template <class Batch>
ids labels_of(Batch const& b) {
  auto const& labels = b.labels.at(0);
  ids found(labels.data(), labels.data() + labels.shape()[0] - b.pad);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    CHECK(static_cast<std::int64_t>(b.data.at(0).data()[2 * i]) == 10 * labels.data()[i]);
    CHECK(static_cast<std::int64_t>(b.data.at(0).data()[2 * i + 1]) == 10 * labels.data()[i] + 1);
  }
  return found;
}

/// The batches of the rest of an epoch.
template <class S>
std::vector<ids> epoch_of(S& source) {
  std::vector<ids> batches;
  while (auto const b = source.next()) batches.push_back(labels_of(*b));
  return batches;
}

ids joined(std::vector<ids> const& batches) {
  ids all;
  for (auto const& b : batches) all.insert(all.end(), b.begin(), b.end());
  return all;
}

ids first(std::int64_t n) {
  ids all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

/// Counts to `end`; throws instead of its batch number `bad`, once.
struct counting_source {
  using batch_type = batch<float, std::int32_t>;
  std::int32_t end, bad = -1, at = 0;
  std::vector<std::int32_t> label = {0};
  std::vector<float> value = {0, 0};

  std::optional<batch_type> next() {
    if (at == bad) {
      bad = -1;
      throw std::runtime_error("batch " + std::to_string(at));
    }
    if (at == end) return std::nullopt;
    label[0] = at++;
    value = {static_cast<float>(10 * label[0]), static_cast<float>(10 * label[0] + 1)};
    batch_type made;
    made.data.emplace_back(value.data(), shape{1, 2});
    made.labels.emplace_back(label.data(), shape{1});
    return made;
  }
  void reset() { at = 0; }
  source_descs descs() const { return {}; }
};
static_assert(DataSource<counting_source> && !SeekableSource<counting_source>);
static_assert(SeekableSource<prefetcher<array_source<float>>> && !SeekableSource<prefetcher<counting_source>>);

}  // namespace

TEST_CASE("an array source cuts epochs into batches: padded, discarded or partial at the end", "[train][data]") {
  for (std::int64_t const rows : {1, 2, 5, 6, 7, 13}) {
    arrays const a(rows);
    for (std::int64_t const batch : {1, 2, 3, 7, 20}) {
      INFO(rows << " rows, batches of " << batch);
      std::int64_t const whole = rows / batch, rest = rows % batch;
      auto padded = a.source({.batch = batch});
      CHECK(padded.batches() == whole + (rest > 0));
      std::int64_t seen = 0;
      while (auto const b = padded.next()) {
        CHECK(b->data[0].shape() == shape{batch, 2});
        CHECK(b->pad == std::max<std::int64_t>(0, seen + batch - rows));
        CHECK(b->labels[0].data()[batch - 1] == (seen + batch - 1) % rows);
        labels_of(*b);
        seen += batch - b->pad;
      }
      CHECK(seen == rows);
      CHECK(!padded.next());
      auto partial = a.source({.batch = batch, .last = last_batch::partial});
      auto const batches = epoch_of(partial);
      CHECK(joined(batches) == first(rows));
      CHECK(static_cast<std::int64_t>(batches.back().size()) == (rest > 0 ? rest : batch));
      if (whole == 0) {
        CHECK_THROWS_AS(a.source({.batch = batch, .last = last_batch::discard}), invalid_argument);
      } else {
        auto discarding = a.source({.batch = batch, .last = last_batch::discard});
        CHECK(joined(epoch_of(discarding)) == first(whole * batch));
      }
    }
  }
}

TEST_CASE("shuffled epochs are permutations that seed and epoch determine", "[train][data]") {
  arrays const a(101);
  auto one = a.source({.batch = 10, .shuffle = 7}), two = a.source({.batch = 10, .shuffle = 7});
  std::set<ids> orders;
  for (int epoch = 0; epoch < 4; ++epoch) {
    auto const order = joined(epoch_of(one));
    CHECK(joined(epoch_of(two)) == order);
    orders.insert(order);
    auto sorted = order;
    std::sort(sorted.begin(), sorted.end());
    CHECK(sorted == first(101));
    one.reset();
    one.reset();  // an epoch that has not begun stays
    two.reset();
  }
  CHECK(orders.size() == 4);
  auto other = a.source({.batch = 10, .shuffle = 8});
  CHECK(orders.count(joined(epoch_of(other))) == 0);
  // The order is part of the format of runs that resume, so it may not change.
  auto const known = shuffled(8, 1, 2);
  CHECK(known == std::vector<std::int64_t>{0, 2, 3, 1, 5, 7, 4, 6});
}

TEST_CASE("a source that seeks continues as the one whose position was taken", "[train][data]") {
  arrays const a(23);
  auto run = a.source({.batch = 4, .shuffle = 3});
  for (int steps = 0; steps < 15; ++steps) {
    if (!run.next()) run.reset();
    auto resumed = a.source({.batch = 4, .shuffle = 3});
    resumed.seek(run.position());
    auto copy = run;
    CHECK(epoch_of(resumed) == epoch_of(copy));
    resumed.reset();
    copy.reset();
    CHECK(epoch_of(resumed) == epoch_of(copy));
  }
  auto const before = run.position();
  CHECK_THROWS_AS(run.seek({0, 7}), invalid_argument);
  CHECK_THROWS_AS(run.seek({-1, 0}), invalid_argument);
  CHECK(run.position() == before);
}

TEST_CASE("parts of a batch are those of one larger batch", "[train][data]") {
  arrays const a(17);
  auto whole = a.source({.batch = 6, .shuffle = 1});
  std::vector<array_source<float, std::int32_t>> parts;
  for (std::int64_t part = 0; part < 3; ++part)
    parts.push_back(a.source({.batch = 2, .shuffle = 1, .part = part, .parts = 3}));
  while (auto const b = whole.next()) {
    auto const expected = labels_of(*b);
    ids got;
    for (auto& part : parts) {
      auto const own = labels_of(part.next().value());
      got.insert(got.end(), own.begin(), own.end());
    }
    CHECK(got == expected);
  }
  for (auto& part : parts) CHECK(!part.next());
}

TEST_CASE("A7.3: an array source describes its batches, and refuses arrays that do not agree", "[train][data]") {
  arrays const a(5);
  auto const descs = a.source({.batch = 2}).descs();
  CHECK(descs.data == std::vector<descriptor>{{"data", shape{2, 2}, "float32", "NCHW"}});
  CHECK(descs.labels == std::vector<descriptor>{{"label", shape{2}, "int32", "NCHW"}});
  CHECK_THROWS_AS(a.source({.batch = 0}), invalid_argument);
  CHECK_THROWS_AS(a.source({.part = 1, .parts = 1}), invalid_argument);
  CHECK_THROWS_AS(a.source({.last = last_batch::partial, .parts = 2}), bad_option);
  CHECK_THROWS_AS(arrays(0).source({}), invalid_argument);
  tensor_view const values(a.values.data(), shape{5, 2}), four(a.values.data(), shape{4, 2});
  CHECK(test::message_of<batch_mismatch>([&] { array_source<float>({{"x", values}}, {{"y", four}}); }) ==
        "array_source: array \"y\": 5 rows expected, got 4");
  CHECK_THROWS_AS((array_source<float>({{"x", values, "TN"}}, {})), batch_mismatch);
  CHECK_THROWS_AS((array_source<float>({}, {{"x", values}})), invalid_argument);
}

TEST_CASE("a prefetcher gives the batches of its source, epoch by epoch", "[train][data]") {
  arrays const a(29);
  for (std::size_t const ahead : {std::size_t{1}, std::size_t{2}, std::size_t{5}, std::size_t{50}}) {
    auto plain = a.source({.batch = 4, .shuffle = 2});
    prefetcher fetched(a.source({.batch = 4, .shuffle = 2}), ahead);
    CHECK(fetched.batches() == 8);
    CHECK(fetched.descs().data == plain.descs().data);
    for (int epoch = 0; epoch < 3; ++epoch) {
      for (std::int64_t taken = 0; taken < (epoch == 1 ? 3 : 9); ++taken) {
        auto const expected = plain.next();
        auto const got = fetched.next();
        REQUIRE(got.has_value() == expected.has_value());
        if (got) CHECK(labels_of(*got) == labels_of(*expected));
        CHECK(fetched.position() == plain.position());
      }
      plain.reset();
      fetched.reset();
      fetched.reset();
    }
    plain.seek({5, 2});
    fetched.seek({5, 2});
    CHECK(epoch_of(fetched) == epoch_of(plain));
    CHECK_THROWS_AS(fetched.seek({5, 9}), invalid_argument);
    CHECK(fetched.position() == plain.position());
  }
  CHECK_THROWS_AS(prefetcher(a.source({}), 0), invalid_argument);
}

TEST_CASE("an error of the prefetching thread is thrown where its batch is taken, and the next call goes on",
          "[train][data]") {
  for (std::int32_t const bad : {0, 1, 4, 5}) {
    prefetcher fetched(counting_source{5, bad}, 3);
    for (std::int32_t i = 0; i < 5; ++i) {
      if (i == bad)
        CHECK(test::message_of<std::runtime_error>([&] { fetched.next(); }) == "batch " + std::to_string(bad));
      CHECK(labels_of(fetched.next().value()) == ids{i});
    }
    if (bad == 5) CHECK_THROWS_AS(fetched.next(), std::runtime_error);
    CHECK(!fetched.next());
    CHECK(!fetched.next());
    fetched.reset();
    CHECK(labels_of(fetched.next().value()) == ids{0});
  }
}

TEST_CASE("a prefetcher ends at any time", "[train][data]") {
  for (int taken = 0; taken < 7; ++taken) {
    prefetcher fetched(counting_source{5}, 2);
    for (int i = 0; i < taken; ++i) fetched.next();
    if (taken == 3) fetched.reset();
  }
}

TEST_CASE("a range of batches is a source: a pipeline of range-v3 cuts, shuffles and zips", "[train][data]") {
  namespace views = ranges::views;
  arrays const a(10);
  auto const order = shuffled(10, 3, 0);
  batch_buffer<float, std::int32_t> memory;
  auto pipeline = order | views::chunk(4) | views::transform([&](auto&& rows) {
                    auto const n = static_cast<std::int64_t>(ranges::distance(rows));
                    batch<float, std::int32_t> made;
                    float* const values = memory.data(0, static_cast<std::size_t>(2 * n));
                    std::int32_t* const labels = memory.label(0, static_cast<std::size_t>(n));
                    for (auto const [i, row] : views::enumerate(rows)) {
                      std::copy_n(a.values.data() + 2 * row, 2, values + 2 * i);
                      labels[i] = a.labels[static_cast<std::size_t>(row)];
                    }
                    made.data.emplace_back(values, shape{n, 2});
                    made.labels.emplace_back(labels, shape{n});
                    return made;
                  });
  range_source source(pipeline, source_descs{});
  static_assert(DataSource<decltype(source)>);
  for (int epoch = 0; epoch < 2; ++epoch) {
    auto const batches = epoch_of(source);
    CHECK(batches.size() == 3);
    CHECK(joined(batches) == ids(order.begin(), order.end()));
    CHECK(!source.next());
    source.reset();
  }
  CHECK(labels_of(source.next().value()).size() == 4);
  source.reset();
  CHECK(labels_of(source.next().value())[0] == static_cast<std::int32_t>(order[0]));
}

TEST_CASE("a CSV file is a table of numbers", "[train][data]") {
  test::temporary_folder const folder;
  auto const path = folder.file("table.csv");
  auto const read = [&](std::string const& text, csv_options options = {}) {
    return read_csv(test::write_file(path, text), options);
  };
  auto const table = read("a comment\nx,\"y\", label\r\n1,2.5,0\n\n -3e2 ,+4,\"1\"\r\n7,8,2", {.header_lines = 2});
  CHECK(table.rows() == 3);
  CHECK(table.names() == std::vector<std::string>{"x", "y", "label"});
  CHECK(table.take<float>(0, 2) == std::vector<float>{1, 2.5F, -300, 4, 7, 8});
  CHECK(table.take<std::int32_t>(2, 1) == std::vector<std::int32_t>{0, 1, 2});
  CHECK(table.take<float>(3, 0).empty());
  CHECK_THROWS_AS(table.take<float>(2, 2), invalid_argument);
  CHECK(read("").rows() == 0);
  CHECK(read("5;6\n", {.delimiter = ';'}).columns() == 2);
  auto const refused = [&](std::string const& text, csv_options options = {}) {
    auto const message = test::message_of<file_error>([&] { read(text, options); });
    return message.substr(message.find("table.csv") + 11);
  };
  CHECK(refused("1,2\n3,x\n") == "line 2, column 2: a number expected, got \"x\"");
  CHECK(refused("1,2\n3,4 5\n") == "line 2, column 2: a number expected, got \"4 5\"");
  CHECK(refused("1,2\n3,\n") == "line 2, column 2: a number expected, got \"\"");
  CHECK(refused("1,2\n\n3\n") == "line 3: 2 fields expected, got 1");
  CHECK(refused("a\n1,2\n", {.header_lines = 1}) == "the header names 1 columns, lines have 2");
  CHECK_THROWS_AS(read_csv(folder.file("missing.csv")), file_error);
}
