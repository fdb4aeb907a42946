// comm::mpi on the ranks that mpirun has started.
#include <pushpull/comm/mpi.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <thread>
#include <vector>

#include <pushpull/device/cpu_device.hpp>

#include "support/catch.hpp"

namespace pp = pushpull;
namespace comm = pushpull::comm;
using device = pp::cpu_device<pp::serial_system>;

static_assert(pp::CollectiveCommunicator<comm::mpi, device> && pp::SharesMemory<comm::mpi, device>);

namespace {

using bytes = std::vector<std::byte>;

comm::mpi_options const quick{.deadline = std::chrono::seconds(5)};

std::vector<comm::mpi_options> all_options() {
  std::vector<comm::mpi_options> options{quick, quick, quick};
  options[1].largest_message = 1;
  options[2].largest_message = 7;
  return options;
}

bytes pattern(int from, int to, std::size_t n) {
  bytes b(n);
  for (std::size_t i = 0; i < n; ++i)
    b[i] = static_cast<std::byte>(i * 7 + static_cast<std::size_t>(from) * 31 + static_cast<std::size_t>(to) * 5);
  return b;
}

}  // namespace

TEST_CASE("ranks exchange slices of any size", "[mpi]") {
  for (auto const& options : all_options()) {
    comm::mpi const ranks(options);
    for (std::size_t const n : {std::size_t{0}, std::size_t{1}, std::size_t{1000}, std::size_t{100'000}}) {
      if (options.largest_message < 100 && n > 1000) continue;
      std::vector<bytes> out, in;
      std::vector<comm::transfer> sends, receives;
      for (int p = 0; p < ranks.size(); ++p) {
        out.push_back(pattern(ranks.rank(), p, n + static_cast<std::size_t>(p)));
        in.emplace_back(n + static_cast<std::size_t>(ranks.rank()));
      }
      for (int p = 0; p < ranks.size(); ++p) {
        auto const i = static_cast<std::size_t>(p);
        if (p == ranks.rank()) continue;
        sends.push_back({out[i].data(), out[i].size(), p});
        receives.push_back({in[i].data(), in[i].size(), p});
      }
      auto group = ranks.group();
      auto request = ranks.exchange(group, sends, receives);
      group.end();
      request.wait();
      REQUIRE(request.ready());
      for (int p = 0; p < ranks.size(); ++p)
        if (p != ranks.rank())
          REQUIRE(in[static_cast<std::size_t>(p)] ==
                  pattern(p, ranks.rank(), n + static_cast<std::size_t>(ranks.rank())));
    }
  }
}

TEST_CASE("ranks gather an array, sum doubles, broadcast and gather bytes", "[mpi]") {
  for (auto const& options : all_options()) {
    comm::mpi const ranks(options);
    auto const size = static_cast<std::size_t>(ranks.size());
    auto const own = static_cast<std::size_t>(ranks.rank());
    auto group = ranks.group();

    std::vector<comm::byte_range> of_rank(size);
    std::size_t end = 0;
    for (std::size_t r = 0; r < size; ++r) {
      of_rank[r] = {end, end + r * 13};
      end += r * 13;
    }
    bytes whole(end), expected;
    for (std::size_t r = 0; r < size; ++r) {
      bytes const part = pattern(static_cast<int>(r), 0, of_rank[r].size());
      expected.insert(expected.end(), part.begin(), part.end());
      if (r == own) std::ranges::copy(part, whole.begin() + static_cast<std::ptrdiff_t>(of_rank[r].begin));
    }
    ranks.gather(group, whole.data(), of_rank).wait();
    REQUIRE(whole == expected);

    std::vector<double> numbers(17, static_cast<double>(own + 1));
    ranks.sum(group, numbers.data(), numbers.size()).wait();
    REQUIRE(numbers == std::vector<double>(17, static_cast<double>(size * (size + 1) / 2)));

    for (int root = 0; root < ranks.size(); ++root) {
      bytes sent = pattern(root, ranks.rank() == root ? 1 : 2, 100);
      ranks.broadcast(sent, root);
      REQUIRE(sent == pattern(root, 1, 100));
    }
    auto const all = ranks.gather_all(pattern(ranks.rank(), 3, own * 50));
    REQUIRE(all.size() == size);
    for (std::size_t r = 0; r < size; ++r) REQUIRE(all[r] == pattern(static_cast<int>(r), 3, r * 50));
    ranks.barrier();
  }
}

TEST_CASE("ranks of a node reach each other's memory", "[mpi]") {
  for (int const per_node : {0, 1, 2}) {
    comm::mpi_options options = quick;
    options.ranks_per_node = per_node;
    comm::mpi const ranks(options);
    auto const own = static_cast<std::size_t>(ranks.rank());
    for (int round = 0; round < 3; ++round) {
      auto const memory = ranks.allocate_shared(own * sizeof(int));
      auto group = ranks.group();
      auto* mine = static_cast<int*>(memory.at(ranks.rank()));
      for (std::size_t i = 0; i < own; ++i) {
        REQUIRE(mine[i] == 0);
        mine[i] = ranks.rank() * 100 + static_cast<int>(i);
      }
      ranks.arrive(group).wait();
      for (int r = 0; r < ranks.size(); ++r) {
        auto const* const theirs = static_cast<int const*>(memory.at(r));
        REQUIRE((theirs != nullptr) == (ranks.node_of(r) == ranks.node_of(ranks.rank())));
        if (per_node > 0) REQUIRE(ranks.node_of(r) == r / per_node);
        REQUIRE(reinterpret_cast<std::uintptr_t>(theirs) % 64 == 0);
        for (int i = 0; theirs != nullptr && i < r; ++i) REQUIRE(theirs[i] == r * 100 + i);
      }
      ranks.arrive(group).wait();
    }
  }
}
