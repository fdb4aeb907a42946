/// @file
/// Resident parameters of several ranks: the weights are those of one process, bit for bit.
#include <algorithm>
#include <pushpull/pushpull.hpp>
#include <string>
#include <vector>

#include "ranks/same_bits.hpp"
#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace update = pushpull::update;
namespace test = pushpull::test;

/// The weights of each rank's first and last device after `steps` steps.
template <class Store>
std::vector<std::vector<std::uint64_t>> train(Store& store, test::share const& own, std::size_t steps,
                                              std::size_t micro_batches) {
  pp::parameter_store parameters{store};
  auto const sizes = test::sizes_of_keys();
  auto const name = [](std::size_t i) { return "parameter " + std::to_string(i); };
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    auto value = test::initial_value<float>(i, sizes[i]);
    if (own.first != 0) std::fill(value.begin(), value.end(), 7.0F);
    parameters.add(name(i), value, {.requires_grad = i != 3});
  }
  for (std::size_t step = 0; step < steps; ++step) {
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (i == 3) continue;
      for (std::size_t n = 0; n < own.count; ++n) {
        auto const gradient = test::gradient_of<float>(i, step, own.first + n, sizes[i]);
        std::copy(gradient.begin(), gradient.end(), parameters.grad(name(i), n).data());
      }
    }
    if constexpr (requires { parameters.accumulate_all(); }) {
      if (step % micro_batches != 0) {
        parameters.accumulate_all();
        continue;
      }
    }
    parameters.update_all();
  }
  std::vector<std::vector<std::uint64_t>> result;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    for (std::size_t n : {std::size_t{0}, own.count - 1})
      result.push_back(test::bits_of(pp::to_vector(parameters.value(name(i), n))));
  return result;
}

template <class Make>
void require_same_bits(int ranks, std::size_t devices, Make const& make, std::size_t micro_batches = 1) {
  std::size_t const all = static_cast<std::size_t>(ranks) * devices;
  auto alone = make(pp::cpu_devices(static_cast<int>(all)), comm::single{});
  auto const expected = train(alone, {0, all}, 6, micro_batches);
  test::for_each_reach(ranks, [&](comm::threads_options const& options) {
    std::vector<std::vector<std::vector<std::uint64_t>>> found(static_cast<std::size_t>(ranks));
    comm::run_ranks(ranks, options, [&](comm::threads const& c) {
      auto store = make(pp::cpu_devices(static_cast<int>(devices)), c);
      auto const rank = static_cast<std::size_t>(c.rank());
      found[rank] = train(store, {rank * devices, devices}, 6, micro_batches);
    });
    for (auto const& weights : found) REQUIRE(weights == expected);
  });
}

}  // namespace

TEST_CASE("update_all over ranks gives the bits of one process", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
  };
  for (int const ranks : {2, 3, 7}) require_same_bits(ranks, 1, make);
  require_same_bits(2, 2, make);
}

TEST_CASE("update_all over ranks gives the bits of one process: a norm over all parameters, and of each", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::clip_global_norm(10.0) | update::lamb{.learning_rate = 0.1}, c);
  };
  require_same_bits(2, 2, make);
  require_same_bits(3, 1, make);
}

TEST_CASE("accumulate_all over ranks gives the bits of one process", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, pp::accumulate{}, c);
  };
  require_same_bits(2, 2, make, 3);
}
