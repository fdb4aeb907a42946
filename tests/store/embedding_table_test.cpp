/// @file
/// Tables with a growing vocabulary, against a model of maps.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>
#include <pushpull/store/table/embedding_table.hpp>

#include "support/catch.hpp"
#include "support/message_of.hpp"
#include "support/thread_system.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

using device = pp::cpu_device<pp::test::thread_system>;
using store_type = pp::kv_store<float, device, update::adam>;
using table_type = pp::embedding_table<store_type>;
using ids = std::vector<std::int64_t>;

constexpr std::int64_t smallest = std::numeric_limits<std::int64_t>::min(),
                       largest = std::numeric_limits<std::int64_t>::max();

store_type new_store(int devices) {
  return {pp::cpu_devices<pp::test::thread_system>(devices), update::adam{.learning_rate = 0.125}};
}

/// The first row of an id.
void first_row(std::int64_t id, std::span<float> row) {
  for (std::size_t j = 0; j < row.size(); ++j)
    row[j] = static_cast<float>(static_cast<std::uint64_t>(id) % 1009) + static_cast<float>(j) / 64;
}

std::vector<float> pulled(table_type& table, ids const& which) {
  std::vector<float> rows(which.size() * static_cast<std::size_t>(table.row_length()));
  table.pull(which, rows);
  return rows;
}
std::vector<float> found(table_type const& table, ids const& which) {
  std::vector<float> rows(which.size() * static_cast<std::size_t>(table.row_length()));
  table.find(which, rows);
  return rows;
}
std::vector<float> first_rows(ids const& which, std::int64_t length) {
  std::vector<float> rows(which.size() * static_cast<std::size_t>(length));
  for (std::size_t i = 0; i < which.size(); ++i)
    first_row(which[i],
              std::span(rows).subspan(i * static_cast<std::size_t>(length), static_cast<std::size_t>(length)));
  return rows;
}
/// Pushes the same gradient to each id.
void push(table_type& table, ids const& which, float gradient = 1) {
  table.push(which, std::vector<float>(which.size() * static_cast<std::size_t>(table.row_length()), gradient));
}

/// The formula of Adam over maps, in double. t counts per push.
struct adam_model {
  struct element {
    double w = 0, m = 0, v = 0;
  };
  std::map<std::int64_t, std::vector<element>> rows;
  std::size_t length;
  int t = 0;

  std::vector<element>& row(std::int64_t id) {
    auto const [place, is_new] = rows.try_emplace(id, length);
    if (is_new) {
      auto const first = first_rows({id}, static_cast<std::int64_t>(length));
      for (std::size_t j = 0; j < length; ++j) place->second[j].w = first[j];
    }
    return place->second;
  }
  void push(std::vector<pp::table_gradient<float>> const& sources) {
    std::map<std::int64_t, std::vector<double>> sums;
    for (auto const& source : sources)
      for (std::size_t i = 0; i < source.ids.size(); ++i) {
        auto& sum = sums.try_emplace(source.ids[i], length).first->second;
        for (std::size_t j = 0; j < length; ++j) sum[j] += source.rows[i * length + j];
      }
    ++t;
    for (auto const& [id, sum] : sums) {
      auto& all = row(id);
      for (std::size_t j = 0; j < length; ++j) {
        element& x = all[j];
        x.m = 0.9 * x.m + 0.1 * sum[j];
        x.v = 0.999 * x.v + 0.001 * sum[j] * sum[j];
        x.w -= 0.125 * (x.m / (1 - std::pow(0.9, t))) / (std::sqrt(x.v / (1 - std::pow(0.999, t))) + 1e-8);
      }
    }
  }
};

}  // namespace

