/// @file
/// Stores by name over ranks of one or two GPUs each.
#include <pushpull/checkpoint/sharded.hpp>
#include <pushpull/comm/nccl.hpp>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/pushpull.cuh>

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "nccl/stand_in.hpp"
#include "support/catch.hpp"
#include "support/cuda_devices.cuh"
#include "support/expect.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace update = pushpull::update;
namespace stand_in = pushpull::test::stand_in;
using communicator = comm::nccl<pp::cuda_device>;

std::vector<float> numbers(std::size_t size, int seed) {
  std::vector<float> result(size);
  for (std::size_t i = 0; i < size; ++i)
    result[i] = static_cast<float>((static_cast<std::size_t>(seed) * 7919 + i * 31) % 199) / 128.0F - 0.75F;
  return result;
}

/// The weights after some pushes of the gradients of sources `first` and those after it. All sums are exact.
/// @param micro_batches  Of a step. @param folder  Where not empty, a checkpoint of the first three pushes is loaded there at
/// the end.
template <class Store>
std::vector<float> trained(Store& store, int first, int sources, std::size_t size, int micro_batches,
                           std::string const& folder = {}) {
  std::vector<float> weights = numbers(size, first == 0 ? 99 : 98), after_three;  // those of rank 0 count
  store.init("w", weights);
  store.set_optimizer(update::momentum{.learning_rate = 0.25}, pp::accumulate{micro_batches});
  for (int push = 0; push < 4; ++push) {
    std::vector<std::vector<float>> gradients;
    for (int k = first; k < first + sources; ++k) gradients.push_back(numbers(size, 10 * push + k));
    store.pushpull("w", gradients, weights);
    store.wait();
    if (push != 2 || folder.empty()) continue;
    after_three = weights;
    pp::checkpoint::save(store, folder);
  }
  if (folder.empty()) return weights;
  std::vector<float> loaded(size);
  pp::checkpoint::load(store, folder);
  store.pull("w", loaded);
  store.wait();
  pp::test::expect(loaded == after_three);
  return weights;
}

}  // namespace

TEST_CASE("nccl: a store by name gives the bits of one process") {
  for (auto const& [ranks, each] : {std::pair{1, 1}, std::pair{3, 1}, std::pair{2, 2}}) {
    if (ranks * each > stand_in::most_ranks()) continue;
    auto const devices = pp::test::logical_devices(ranks * each);
    if (devices.empty()) return;
    for (std::string const name : {"nccl", "dist_device_sync"}) {
      for (std::size_t const size : {std::size_t{1}, std::size_t{4099}}) {
        auto alone = pp::create("device", devices);
        int const micro_batches = name == "nccl" ? 1 : 2;
        auto const expected = trained(alone, 0, ranks * each, size, micro_batches);
        pp::test::temporary_folder const folder;
        stand_in::reset();
        comm::run_ranks(ranks, [&, all = ranks, count = each](comm::threads const& host) {
          std::vector const own(devices.begin() + host.rank() * count, devices.begin() + (host.rank() + 1) * count);
          communicator const c(own, host, {.deadline = std::chrono::minutes(1)});
          auto store = pp::create(name, own, c);
          pp::test::expect(store.type() == name);
          pp::test::expect(store.num_workers() == all && store.rank() == host.rank());
          pp::test::expect(trained(store, host.rank() * count, count, size, micro_batches,
                                   folder.file("checkpoints").string()) == expected);
        });
        CHECK(stand_in::refusals().empty());
        CHECK(stand_in::live_communicators() == 0);
      }
    }
  }
}

TEST_CASE("nccl: names and devices that do not fit the communicator are refused on every rank") {
  if (stand_in::most_ranks() < 2) return;
  auto const devices = pp::test::logical_devices(2);
  if (devices.empty()) return;
  CHECK_THROWS_AS(pp::create("nccl", devices), pp::invalid_argument);
  CHECK_THROWS_AS(pp::create("nccl", devices, comm::single{}), pp::invalid_argument);
  comm::run_ranks(2, [&](comm::threads const& host) {
    auto const& device = devices[static_cast<std::size_t>(host.rank())];
    communicator const c(device, host, {.deadline = std::chrono::minutes(1)});
    pp::test::expect_throws<pp::invalid_argument>([&] { pp::create("local", std::vector{device}, c); });
    pp::test::expect_throws<pp::invalid_argument>([&] { pp::create("nccl", devices, c); });  // two, not the one
    pp::test::expect_throws<pp::invalid_argument>([&] { pp::create("nccl", std::vector{device}, host); });
    host.barrier();
  });
}
