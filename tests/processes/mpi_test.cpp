// comm::mpi on the ranks that mpirun has started.
#include <pushpull/comm/mpi.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include <pushpull/device/cpu_device.hpp>

#include "support/catch.hpp"
#include "support/communicator_contract.hpp"

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace test = pushpull::test;
using device = pp::cpu_device<pp::serial_system>;

static_assert(pp::CollectiveCommunicator<comm::mpi, device> && pp::SharesMemory<comm::mpi, device>);

namespace {

comm::mpi_options const quick{.deadline = std::chrono::seconds(5)};

/// Of communicators that fail, while the program goes on.
comm::mpi_options const failing{.deadline = std::chrono::milliseconds(300), .aborts = false};

template <class Error, class Call>
Error error_of(Call const& call) {
  std::optional<Error> error;
  try {
    call();
  } catch (Error const& e) {
    error = e;
  }
  REQUIRE(error.has_value());
  return *error;
}

/// The pieces of memory that Linux has mapped for this process; 0 on other systems.
std::size_t mappings() {
  std::ifstream maps("/proc/self/maps");
  return static_cast<std::size_t>(std::count(std::istreambuf_iterator<char>(maps), {}, '\n'));
}

bool contains(pp::error const& error, std::string const& text) {
  INFO(error.what());
  return std::string(error.what()).find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("MPI's ranks keep the contract of communicators", "[mpi]") {
  comm::mpi const ranks(quick);
  test::contract_of_collectives(ranks);
  test::contract_two_families(ranks);
}

TEST_CASE("messages are cut at the largest that MPI may get", "[mpi]") {
  comm::mpi_options options = quick;
  options.largest_message = 10'000;
  test::contract_of_collectives(comm::mpi(options));
  options.largest_message = 1;
  comm::mpi const ranks(options);
  test::contract_exchange(ranks);
  test::contract_gather(ranks);
  test::contract_gather_all(ranks);
  test::contract_mixed_group(ranks);
}

TEST_CASE("ranks that cut messages differently do not take parts for wholes", "[mpi]") {
  comm::mpi const world(quick);
  if (world.size() == 1) return;
  comm::mpi_options options = failing;
  options.largest_message = world.rank() == 0 ? 8 : 16;
  comm::mpi const ranks(options);
  std::vector<std::byte> bytes(16);
  comm::transfer const out{bytes.data(), bytes.size(), 1}, in{bytes.data(), bytes.size(), 0};
  auto group = ranks.group();
  if (ranks.rank() == 0) ranks.exchange(group, std::span(&out, 1), {}).wait();
  if (ranks.rank() == 1) {
    auto request = ranks.exchange(group, {}, std::span(&in, 1));
    REQUIRE(contains(error_of<pp::comm_error>([&] { request.wait(); }), "16 bytes from rank 0 expected, got 8"));
  }
  world.barrier();
}

TEST_CASE("ranks of a node share memory, whatever a node is", "[mpi]") {
  for (int const per_node : {0, 1, 2}) {
    comm::mpi_options options = quick;
    options.ranks_per_node = per_node;
    comm::mpi const ranks(options);
    for (int r = 0; per_node > 0 && r < ranks.size(); ++r) REQUIRE(ranks.node_of(r) == r / per_node);
    for (int round = 0; round < 3; ++round) test::contract_shared_memory(ranks);
    auto const memory = ranks.allocate_shared(1);
    for (int r = 0; r < ranks.size(); ++r) REQUIRE(reinterpret_cast<std::uintptr_t>(memory.at(r)) % 64 == 0);
  }
}

TEST_CASE("shared memory is freed after its last copy on each rank", "[mpi]") {
  comm::mpi const ranks(quick);
  auto const kept = ranks.allocate_shared(8);
  auto const allocate_twice = [&] {
    auto const memory = ranks.allocate_shared(10'000);
    auto const copy = memory;
    auto const other = ranks.allocate_shared(10'000);
  };
  for (int round = 0; round < 3; ++round) allocate_twice();
  std::size_t const before = mappings();
  for (int round = 0; round < 10; ++round) allocate_twice();
  REQUIRE(mappings() <= before + 5);
  *static_cast<char*>(kept.at(ranks.rank())) = 1;
}

TEST_CASE("a failure on one rank is an error on every rank", "[mpi]") {
  comm::mpi const world(quick);
  if (world.size() == 1) return;
  comm::mpi const ranks(failing);
  if (ranks.rank() == 1) ranks.fail("no more data");
  auto const error = error_of<pp::comm_error>([&] { ranks.barrier(); });
  REQUIRE(error.rank() == 1);
  REQUIRE(contains(error, "rank 1 of " + std::to_string(ranks.size()) + " failed: no more data"));
  REQUIRE_THROWS_AS(ranks.gather_all({}), pp::comm_error);
  world.barrier();
}

TEST_CASE("a rank that does not take part in an exchange is named", "[mpi]") {
  comm::mpi const world(quick);
  if (world.size() == 1) return;
  int const absent = world.size() - 1;
  comm::mpi const ranks(failing);
  if (ranks.rank() != absent) {
    std::vector<std::byte> sent(1'000'000), received(1'000'000);
    comm::transfer const out{sent.data(), sent.size(), absent}, in{received.data(), received.size(), absent};
    auto group = ranks.group();
    auto request = ranks.exchange(group, {}, std::span(&in, 1));
    group.end();
    auto const error = error_of<pp::comm_timeout>([&] { request.wait(); });
    REQUIRE(error.rank() == absent);
    REQUIRE(contains(error, "exchange: waited 300 ms for rank " + std::to_string(absent)));
    REQUIRE_THROWS_AS(request.ready(), pp::comm_error);
    REQUIRE_THROWS_AS(ranks.exchange(group, std::span(&out, 1), {}), pp::comm_error);
  }
  world.barrier();
  REQUIRE_THROWS_AS(ranks.barrier(), pp::comm_timeout);
}

TEST_CASE("a rank that does not come to a barrier is a timeout on the others", "[mpi]") {
  comm::mpi const world(quick);
  if (world.size() == 1) return;
  comm::mpi const ranks(failing);
  if (ranks.rank() != 0)
    REQUIRE(contains(error_of<pp::comm_timeout>([&] { ranks.barrier(); }), "barrier: waited 300 ms for rank 0"));
  world.barrier();
}

TEST_CASE("a transfer of another size than expected is an error that gives both sizes", "[mpi]") {
  comm::mpi const world(quick);
  if (world.size() == 1) return;
  for (std::size_t const sent : {std::size_t{0}, std::size_t{9}, std::size_t{17}, std::size_t{500'000}}) {
    comm::mpi const ranks(failing);
    std::vector<std::byte> bytes(500'000);
    comm::transfer const out{bytes.data(), sent, 1}, in{bytes.data(), 16, 0};
    auto group = ranks.group();
    if (ranks.rank() == 0) {
      auto request = ranks.exchange(group, std::span(&out, 1), {});
      try {
        request.wait();  // MPI may take the bytes before the other rank looks
      } catch (pp::comm_error const&) {
      }
      world.barrier();
    } else if (ranks.rank() == 1) {
      auto request = ranks.exchange(group, {}, std::span(&in, 1));
      auto const error = error_of<pp::comm_error>([&] { request.wait(); });
      REQUIRE(error.rank() == 0);
      if (sent < 16)
        REQUIRE(contains(error, "exchange: 16 bytes from rank 0 expected, got " + std::to_string(sent)));
      else
        REQUIRE(contains(error, "exchange with rank 0: MPI_Test: "));
      world.barrier();
    } else {
      world.barrier();
    }
  }
}

TEST_CASE("a broadcast of another size than expected is an error that gives both sizes", "[mpi]") {
  comm::mpi const world(quick);
  if (world.size() == 1) return;
  comm::mpi const ranks(failing);
  std::vector<std::byte> bytes(ranks.rank() == 0 ? 8 : 16);
  if (ranks.rank() == 0) {
    try {
      ranks.broadcast(bytes, 0);  // MPI may take the bytes before the other ranks look
    } catch (pp::comm_error const&) {
    }
  } else {
    auto const error = error_of<pp::comm_error>([&] { ranks.broadcast(bytes, 0); });
    REQUIRE(error.rank() == 0);
    REQUIRE(contains(error, "broadcast: 16 bytes expected, rank 0 sends 8"));
  }
  world.barrier();
  if (ranks.rank() == 0) REQUIRE_THROWS_AS(ranks.barrier(), pp::comm_error);
}

TEST_CASE("a request that is dropped waits", "[mpi]") {
  comm::mpi const ranks(quick);
  test::contract::all_to_all step(ranks, 1, test::contract::bytes_between);
  {
    auto group = ranks.group();
    auto request = step.start(ranks, group);
    group.end();
  }
  step.check(ranks, 1);
}

TEST_CASE("arguments that can never be right are refused", "[mpi]") {
  comm::mpi const ranks(quick);
  auto group = ranks.group();
  int const size = ranks.size();
  for (int const peer : {-1, ranks.rank(), size}) {
    comm::transfer const t{nullptr, 0, peer};
    REQUIRE_THROWS_AS(ranks.exchange(group, std::span(&t, 1), {}), pp::invalid_argument);
    REQUIRE_THROWS_AS(ranks.exchange(group, {}, std::span(&t, 1)), pp::invalid_argument);
  }
  REQUIRE_THROWS_AS(ranks.gather(group, nullptr, {}), pp::invalid_argument);
  REQUIRE_THROWS_AS(ranks.broadcast({}, size), pp::invalid_argument);
  REQUIRE_THROWS_AS(ranks.node_of(size), pp::invalid_argument);
  comm::mpi_options options = quick;
  options.deadline = std::chrono::milliseconds(0);
  REQUIRE_THROWS_AS(comm::mpi(options), pp::invalid_argument);
  options = quick;
  options.largest_message = std::size_t{1} << 31;
  REQUIRE_THROWS_AS(comm::mpi(options), pp::invalid_argument);
  options.largest_message = 0;
  REQUIRE_THROWS_AS(comm::mpi(options), pp::invalid_argument);
  options = quick;
  options.ranks_per_node = -1;
  REQUIRE_THROWS_AS(comm::mpi(options), pp::invalid_argument);
}