TEST_CASE("a table gives rows to any ids, and updates them as the rule does", "[embedding_table]") {
  int const devices = GENERATE(1, 2, 4);
  std::int64_t const length = GENERATE(1, 7, 16);
  auto store = new_store(devices);
  table_type table{store, "words", length, {.initial_rows = GENERATE(1, 5, 4096)}, first_row};
  adam_model model{{}, static_cast<std::size_t>(length)};
  std::mt19937_64 random(7);
  ids const known{0, 1, -1, largest, smallest, 1009, 77};
  for (int step = 0; step < 12; ++step) {
    std::vector<ids> batches(1 + random() % 3);
    std::vector<std::vector<float>> rows;
    std::vector<pp::table_gradient<float>> sources;
    for (ids& batch : batches) {
      batch.resize(random() % 3 == 0 ? 0 : random() % 400);
      for (auto& id : batch)
        id = random() % 2 == 0 ? known[random() % known.size()] : static_cast<std::int64_t>(random() % 500) << 40;
      rows.emplace_back(batch.size() * static_cast<std::size_t>(length));
      for (float& g : rows.back()) g = static_cast<float>(random() % 17) - 8;
    }
    for (std::size_t k = 0; k < batches.size(); ++k) sources.push_back({batches[k], rows[k]});
    ids const& first = batches.front();
    auto const values = pulled(table, first);
    for (std::size_t i = 0; i < first.size(); ++i)
      for (std::size_t j = 0; j < model.length; ++j)
        REQUIRE(values[i * model.length + j] == Approx(model.row(first[i])[j].w).epsilon(1e-4).margin(1e-4));
    table.push(sources);
    model.push(sources);
  }
  REQUIRE(table.size() == static_cast<std::int64_t>(model.rows.size()));
  for (auto const& [id, row] : model.rows) {
    REQUIRE(table.contains(id));
    auto const values = found(table, {id});
    for (std::size_t j = 0; j < model.length; ++j) REQUIRE(values[j] == Approx(row[j].w).epsilon(1e-4).margin(1e-4));
  }
}

TEST_CASE("a table's rows do not depend on the number of devices, and states stay while it grows",
          "[embedding_table]") {
  std::vector<std::vector<float>> results;
  std::vector<std::vector<float>> states;
  for (int const devices : {1, 2, 4})
    for (std::int64_t const initial_rows : {1, 3, 1000}) {
      auto store = new_store(devices);
      table_type table{store, "w", 5, {.initial_rows = initial_rows}, first_row};
      ids all;
      for (std::int64_t step = 0; step < 40; ++step) {
        all.push_back(step * step * 1000003);
        push(table, all, static_cast<float>(step % 3) - 1);
        REQUIRE(table.allocated_rows() >= table.size());
      }
      REQUIRE(table.allocated_rows() <= std::max(2 * table.size(), initial_rows));
      results.push_back(found(table, all));
      auto const exported = table.export_rows();
      REQUIRE(exported.ids == all);
      REQUIRE(exported.steps == 40);
      states.push_back(exported.states.at(1).elements);
    }
  for (auto const& result : results) REQUIRE(result == results.front());
  for (auto const& state : states) REQUIRE(state == states.front());
}

TEST_CASE("an id is admitted in the n-th step that sees it", "[embedding_table]") {
  auto store = new_store(GENERATE(1, 2));
  table_type table{store, "w", 3, {.admission = 3}, first_row};
  ids const both{5, -6, 5};
  for (int step = 1; step <= 2; ++step) {
    REQUIRE(pulled(table, both) == first_rows(both, 3));
    pulled(table, {5});
    REQUIRE(table.seen(5) == step);  // a step counts once
    push(table, {5, 5});
    REQUIRE(table.seen(5) == step);
    REQUIRE(table.size() == 0);
    REQUIRE(pulled(table, {}).empty());
  }
  REQUIRE(found(table, {5}) == first_rows({5}, 3));  // gradients were dropped
  REQUIRE(table.seen(5) == 2);
  push(table, {5, 77});
  REQUIRE(table.size() == 1);
  REQUIRE(table.contains(5));
  REQUIRE_FALSE(table.contains(-6));
  REQUIRE(table.seen(-6) == 2);
  REQUIRE(table.seen(77) == 1);
  REQUIRE(table.seen(78) == 0);
  // The third push is the row's first: t is 3, and its states began at zero.
  double const change = 0.125 * (0.1 / (1 - std::pow(0.9, 3))) / std::sqrt(0.001 / (1 - std::pow(0.999, 3)));
  REQUIRE(found(table, {5})[0] == Approx(5 - change).epsilon(1e-4));
  REQUIRE(found(table, {-6}) == first_rows({-6}, 3));
}

