/// @file
/// Owners are all devices of all processes: who holds what, and what a process allocates of it.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace detail = pushpull::detail;
using types = pp::pass::element_types<float, float, float, float, float>;
using table_type = detail::key_table<pp::string_keys, pp::cpu_device<>, types>;
using arena_type = table_type::arena_type;
constexpr std::int64_t leaf = pp::pass::leaf_size;

struct cluster {
  std::size_t ranks, devices;

  std::size_t owners() const { return ranks * devices; }
  std::vector<pp::cpu_device<>> devices_of_rank() const { return pp::cpu_devices(static_cast<int>(devices)); }
};

std::vector<cluster> clusters() { return {{1, 1}, {1, 3}, {2, 1}, {3, 2}, {5, 1}}; }

/// Sizes of keys, given to several inits.
std::vector<std::vector<std::size_t>> inits() {
  std::mt19937 random(3);
  std::vector<std::vector<std::size_t>> result;
  for (std::size_t const count : std::vector<std::size_t>{1, 7, 1, 1, 40, 2, 1, 1, 1}) {
    result.emplace_back(count);
    for (std::size_t& size : result.back()) size = random() % (random() % 3 == 0 ? 20000 : 200);
  }
  result.push_back({0});
  result.push_back({1 << 20, 1});
  return result;
}

/// Keys are cut into equal slices, are whole, or lie as in MXNet: with a small bound, so that many are cut.
std::vector<detail::placement_rule> placements() { return {{}, {.whole_keys = true}, {.bound = 5000}}; }

/// Every element of the arena is in one owner's part, and parts follow one another.
void require_partition(std::span<detail::slice const> parts, std::int64_t size) {
  std::int64_t end = 0;
  for (auto const& part : parts) {
    REQUIRE(part.begin == end);
    REQUIRE(part.end >= part.begin);
    end = part.end;
  }
  REQUIRE(end == size);
}

}  // namespace

TEST_CASE("owners are numbered by rank, then by device", "[owners]") {
  detail::topology const all(2, 4, 3);
  REQUIRE(all.rank() == 2);
  REQUIRE(all.ranks() == 4);
  REQUIRE(all.devices() == 3);
  REQUIRE(all.owners() == 12);
  for (std::size_t n = 0; n < 3; ++n) REQUIRE(all.local(all.owner_of(n)) == n);
  REQUIRE(all.owner_of(0) == 6);
  for (std::size_t owner = 0; owner < 12; ++owner) REQUIRE(all.local(owner).has_value() == (owner / 3 == 2));
  detail::topology const one(5);
  REQUIRE(one.owners() == 5);
  REQUIRE(one.owner_of(4) == 4);
}

TEST_CASE("slices are equal parts of whole leaves over all ranks", "[owners]") {
  for (cluster const& c : clusters())
    for (std::int64_t const size : {0L, 64L, 1024L, 1088L, 5 * 1024L, 1000000L * 64}) {
      std::vector<std::int64_t> loads(c.owners());
      auto const parts =
          detail::lay_out_slices(std::vector{static_cast<std::size_t>(size)}, std::vector<bool>{true}, loads, 1).parts;
      require_partition(parts, size);
      std::int64_t const leaves = (size + leaf - 1) / leaf;
      auto const owners = static_cast<std::int64_t>(c.owners());
      for (auto const& part : parts) {
        REQUIRE((part.begin % leaf == 0 || part.begin == size));
        REQUIRE(part.size() <= (leaves + owners - 1) / owners * leaf);
        if (part.end < size) REQUIRE(part.size() >= leaves / owners * leaf);
      }
    }
}

TEST_CASE("an arena knows the parts of all owners and allocates those of its process", "[owners]") {
  std::int64_t const size = 300 * leaf + 64;
  for (cluster const& c : clusters())
    for (bool const resident : {false, true}) {
      std::vector<std::int64_t> loads(c.owners());
      auto const layout = detail::lay_out_slices(std::vector<std::size_t>{static_cast<std::size_t>(size)},
                                                 std::vector<bool>{true}, loads);
      std::vector<int> held(static_cast<std::size_t>(size));
      for (std::size_t rank = 0; rank < c.ranks; ++rank) {
        detail::topology const all(rank, c.ranks, c.devices);
        auto const devices = c.devices_of_rank();
        arena_type arena(devices, all, 2, size, layout.parts, resident, size);
        require_partition(arena.parts(), size);
        for (std::size_t n = 0; n < c.devices; ++n) {
          auto const& part = arena.part(n);
          REQUIRE(part.begin == layout.parts[all.owner_of(n)].begin);
          for (std::int64_t i = part.begin; i < part.end; ++i) ++held[static_cast<std::size_t>(i)];
          // Two states and the master; the mirror holds the master of a resident arena.
          auto const own = static_cast<std::size_t>(part.size()) * sizeof(float);
          std::size_t const expected =
              resident ? 2 * own + 2 * static_cast<std::size_t>(size) * sizeof(float) : 3 * own;
          REQUIRE(arena.use(n).total() >= expected);
          REQUIRE(arena.use(n).total() <= expected + 5 * 2 * 4096);
        }
      }
      REQUIRE(std::count(held.begin(), held.end(), 1) == size);
    }
}

