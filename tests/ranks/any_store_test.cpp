/// @file
/// Stores by name over several ranks: the weights are those of one process, bit for bit, whatever is set at run time.
#include <pushpull/pushpull.hpp>
#include <string>
#include <vector>

#include "ranks/same_bits.hpp"
#include "support/catch.hpp"
#include "support/expect.hpp"
#include "support/message_of.hpp"

namespace {

namespace pp = pushpull;
using pushpull::test::expect;
using pushpull::test::message_of;
namespace comm = pushpull::comm;
namespace update = pushpull::update;
namespace test = pushpull::test;
using compressors = pp::compressors<pp::compress::two_bit>;

constexpr auto make = [](auto const& devices, auto const& c) {
  return pp::create("dist_device_sync", devices, compressors(), c);
};
constexpr auto make_with_momentum = [](auto const& devices, auto const& c) {
  auto store = make(devices, c);
  store.set_optimizer(update::momentum{.learning_rate = 0.1});
  return store;
};
constexpr auto push = [](auto& store, std::size_t, auto const& keys, auto const& gradients, auto&) {
  store.push(keys, gradients).wait();
};
constexpr auto push_and_pull = [](auto& store, std::size_t, auto const& keys, auto const& gradients, auto& outputs) {
  store.pushpull(keys, gradients, outputs).wait();
};

std::vector<float> pulled(auto& store, std::string const& key, std::size_t size) {
  std::vector<float> result(size);
  store.pull(key, result).wait();
  return result;
}

}  // namespace

TEST_CASE("a store by name gives the bits of one process over ranks", "[ranks][create]") {
  test::require_same_bits<float>(3, 1, 2, make, push);
  test::require_same_bits<float>(2, 2, 3, make_with_momentum, push_and_pull);
  test::require_same_bits<float>(1, 2, 2, make_with_momentum, push);
}

TEST_CASE("what is set between steps over ranks gives the bits of one process", "[ranks][create]") {
  auto const step = [](auto& store, std::size_t number, auto const& keys, auto const& gradients, auto& outputs) {
    if (number == 1) store.set_optimizer(update::momentum{.learning_rate = 0.2});
    if (number == 2) store.set_hyperparameters(update::momentum{.learning_rate = 0.1});
    if (number == 3) store.set_gradient_compression({{"type", "2bit"}, {"threshold", "0.25"}});
    push_and_pull(store, number, keys, gradients, outputs);
    if (number == 4) {  // values of the mirrors, states of the owners
      expect(store.steps(keys[1]) == 4);
      expect(store.state(keys[1], "momentum_buffer").size() == 1031 * sizeof(float));
    }
    if (number == 4)
      store.set_updater([](pp::any_key_view, auto const& received, auto const& stored) {
        for (std::size_t i = 0; i < received.size(); ++i) stored.data()[i] += 2 * received.data()[i];
      });
  };
  test::require_same_bits<float>(2, 2, 6, make, step);
  test::require_same_bits<float>(3, 1, 6, make, step);
  test::require_same_bits<float>(3, 1, 6, make, step, {.mirrored = false});
}

TEST_CASE("rows of a store by name over ranks give the weights of one process", "[ranks][create][rows]") {
  auto const train = [](auto& store, int first, int count, bool mirrored = true) {
    std::vector<float> table(20 * 300, 1);
    store.init("rows", pp::tensor_view(table.data(), pp::shape{20, 300}), {.mirrored = mirrored});
    std::vector<pp::row_sparse<float>> gradients;
    for (int k = first; k < first + count; ++k) {
      auto& rows = gradients.emplace_back(pp::cpu_device<>(), pp::shape{20, 300}, 2);
      rows.row_ids()[0] = 2 * k;
      rows.row_ids()[1] = 7;
      for (int i = 0; i < 600; ++i) rows.values()[i] = 0.1F * static_cast<float>(i + k);
    }
    store.push("rows", gradients);
    pp::row_sparse<float> needed(pp::cpu_device<>(), pp::shape{20, 300});
    store.row_sparse_pull("rows", needed, std::vector<std::int64_t>{7, 0}).wait();
    store.pull("rows", pp::tensor_view(table.data(), pp::shape{20, 300})).wait();
    table.insert(table.end(), needed.values(), needed.values() + 600);
    return table;
  };
  auto alone = make_with_momentum(pp::cpu_devices(3), comm::single{});
  auto const expected = train(alone, 0, 3);
  test::for_each_reach(3, [&](comm::threads_options const& options) {
    comm::run_ranks(3, options, [&](comm::threads const& c) {
      auto store = make_with_momentum(pp::cpu_devices(1), c);
      expect(test::bits_of(train(store, c.rank(), 1)) == test::bits_of(expected));
      auto without = make_with_momentum(pp::cpu_devices(1), c);
      expect(test::bits_of(train(without, c.rank(), 1, false)) == test::bits_of(expected));
      pp::row_sparse<float> const some(pp::cpu_device<>(), pp::shape{20, 300}, 0);
      without.init("more rows", some, {.mirrored = false});
      without.set_optimizer(update::sgd{});  // another store takes its place
      expect(store.is_mirrored("rows") && !without.is_mirrored("rows") && !without.is_mirrored("more rows"));
    });
  });
}