TEST_CASE("counts of ids without rows are forgotten by generations", "[embedding_table]") {
  auto store = new_store(1);
  table_type table{store, "w", 1, {.admission = 2, .candidates = 8}, first_row};
  push(table, {1, 2, 3, 4});
  push(table, {5, 6, 7, 8});  // the older generation has 1 to 4
  REQUIRE(table.seen(1) == 1);
  push(table, {9});  // 5 to 8 become the older one
  REQUIRE(table.seen(1) == 0);
  REQUIRE(table.seen(5) == 1);
  push(table, {1, 5});
  REQUIRE(table.contains(5));
  REQUIRE_FALSE(table.contains(1));
}

TEST_CASE("a full table evicts, and a slot's next id begins anew", "[embedding_table]") {
  int const devices = GENERATE(1, 2, 4);
  auto store = new_store(devices);
  SECTION("the least recently used id") {
    table_type table{
        store, "w", 7, {.capacity = 3, .initial_rows = 2, .evicts = pp::eviction::least_recently_used}, first_row};
    push(table, {10, 20, 30});
    push(table, {10});
    pulled(table, {30});
    pulled(table, {40});
    REQUIRE_FALSE(table.contains(20));
    REQUIRE((table.contains(10) && table.contains(30) && table.contains(40)));
    REQUIRE(found(table, {40, 20}) == first_rows({40, 20}, 7));
    auto const rows = table.export_rows();
    REQUIRE(rows.ids == ids{10, 40, 30});  // 40 has the slot of 20
    for (auto const& state : rows.states) {
      REQUIRE(std::vector<float>(state.elements.begin() + 7, state.elements.begin() + 14) == std::vector<float>(7));
      REQUIRE(state.elements[0] > 0);
      REQUIRE(state.elements[14] > 0);
    }
    push(table, {20});  // comes back, in the place of 10
    REQUIRE_FALSE(table.contains(10));
    REQUIRE(table.seen(20) == 1);
    double const change = 0.125 * (0.1 / (1 - std::pow(0.9, 3))) / std::sqrt(0.001 / (1 - std::pow(0.999, 3)));
    REQUIRE(found(table, {20})[0] == Approx(first_rows({20}, 1)[0] - change).epsilon(1e-4));
  }
  SECTION("the least frequently used id, but none of the present step before others") {
    table_type table{store, "w", 2, {.capacity = 3, .evicts = pp::eviction::least_frequently_used}, first_row};
    push(table, {1, 2, 3});
    push(table, {1, 2});
    push(table, {1, 3});
    push(table, {1, 3});  // 1: four steps, 2: two, 3: three
    pulled(table, {4});
    REQUIRE_FALSE(table.contains(2));
    pulled(table, {5});  // 4 has the lowest count, but is of this step
    REQUIRE(table.contains(4));
    REQUIRE_FALSE(table.contains(3));
    push(table, {5});
    pulled(table, {6});
    REQUIRE(table.contains(1));
    REQUIRE_FALSE(table.contains(4));
  }
  SECTION("several at once, or as many as are asked for") {
    table_type table{
        store, "w", 2, {.capacity = 8, .evicts = pp::eviction::least_recently_used, .evict_at_least = 5}, first_row};
    for (std::int64_t id = 0; id < 9; ++id) push(table, {id});
    REQUIRE(table.size() == 4);
    REQUIRE(table.contains(5));
    REQUIRE(table.evict_to(1) == 3);
    REQUIRE(table.contains(8));
    REQUIRE(table.evict_to(1) == 0);
    pulled(table, {100, 101});
    REQUIRE(table.export_rows().slots ==
            std::vector<std::int64_t>{0, 1, 2});  // free slots are taken from the lowest on
    REQUIRE(table.evict_to(-1) == 3);
    REQUIRE(table.size() == 0);
  }
}

