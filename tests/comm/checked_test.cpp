/// @file
/// comm::checked keeps the rules of every communicator, and tells ranks apart that make different calls.
#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <pushpull/comm/checked.hpp>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>

#include "support/catch.hpp"
#include "support/communicator_contract.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
using checked = comm::checked<comm::threads>;
using host = pp::detail::host_device_probe;

static_assert(pp::CollectiveCommunicator<checked, host> && pp::SharesMemory<checked, host>);

comm::threads_options soon() { return {.deadline = std::chrono::seconds(5)}; }

/// The text of the exception on each rank, empty if there was none, or "timeout".
std::vector<std::string> texts(int ranks, std::function<void(checked const&)> const& f) {
  std::vector<std::string> all(static_cast<std::size_t>(ranks));
  comm::run_ranks(ranks, soon(), [&](comm::threads const& c) {
    auto& mine = all[static_cast<std::size_t>(c.rank())];
    try {
      f(checked(c));
    } catch (pp::comm_timeout const&) {
      mine = "timeout";
    } catch (pp::comm_error const& e) {
      mine = e.what();
    }
  });
  return all;
}
void require_all(std::vector<std::string> const& all, std::string const& part) {
  for (auto const& text : all) REQUIRE_THAT(text, Catch::Matchers::Contains(part));
}

template <class Start>
void run(checked const& c, Start const& start) {
  auto group = c.group();
  auto request = start(group);
  group.end();
  request.wait();
}

}  // namespace

TEST_CASE("checked threads keep the rules of every communicator", "[comm][checked]") {
  int const ranks = GENERATE(1, 2, 3, 4);
  CAPTURE(ranks);
  comm::run_ranks(ranks, soon(), [](comm::threads const& c) {
    checked const communicator(c);
    pp::test::contract_of_collectives(communicator);
    pp::test::contract_two_families(communicator);
    pp::test::contract_shared_memory(communicator);
  });
}

TEST_CASE("checked names the first call that differs", "[comm][checked]") {
  std::array<double, 8> numbers{};  // not written: no call is made
  auto const ranks_call = [&](std::size_t of_zero, std::size_t of_others) {
    return texts(3, [&](checked const& c) {
      c.barrier();
      run(c, [&](auto& group) { return c.exchange(group, {}, {}); });
      run(c, [&](auto& group) { return c.sum(group, numbers.data(), c.rank() == 0 ? of_zero : of_others); });
    });
  };
  require_all(ranks_call(8, 4), "call 2 with a group: rank 0 makes sum(8) and rank 1 makes sum(4)");

  require_all(texts(3,
                    [](checked const& c) {
                      std::array<comm::byte_range, 3> ranges{};
                      std::array<std::byte, 4> memory{};
                      if (c.rank() == 2) ranges[1] = {0, 4};
                      run(c, [&](auto& group) { return c.gather(group, memory.data(), ranges); });
                    }),
              "rank 0 makes gather(0, 0, 0, 0, 0, 0) and rank 2 makes gather(0, 0, 0, 4, 0, 0)");

  require_all(texts(2,
                    [](checked const& c) {
                      double number = 0;
                      run(c, [&](auto& group) { return c.rank() == 0 ? c.arrive(group) : c.sum(group, &number, 1); });
                    }),
              "call 1 with a group: rank 0 makes arrive() and rank 1 makes sum(1)");

  require_all(texts(2,
                    [](checked const& c) {
                      auto group = c.group();
                      auto first = c.arrive(group);
                      if (c.rank() == 1) {
                        auto second = c.arrive(group);
                        group.end();
                        second.wait();
                      } else {
                        group.end();
                        first.wait();
                      }
                    }),
              "call 2 with a group: rank 0 makes no further call in its group and rank 1 makes arrive()");
}

TEST_CASE("checked compares calls without a group", "[comm][checked]") {
  std::array<std::byte, 4> bytes{};
  require_all(texts(3,
                    [&](checked const& c) {
                      c.gather_all({});
                      if (c.rank() == 2) c.barrier();
                      c.broadcast(bytes, 0);
                      c.barrier();
                    }),
              "call 2 without a group: rank 0 makes broadcast(4, 0) and rank 2 makes barrier()");
  require_all(texts(2, [&](checked const& c) { c.broadcast(bytes, c.rank()); }),
              "rank 0 makes broadcast(4, 0) and rank 1 makes broadcast(4, 1)");
  require_all(texts(2,
                    [&](checked const& c) {
                      if (c.rank() == 0)
                        c.allocate_shared(8);
                      else
                        c.gather_all({});
                    }),
              "rank 0 makes allocate_shared() and rank 1 makes gather_all()");
}

TEST_CASE("checked compares the bytes of transfers over several calls", "[comm][checked]") {
  require_all(texts(3,
                    [](checked const& c) {
                      std::array<std::byte, 16> memory{};
                      std::array<comm::transfer, 2> transfers{};
                      for (std::size_t i = 0; i < 2; ++i) transfers[i] = {memory.data() + 8 * i, 3 + i, 1 - c.rank()};
                      std::span<comm::transfer const> const all = transfers;
                      // Rank 0 sends two transfers in its first call; rank 1 expects them in two.
                      auto const none = all.first(0);
                      auto group = c.group();
                      auto first = c.exchange(group, c.rank() == 0 ? all : none, c.rank() == 1 ? all.first(1) : none);
                      group.end();
                      auto next = c.group();
                      auto second = c.exchange(next, none, c.rank() == 1 ? all.first(1) : none);
                      next.end();
                      second.wait();
                      first.wait();
                    }),
              "call 2 with a group: rank 0 sends 4 bytes to rank 1, which expects 3");
}

TEST_CASE("checked refuses a request that is asked before its group ended", "[comm][checked]") {
  require_all(texts(2,
                    [](checked const& c) {
                      auto group = c.group();
                      auto request = c.arrive(group);
                      request.ready();
                    }),
              "a request of arrive() was asked before its group ended");
}

TEST_CASE("a checked request that is dropped fails the communicator and leaves its memory", "[comm][checked]") {
  auto const all = texts(2, [](checked const& c) {
    {
      double number = 1;
      auto group = c.group();
      auto request = c.sum(group, &number, 1);
      group.end();
      if (c.rank() == 1) request.wait();
    }
    run(c, [&](auto& group) { return c.arrive(group); });
  });
  require_all(all, "a request was dropped before it was ready");
}

TEST_CASE("checked passes failures and timeouts on", "[comm][checked]") {
  require_all(texts(2,
                    [](checked const& c) {
                      if (c.rank() == 1) c.fail("enough");
                      run(c, [&](auto& group) { return c.arrive(group); });
                    }),
              "rank 1 failed: enough");
  auto const f = [](comm::threads const& threads) {
    checked const c(threads);
    if (c.rank() == 0) run(c, [&](auto& group) { return c.arrive(group); });
  };
  REQUIRE_THROWS_AS(comm::run_ranks(2, {.deadline = std::chrono::milliseconds(50)}, f), pp::comm_timeout);
}