TEST_CASE("ranks that set different things all get an error, and the store works on", "[ranks][create][errors]") {
  test::for_each_reach(3, [](comm::threads_options const& options) {
    comm::run_ranks(3, options, [](comm::threads const& c) {
      bool const differs = c.rank() == 1;
      auto store = make(pp::cpu_devices(1), c);
      store.init("a", std::vector<float>(3000, 1));
      auto const set_rate = [&] { store.set_optimizer(update::momentum{.learning_rate = differs ? -1.0 : 1.0}); };
      expect(message_of(set_rate).starts_with(
          "set_optimizer: ranks disagree: rank 0 came with momentum, rank 1 with momentum, which fails with: "));
      expect(!store.has_updater());
      expect(message_of(
                 [&] { store.set_gradient_compression({{"type", "2bit"}, {"threshold", differs ? "0.5" : "1"}}); }) ==
             "set_gradient_compression: ranks disagree: rank 0 came with threshold 1, type 2bit, rank 1 with "
             "threshold 0.5, type 2bit");
      auto const set_one_bit = [&] { store.set_gradient_compression({{"type", "1bit"}}); };
      expect(message_of(set_one_bit).starts_with("set_gradient_compression: the store was not created with"));
      expect(
          message_of(
              [&] { store.set_optimizer(update::momentum{.learning_rate = 1, .dampening = differs ? 0.5 : 0.25}); }) ==
          "set_optimizer: ranks disagree: rank 0 came with momentum: dampening 0.25, rank 1 with momentum: dampening "
          "0.5");
      store.set_optimizer(update::momentum{.learning_rate = 1.0});
      expect(message_of([&] {
               if (differs) return store.set_hyperparameters(update::sgd{});
               store.set_hyperparameters(update::momentum{.learning_rate = 2.0});
             })
                 .starts_with(
                     "set_hyperparameters: ranks disagree: rank 0 came with momentum, rank 1 with sgd, which fails"));
      expect(store.updater<update::momentum>().learning_rate == 1.0);
      store.add_group([](pp::any_key_view) { return true; }, update::momentum{.learning_rate = 0.5});
      auto const compress = [&](char const* threshold) {
        store.set_gradient_compression({{"type", "2bit"}, {"threshold", threshold}});
      };
      expect(message_of([&] { compress(differs ? "-1" : "1"); })
                 .starts_with("set_gradient_compression: ranks disagree: rank 0 came with threshold 1, type 2bit, rank "
                              "1 with threshold -1, type 2bit, which fails with: "));
      compress("1");
      expect(store.group("a") == 1);
      store.set_optimizer(update::momentum{.learning_rate = 1.0});
      std::vector<float> const zeros(3000);
      store.push("a", zeros).wait();
      expect(pulled(store, "a", 3000) == std::vector<float>(3000, 1));
    });
  });
}

TEST_CASE("the name says whether ranks train together", "[ranks][create][errors]") {
  comm::run_ranks(2, {.deadline = std::chrono::seconds(5)}, [](comm::threads const& c) {
    auto const devices = pp::cpu_devices(1);
    for (std::string const name : {"local", "device", "a word"})
      expect(message_of([&] { pp::create(name, devices, c); }) ==
             "create: \"" + name +
                 "\" is a store of this process, and a communicator of several ranks came; \"dist_sync\" and "
                 "\"dist_device_sync\" name a store of all ranks");
    for (std::string const name : {"dist", "dist_sync", "dist_device_sync"}) {
      auto const store = pp::create(name, devices, c);
      expect(store.rank() == c.rank());
      expect(store.num_workers() == 2);
      expect(store.type() == name);
    }
    expect(message_of([&] { pp::create("dist_async", devices, c); }).find("servers") != std::string::npos);
  });
}