TEST_CASE("a call that a table refuses changes nothing", "[embedding_table]") {
  auto store = new_store(2);
  bool fails = false;
  auto const initial = [&](std::int64_t id, std::span<float> row) {
    if (fails && id == 9) throw std::runtime_error("no first row");
    first_row(id, row);
  };
  auto const evicts = GENERATE(pp::eviction::none, pp::eviction::least_recently_used);
  table_type table{store, "w", 2, {.capacity = 3, .evicts = evicts}, initial};
  push(table, {1, 2});
  auto const before = table.export_rows();
  auto const expect_same = [&] {
    auto const after = table.export_rows();
    REQUIRE(after.ids == before.ids);
    REQUIRE(after.values == before.values);
    REQUIRE(after.seen == before.seen);
    REQUIRE(after.last_used == before.last_used);
    REQUIRE(after.calls == before.calls);
    REQUIRE(after.steps == before.steps);
  };
  std::vector<float> rows(8);
  REQUIRE_THROWS_AS(table.pull(ids{1, 5, 6, 7}, rows), pp::table_full);
  expect_same();
  REQUIRE_THROWS_AS(table.push(ids{5, 6, 7, 8}, rows), pp::table_full);
  expect_same();
  REQUIRE_THROWS_AS(table.push(ids{1}, rows), pp::shape_mismatch);
  REQUIRE_THROWS_AS(table.pull(ids{1}, rows), pp::shape_mismatch);
  REQUIRE_THROWS_AS(table.find(ids{1}, rows), pp::shape_mismatch);
  REQUIRE_THROWS_AS(table.push(std::span<pp::table_gradient<float> const>()), pp::invalid_argument);
  expect_same();
  fails = true;
  REQUIRE_THROWS_AS(table.pull(ids{1, 8, 9, 1}, rows), std::exception);
  expect_same();
  if (evicts == pp::eviction::none)
    REQUIRE(pp::test::message_of<pp::table_full>([&] { table.pull(ids{1, 5, 6, 7}, rows); }) ==
            "pull: table \"w\" has a capacity of 3 rows, 5 are needed, and no id is evicted");

  {  // an id that waits has no row, but a first value
    fails = false;
    table_type waits{store, "waits", 2, {.capacity = 1, .admission = 2, .evicts = evicts}, initial};
    push(waits, {1});
    push(waits, {1, 9});
    if (evicts != pp::eviction::none) push(waits, {8});
    fails = true;
    auto const at_first = waits.export_rows();
    REQUIRE(at_first.ids == ids{1});
    std::vector<float> pair(4);
    REQUIRE_THROWS_AS(waits.pull(evicts == pp::eviction::none ? ids{1, 9} : ids{8, 9}, pair), std::exception);
    auto const after = waits.export_rows();
    REQUIRE(after.ids == at_first.ids);
    REQUIRE(after.calls == at_first.calls);
    REQUIRE(after.waiting.seen == at_first.waiting.seen);
  }

  REQUIRE_THROWS_AS((table_type{store, "w", 2}), pp::duplicate_key);
  REQUIRE_THROWS_AS((table_type{store, "v", 0}), pp::invalid_argument);
  pp::kv_store<float, pp::cpu_device<>, pp::update::adopt> first{pp::cpu_devices(1)};
  REQUIRE_THROWS_AS((pp::embedding_table<decltype(first)>{first, "v", 2}), pp::invalid_argument);
  REQUIRE_THROWS_AS((table_type{store, "v", 2, {.capacity = 0}}), pp::invalid_argument);
  REQUIRE_THROWS_AS((table_type{store, "v", 2, {.admission = 0}}), pp::invalid_argument);
  REQUIRE_THROWS_AS((table_type{store, "v", 2, {}, pp::normal_rows{.sigma = -1}}), pp::invalid_argument);
  REQUIRE_THROWS_AS((table_type{store, "v", 2, {}, pp::uniform_rows{.scale = -1}}), pp::invalid_argument);
}

