// A training step over MPI ranks: reduce the gradients of all, update by Adam, new weights on all. The ways of a store
// and MPI_Allreduce with the same pass over everything take turns in one run. Started by mpirun: see benchmarks/run.sh.
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <oneapi/tbb/global_control.h>
#include <pushpull/comm/mpi.hpp>
#include <pushpull/pushpull.hpp>

#include "support/models.hpp"

namespace {

namespace pp = pushpull;
using clock_type = std::chrono::steady_clock;

/// How many elements each parameter has.
using sizes = std::vector<std::int64_t>;

std::string name_of(std::size_t i) { return "weight " + std::to_string(i); }

/// One way to make a step. All ranks make the same.
struct contender {
  std::string title;
  std::function<void()> step;
  double best = std::numeric_limits<double>::infinity();
};

void fill(pp::tensor_view<float, pp::cpu_device<>> const& gradient, int rank) {
  for (std::size_t i = 0; i < gradient.size(); ++i)
    gradient.data()[i] = static_cast<float>((i + static_cast<std::size_t>(rank)) % 17) * 0.01F;
}

/// A store, its parameters, and a step over them.
template <class... Policies>
struct trained {
  pp::kv_store<float, pp::cpu_device<>, pp::update::adam, Policies...> store;
  pp::parameter_store<decltype(store)> parameters{store};

  trained(sizes const& counts, int rank, Policies const&... policies)
      : store(pp::cpu_devices(1), pp::update::adam{}, policies...) {
    for (std::size_t i = 0; i < counts.size(); ++i)
      parameters.add(name_of(i), std::vector<float>(static_cast<std::size_t>(counts[i]), 1.0F));
    parameters.materialize();
    for (std::size_t i = 0; i < counts.size(); ++i) fill(parameters.grad(name_of(i), std::size_t{0}), rank);
  }
};

template <class... Policies>
contender over_store(std::string title, sizes const& counts, int rank, Policies const&... policies) {
  auto const all = std::make_shared<trained<Policies...>>(counts, rank, policies...);
  return {std::move(title), [all] { all->parameters.update_all(); }};
}

/// A push from gradients in the program's own memory: new weights are in the mirrors of all ranks.
template <class... Policies>
contender over_push(std::string title, sizes const& counts, int rank, Policies const&... policies) {
  struct pushed {
    pp::kv_store<float, pp::cpu_device<>, pp::update::adam, Policies...> store;
    std::vector<std::string> keys;
    std::vector<std::vector<float>> gradients;
  };
  std::shared_ptr<pushed> const all(
      new pushed{decltype(pushed::store)(pp::cpu_devices(1), pp::update::adam{}, policies...), {}, {}});
  for (std::size_t i = 0; i < counts.size(); ++i) {
    all->keys.push_back(name_of(i));
    all->gradients.emplace_back(static_cast<std::size_t>(counts[i]), 1.0F);
  }
  all->store.init(all->keys, all->gradients);
  for (auto& gradient : all->gradients)
    fill(pp::tensor_view(gradient.data(), pp::shape{static_cast<std::int64_t>(gradient.size())}), rank);
  return {std::move(title), [all] { all->store.push(all->keys, all->gradients).wait(); }};
}

contender over_allreduce(sizes const& counts, int rank) {
  auto const all = std::make_shared<trained<>>(counts, rank);
  std::vector<pp::tensor_view<float, pp::cpu_device<>>> gradients;
  for (std::size_t i = 0; i < counts.size(); ++i) gradients.push_back(all->parameters.grad(name_of(i), std::size_t{0}));
  auto const& largest = gradients[static_cast<std::size_t>(std::ranges::max_element(counts) - counts.begin())];
  auto const given = std::make_shared<std::vector<float>>(largest.data(), largest.data() + largest.size());
  return {"MPI_Allreduce, then the pass over everything", [=] {
            for (auto const& gradient : gradients)
              MPI_Allreduce(given->data(), gradient.data(), static_cast<int>(gradient.size()), MPI_FLOAT, MPI_SUM,
                            MPI_COMM_WORLD);
            all->parameters.update_all();
          }};
}

/// Seconds of the slowest rank.
double seconds_of(std::function<void()> const& step) {
  MPI_Barrier(MPI_COMM_WORLD);
  auto const start = clock_type::now();
  step();
  double seconds = std::chrono::duration<double>(clock_type::now() - start).count();
  MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return seconds;
}

/// A step behind a backward pass on a device that leaves the host idle: the gradients of 32 parameters are complete one
/// after the other.
template <class... Policies>
struct overlapped {
  static constexpr std::size_t parameter_count = 32;

  pp::kv_store<float, pp::cpu_device<>, pp::update::adam, Policies...> store;
  pp::parameter_store<decltype(store)> parameters{store};

