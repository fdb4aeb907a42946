/// @file
/// Stores by name over ranks with a GPU each.
#include <pushpull/comm/nccl.hpp>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/pushpull.cuh>

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "nccl/stand_in.hpp"
#include "support/catch.hpp"
#include "support/cuda_devices.cuh"
#include "support/expect.hpp"

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

/// The weights after some steps with the gradients of sources `first` and those after it.
template <class Store>
std::vector<float> trained(Store& store, int first, int sources, std::size_t size) {
  std::vector<float> weights = numbers(size, first == 0 ? 99 : 98);  // those of rank 0 count
  store.init("w", weights);
  store.set_optimizer(update::momentum{.learning_rate = 0.25});
  for (int step = 0; step < 3; ++step) {
    std::vector<std::vector<float>> gradients;
    for (int k = first; k < first + sources; ++k) gradients.push_back(numbers(size, 10 * step + k));
    store.pushpull("w", gradients, weights);
    store.wait();
  }
  return weights;
}

}  // namespace

TEST_CASE("nccl: a store by name gives the bits of one process") {
  for (int const ranks : {1, 3}) {
    if (ranks > stand_in::most_ranks()) continue;
    auto const devices = pp::test::logical_devices(ranks);
    if (devices.empty()) return;
    for (std::string const name : {"nccl", "dist_device_sync"}) {
      for (std::size_t const size : {std::size_t{1}, std::size_t{4099}}) {
        auto alone = pp::create("device", devices);
        auto const expected = trained(alone, 0, ranks, size);
        stand_in::reset();
        comm::run_ranks(ranks, [&](comm::threads const& host) {
          auto const& device = devices[static_cast<std::size_t>(host.rank())];
          communicator const c(device, host, {.deadline = std::chrono::minutes(1)});
          auto store = pp::create(name, std::vector{device}, c);
          pp::test::expect(store.type() == name);
          pp::test::expect(store.num_workers() == ranks && store.rank() == host.rank());
          pp::test::expect(trained(store, host.rank(), 1, size) == expected);
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