TEST_CASE("an exported table goes on elsewhere bit for bit", "[embedding_table]") {
  pp::table_options options{
      .capacity = 50, .initial_rows = 4, .admission = 2, .evicts = pp::eviction::least_frequently_used};
  auto store = new_store(2), other_store = new_store(GENERATE(1, 4));
  table_type table{store, "w", 3, options, first_row};
  std::mt19937 random(5);
  auto const batch = [&] {
    ids which(30);
    for (auto& id : which) id = static_cast<std::int64_t>(random() % 10 * (random() % 12)) - 7;
    return which;
  };
  for (int step = 0; step < 30; ++step) push(table, batch(), static_cast<float>(step % 5) - 2);
  table.evict_to(40);
  auto const exported = table.export_rows();
  REQUIRE(exported.ids.size() == 40);
  REQUIRE_FALSE(exported.waiting.ids.empty());
  options.initial_rows = 64;
  table_type other{other_store, "v", 3, options, first_row};
  push(other, {1, 2, 1000});
  push(other, {1, 2, 1000});
  other.import_rows(exported);
  REQUIRE_FALSE(other.contains(1000));
  for (int step = 0; step < 30; ++step) {
    ids const which = batch();
    REQUIRE(pulled(other, which) == pulled(table, which));
    push(table, which, 0.5F);
    push(other, which, 0.5F);
  }
  auto const a = table.export_rows(), b = other.export_rows();
  REQUIRE(a.ids == b.ids);
  REQUIRE(a.slots == b.slots);
  REQUIRE(a.seen == b.seen);
  REQUIRE(a.values == b.values);
  REQUIRE(a.states.at(0).elements == b.states.at(0).elements);
  REQUIRE(a.states.at(1).elements == b.states.at(1).elements);
  REQUIRE(a.steps == 60);
  REQUIRE(a.steps == b.steps);

  auto wrong = exported;
  wrong.ids.back() = wrong.ids.front();
  REQUIRE_THROWS_AS(other.import_rows(wrong), pp::invalid_argument);
  wrong = exported;
  wrong.states.pop_back();
  REQUIRE_THROWS_AS(other.import_rows(wrong), pp::invalid_argument);
  wrong = exported;
  wrong.slots.front() = -1;
  REQUIRE_THROWS_AS(other.import_rows(wrong), pp::invalid_argument);
  wrong = exported;
  wrong.values.pop_back();
  REQUIRE_THROWS_AS(other.import_rows(wrong), pp::invalid_argument);
  auto const refused = [&](auto const& damage) {
    auto damaged = exported;
    damage(damaged);
    REQUIRE_THROWS_AS(other.import_rows(damaged), pp::invalid_argument);
  };
  refused([](auto& rows) { rows.last_used.front() = rows.calls + 1; });
  refused([](auto& rows) { rows.seen.front() = rows.last_used.front() + 1; });
  refused([](auto& rows) { rows.waiting.seen.front() = largest; });
  refused([](auto& rows) { rows.waiting.newer.front() = 2; });
  refused([](auto& rows) { rows.step_began = rows.calls + 2; });
  refused([](auto& rows) { rows.calls = largest; });
  {
    auto sparse = exported;  // one row, far out: it gets a slot of its own
    table_type one{other_store, "o", 3, {.initial_rows = 4}, first_row};
    sparse.slots.back() = std::int64_t{1} << 40;
    one.import_rows(sparse);
    REQUIRE(one.allocated_rows() < 100);
    REQUIRE(one.export_rows().ids == exported.ids);
  }
  options.capacity = 39;
  table_type small{other_store, "u", 3, options, first_row};
  REQUIRE_THROWS_AS(small.import_rows(exported), pp::table_full);
  REQUIRE(small.size() == 0);
}

TEST_CASE("a number that the rule keeps per row goes with its row", "[embedding_table]") {
  pp::kv_store<float, device, update::group_adagrad> store{pp::cpu_devices<pp::test::thread_system>(2)};
  pp::table_options const options{.capacity = 2, .initial_rows = 1, .evicts = pp::eviction::least_recently_used};
  pp::embedding_table table{store, "w", 4, options, pp::zero_rows()};
  std::vector<float> const ones(4, 1.0F);
  auto const numbers = [&] { return table.export_rows().states.at(0).elements; };
  table.push(ids{1}, ones);
  auto const once = numbers();
  REQUIRE(once.size() == 1);
  table.push(ids{1}, ones);
  REQUIRE(numbers().at(0) > once[0]);
  table.push(ids{2}, ones);
  REQUIRE(numbers().at(1) == Approx(once[0]));
  table.push(ids{3}, ones);  // in the place of 1
  REQUIRE(table.export_rows().ids == ids{3, 2});
  REQUIRE(numbers().at(0) == Approx(once[0]));
  auto rows = table.export_rows();
  rows.states[0].elements = {5, 7};
  table.import_rows(rows);
  REQUIRE(numbers() == std::vector<float>{5, 7});
}

