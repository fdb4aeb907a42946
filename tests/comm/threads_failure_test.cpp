/// @file
/// comm::threads fails on all ranks, with a text that names the rank and the call.
#include <algorithm>
#include <array>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
using Catch::Matchers::Contains;
using call = std::function<void(comm::threads const&)>;

comm::threads_options within(std::chrono::milliseconds deadline) { return {.deadline = deadline}; }

/// How a call ended on a rank.
struct outcome {
  bool error = false, timeout = false;
  int rank = -1;
  std::string text;
};

/// Calls `f` on every rank when all have started. A rank that throws does not fail the communicator by that.
std::vector<outcome> outcomes(int ranks, comm::threads_options const& options, call const& f) {
  std::vector<outcome> all(static_cast<std::size_t>(ranks));
  std::barrier started(ranks);
  comm::run_ranks(ranks, options, [&](comm::threads const& c) {
    outcome& mine = all[static_cast<std::size_t>(c.rank())];
    started.arrive_and_wait();
    try {
      f(c);
    } catch (pp::comm_error const& e) {
      mine = {true, dynamic_cast<pp::comm_timeout const*>(&e) != nullptr, e.rank(), e.what()};
    }
  });
  return all;
}

template <class Start>
void wait_for(comm::threads const& c, Start const& start) {
  auto group = c.group();
  auto request = start(group);
  group.end();
  request.wait();
}
template <class Start>
void poll(comm::threads const& c, Start const& start) {
  auto group = c.group();
  auto request = start(group);
  group.end();
  while (!request.ready()) std::this_thread::yield();
}

auto exchange_with(comm::threads const& c, int peer, std::size_t out, std::size_t in) {
  return [=](auto& group) {
    static std::array<std::byte, 64> const sent{};
    static thread_local std::array<std::byte, 64> received{};
    comm::transfer const to{const_cast<std::byte*>(sent.data()), out, peer}, from{received.data(), in, peer};
    return c.exchange(group, std::span(&to, 1), std::span(&from, 1));
  };
}

std::vector<std::pair<std::string, call>> calls_of_all() {
  return {
      {"exchange",
       [](comm::threads const& c) {
         std::vector<std::byte> memory(8 * static_cast<std::size_t>(c.size()));
         std::vector<comm::transfer> out, in;
         for (int peer = 0; peer < c.size(); ++peer) {
           if (peer == c.rank()) continue;
           out.push_back({memory.data(), 4, peer});
           in.push_back({memory.data() + 8 * peer + 4, 4, peer});
         }
         poll(c, [&](auto& group) { return c.exchange(group, out, in); });
       }},
      {"gather",
       [](comm::threads const& c) {
         std::vector<std::byte> memory(static_cast<std::size_t>(c.size()));
         std::vector<comm::byte_range> ranges;
         for (std::size_t r = 0; r < memory.size(); ++r) ranges.push_back({r, r + 1});
         wait_for(c, [&](auto& group) { return c.gather(group, memory.data(), ranges); });
       }},
      {"sum",
       [](comm::threads const& c) {
         double number = 1;
         wait_for(c, [&](auto& group) { return c.sum(group, &number, 1); });
       }},
      {"arrive", [](comm::threads const& c) { wait_for(c, [&](auto& group) { return c.arrive(group); }); }},
      {"barrier", [](comm::threads const& c) { c.barrier(); }},
      {"broadcast",
       [](comm::threads const& c) {
         std::array<std::byte, 4> bytes{};
         c.broadcast(bytes, 0);
       }},
      {"gather_all", [](comm::threads const& c) { c.gather_all({}); }},
      {"allocate_shared", [](comm::threads const& c) { c.allocate_shared(8); }},
  };
}

}  // namespace

TEST_CASE("a silent rank of threads is a timeout that names it and the call", "[comm][threads]") {
  for (auto const& [name, f] : calls_of_all()) {
    CAPTURE(name);
    auto const all = outcomes(4, within(std::chrono::milliseconds(500)), [&f = f](comm::threads const& c) {
      if (c.rank() != 2) f(c);
    });
    for (int const rank : {0, 1, 3}) {
      auto const& o = all[static_cast<std::size_t>(rank)];
      REQUIRE(o.timeout);
      REQUIRE(o.rank == 2);
      REQUIRE(o.text ==
              name + " on rank " + std::to_string(rank) + ": rank 2 did not come to " + name + " within 500 ms");
    }
  }
}

TEST_CASE("a timeout names all silent ranks", "[comm][threads]") {
  auto const all = outcomes(4, within(std::chrono::milliseconds(500)), [](comm::threads const& c) {
    if (c.rank() % 2 == 0) c.barrier();
  });
  REQUIRE(all[0].timeout);
  REQUIRE_THAT(all[0].text, Contains("ranks 1, 3 did not come to barrier"));
}