TEST_CASE("all ranks place the keys of a series of inits alike", "[owners]") {
  for (cluster const& c : clusters())
    for (detail::placement_rule const& placement : placements()) {
      std::vector<detail::arena_list<arena_type>> lists;
      for (std::size_t rank = 0; rank < c.ranks; ++rank)
        lists.emplace_back(detail::topology(rank, c.ranks, c.devices), 2, placement);
      auto const devices = c.devices_of_rank();
      for (auto const& sizes : inits()) {
        std::vector<bool> const has_gradient(sizes.size());
        std::vector<detail::placed_key> numbered(sizes.size());
        for (std::size_t i = 0; i < sizes.size(); ++i)
          numbered[i] = {.number = static_cast<std::int64_t>(3 * i), .cost = static_cast<std::int64_t>(sizes[i])};
        auto first = lists[0].prepare(devices, sizes, has_gradient, false, numbered);
        first.for_each_range([](auto const& arena, auto const&) { require_partition(arena.parts(), arena.size()); });
        for (std::size_t rank = 1; rank < c.ranks; ++rank) {
          auto other = lists[rank].prepare(devices, sizes, has_gradient, false, numbered);
          for (std::size_t i = 0; i < sizes.size(); ++i) {
            REQUIRE(other.arena(i).number() == first.arena(i).number());
            REQUIRE(other.arena(i).size() == first.arena(i).size());
            for (std::size_t owner = 0; owner < c.owners(); ++owner)
              REQUIRE(other.arena(i).parts()[owner].begin == first.arena(i).parts()[owner].begin);
            REQUIRE(other.offset(i) == first.offset(i));
            REQUIRE(other.first_element(i) == first.first_element(i));
            REQUIRE(other.leaf_phase(i) == first.leaf_phase(i));
          }
          lists[rank].commit(other);
        }
        if (placement.begins_leaves_with_keys())
          for (std::size_t i = 0; i < sizes.size(); ++i) {
            if (sizes[i] == 0 || (placement.bound && static_cast<std::int64_t>(sizes[i]) >= *placement.bound)) continue;
            std::int64_t const begin = first.offset(i), end = begin + static_cast<std::int64_t>(sizes[i]);
            auto const& parts = first.arena(i).parts();
            REQUIRE(std::count_if(parts.begin(), parts.end(), [&](detail::slice const& part) {
                      return part.begin < end && begin < part.end;
                    }) == 1);
          }
        lists[0].commit(first);
      }
    }
}

