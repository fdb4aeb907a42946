/// @file
/// Resident parameters of several ranks: the weights are those of one process, bit for bit.
#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "ranks/parameters.hpp"
#include "ranks/same_bits.hpp"
#include "support/catch.hpp"
#include "support/counting_communicator.hpp"
#include "support/expect.hpp"
#include "support/message_of.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace update = pushpull::update;
namespace test = pushpull::test;

template <class Make>
void require_same_bits(int ranks, std::size_t devices, Make const& make, test::parameter_job const& of = {}) {
  CAPTURE(ranks, devices);
  std::size_t const all = static_cast<std::size_t>(ranks) * devices;
  auto alone = make(pp::cpu_devices(static_cast<int>(all)), comm::single{});
  auto const expected = test::train_parameters(alone, {0, all}, of);
  test::for_each_reach(
      ranks,
      [&](comm::threads_options const& options) {
        std::vector<std::vector<std::vector<std::uint64_t>>> found(static_cast<std::size_t>(ranks));
        comm::run_ranks(ranks, options, [&](comm::threads const& c) {
          auto store = make(pp::cpu_devices(static_cast<int>(devices)), c);
          auto const rank = static_cast<std::size_t>(c.rank());
          found[rank] = test::train_parameters(store, {rank * devices, devices}, of);
        });
        for (auto const& weights : found) REQUIRE((weights == expected));
      },
      false);
}

/// On several nodes: the bits of one process whose devices bring the sums of the nodes.
template <class Make>
void require_bits_of_node_sums(int nodes, int ranks_per_node, std::size_t devices, Make const& make,
                               test::parameter_job const& of = {}) {
  CAPTURE(nodes, ranks_per_node, devices);
  auto alone = make(pp::cpu_devices(nodes), comm::single{});
  test::parameter_job grouped = of;
  grouped.summed = static_cast<std::size_t>(ranks_per_node) * devices;
  auto const expected = test::train_parameters(alone, {0, static_cast<std::size_t>(nodes)}, grouped);
  std::vector<std::vector<std::vector<std::uint64_t>>> found(static_cast<std::size_t>(nodes * ranks_per_node));
  comm::threads_options const options{.deadline = std::chrono::seconds(20), .ranks_per_node = ranks_per_node};
  comm::run_ranks(nodes * ranks_per_node, options, [&](comm::threads const& c) {
    auto store = make(pp::cpu_devices(static_cast<int>(devices)), c);
    auto const rank = static_cast<std::size_t>(c.rank());
    found[rank] = test::train_parameters(store, {rank * devices, devices}, of);
  });
  for (auto const& weights : found) REQUIRE((weights == expected));
}

}  // namespace

TEST_CASE("update_all over ranks gives the bits of one process", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
  };
  for (int const ranks : {2, 3, 7}) require_same_bits(ranks, 1, make);
  require_same_bits(2, 2, make);
  require_bits_of_node_sums(2, 2, 1, make);
  require_bits_of_node_sums(3, 2, 2, make);
}

TEST_CASE("update_all over ranks gives the bits of one process with equal slices: other placements", "[ranks]") {
  auto const check = [](auto const& placement, int ranks, std::size_t devices) {
    auto const make = [&](auto const& on, auto const& c) {
      auto const rule = update::adam{.learning_rate = 0.1};
      if constexpr (std::same_as<std::remove_cvref_t<decltype(c)>, comm::single>) {
        return pp::make_kv_store<float>(on, rule, c);
      } else {
        return pp::make_kv_store<float>(on, rule, placement, c);
      }
    };
    require_same_bits(ranks, devices, make);
  };
  for (int const ranks : {2, 3, 4, 7})
    for (std::int64_t const bound : {0, 1031, 1032}) check(pp::placement::mxnet{bound}, ranks, ranks == 2 ? 2 : 1);
  for (int const ranks : {2, 3}) check(pp::placement::owners{}, ranks, 1);
}

TEST_CASE("update_all over ranks gives the bits of one process: a norm over all parameters, and of each", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::clip_global_norm(10.0) | update::lamb{.learning_rate = 0.1}, c);
  };
  require_same_bits(2, 2, make);
  require_same_bits(3, 1, make);
  require_bits_of_node_sums(2, 3, 1, make);
}

TEST_CASE("accumulate_all over ranks gives the bits of one process that takes the sums of ranks, or of nodes",
          "[ranks]") {
  update::adam const rule{.learning_rate = 0.1};
  for (int const on_a_node : {1, 2, 4}) {
    CAPTURE(on_a_node);
    std::size_t const devices = 2, ranks = 4;
    bool const levels = on_a_node == 2;
    test::parameter_job const job{.micro_batches = 3};
    test::parameter_job grouped = job;
    grouped.summed = levels ? 2 : 1;
    grouped.of_rank = devices;
    std::size_t const sources = ranks / grouped.summed;
    auto alone = pp::make_kv_store<float>(pp::cpu_devices(static_cast<int>(sources)), rule);
    auto const expected = test::train_parameters(alone, {0, sources}, grouped);
    std::vector<std::vector<std::vector<std::uint64_t>>> found(ranks);
    comm::threads_options const options{.deadline = std::chrono::seconds(20), .ranks_per_node = on_a_node};
    comm::run_ranks(4, options, [&](comm::threads const& c) {
      auto store = pp::make_kv_store<float>(pp::cpu_devices(2), rule, pp::accumulate{}, c);
      auto const rank = static_cast<std::size_t>(c.rank());
      found[rank] = test::train_parameters(store, {rank * devices, devices}, job);
    });
    for (auto const& weights : found) REQUIRE((weights == expected));
  }
}