TEST_CASE("every call throws after fail, and those that wait", "[comm][threads]") {
  for (auto const& [name, f] : calls_of_all()) {
    CAPTURE(name);
    auto const all = outcomes(3, within(std::chrono::seconds(5)), [&f = f](comm::threads const& c) {
      if (c.rank() == 1) c.fail("no memory left");
      f(c);
    });
    for (std::size_t r = 0; r < all.size(); ++r) {
      REQUIRE(all[r].error);
      REQUIRE_FALSE(all[r].timeout);
      REQUIRE(all[r].rank == 1);
      REQUIRE(all[r].text == name + " on rank " + std::to_string(r) + ": rank 1 failed: no memory left");
    }
  }
}

TEST_CASE("the first failure counts", "[comm][threads]") {
  auto const all = comm::threads::make(2);
  REQUIRE(all[0].failed_by() == -1);
  all[1].fail("first");
  all[0].fail("second");
  REQUIRE(all[0].failed_by() == 1);
  REQUIRE_THROWS_WITH(all[0].barrier(), Contains("rank 1 failed: first"));
}

TEST_CASE("transfers of threads have as many bytes at both ends", "[comm][threads]") {
  auto const all = outcomes(2, within(std::chrono::seconds(5)), [](comm::threads const& c) {
    wait_for(c, exchange_with(c, 1 - c.rank(), c.rank() == 0 ? 8 : 4, 4));
  });
  for (auto const& o : all) {
    REQUIRE(o.error);
    REQUIRE_FALSE(o.timeout);
    REQUIRE(o.rank == 0);
    REQUIRE_THAT(o.text, Contains("rank 0 sends 8 bytes to rank 1, which expects 4"));
  }
}

TEST_CASE("threads that make different calls fail", "[comm][threads]") {
  auto calls = calls_of_all();
  for (auto const& [first, second] :
       {std::pair{1, 2}, std::pair{2, 3}, std::pair{4, 5}, std::pair{5, 6}, std::pair{6, 7}}) {
    auto const& [name, f] = calls[static_cast<std::size_t>(first)];
    auto const& [other_name, other_f] = calls[static_cast<std::size_t>(second)];
    CAPTURE(name, other_name);
    auto const all = outcomes(2, within(std::chrono::seconds(5)), [&f = f, &other_f = other_f](comm::threads const& c) {
      (c.rank() == 0 ? f : other_f)(c);
    });
    for (auto const& o : all) {
      REQUIRE(o.error);
      REQUIRE_FALSE(o.timeout);
      REQUIRE((o.text.find("rank 0 is in " + name + " and rank 1 in " + other_name) != std::string::npos ||
               o.text.find("rank 1 is in " + other_name + " and rank 0 in " + name) != std::string::npos));
    }
  }
}

TEST_CASE("roots and sizes of a broadcast of threads agree", "[comm][threads]") {
  for (bool const root : {true, false}) {
    auto const all = outcomes(2, within(std::chrono::seconds(5)), [root](comm::threads const& c) {
      std::vector<std::byte> bytes(root ? 4U : static_cast<std::size_t>(4 + c.rank()));
      c.broadcast(bytes, root ? c.rank() : 0);
    });
    for (auto const& o : all) {
      REQUIRE(o.error);
      REQUIRE_THAT(o.text, Contains(root ? "the root is rank " : " bytes and rank "));
    }
  }
}

TEST_CASE("run_ranks throws the exception of the rank that failed by itself", "[comm][threads]") {
  for (auto const& [name, f] : calls_of_all()) {
    CAPTURE(name);
    auto const run = [&f = f] {
      comm::run_ranks(3, within(std::chrono::seconds(5)), [&](comm::threads const& c) {
        if (c.rank() == 2) throw std::out_of_range("mine");
        f(c);
      });
    };
    REQUIRE_THROWS_AS(run(), std::out_of_range);
    REQUIRE_THROWS_WITH(run(), "mine");
  }
  // Not an exception of std.
  REQUIRE_THROWS_AS(comm::run_ranks(2,
                                    [](comm::threads const& c) {
                                      if (c.rank() == 0) throw 7;
                                      c.barrier();
                                    }),
                    int);
}

TEST_CASE("run_ranks throws the exception of a rank that has requests on the way", "[comm][threads]") {
  auto const run = [] {
    comm::run_ranks(2, within(std::chrono::seconds(5)), [&](comm::threads const& c) {
      auto group = c.group();
      double number = 1;
      auto request = c.sum(group, &number, 1);
      group.end();
      if (c.rank() == 1) throw std::out_of_range("mine");
      request.wait();
      c.barrier();
    });
  };
  REQUIRE_THROWS_AS(run(), std::out_of_range);
}

