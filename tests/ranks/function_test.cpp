/// @file
/// A function in the place of a rule, over several ranks: rank 0 calls it, and the weights are those of one process.
#include <algorithm>
#include <atomic>
#include <pushpull/comm/checked.hpp>
#include <pushpull/pushpull.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "ranks/same_bits.hpp"
#include "support/catch.hpp"
#include "support/expect.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace test = pushpull::test;

/// A step that no fused rule takes: it goes by the sum over the whole gradient, and by how often it was called.
constexpr auto normalised = [calls = 0](auto const&, auto const& received, auto const& stored) mutable {
  double sum = 1;
  for (std::size_t i = 0; i < received.size(); ++i) sum += std::abs(static_cast<double>(received.data()[i]));
  ++calls;
  for (std::size_t i = 0; i < received.size(); ++i)
    stored.data()[i] -= static_cast<float>(static_cast<double>(received.data()[i]) / sum / calls);
};

template <class Store>
Store with_function(Store store) {
  store.set_updater(normalised);
  return store;
}

constexpr auto push = [](auto& store, std::size_t, auto const& keys, auto const& gradients, auto&) {
  store.push(keys, gradients).wait();
};
constexpr auto push_and_pull = [](auto& store, std::size_t, auto const& keys, auto const& gradients, auto& outputs) {
  store.pushpull(keys, gradients, outputs).wait();
  auto stored = outputs;
  store.pull(keys, stored).wait();
  for (std::size_t i = 0; i < stored.size(); ++i) test::expect(test::bits_of(stored[i]) == test::bits_of(outputs[i]));
};

}  // namespace

TEST_CASE("a function over ranks gives the bits of one process", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return with_function(pp::make_kv_store<float>(devices, c));
  };
  test::require_same_bits<float>(2, 2, 4, make, push);
  test::require_same_bits<float>(3, 1, 4, make, push_and_pull);
  test::require_same_bits<float>(4, 1, 4, make, push);
}

TEST_CASE("a function over ranks gives the bits of one process: masters, means, keys that are not cut", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return with_function(pp::make_kv_store<pp::bfloat16>(devices, pp::element::master<float>{}, pp::reduce::mean{},
                                                         pp::placement::owners{}, c));
  };
  test::require_same_bits<pp::bfloat16>(3, 2, 4, make, push_and_pull);
  test::require_same_bits<pp::bfloat16>(3, 2, 4, make, push_and_pull, {.mirrored = false});
}

TEST_CASE("a function over ranks gives the bits of one process: codes, and calls that are compared", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    pp::compress::two_bit const codes{0.5F};
    return with_function(pp::make_kv_store<float>(devices, codes, comm::checked<comm::threads>(c)));
  };
  test::require_same_bits<float>(3, 2, 4, make, push);
}

TEST_CASE("only rank 0 calls the function, with the gradients of all ranks", "[ranks]") {
  std::vector<int> calls(3);
  std::vector<std::vector<float>> stored(3);
  auto const run = [&](comm::threads const& c) {
    auto const rank = static_cast<std::size_t>(c.rank());
    pp::kv_store store{pp::cpu_devices(1), c};
    store.set_updater([&](auto const&, auto const& received, auto const& weights) {
      ++calls[rank];
      for (std::size_t i = 0; i < weights.size(); ++i) weights.data()[i] += 10 * received.data()[i];
    });
    pp::parameter_store parameters{store};
    parameters.add("w", std::vector<float>(3000, 1.0F));
    for (int step = 0; step < 2; ++step) {
      std::fill_n(parameters.grad("w", 0).data(), 3000, static_cast<float>(c.rank() + 1));
      parameters.update_all();
    }
    stored[rank] = pp::to_vector(parameters.value("w", 0));
  };
  test::for_each_reach(3, [&](comm::threads_options const& options) {
    calls = {0, 0, 0};
    comm::run_ranks(3, options, run);
    REQUIRE(calls == std::vector<int>{2, 0, 0});
    for (auto const& one : stored) REQUIRE(one == std::vector<float>(3000, 121.0F));
  });
}

TEST_CASE("what the function throws on rank 0 is an error on all ranks, and changes nothing", "[ranks]") {
  auto const run = [](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(1), pp::compress::two_bit{0.5F}, c};
    std::atomic<bool> fails{true};
    store.set_updater([&](auto const&, auto const& received, auto const& weights) {
      if (fails) throw std::runtime_error("no step today");
      for (std::size_t i = 0; i < weights.size(); ++i) weights.data()[i] += received.data()[i];
    });
    store.init("a", std::vector<float>(3000, 1.0F));
    std::vector<float> const gradient(3000, 0.25F);
    std::string message;
    try {
      store.push("a", gradient).wait();
    } catch (std::runtime_error const& error) {
      message = error.what();
      test::expect((dynamic_cast<pp::error const*>(&error) == nullptr) == (c.rank() == 0));
    }
    test::expect(message ==
                 (c.rank() == 0 ? "" : std::string("set_updater: the function failed on rank 0: ")) + "no step today");
    std::vector<float> out(3000);
    store.pull("a", out).wait();
    test::expect(out == std::vector<float>(3000, 1.0F));
    fails = false;
    for (float const expected : {1.0F, 2.5F}) {  // a residual of 0.25, which then makes codes of 0.5 on each rank
      store.push("a", gradient).wait();
      store.pull("a", out).wait();
      test::expect(out == std::vector<float>(3000, expected));
    }
  };
  test::for_each_reach(3, [&](comm::threads_options const& options) { comm::run_ranks(3, options, run); });
}