TEST_CASE("accumulate_all calls no other rank, and the step calls as often as one without it", "[ranks]") {
  for (int const on_a_node : {1, 2, 4}) {
    CAPTURE(on_a_node);
    comm::threads_options const options{.deadline = std::chrono::seconds(20), .ranks_per_node = on_a_node};
    comm::run_ranks(4, options, [](comm::threads const& of_rank) {
      test::counting_communicator const c(of_rank);
      auto store = pp::make_kv_store<float>(pp::cpu_devices(2), update::adam{}, pp::accumulate{}, c);
      pp::parameter_store parameters{store};
      for (char const* const name : {"a", "b", "c"}) parameters.add(name, std::vector<float>(3000, 1.0F));
      parameters.update_all();
      long const first = c.calls();
      parameters.update_all();
      long const of_step = c.calls() - first;
      test::expect(of_step > 0);
      for (int step = 0; step < 3; ++step) {
        long const before = c.calls();
        for (int micro_batch = 0; micro_batch < 3; ++micro_batch) parameters.accumulate_all();
        test::expect(c.calls() == before);
        parameters.update_all();
        test::expect(c.calls() == before + of_step);
      }
    });
  }
}

namespace {

/// A mean that does not say that it adds.
struct own_mean {
  using policy_kind = pp::reduction_tag;
  template <class V>
  PUSHPULL_HOST_DEVICE V operator()(V const& a, V const& b) const noexcept {
    return a + b;
  }
  template <class V>
  PUSHPULL_HOST_DEVICE V finish(V const& sum, int count) const noexcept {
    return sum / static_cast<float>(count);
  }
};

}  // namespace

TEMPLATE_TEST_CASE("a mean over nodes divides by the sources of all ranks, once", "[ranks]", pp::reduce::mean,
                   own_mean) {
  comm::run_ranks(4, {.deadline = std::chrono::seconds(20), .ranks_per_node = 2}, [](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(1), update::sgd{.learning_rate = 1}, TestType{}, c};
    pp::parameter_store parameters{store};
    parameters.add("a", std::vector<float>(5000, 0.0F));
    auto const gradient = parameters.grad("a", std::size_t{0});
    std::fill_n(gradient.data(), gradient.size(), 3.0F);
    parameters.update_all();
    test::expect(pp::to_vector(parameters.value("a", std::size_t{0})) == std::vector<float>(5000, -3.0F));
  });
}

