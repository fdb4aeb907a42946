/// @file
/// comm::threads: the rules of every communicator, and what fails.
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>

#include "support/catch.hpp"
#include "support/communicator_contract.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;

comm::threads_options soon() { return {.deadline = std::chrono::seconds(5)}; }

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
  comm::run_ranks(ranks, {.deadline = std::chrono::seconds(5), .ranks_per_node = on_a_node},
                  [](comm::threads const& c) { pp::test::contract_shared_memory(c); });
}
