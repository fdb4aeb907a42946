/// @file
/// Random programs over ranks show the bits of one process. PUSHPULL_TEST_PROGRAMS is their number and
/// PUSHPULL_TEST_FIRST_PROGRAM the first; a failure prints the number of its program.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>

#include "ranks/random_kinds.hpp"
#include "support/catch.hpp"

namespace {

namespace comm = pushpull::comm;
namespace test = pushpull::test;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr unsigned programs = 100;
#else
constexpr unsigned programs = 1000;
#endif

unsigned number_from(char const* variable, unsigned otherwise) {
  char const* const text = std::getenv(variable);
  return text == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

/// Programs that run one after the other on the same threads.
constexpr unsigned together = 20;

/// Of a program: 2 to 7 ranks, which share memory or do not.
int ranks_of(unsigned program) { return 2 + static_cast<int>(program / together % 6); }
comm::threads_options options_of(unsigned program) {
  return {.deadline = std::chrono::seconds(20), .ranks_per_node = program / together / 6 % 2 == 0 ? 0 : 1};
}

void require_same_bits(unsigned first, unsigned end) {
  auto const ranks = static_cast<std::size_t>(ranks_of(first));
  INFO("programs " << first << " to " << end - 1 << " on " << ranks << " ranks");
  std::vector<std::vector<std::vector<test::noted>>> found(ranks);
  std::atomic<unsigned> current = first;
  try {
    comm::run_ranks(static_cast<int>(ranks), options_of(first), [&](comm::threads const& c) {
      auto const rank = static_cast<std::size_t>(c.rank());
      for (unsigned program = first; program < end; ++program) {
        current = program;
        found[rank].push_back(test::run_random_program(program, {rank, 1, ranks}, c));
      }
    });
  } catch (std::exception const& e) {
    FAIL("program " << current << ": " << e.what());
  }
  auto const alone = comm::threads::make(1);  // a store of one rank is that of one process
  for (unsigned program = first; program < end; ++program) {
    auto const expected = test::run_random_program(program, {0, ranks, ranks}, alone[0]);
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      INFO("program " << program << ", rank " << rank << ": "
                      << test::difference(expected, found[rank][program - first]));
      REQUIRE((found[rank][program - first] == expected));
    }
  }
}

}  // namespace

TEST_CASE("random programs over ranks give the bits of one process", "[ranks]") {
  unsigned const first = number_from("PUSHPULL_TEST_FIRST_PROGRAM", 1);
  unsigned const end = first + number_from("PUSHPULL_TEST_PROGRAMS", programs);
  for (unsigned begin = first; begin < end;) {
    unsigned const next = std::min(end, (begin / together + 1) * together);
    require_same_bits(begin, next);
    begin = next;
  }
}
