// Stores on the ranks that mpirun has started: the bits of one process, which every rank computes by itself.
#include <pushpull/comm/mpi.hpp>

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "ranks/parameters.hpp"
#include "ranks/random_kinds.hpp"
#include "ranks/same_bits.hpp"
#include "support/catch.hpp"

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace test = pushpull::test;
namespace update = pushpull::update;

namespace {

comm::mpi_options options_of(int ranks_per_node) {
  return {.deadline = std::chrono::seconds(20), .ranks_per_node = ranks_per_node};
}

/// The ranks of the job, on nodes of that many, and this process alone: a store of one rank is that of one process.
struct job {
  explicit job(int on_a_node)
      : ranks_per_node(on_a_node), ranks(options_of(on_a_node)), alone(MPI_COMM_SELF, options_of(0)) {}

  std::size_t rank() const { return static_cast<std::size_t>(ranks.rank()); }
  std::size_t size() const { return static_cast<std::size_t>(ranks.size()); }

  int ranks_per_node;
  comm::mpi ranks, alone;
};

/// f(job) of one real node, of a node per rank, and of nodes of two ranks.
template <class F>
void for_each_reach(F const& f) {
  for (int const ranks_per_node : {0, 1, 2}) {
    CAPTURE(ranks_per_node);
    job const j(ranks_per_node);
    if (ranks_per_node < 2 || (j.size() > 2 && j.size() % 2 == 0)) f(j);
  }
}

/// @param make  make(devices, communicator) -> a store.
template <class T, class Make>
void require_same_bits(Make const& make) {
  auto const push = [](auto& store, std::size_t, auto const& keys, auto const& gradients, auto& outputs) {
    store.pushpull(keys, gradients, outputs).wait();
  };
  for_each_reach([&](job const& j) {
    auto alone = make(pp::cpu_devices(static_cast<int>(j.size())), j.alone);
    auto const expected = test::train<T>(alone, {0, j.size()}, 6, push);
    auto store = make(pp::cpu_devices(1), j.ranks);
    auto const found = test::train<T>(store, {j.rank(), 1}, 6, push);
    REQUIRE((found == expected));
  });
}

void require_programs(unsigned kind) {
  for (int const ranks_per_node : {0, 1}) {
    CAPTURE(ranks_per_node);
    job const j(ranks_per_node);
    unsigned const first = 100 * static_cast<unsigned>(j.size()) + kind;
    for (unsigned program = first; program < first + 4 * 24 / j.size(); program += 4) {
      auto const found = test::run_random_program(program, {j.rank(), 1, j.size()}, j.ranks);
      auto const expected = test::run_random_program(program, {0, j.size(), j.size()}, j.alone);
      INFO("program " << program << ": " << test::difference(expected, found));
      REQUIRE((found == expected));
    }
  }
}

}  // namespace

TEST_CASE("random programs over MPI's ranks give the bits of one process: sgd", "[mpi]") { require_programs(0); }
TEST_CASE("random programs over MPI's ranks give the bits of one process: adam", "[mpi]") { require_programs(1); }
TEST_CASE("random programs over MPI's ranks give the bits of one process: a clipped lamb", "[mpi]") {
  require_programs(2);
}
TEST_CASE("random programs over MPI's ranks give the bits of one process: skipped steps of micro-batches", "[mpi]") {
  require_programs(3);
}

TEST_CASE("pushes over MPI's ranks give the bits of one process: bfloat16 with masters of float", "[mpi]") {
  require_same_bits<pp::bfloat16>([](auto const& devices, auto const& c) {
    return pp::make_kv_store<pp::bfloat16>(devices, update::momentum{.learning_rate = 0.1},
                                           pp::element::master<float>{}, c);
  });
}

TEST_CASE("pushes over MPI's ranks give the bits of one process: codes of two bits", "[mpi]") {
  require_same_bits<float>([](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::compress::two_bit{0.5F}, c);
  });
}

TEST_CASE("pushes over MPI's ranks give the bits of one process: all by messages", "[mpi]") {
  require_same_bits<float>([](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::hierarchy::flat{}, c);
  });
}

TEST_CASE("pushes over MPI's ranks give the bits of one process: a norm over all keys", "[mpi]") {
  require_same_bits<float>([](auto const& devices, auto const& c) { return test::random_lamb::make(devices, c); });
}

TEST_CASE("parameters over MPI's ranks give the bits of one process whose devices bring the sums of nodes", "[mpi]") {
  for_each_reach([&](job const& j) {
    std::size_t const on_a_node = j.ranks_per_node == 2 ? 2 : 1;
    std::size_t const sources = j.size() / on_a_node;
    auto alone = test::random_lamb::make(pp::cpu_devices(static_cast<int>(sources)), j.alone);
    auto const expected = test::train_parameters(alone, {0, sources}, {.summed = on_a_node});
    auto store = test::random_lamb::make(pp::cpu_devices(1), j.ranks);
    REQUIRE((test::train_parameters(store, {j.rank(), 1}, {}) == expected));
  });
}

TEST_CASE("MPI's ranks that name other keys all get an error that names the first, and the job goes on", "[mpi]") {
  comm::mpi const ranks(options_of(0));
  if (ranks.size() == 1) return;
  int const last = ranks.size() - 1;
  bool const differs = ranks.rank() == last;
  pp::kv_store store{pp::cpu_devices(1), update::sgd{.learning_rate = 1}, ranks};
  std::vector<std::string> const keys{"a", differs ? "c" : "b", differs ? "e" : "d"};
  std::vector<std::vector<float>> const values(3, std::vector<float>(3, 1.0F));
  std::string message;
  try {
    store.init(keys, values);
  } catch (pp::invalid_argument const& e) {
    message = e.what();
  }
  REQUIRE(message == "init: ranks disagree: rank 0 came with key \"b\" of shape (3) of float32, rank " +
                         std::to_string(last) + " with key \"c\" of shape (3) of float32");
  REQUIRE(store.keys().empty());
  store.init("a", values[0]);
  store.push("a", values[0]);
  std::vector<float> out(3);
  store.pull("a", out).wait();
  REQUIRE(out == std::vector<float>(3, 1.0F - static_cast<float>(ranks.size())));
}