namespace {

/// Ranks with more batches than others, of different sizes.
std::size_t batches_of(std::size_t rank) { return std::vector<std::size_t>{3, 5, 0, 6, 1, 2, 4}[rank]; }
double samples_of(std::size_t rank, std::size_t step) {
  return step < batches_of(rank) ? 1 + static_cast<double>((rank + step) % 3) : 0;
}
std::vector<std::size_t> const uneven_sizes{2050, 5, 1031};

template <class Parameters>
void add_all(Parameters& parameters) {
  for (std::size_t i = 0; i < uneven_sizes.size(); ++i)
    parameters.add(std::to_string(i), test::initial_value<float>(i, uneven_sizes[i]));
}
template <class Parameters>
void write_gradients(Parameters& parameters, std::size_t step, std::size_t rank, std::size_t device, double factor) {
  for (std::size_t i = 0; i < uneven_sizes.size(); ++i) {
    auto const of_batch = test::gradient_of<float>(i, step, rank, uneven_sizes[i]);
    auto const gradient = parameters.grad(std::to_string(i), device);
    std::transform(of_batch.begin(), of_batch.end(), gradient.data(),
                   [&](float g) { return factor == 0 ? 0.0F : g * static_cast<float>(factor); });
  }
}
template <class Parameters>
std::vector<std::vector<std::uint64_t>> bits_of_all(Parameters& parameters) {
  std::vector<std::vector<std::uint64_t>> result;
  for (std::size_t i = 0; i < uneven_sizes.size(); ++i)
    result.push_back(test::bits_of(pp::to_vector(parameters.value(std::to_string(i), std::size_t{0}))));
  return result;
}

/// One process with the batches of all ranks. @param averages  Whether the reduction is a mean.
template <class Make>
std::vector<std::vector<std::uint64_t>> train_all_batches(std::size_t ranks, bool averages, Make const& make) {
  auto store = make(pp::cpu_devices(static_cast<int>(ranks)), comm::single{});
  pp::parameter_store parameters{store};
  add_all(parameters);
  for (std::size_t step = 0;; ++step) {
    double all = 0;
    bool alike = true;
    for (std::size_t r = 0; r < ranks; ++r) {
      all += samples_of(r, step);
      alike = alike && samples_of(r, step) == samples_of(0, step);
    }
    if (all == 0) return bits_of_all(parameters);
    for (std::size_t r = 0; r < ranks; ++r) {
      double const own = samples_of(r, step), mean = alike ? 1 : own * static_cast<double>(ranks) / all;
      write_gradients(parameters, step, r, r, own == 0 ? 0 : averages ? mean : 1);
    }
    parameters.update_all();
  }
}

/// How a rank's loop over its batches ends.
enum class ending { finish, loop_with_ready };

template <class Store>
std::vector<std::vector<std::uint64_t>> train_own_batches(Store& store, std::size_t rank, ending how) {
  pp::parameter_store parameters{store};
  add_all(parameters);
  parameters.set_bucket_bytes(5000);
  for (std::size_t step = 0; how == ending::loop_with_ready || step < batches_of(rank); ++step) {
    if (!parameters.join(samples_of(rank, step))) break;
    // What a rank without data holds is not read.
    double const written = step < batches_of(rank) ? 1 : std::numeric_limits<double>::quiet_NaN();
    write_gradients(parameters, step, rank, 0, written);
    if (how == ending::loop_with_ready)
      for (std::string const name : {"2", "1"}) parameters.ready(name);
    parameters.update_all();
  }
  if (how == ending::finish) parameters.finish();
  return bits_of_all(parameters);
}

template <class Make>
void require_bits_of_all_batches(int ranks, bool averages, ending how, Make const& make) {
  CAPTURE(ranks);
  auto const expected = train_all_batches(static_cast<std::size_t>(ranks), averages, make);
  test::for_each_reach(
      ranks,
      [&](comm::threads_options const& options) {
        comm::run_ranks(ranks, options, [&](comm::threads const& c) {
          auto store = make(pp::cpu_devices(1), c);
          test::expect(train_own_batches(store, static_cast<std::size_t>(c.rank()), how) == expected);
        });
      },
      false);
}

}  // namespace

TEST_CASE("ranks with fewer batches join the steps of the others: a mean weighs each rank", "[ranks][join]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::clip_global_norm(10.0) | update::lamb{.learning_rate = 0.1},
                                    pp::reduce::mean{}, c);
  };
  for (int const ranks : {2, 3, 4, 7}) require_bits_of_all_batches(ranks, true, ending::finish, make);
}

TEST_CASE("ranks with fewer batches join the steps of the others: a sum leaves them out", "[ranks][join]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices,
                                    update::dynamic_loss_scale{.initial = 8} | update::adam{.learning_rate = 0.1}, c);
  };
  require_bits_of_all_batches(3, false, ending::finish, make);
  auto const adam = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
  };
  for (int const ranks : {2, 4}) require_bits_of_all_batches(ranks, false, ending::loop_with_ready, adam);
}

TEST_CASE("a weight that is none is an error on all ranks, and the next one counts", "[ranks][join][errors]") {
  comm::run_ranks(3, [](comm::threads const& c) {
    auto store = pp::make_kv_store<float>(pp::cpu_devices(1), update::adam{}, c);
    pp::parameter_store parameters{store};
    parameters.add("a", std::vector<float>(3, 1.0F));
    for (double const bad : {-1.0, std::numeric_limits<double>::infinity()})
      test::expect_text(test::message_of([&] { parameters.join(c.rank() == 1 ? bad : 1); }),
                        "join: rank 1 brings the weight ");
    test::expect(parameters.join(c.rank()));
    test::expect(!parameters.join(0));
  });
}

TEST_CASE("a rank that fails fails those that have joined", "[ranks][join][errors]") {
  auto const all = comm::threads::make(3, {.deadline = std::chrono::seconds(5)});
  auto const run = [&](std::size_t rank) {
    auto store = pp::make_kv_store<float>(pp::cpu_devices(1), update::adam{}, all[rank]);
    pp::parameter_store parameters{store};
    parameters.add("a", std::vector<float>(3000, 1.0F));
    parameters.join(1);
    parameters.update_all();
    if (rank == 1) return all[1].fail("its disk is full");
    test::expect_text(test::message_of<pp::comm_error>([&] { parameters.finish(); }), "its disk is full");
    test::expect_text(test::message_of<pp::comm_error>([&] { parameters.join(1); }), "join: an earlier call");
  };
  std::vector<std::exception_ptr> thrown(3);
  {
    std::vector<std::jthread> threads;
    for (std::size_t rank = 0; rank < 3; ++rank)
      threads.emplace_back([&, rank] {
        try {
          run(rank);
        } catch (...) {
          thrown[rank] = std::current_exception();
        }
      });
  }
  for (auto const& each : thrown)
    if (each) std::rethrow_exception(each);
}
