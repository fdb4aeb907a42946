/// @file
/// comm::threads keeps the rules of every communicator, and adds in the order of the ranks.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <vector>

#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>

#include "support/catch.hpp"
#include "support/communicator_contract.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;

comm::threads_options soon(int ranks_per_node = 0) {
  return {.deadline = std::chrono::seconds(5), .ranks_per_node = ranks_per_node};
}

}  // namespace

TEST_CASE("threads keep the rules of collectives", "[comm][threads]") {
  int const ranks = GENERATE(1, 2, 3, 4, 7);
  CAPTURE(ranks);
  comm::run_ranks(ranks, soon(), [](comm::threads const& c) { pp::test::contract_of_collectives(c); });
}

TEST_CASE("threads keep the rules of two families at once", "[comm][threads]") {
  int const ranks = GENERATE(1, 2, 3, 4, 7);
  CAPTURE(ranks);
  comm::run_ranks(ranks, soon(), [](comm::threads const& c) { pp::test::contract_two_families(c); });
}

TEST_CASE("threads keep the rules of shared memory", "[comm][threads]") {
  int const ranks = GENERATE(1, 2, 3, 4, 7), on_a_node = GENERATE(0, 1, 2, 3);
  CAPTURE(ranks, on_a_node);
  comm::run_ranks(ranks, soon(on_a_node), [](comm::threads const& c) { pp::test::contract_shared_memory(c); });
}

TEST_CASE("a barrier of threads holds everyone until the last has come", "[comm][threads]") {
  static constexpr int ranks = 4, rounds = 50;
  std::atomic<int> came = 0, wrong = 0;
  comm::run_ranks(ranks, soon(), [&](comm::threads const& c) {
    for (int round = 1; round <= rounds; ++round) {
      ++came;
      c.barrier();
      if (came < ranks * round) ++wrong;
      c.barrier();
    }
  });
  REQUIRE(wrong == 0);
  REQUIRE(came == ranks * rounds);
}

TEST_CASE("threads add in the order of the ranks", "[comm][threads]") {
  std::vector<double> const of_rank{1e100, 1, -1e100, 3, 1e-20};
  double expected = of_rank[0];
  for (std::size_t r = 1; r < of_rank.size(); ++r) expected += of_rank[r];
  std::vector<double> sums = of_rank;
  comm::run_ranks(5, soon(), [&](comm::threads const& c) {
    auto group = c.group();
    auto request = c.sum(group, &sums[static_cast<std::size_t>(c.rank())], 1);
    group.end();
    request.wait();
  });
  REQUIRE(sums == std::vector<double>(5, expected));
}

TEST_CASE("shared memory of threads stays until its last copy on any rank is gone", "[comm][threads]") {
  std::vector<int> seen(2);
  comm::run_ranks(2, soon(), [&](comm::threads const& c) {
    auto memory = c.allocate_shared(sizeof(int));
    *static_cast<int*>(memory.at(c.rank())) = c.rank() + 1;
    c.barrier();
    if (c.rank() == 1) memory = {};
    c.barrier();
    if (c.rank() == 0) seen = {*static_cast<int*>(memory.at(0)), *static_cast<int*>(memory.at(1))};
  });
  REQUIRE(seen == std::vector<int>{1, 2});
}

TEST_CASE("ranks of threads are on the nodes that they were told to be on", "[comm][threads]") {
  auto const nodes = [](int on_a_node) {
    auto const c = comm::threads::make(5, soon(on_a_node))[1];
    std::vector<int> all;
    for (int rank = 0; rank < 5; ++rank) all.push_back(c.node_of(rank));
    return all;
  };
  REQUIRE(nodes(0) == std::vector<int>{0, 0, 0, 0, 0});
  REQUIRE(nodes(2) == std::vector<int>{0, 0, 1, 1, 2});
}

TEST_CASE("copies of a rank of threads name the same rank", "[comm][threads]") {
  auto const all = comm::threads::make(3);
  auto const copy = all[2];
  REQUIRE(copy.rank() == 2);
  REQUIRE(copy.size() == 3);
  copy.fail("it is over");
  REQUIRE_THROWS_AS(all[0].barrier(), pp::comm_error);
  REQUIRE_THROWS_AS(comm::threads::make(0), pp::invalid_argument);
}
