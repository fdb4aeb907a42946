// Ranks of GPUs that reach each other's memory by NCCL's symmetric windows, over a stand-in for libnccl: stores have the bits of one
// process, and send nothing.
#include <pushpull/comm/any_device_communicator.hpp>
#include <pushpull/comm/nccl_windows.cuh>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/pushpull.cuh>

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "nccl/numbers.hpp"
#include "nccl/stand_in.hpp"
#include "support/catch.hpp"
#include "support/cuda_devices.cuh"
#include "support/expect.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace update = pushpull::update;
namespace stand_in = pushpull::test::stand_in;
using windows = comm::nccl_windows<pp::cuda_device>;
using any_ranks = comm::any_device_communicator<pp::cuda_device>;  // which other tests have stores of, too

static_assert(pp::CollectiveCommunicator<windows, pp::cuda_device> && pp::SharesMemory<windows, pp::cuda_device>);
using lists = std::vector<std::vector<float>>;

using pp::test::exact;
using pp::test::inexact;
using pp::test::keys;
using pp::test::sizes;

std::vector<float> numbers(std::size_t key, std::size_t step, std::size_t source, float unit) {
  return pp::test::numbers(sizes[key], key, step, source, unit);
}

/// Weights after pushes of `sources` sources from number `first` on, and after steps of parameters whose gradients they are.
template <class Store>
lists train(Store& store, std::size_t first, std::size_t sources, float unit) {
  lists values, result;
  for (std::size_t i = 0; i < sizes.size(); ++i) values.push_back(numbers(i, 99, 0, unit));
  store.init(keys(), values);
  for (std::size_t step = 0; step < 3; ++step) {
    std::vector<lists> gradients(sizes.size());
    for (std::size_t i = 0; i < sizes.size(); ++i)
      for (std::size_t k = first; k < first + sources; ++k) gradients[i].push_back(numbers(i, step, k, unit));
    store.pushpull(keys(), gradients, values);
    store.wait();
    result.insert(result.end(), values.begin(), values.end());
  }
  store.init("late", numbers(4, 97, 0, unit));  // in an arena of its own, or in an open one
  auto const given = numbers(4, 96, 0, unit);
  auto late = given;
  store.assign("late", late);
  late.assign(late.size(), 0);
  store.pull("late", late);
  store.wait();
  pp::test::expect(late == given);
  for (std::size_t step = 0; step < 2; ++step) {
    std::vector<std::vector<float>> gradients;
    for (std::size_t k = first; k < first + sources; ++k)
      for (std::size_t more = 0; more <= step; ++more) gradients.push_back(numbers(4, 50 + step, k + 10 * more, exact));
    store.push("late", gradients);
  }
  store.pull("late", late);
  store.wait();
  result.push_back(late);
  pp::parameter_store parameters{store};
  std::vector<std::string> names;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    names.push_back("parameter " + std::to_string(i));
    parameters.add(names.back(), numbers(i, 98, 0, unit));
  }
  for (std::size_t step = 3; step < 6; ++step) {
    for (std::size_t i = 0; i < sizes.size(); ++i)
      for (std::size_t n = 0; n < sources; ++n)
        pp::copy(numbers(i, step, first + n, unit), parameters.grad(names[i], n));
    parameters.update_all();
  }
  store.wait();
  for (auto const& name : names)
    for (std::size_t n = 0; n < sources; ++n) {
      result.push_back(pp::to_vector(parameters.value(name, n)));
      if (n > 0) {
        pp::test::expect(result.back() == result[result.size() - 2]);
        result.pop_back();
      }
    }
  return result;
}

/// Same of a key that rows update.
template <class Store>
lists train_rows(Store& store, std::size_t first, std::size_t sources, float unit) {
  std::vector<float> weights(67 * 61, 1);
  pp::tensor_view<float, pp::cpu_device<>> const view(weights.data(), pp::test::rows_shape);
  store.init("rows", view);
  for (std::size_t step = 0; step < 4; ++step) {
    std::vector<pp::row_sparse<float>> rows;
    for (std::size_t k = first; k < first + sources; ++k) rows.push_back(pp::test::rows_of(step, k, unit));
    store.pushpull("rows", rows, view, step == 2 ? pp::row_updates::standard : pp::row_updates::lazy);
    store.wait();
  }
  return {weights};
}

constexpr auto dense = [](auto&... x) { return train(x...); };
constexpr auto of_rows = [](auto&... x) { return train_rows(x...); };

/// Bytes that messages have moved since `reset`.
std::size_t bytes_sent(int rank) {
  std::size_t bytes = 0;
  for (auto const& call : stand_in::calls_of(rank))
    if (call.name != "ncclAllReduce" && call.name.find("Window") == std::string::npos && call.name != "ncclMemAlloc")
      bytes += call.bytes;
  return bytes;
}

/// `assign` sends rank 0's value: once here.
std::size_t const assigned_bytes = sizes[4] * sizeof(float);