TEST_CASE("owners are MXNet's servers: small keys by their numbers, large ones by rounded cuts", "[owners]") {
  constexpr std::int64_t bound = 1'000'000;
  std::mt19937 random(5);
  std::vector<std::size_t> sizes{0, 1, 2, 997, 65'537, bound - 1, bound, bound + 1, 1'000'003, 1'466'521};
  for (int i = 0; i < 6; ++i) sizes.push_back(random() % (2 * bound));
  std::vector<std::int64_t> keys{0, 1, 2, 3, 7, 12'345, 215'320, -4};  // 215,320 * 9,973 is more than 31 bits
  for (std::size_t i = keys.size(); i < sizes.size(); ++i)
    keys.push_back(static_cast<std::int64_t>(random() % 100'000));
  using half_table = detail::key_table<pp::integer_keys, pp::cpu_device<>,
                                       pp::pass::element_types<pp::half, float, pp::half, pp::half, pp::half>>;
  std::vector<pp::half> const memory(2 * bound);
  std::vector<pp::tensor_view<pp::half const, pp::cpu_device<>>> values;
  for (std::size_t const size : sizes)
    values.emplace_back(memory.data(), pp::shape{static_cast<std::int64_t>(size)}, pp::cpu_device<>());
  for (int const owners : {1, 2, 3, 4, 7}) {
    half_table table(pp::cpu_devices(owners), detail::topology(static_cast<std::size_t>(owners)), nullptr, 0,
                     detail::rule_of(pp::placement::mxnet{}, false), 0, false);
    auto made = table.prepare(std::span<std::int64_t const>(keys), std::span(std::as_const(values)), false, {});
    table.commit(made);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      auto const n = static_cast<double>(sizes[i]);
      std::int64_t next = 0;
      detail::for_each_shard(table, table.find("test", keys[i]), [&](auto const& shard) {
        CAPTURE(owners, keys[i], sizes[i], shard.device_number());
        REQUIRE(shard.offset() == next);
        next += shard.size();
        if (sizes[i] < static_cast<std::size_t>(bound)) {  // a server holds it whole
          REQUIRE(static_cast<std::int64_t>(shard.device_number()) == ((keys[i] * 9973) % owners + owners) % owners);
          REQUIRE(shard.size() == static_cast<std::int64_t>(sizes[i]));
          return;
        }
        auto const server = static_cast<double>(shard.device_number());
        double const begin = std::round(n / owners * server), end = std::round(n / owners * (server + 1));
        // On the leaf next to MXNet's cut.
        REQUIRE(shard.offset() % leaf == 0);
        REQUIRE(std::abs(static_cast<double>(shard.offset()) - begin) <= leaf / 2);
        REQUIRE(std::abs(static_cast<double>(next) - end) <= (end < n ? leaf / 2 : 0));
      });
      REQUIRE(next == static_cast<std::int64_t>(sizes[i]));
    }
  }
}

TEST_CASE("MXNet's placement cuts a key that has rows between rows, as far as leaves allow", "[owners]") {
  for (std::int64_t const row : {1, 3, 1000, 4096}) {
    std::int64_t const rows = 2'000'001 / row;
    for (std::size_t const owners : {2, 3, 7}) {
      auto const parts = detail::mxnet_parts(static_cast<std::size_t>(rows * row), row, owners);
      REQUIRE(parts.size() == owners);
      for (std::size_t i = 1; i < owners; ++i) {
        auto const cut = std::round(static_cast<double>(rows) / static_cast<double>(owners) * static_cast<double>(i));
        auto const distance = parts[i].begin - static_cast<std::int64_t>(cut) * row;
        REQUIRE(std::abs(distance) <= (row % leaf == 0 ? 0 : leaf / 2));
        REQUIRE(parts[i].begin == parts[i - 1].end);
      }
    }
  }
}

TEST_CASE("string keys are numbered for MXNet's placement in the order of init", "[owners]") {
  table_type table(pp::cpu_devices(3), detail::topology(3), nullptr, 0, {.bound = 1000}, 2, false);
  std::vector<float> const memory(5);
  pp::tensor_view<float const, pp::cpu_device<>> const value(memory.data(), pp::shape{5}, pp::cpu_device<>());
  for (int i = 0; i < 8; ++i) {
    std::string const name = "key " + std::to_string(8 - i);
    std::string_view const key = name;
    auto made = table.prepare(std::span(&key, 1), std::span(&value, 1), false, {});
    table.commit(made);
    detail::for_each_shard(table, table.find("test", key), [&](auto const& shard) {
      REQUIRE(static_cast<int>(shard.device_number()) == i * 9973 % 3);
    });
  }
}

TEST_CASE("the shards of all ranks hold every element of a key once", "[owners]") {
  for (cluster const& c : clusters())
    for (detail::placement_rule const& placement : placements()) {
      auto const devices = c.devices_of_rank();
      std::vector<std::unique_ptr<table_type>> tables;
      for (std::size_t rank = 0; rank < c.ranks; ++rank)
        tables.push_back(std::make_unique<table_type>(devices, detail::topology(rank, c.ranks, c.devices), nullptr, 0,
                                                      placement, 2, false));
      float next = 0;
      std::size_t number = 0;
      for (auto const& sizes : inits()) {
        std::vector<std::string> names;
        std::vector<std::vector<float>> values;
        std::vector<pp::tensor_view<float const, pp::cpu_device<>>> views;
        for (std::size_t const size : sizes) {
          names.push_back(std::to_string(number++));
          values.emplace_back(size);
          for (float& x : values.back()) x = next++;
        }
        for (auto const& value : values)
          views.emplace_back(value.data(), pp::shape{static_cast<std::int64_t>(value.size())}, pp::cpu_device<>());
        std::vector<std::string_view> const keys(names.begin(), names.end());
        for (auto const& table : tables) {
          auto made = table->prepare(std::span(keys), std::span(std::as_const(views)), false, {});
          table->commit(made);
        }
        for (std::size_t i = 0; i < keys.size(); ++i) {
          std::vector<float> whole(sizes[i], -1);
          for (auto const& table : tables) {
            auto const& key = table->find("test", keys[i]);
            REQUIRE(key.first_element == tables[0]->find("test", keys[i]).first_element);
            detail::for_each_shard(*table, key, [&](auto const& shard) {
              auto const run = shard.template run<pp::pass::run<types, 2>>();
              REQUIRE(run.size == shard.size());
              REQUIRE(run.first_element == key.first_element + shard.offset());
              REQUIRE((run.leaf_phase == 0 || shard.offset() == 0));  // parts begin at leaves
              REQUIRE(run.clock == key.index);
              auto const size = static_cast<std::size_t>(run.size);
              std::span const part = std::span(whole).subspan(static_cast<std::size_t>(shard.offset()), size);
              REQUIRE(std::count(part.begin(), part.end(), -1.0F) == run.size);  // of no owner before
              std::copy_n(run.master, size, part.begin());
              for (float const* const state : run.state) REQUIRE(std::count(state, state + size, 0.0F) == run.size);
            });
          }
          REQUIRE(whole == values[i]);
        }
      }
    }
}