  overlapped(std::size_t elements, int rank, Policies const&... policies)
      : store(pp::cpu_devices(1), pp::update::adam{}, policies...) {
    for (std::size_t i = 0; i < parameter_count; ++i)
      parameters.add(name_of(i), std::vector<float>(elements / parameter_count, 1.0F));
    parameters.materialize();
    for (std::size_t i = 0; i < parameter_count; ++i) fill(parameters.grad(name_of(i), std::size_t{0}), rank);
  }

  void step(std::chrono::duration<double> backward, bool in_parts) {
    auto const start = clock_type::now();
    for (std::size_t i = parameter_count; i-- > 0;) {
      auto const done = static_cast<double>(parameter_count - i) / static_cast<double>(parameter_count);
      std::this_thread::sleep_until(start + std::chrono::duration_cast<clock_type::duration>(done * backward));
      if (in_parts) parameters.ready(name_of(i));
    }
    parameters.update_all();
  }
};

/// Prints the share of the update that hides behind a backward pass of twice its length.
template <class... Policies>
void measure_overlap(char const* title, int turns, std::size_t elements, int rank, Policies const&... policies) {
  overlapped<Policies...> all(elements, rank, policies...);
  double best[3];  // the update alone, behind a backward pass, in parts beside it
  std::fill(std::begin(best), std::end(best), std::numeric_limits<double>::infinity());
  for (int turn = -1; turn < turns; ++turn) {
    auto const keep = [&](double& to, double seconds) { to = turn < 0 ? to : std::min(to, seconds); };
    double const alone = seconds_of([&] { all.step({}, false); });
    keep(best[0], alone);
    std::chrono::duration<double> const backward(2 * (turn < 0 ? alone : best[0]));
    keep(best[1], seconds_of([&] { all.step(backward, false); }) - backward.count());
    keep(best[2], seconds_of([&] { all.step(backward, true); }) - backward.count());
  }
  if (rank == 0)
    std::printf("%-46s %8.1f ms  %5.2f of it hidden behind an idle host\n", title, best[1] * 1e3,
                1 - best[2] / best[1]);
}

}  // namespace

int main(int argc, char* argv[]) {
  std::string_view const what = argc > 1 ? argv[1] : "64";
  bool const is_model = what == "bert-base";
  sizes counts;
  if (is_model)
    counts = pp::bench::bert_base();
  else
    counts = {static_cast<std::int64_t>((std::strtoull(what.data(), nullptr, 10) << 20U) / sizeof(float))};
  auto const elements = static_cast<std::size_t>(std::reduce(counts.begin(), counts.end()));
  int const turns = argc > 2 ? std::atoi(argv[2]) : 9;
  if (elements == 0 || turns < 1) {
    std::fputs("usage: mpirun -np RANKS pushpull.bench.dist [MEBIBYTES|bert-base [TURNS]]\n", stderr);
    return EXIT_FAILURE;
  }
  try {
    pp::comm::mpi const world;
    int const rank = world.rank(), ranks = world.size();
    unsigned const share = std::max(1U, std::thread::hardware_concurrency() / static_cast<unsigned>(ranks));
    tbb::global_control const threads(tbb::global_control::max_allowed_parallelism, share);

    std::vector<contender> all;
    all.push_back(over_allreduce(counts, rank));
    all.push_back(over_store("a store, ranks share memory", counts, rank, world));
    all.push_back(over_store("a store, messages", counts, rank, world, pp::hierarchy::flat{}));
    all.push_back(over_push("a push of own tensors, ranks share memory", counts, rank, world));
    all.push_back(over_push("a push of own tensors, messages", counts, rank, world, pp::hierarchy::flat{}));
    if (ranks == 4) {
      pp::comm::mpi const two_nodes(MPI_COMM_WORLD, {.ranks_per_node = 2});
      all.push_back(over_store("a store, two levels, as on 2 nodes", counts, rank, two_nodes));
    }
    for (contender const& c : all) c.step();  // pages, connections, threads
    for (int turn = 0; turn < turns; ++turn)
      for (std::size_t i = 0; i < all.size(); ++i) {
        contender& c = all[(i + static_cast<std::size_t>(turn)) % all.size()];
        c.best = std::min(c.best, seconds_of(c.step));
      }
    if (rank == 0) {
      std::printf("%zu MiB of float in %zu parameters, Adam, %d ranks of %u threads; best of %d turns\n",
                  elements * sizeof(float) >> 20U, counts.size(), ranks, share, turns);
      for (contender const& c : all)
        std::printf("%-46s %8.1f ms  %5.2f\n", c.title.c_str(), c.best * 1e3, c.best / all.front().best);
    }
    all.clear();
    if (is_model) return EXIT_SUCCESS;
    measure_overlap("ready, ranks share memory", turns, elements, rank, world);
    measure_overlap("ready, messages", turns, elements, rank, world, pp::hierarchy::flat{});
  } catch (pp::error const& e) {
    std::fprintf(stderr, "pushpull.bench.dist: %s\n", e.what());
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