/// @param make   make(devices, communicator) -> a store. @param reached  Ranks that reach each other's memory.
/// @param sends  Whether there are messages beside those. @param hosts  Between which nothing is reached.
template <class Make, class Train>
void require_same_bits(int ranks, int reached, bool sends, float unit, Make const& make, Train const& run,
                       int hosts = 1) {
  CAPTURE(ranks, reached);
  if (ranks > stand_in::most_ranks()) return;
  auto const devices = pp::test::logical_devices(ranks);
  if (devices.empty()) return;
  lists expected;
  {
    auto alone = make(devices, any_ranks(comm::nccl(devices, comm::any_communicator())));  // one rank of all of them
    std::size_t const none = 0, all = devices.size();
    expected = run(alone, none, all, unit);
  }
  stand_in::reset();
  if (reached < ranks) stand_in::reach(reached, hosts == 1);
  std::vector<lists> found(devices.size());
  comm::run_ranks(ranks, [&](comm::threads const& host) {
    auto const rank = static_cast<std::size_t>(host.rank());
    windows const c(comm::nccl(devices[rank], host, {.deadline = std::chrono::minutes(1)}),
                    "host " + std::to_string(host.rank() * hosts / ranks));
    pp::test::expect(ranks == reached || (c.node_of(0) == c.node_of(1)) == (reached > 1));
    auto store = make(c.devices(), any_ranks(c));
    std::size_t const one = 1;
    found[rank] = run(store, rank, one, unit);
  });
  for (std::size_t rank = 0; rank < found.size(); ++rank) {
    REQUIRE(found[rank].size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i)
      if (found[rank][i] != expected[i]) FAIL_CHECK("rank " << rank << ", list " << i << " of " << expected.size());
    if (!stand_in::calls_of(0).empty())  // else over NCCL itself
      CHECK((bytes_sent(static_cast<int>(rank)) > assigned_bytes) == sends);
  }
  for (auto const& text : stand_in::refusals()) FAIL_CHECK(text);
  REQUIRE(stand_in::live_communicators() == 0);
  REQUIRE(stand_in::live_windows() == 0);
}

constexpr auto adam = [](auto const& devices, auto const& c) {
  return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
};

}  // namespace

TEST_CASE("nccl: ranks that reach each other's memory give the bits of one process and send nothing") {
  require_same_bits(2, 2, false, inexact, adam, dense);
  require_same_bits(4, 4, false, inexact, adam, dense);
  require_same_bits(2, 2, false, inexact, adam, of_rows);  // rows travel by way of the host
}

TEST_CASE("nccl: ranks of which some reach each other give the weights of one process", "[faults]") {
  require_same_bits(4, 2, true, exact, adam, dense);
  require_same_bits(4, 2, true, exact, adam, of_rows);
  require_same_bits(4, 2, true, exact, adam, dense, 2);
  require_same_bits(2, 1, true, inexact, adam, dense);
}

TEST_CASE("nccl: norms over ranks that reach each other's memory give the bits of one process") {
  auto const clipped = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::clip_global_norm(3) | update::momentum{.learning_rate = 0.1}, c);
  };
  require_same_bits(2, 2, false, inexact, clipped, dense);
}

TEST_CASE("nccl: windows are memory of all ranks, or of none", "[faults]") {
  auto const devices = pp::test::logical_devices(2);
  if (devices.empty()) return;
  stand_in::reset();
  comm::run_ranks(2, [&](comm::threads const& host) {
    auto const& device = devices[static_cast<std::size_t>(host.rank())];
    windows const c(comm::nccl(device, host, {.deadline = std::chrono::seconds(20)}));
    pp::test::expect(c.node_of(0) == c.node_of(1));
    auto const live = stand_in::live_windows();
    host.barrier();
    if (host.rank() == 1) stand_in::fail_call("ncclMemAlloc", 1, ncclUnhandledCudaError);
    pp::test::expect_throws<pp::out_of_memory>([&] { static_cast<void>(c.allocate_shared(100)); });
    host.barrier();
    pp::test::expect(stand_in::live_windows() == live);
    {
      auto const memory = c.allocate_shared(host.rank() == 0 ? 40 : 5000);
      for (int rank = 0; rank < 2; ++rank) {
        std::vector<char> bytes(5000, 'x');
        device.copy(bytes.data(), memory.at(rank), bytes.size());
        device.synchronize();
        pp::test::expect(bytes == std::vector<char>(5000, '\0'));
      }
      int const mine = 7 + host.rank();
      host.barrier();
      device.copy(static_cast<int*>(memory.at(1 - host.rank())) + host.rank(), &mine, sizeof(mine));
      auto group = c.group();
      auto arrival = c.arrive(group);
      group.end();
      arrival.wait();
      int theirs = 0;
      device.copy(&theirs, static_cast<int*>(memory.at(host.rank())) + (1 - host.rank()), sizeof(theirs));
      device.synchronize();
      pp::test::expect(theirs == 8 - host.rank());
    }
    auto const expect_windows = [&](std::size_t more) {
      host.barrier();
      pp::test::expect(stand_in::live_windows() == live + 2 * more);
      host.barrier();
    };
    expect_windows(1);
    {
      auto const next = c.allocate_shared(1);  // frees what all have dropped
      expect_windows(1);
      auto const beside = c.allocate_shared(100000), large = c.allocate_shared(5 << 20);
      expect_windows(2);
      pp::test::expect(next.at(1 - host.rank()) != beside.at(1 - host.rank()));
    }
    auto const last = c.allocate_shared(1);
    expect_windows(1);
  });
  CHECK(stand_in::refusals().empty());
  CHECK(stand_in::live_windows() == 0);
  CHECK(stand_in::live_communicators() == 0);
}