TEST_CASE("the map of slots is that of std::map", "[embedding_table]") {
  pp::cpu_device<pp::test::thread_system> const on;
  pp::flat_slot_map map;
  std::map<std::int64_t, std::int64_t> model;
  std::mt19937_64 random(11);
  auto const any = [&] { return static_cast<std::int64_t>(random() % 3 == 0 ? random() : random() % 300); };
  for (int round = 0; round < 300; ++round) {
    ids fresh, slots, gone, asked{0, largest, smallest, -1};
    for (std::size_t i = 0; i < random() % 40; ++i)
      if (auto const id = any(); model.emplace(id, round * 100 + static_cast<std::int64_t>(i)).second) {
        fresh.push_back(id);
        slots.push_back(model[id]);
      }
    map.insert(on, fresh, slots);
    for (std::size_t i = 0; i < random() % 40; ++i) {
      gone.push_back(any());
      model.erase(gone.back());
    }
    map.erase(on, gone);
    for (auto const& [id, slot] : model) asked.push_back(id);
    for (int i = 0; i < 50; ++i) asked.push_back(any());
    ids got(asked.size());
    map.find(on, asked, got);
    for (std::size_t i = 0; i < asked.size(); ++i)
      REQUIRE(got[i] == (model.contains(asked[i]) ? model[asked[i]] : pp::no_slot));
  }
}

TEST_CASE("several threads train one table while it grows and evicts", "[embedding_table][stress]") {
  // Without a rule's history: each push subtracts 1 from each of its rows.
  pp::kv_store<float, device, update::sgd> store{pp::cpu_devices<pp::test::thread_system>(2),
                                                 update::sgd{.learning_rate = 1}};
  bool const evicts = GENERATE(false, true);
  pp::table_options options{.initial_rows = 2};
  if (evicts) options = {.capacity = 64, .initial_rows = 2, .evicts = pp::eviction::least_recently_used};
  pp::embedding_table table{store, "w", 3, options, pp::zero_rows()};
  constexpr int threads = 4, rounds = 40;
  std::array<std::map<std::int64_t, int>, threads> counts;
  {
    std::vector<std::jthread> team;
    for (std::size_t t = 0; t < threads; ++t)
      team.emplace_back([&, t] {
        std::mt19937 random(static_cast<unsigned>(t));
        for (int round = 0; round < rounds; ++round) {
          ids which(1 + random() % 12);
          for (auto& id : which) id = static_cast<std::int64_t>(random() % 20 * (random() % 15));
          std::vector<float> rows(which.size() * 3);
          if (round % 4 == 1) table.find(which, rows);
          table.pull(which, rows);
          for (std::size_t i = 0; i < rows.size(); ++i)  // a row is never seen in the middle of a push
            if (rows[i] > 0 || rows[i] < rows[i / 3 * 3] || rows[i] > rows[i / 3 * 3])
              throw std::logic_error("a torn row");
          std::fill(rows.begin(), rows.end(), 1.0F);
          table.push(which, rows);
          for (auto const id : which) ++counts[t][id];
          if (evicts && round % 10 == 9) table.evict_to(20);
          if (round % 16 == 3 && table.export_rows().ids.size() > 300) throw std::logic_error("too many rows");
        }
      });
  }
  REQUIRE(store.steps("w.0") == threads * rounds);
  if (evicts) {
    REQUIRE(table.size() <= 64);
    return;
  }
  std::map<std::int64_t, int> total;
  for (auto const& own : counts)
    for (auto const& [id, count] : own) total[id] += count;
  REQUIRE(table.size() == static_cast<std::int64_t>(total.size()));
  for (auto const& [id, count] : total) {
    std::vector<float> row(3);
    table.find(ids{id}, row);
    REQUIRE(row == std::vector<float>(3, static_cast<float>(-count)));
  }
}
