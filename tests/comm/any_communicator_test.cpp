/// @file
/// comm::any_communicator keeps the rules of every communicator, and says which it cannot keep.
#include <array>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/comm/any_communicator.hpp>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/single.hpp>
#include <pushpull/comm/threads.hpp>

#include "support/catch.hpp"
#include "support/communicator_contract.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
using comm::any_communicator;
using host = pp::detail::host_device_probe;

static_assert(pp::CollectiveCommunicator<any_communicator, host> && pp::SharesMemory<any_communicator, host>);

/// One of several ranks that only meet.
struct meets {
  using policy_kind = pp::communicator_tag;
  int rank() const { return 2; }
  int size() const { return 3; }
  void barrier() const {}
};

/// Threads that also sum.
struct sums {
  using policy_kind = pp::communicator_tag;
  using group_type = comm::threads::group_type;
  template <class D>
  static constexpr bool moves_memory_of = pp::HostDevice<D>;

  comm::threads held;

  int rank() const { return held.rank(); }
  int size() const { return held.size(); }
  void barrier() const { held.barrier(); }
  group_type group() const { return held.group(); }
  void fail(std::string_view reason) const noexcept { held.fail(reason); }
  auto sum(group_type& group, double* numbers, std::size_t count) const { return held.sum(group, numbers, count); }
};

/// Threads that move no memory of hosts.
struct elsewhere : comm::threads {
  template <class D>
  static constexpr bool moves_memory_of = !pp::HostDevice<D>;
};

template <class F>
void require_refuses(F const& f, std::string const& call) {
  CAPTURE(call);
  REQUIRE_THROWS_AS(f(), pp::invalid_argument);
  REQUIRE_THROWS_WITH(f(), Catch::Matchers::Contains(call + ": any_communicator holds rank 2 of 3"));
}

}  // namespace

TEST_CASE("any_communicator keeps the rules of the communicator that it holds", "[comm][any_communicator]") {
  int const ranks = GENERATE(1, 2, 4), on_a_node = GENERATE(0, 2);
  CAPTURE(ranks, on_a_node);
  comm::run_ranks(ranks, {.deadline = std::chrono::seconds(5), .ranks_per_node = on_a_node},
                  [](comm::threads const& c) {
                    any_communicator const any(c);
                    pp::test::contract::expect(c, any.exchanges() && any.shares_memory(), "it says what it can");
                    pp::test::contract_of_collectives(any);
                    pp::test::contract_two_families(any);
                    pp::test::contract_shared_memory(any);
                  });
}

TEST_CASE("any_communicator of one rank has nothing to do", "[comm][any_communicator]") {
  any_communicator const one;
  REQUIRE_FALSE(one.exchanges());
  one.fail("nobody hears it");
  pp::test::contract_of_collectives(one);
  pp::test::contract_two_families(one);
  pp::test::contract_shared_memory(one);
  comm::transfer const given{nullptr, 0, 1};
  auto group = one.group();
  REQUIRE_THROWS_AS(one.exchange(group, std::span(&given, 1), {}), pp::invalid_argument);
}

TEST_CASE("any_communicator refuses the calls that its communicator cannot make", "[comm][any_communicator]") {
  any_communicator const any{meets()};
  REQUIRE_FALSE(any.exchanges());
  auto group = any.group();
  std::array<comm::byte_range, 3> ranges{};
  require_refuses([&] { any.exchange(group, {}, {}); }, "exchange");
  require_refuses([&] { any.gather(group, nullptr, ranges); }, "gather");
  require_refuses([&] { any.sum(group, nullptr, 0); }, "sum");
  require_refuses([&] { any.broadcast({}, 0); }, "broadcast");
  require_refuses([&] { any.gather_all({}); }, "gather_all");
  group.end();
  any.barrier();
  any.fail("nobody hears it");
}

TEST_CASE("any_communicator has the capabilities of its communicator and no more", "[comm][any_communicator]") {
  auto const all = comm::threads::make(3);
  REQUIRE_FALSE(any_communicator(sums{all[2]}).exchanges());
  REQUIRE_FALSE(any_communicator(elsewhere{all[2]}).exchanges());
  for (any_communicator const& any : {any_communicator(sums{all[2]}), any_communicator(elsewhere{all[2]})}) {
    auto group = any.group();
    require_refuses([&] { any.exchange(group, {}, {}); }, "exchange");
    group.end();
  }
  comm::run_ranks(3, {.deadline = std::chrono::seconds(5)}, [](comm::threads const& c) {
    any_communicator const any(sums{c});
    double number = c.rank() + 1;
    auto group = any.group();
    auto request = any.sum(group, &number, 1);
    group.end();
    request.wait();
    pp::test::contract::expect(c, number == 6, "a capability alone");
  });
  any_communicator(sums{all[2]}).fail("everybody hears it");
  REQUIRE_THROWS_AS(all[0].barrier(), pp::comm_error);
}

TEST_CASE("ranks of any_communicator are nodes if its communicator shares no memory", "[comm][any_communicator]") {
  any_communicator const any{meets()};
  REQUIRE_FALSE(any.shares_memory());
  for (int rank = 0; rank < 3; ++rank) REQUIRE(any.node_of(rank) == rank);
  auto const memory = any.allocate_shared(3 * sizeof(int));
  auto const copy = memory;
  REQUIRE(memory.at(0) == nullptr);
  REQUIRE(memory.at(1) == nullptr);
  auto const* const mine = static_cast<int*>(copy.at(2));
  REQUIRE(std::vector<int>(mine, mine + 3) == std::vector<int>(3, 0));
  auto group = any.group();
  auto request = any.arrive(group);
  group.end();
  REQUIRE(request.ready());
}