TEST_CASE("run_ranks throws if a rank calls fail and returns", "[comm][threads]") {
  auto const run = [] {
    comm::run_ranks(2, within(std::chrono::seconds(5)), [&](comm::threads const& c) {
      if (c.rank() == 0) return c.fail("enough");
      c.barrier();
    });
  };
  REQUIRE_THROWS_WITH(run(), Contains("rank 0 failed: enough"));
}

TEST_CASE("a request of threads that is dropped fails the communicator and leaves its memory", "[comm][threads]") {
  for (bool const peer_is_first : {true, false}) {
    auto const all = outcomes(2, within(std::chrono::seconds(5)), [&](comm::threads const& c) {
      if (c.rank() == 0) {
        if (peer_is_first) c.barrier();
        std::vector<std::byte> memory(16);
        {
          comm::transfer const out{memory.data(), 8, 1}, in{memory.data() + 8, 8, 1};
          auto group = c.group();
          auto request = c.exchange(group, std::span(&out, 1), std::span(&in, 1));
          group.end();
        }
        memory.clear();
        memory.shrink_to_fit();
        if (!peer_is_first) c.barrier();
      } else {
        auto group = c.group();
        std::optional<comm::threads::request> request;
        if (!peer_is_first) c.barrier();
        request.emplace(exchange_with(c, 0, 8, 8)(group));
        group.end();
        if (peer_is_first) c.barrier();
        request->wait();
      }
    });
    REQUIRE(all[1].error);
    REQUIRE(all[1].rank == 0);
    REQUIRE_THAT(all[1].text, Contains("rank 0 dropped a request of exchange before it was ready"));
  }
}

TEST_CASE("a request of threads throws again and again, but stays ready once it was", "[comm][threads]") {
  auto const all = outcomes(2, within(std::chrono::seconds(5)), [](comm::threads const& c) {
    auto group = c.group();
    auto ready = exchange_with(c, 1 - c.rank(), 8, 8)(group);
    group.end();
    ready.wait();
    c.barrier();
    auto next = c.group();
    auto pending = exchange_with(c, 1 - c.rank(), 0, 8)(next);
    next.end();
    int thrown = 0;
    for (int i = 0; i < 3; ++i) {
      try {
        pending.wait();
      } catch (pp::comm_error const&) {
        ++thrown;
      }
      if (!ready.ready()) throw std::logic_error("no longer ready");
    }
    if (thrown != 3) throw std::logic_error("ready after a failure");
    pending.ready();
  });
  for (auto const& o : all) REQUIRE(o.error);
}

TEST_CASE("requests of threads wait for the end of their group", "[comm][threads]") {
  auto const all = outcomes(2, within(std::chrono::seconds(5)), [](comm::threads const& c) {
    auto group = c.group();
    auto request = exchange_with(c, 1 - c.rank(), 8, 8)(group);
    request.wait();
  });
  REQUIRE_THAT(all[0].text + all[1].text, Contains("exchange on rank 0: its group has not ended") ||
                                              Contains("exchange on rank 1: its group has not ended"));
}

TEST_CASE("threads refuse arguments that can never be right", "[comm][threads]") {
  auto const all = comm::threads::make(2);
  auto const& c = all[0];
  auto group = c.group();
  for (int const peer : {-1, 0, 2}) REQUIRE_THROWS_AS(exchange_with(c, peer, 8, 8)(group), pp::invalid_argument);
  REQUIRE_THROWS_AS(c.gather(group, nullptr, {}), pp::invalid_argument);
  for (int const rank : {-1, 2}) {
    REQUIRE_THROWS_AS(c.broadcast({}, rank), pp::invalid_argument);
    REQUIRE_THROWS_AS(c.node_of(rank), pp::invalid_argument);
  }
  comm::run_ranks(2, within(std::chrono::seconds(5)), [](comm::threads const& each) {
    auto const memory = each.allocate_shared(1);
    try {
      memory.at(2);
    } catch (pp::invalid_argument const&) {
      return;
    }
    throw std::logic_error("shared memory of a rank that is not there");
  });
}

TEST_CASE("a request of threads that is dropped amid a copy waits for its end", "[comm][threads]") {
  static constexpr std::size_t bytes = 40'000'000;
  auto const all = outcomes(2, within(std::chrono::seconds(5)), [&](comm::threads const& c) {
    std::vector<std::byte> memory(bytes);
    comm::transfer const both{memory.data(), bytes, 1 - c.rank()};
    std::span<comm::transfer const> const some(&both, 1), none;
    c.barrier();
    auto group = c.group();
    auto request = c.rank() == 0 ? c.exchange(group, some, none) : c.exchange(group, none, some);
    group.end();
    if (c.rank() == 1) return request.wait();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // by now rank 1 copies, if it has a core
  });
  REQUIRE((!all[1].error || all[1].rank == 0));
}
