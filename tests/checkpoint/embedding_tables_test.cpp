/// @file
/// Embedding tables in files: nothing is lost, and what is not a table's is refused.
#include <pushpull/checkpoint/embedding_tables.hpp>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;
namespace update = pushpull::update;
using Catch::Matchers::Contains;
using ids = std::vector<std::int64_t>;
using store_type = pp::kv_store<float, pp::cpu_device<>, update::adam>;
using table_type = pp::embedding_table<store_type>;

constexpr std::int64_t length = 5;

/// Every id has another one's first value.
void first_row(std::int64_t id, std::span<float> row) {
  for (std::size_t j = 0; j < row.size(); ++j) row[j] = static_cast<float>(id % 97) + static_cast<float>(j) / 8;
}

pp::table_options options(std::int64_t initial_rows) {
  return {.capacity = 60, .initial_rows = initial_rows, .admission = 2, .evicts = pp::eviction::least_recently_used};
}

/// One step of a trainer. @returns what it pulled
std::vector<float> step(table_type& table, std::mt19937& random) {
  ids batch(random() % 30);
  for (auto& id : batch) id = static_cast<std::int64_t>((random() % 16 * (random() % 16)) << 55);
  std::vector<float> rows(batch.size() * length), gradients(rows.size());
  table.pull(batch, rows);
  for (float& g : gradients) g = static_cast<float>(random() % 9) - 4;
  table.push(batch, gradients);
  return rows;
}

}  // namespace

TEST_CASE("a table that was saved and loaded goes on bit for bit, and nothing is lost",
          "[checkpoint][embedding_table]") {
  int const devices = GENERATE(1, 2, 4), other_devices = GENERATE(1, 4);
  int const steps = GENERATE(0, 1, 40);
  pp::test::temporary_folder const folder;
  store_type store{pp::cpu_devices(devices)}, other_store{pp::cpu_devices(other_devices)};
  table_type table{store, "words", length, options(3), first_row},
      other{other_store, "w", length, options(32), first_row};
  std::mt19937 random(2);
  for (int t = 0; t < steps; ++t) step(table, random);
  step(other, random);
  step(other, random);
  cp::save_embedding_table(table, folder.file("table"));
  cp::load_embedding_table(other, folder.file("table"));
  cp::save_embedding_table(other, folder.file("again"));
  REQUIRE(pp::test::read_file(folder.file("again")) == pp::test::read_file(folder.file("table")));
  auto const expect_same = [&] {
    auto const a = table.export_rows(), b = other.export_rows();
    REQUIRE(a.ids == b.ids);
    REQUIRE(a.slots == b.slots);
    REQUIRE(a.values == b.values);
    REQUIRE(a.states.size() == 2);
    for (std::size_t s = 0; s < 2; ++s) REQUIRE(a.states[s].elements == b.states[s].elements);
    REQUIRE(a.seen == b.seen);
    REQUIRE(a.last_used == b.last_used);
    REQUIRE(a.calls == b.calls);
    REQUIRE(a.step_began == b.step_began);
    REQUIRE(a.steps == b.steps);
    REQUIRE(a.waiting.ids.size() == b.waiting.ids.size());
    for (std::size_t i = 0; i < a.waiting.ids.size(); ++i) REQUIRE(other.seen(a.waiting.ids[i]) == a.waiting.seen[i]);
  };
  expect_same();
  auto same_random = random;
  for (int t = 0; t < 40; ++t) REQUIRE(step(table, random) == step(other, same_random));
  expect_same();
  if (steps == 40) REQUIRE(table.size() > 50);
}

TEST_CASE("files that are not of this table are refused, and the table stays", "[checkpoint][embedding_table]") {
  pp::test::temporary_folder const folder;
  store_type store{pp::cpu_devices(2)};
  table_type table{store, "w", length, options(3), first_row};
  std::mt19937 random(2);
  for (int t = 0; t < 40; ++t) step(table, random);
  auto const path = folder.file("table");
  cp::save_embedding_table(table, path);
  auto const before = table.export_rows();
  auto const message = [](auto& into, auto const& from) {
    return pp::test::message_of<pp::error>([&] { cp::load_embedding_table(into, from); });
  };

  cp::safetensors_file const file(path);
  auto const refused = [&](auto const& change, std::string const& words) {
    auto metadata = file.metadata();
    std::vector<cp::entry> entries(file.entries().begin(), file.entries().end());
    change(metadata, entries);
    cp::write_safetensors(folder.file("changed"), entries, metadata);
    REQUIRE_THROWS_AS(cp::load_embedding_table(table, folder.file("changed")), pp::file_error);
    REQUIRE_THAT(message(table, folder.file("changed")), Contains(words));
    auto const after = table.export_rows();
    REQUIRE((after.ids == before.ids && after.values == before.values && after.steps == before.steps));
  };
  refused([](auto& metadata, auto&) { metadata["format"] = "pushpull.optimizer_states"; }, "pushpull.embedding_table");
  refused([](auto& metadata, auto&) { metadata["rule"] = "sgd"; }, "\"sgd\"");
  refused([](auto& metadata, auto&) { metadata["row_length"] = "6"; }, "\"row_length\" \"5\" expected, got \"6\"");
  refused([](auto& metadata, auto&) { metadata["steps"] = "-1"; }, "steps");
  refused([](auto&, auto& entries) { entries.pop_back(); }, "expected");
  ids const twice(before.ids.size(), 7);
  refused(
      [&](auto&, auto& entries) {
        for (auto& e : entries)
          if (e.name == "ids") e = cp::entry_of("ids", twice);
      },
      "takes each id once");

  pp::table_options small = options(3);
  small.capacity = 10;
  table_type little{store, "little", length, small, first_row};
  REQUIRE_THROWS_AS(cp::load_embedding_table(little, path), pp::table_full);
  table_type longer{store, "longer", length + 1, options(3), first_row};
  REQUIRE_THROWS_AS(cp::load_embedding_table(longer, path), pp::file_error);
  REQUIRE(longer.size() == 0);
}
