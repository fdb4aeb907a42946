/// @file
/// The communicator of docs/writing_a_communicator.md keeps the rules of every communicator.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/policy.hpp>

#include "support/catch.hpp"
#include "support/communicator_contract.hpp"

namespace {

namespace comm = pushpull::comm;
namespace test = pushpull::test;

// example-begin communicator
/// Any communicator of several ranks, which also counts the bytes that this rank sends.
template <pushpull::GroupsCalls C>
class counting {
 public:
  using policy_kind = pushpull::communicator_tag;
  using group_type = typename C::group_type;
  template <class D>
  static constexpr bool moves_memory_of = pushpull::MovesMemoryOf<C, D>;

  explicit counting(C under) : under_(under), sent_(std::make_shared<std::atomic<std::size_t>>(0)) {}
  std::size_t sent() const { return *sent_; }

  int rank() const { return under_.rank(); }
  int size() const { return under_.size(); }

  // Calls that take a group
  group_type group() const { return under_.group(); }
  void fail(std::string_view reason) const noexcept { under_.fail(reason); }
  auto exchange(group_type& group, std::span<comm::transfer const> out, std::span<comm::transfer const> in) const {
    for (comm::transfer const& t : out) *sent_ += t.bytes;
    return under_.exchange(group, out, in);
  }
  auto gather(group_type& group, void* whole, std::span<comm::byte_range const> of_rank) const {
    *sent_ += of_rank[static_cast<std::size_t>(rank())].size() * static_cast<std::size_t>(size() - 1);
    return under_.gather(group, whole, of_rank);
  }
  auto sum(group_type& group, double* numbers, std::size_t count) const { return under_.sum(group, numbers, count); }

  // Calls without a group
  void barrier() const { under_.barrier(); }
  void broadcast(std::span<std::byte> bytes, int root) const { under_.broadcast(bytes, root); }
  auto gather_all(std::span<std::byte const> bytes) const { return under_.gather_all(bytes); }

 private:
  C under_;
  std::shared_ptr<std::atomic<std::size_t>> sent_;  // copies count together
};
// example-end communicator

}  // namespace

TEST_CASE("a communicator of the user keeps the contract", "[comm]") {
  // example-begin contract
  comm::threads_options const soon{.deadline = std::chrono::seconds(5)};
  comm::run_ranks(3, soon, [](comm::threads const& rank) {
    counting const mine(rank);
    test::contract_of_collectives(mine);
    test::contract_two_families(mine);
  });
  // example-end contract
}

TEST_CASE("a communicator of the user counts what it sends", "[comm]") {
  std::atomic<std::size_t> sent = 0;
  comm::run_ranks(3, [&](comm::threads const& rank) {
    counting const mine(rank);
    test::contract::all_to_all step(mine, 0, [](int, int, std::size_t) { return std::size_t{100}; });
    auto group = mine.group();
    auto request = step.start(mine, group);
    group.end();
    request.wait();
    sent += mine.sent();
  });
  REQUIRE(sent == 3 * 2 * 100);
}
