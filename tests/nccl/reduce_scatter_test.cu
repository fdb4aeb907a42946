/// @file
/// Models of float and of 16 bits, whose gradients NCCL adds up or moves.
#include <pushpull/comm/nccl.hpp>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/pushpull.cuh>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "nccl/alone.cuh"
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
using communicator = comm::nccl<pp::cuda_device>;

/// As many elements as make parts of ranks alike, and others.
std::vector<std::vector<std::size_t>> const models{{5, 4099, 1, 0, 1031}, {8192}, {3}};

/// The weights of a model after some steps with the gradients of sources `first` and those after it.
template <class Store>
std::vector<std::vector<float>> trained(Store& store, std::vector<std::size_t> const& sizes, std::size_t first) {
  using T = typename Store::value_type;
  pp::parameter_store parameters{store};
  for (std::size_t i = 0; i < sizes.size(); ++i)
    parameters.add(std::to_string(i), pp::test::numbers<T>(sizes[i], i, 99, 0));
  std::size_t const devices = store.devices().size();
  for (std::size_t step = 0; step < 3; ++step) {
    for (std::size_t i = 0; i < sizes.size(); ++i)
      for (std::size_t n = 0; n < devices; ++n)
        pp::copy(pp::test::numbers<T>(sizes[i], i, step, first + n), parameters.grad(std::to_string(i), n));
    parameters.update_all();
  }
  store.wait();
  std::vector<std::vector<float>> result;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    auto& values = result.emplace_back();
    for (T const x : pp::to_vector(parameters.value(std::to_string(i), 0))) values.push_back(static_cast<float>(x));
  }
  return result;
}

/// @tparam Alone  The communicator of the store of one process.
/// @param tolerance  Of weights; 0 for those whose gradients are only moved.
/// @param cuts       Whether the store cuts keys.
template <class Alone = communicator, class Make>
void require_close(float tolerance, Make const& make, bool cuts = true) {
  for (auto const& [ranks, each] : {std::pair{1, 1}, std::pair{2, 1}, std::pair{3, 1}, std::pair{2, 2}})
    for (auto const& sizes : models) {
      if (ranks * each > stand_in::most_ranks()) continue;
      auto const devices = pp::test::logical_devices(ranks * each);
      if (devices.empty()) return;
      std::vector<std::vector<float>> expected;
      {
        auto of_one = make(devices, pp::test::alone<Alone>(devices));
        expected = trained(of_one, sizes, 0);
      }
      stand_in::reset();
      std::vector<std::vector<std::vector<float>>> found(static_cast<std::size_t>(ranks));
      comm::run_ranks(ranks, [&, count = each](comm::threads const& host) {
        std::vector const own(devices.begin() + host.rank() * count, devices.begin() + (host.rank() + 1) * count);
        auto store = make(own, communicator(own, host, {.deadline = std::chrono::minutes(1)}));
        auto const rank = static_cast<std::size_t>(host.rank());
        found[rank] = trained(store, sizes, rank * own.size());
      });
      CAPTURE(ranks, each, sizes);
      for (auto const& of_rank : found) {
        REQUIRE(of_rank == found.front());  // the owners' bits
        for (std::size_t i = 0; i < sizes.size(); ++i)
          REQUIRE(std::equal(of_rank[i].begin(), of_rank[i].end(), expected[i].begin(), expected[i].end(),
                             [&](float a, float b) { return std::abs(a - b) <= tolerance * (1 + std::abs(b)); }));
      }
      auto const calls = stand_in::calls_of(0);
      auto const is_made = [&](char const* name) {
        return std::any_of(calls.begin(), calls.end(), [&](auto const& c) { return c.name == name; });
      };
      bool const adds = tolerance > 0;
      if (ranks > 1 && !calls.empty()) {
        CHECK((is_made("ncclSend") || is_made("ncclRecv")) == !adds);
        CHECK(is_made(cuts && sizes == models[1] && ranks == 2 ? "ncclReduceScatter" : "ncclReduce") == adds);
      }
      REQUIRE(stand_in::refusals().empty());
      REQUIRE(stand_in::live_communicators() == 0);
    }
}

}  // namespace

TEST_CASE("nccl: gradients that NCCL adds up give the weights of one process, but for the last bits") {
  require_close<comm::single>(1e-5F, [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::momentum{.learning_rate = 0.1}, pp::reduce::mean{}, c,
                                    pp::hierarchy::reduce_scatter{});
  });
  require_close(2e-2F, [](auto const& devices, auto const& c) {
    return pp::make_kv_store<pp::bfloat16>(devices, update::sgd{.learning_rate = 0.1}, pp::element::master<float>{}, c,
                                           pp::hierarchy::reduce_scatter{});
  });
}

TEST_CASE("nccl: statistics of rows are those of the mean, where NCCL has added gradients up") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::group_adagrad{0.1, 1e-3}, pp::reduce::mean{}, c,
                                    pp::hierarchy::reduce_scatter{});
  };
  require_close(1e-5F, make, false);
}

TEST_CASE("nccl: half weights with masters of float have the bits of one process") {
  require_close(0, [](auto const& devices, auto const& c) {
    return pp::make_kv_store<pp::half>(devices, update::adam{.learning_rate = 0.1}, pp::element::master<float>{}, c,
                                       pp::hierarchy::flat{});
  });
}
