/// @file
/// Gradients of several ranks that are accumulated or compressed: the weights are those of one process, bit for bit.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "ranks/rank_sums.hpp"
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

/// Lists, and keys that are ahead of the others.
constexpr auto with_keys_ahead = [](auto& store, std::size_t step, auto const& keys, auto const& gradients, auto& out) {
  if (step == 1) store.push(keys[1], gradients[1]);
  if (step == 3) store.accumulate(keys[4], gradients[4]);
  store.pushpull(keys, gradients, out).wait();
};

/// @param plain  make of one process, without accumulation. @param policies  Of the store that accumulates.
template <class T, class Plain, class Make>
void require_bits_of_rank_sums(int ranks, std::size_t devices, Plain const& plain, Make const& make,
                               float divisor = 1) {
  CAPTURE(ranks, devices);
  auto const all = static_cast<std::size_t>(ranks);
  auto store = plain(pp::cpu_devices(ranks), test::alone<comm::threads>());
  test::store_of_rank_sums<T, decltype(store)> alone(store, all, 3, divisor);
  auto const expected = test::train<T>(alone, {0, all * devices}, 8, with_keys_ahead);
  test::for_each_reach(ranks, [&](comm::threads_options const& options) {
    std::vector<std::vector<std::vector<std::uint64_t>>> found(all);
    comm::run_ranks(ranks, options, [&](comm::threads const& c) {
      auto of_rank = make(pp::cpu_devices(static_cast<int>(devices)), c);
      auto const rank = static_cast<std::size_t>(c.rank());
      found[rank] = test::train<T>(of_rank, {rank * devices, devices}, 8, with_keys_ahead);
    });
    for (auto const& weights : found)
      for (std::size_t i = 0; i < weights.size(); ++i) {
        CAPTURE(i);
        REQUIRE(weights[i] == expected[i]);
      }
  });
}

template <class T, class... Policies>
auto maker(Policies const&... policies) {
  return [=](auto const& devices, auto const& c) { return pp::make_kv_store<T>(devices, policies..., c); };
}

}  // namespace

TEST_CASE("micro-batches over ranks make the steps of one process that takes the sum of each rank", "[ranks]") {
  pp::accumulate const three{3};
  update::adam const adam{.learning_rate = 0.1};
  for (int const ranks : {2, 3})
    require_bits_of_rank_sums<float>(ranks, 2, maker<float>(adam), maker<float>(adam, three));
  auto const lamb = update::clip_global_norm(10.0) | update::lamb{.learning_rate = 0.1};
  require_bits_of_rank_sums<float>(4, 1, maker<float>(lamb), maker<float>(lamb, three));
  require_bits_of_rank_sums<float>(2, 2, maker<float>(adam), maker<float>(adam, three, pp::reduce::mean{}), 4);
}

TEST_CASE("micro-batches over ranks make the steps of one process: bfloat16, and codes of the sums", "[ranks]") {
  pp::accumulate const three{3};
  update::momentum const rule{.learning_rate = 0.1};
  pp::element::master<float> const masters;
  require_bits_of_rank_sums<pp::bfloat16>(2, 2, maker<pp::bfloat16>(rule, masters),
                                          maker<pp::bfloat16>(rule, masters, three));
  pp::compress::two_bit const codes{0.5F};
  auto const scaled = update::dynamic_loss_scale{.initial = 8, .interval = 3} | rule;
  require_bits_of_rank_sums<float>(4, 2, maker<float>(scaled, codes), maker<float>(scaled, codes, three));
}

TEST_CASE("micro-batches over ranks are within 1e-5 of those of one process", "[ranks]") {
  auto const train = [](auto& store, std::size_t first, std::size_t count) {
    std::vector<float> weights = test::initial_value<float>(0, 5000);
    store.init("a", weights);
    for (std::size_t step = 0; step < 80; ++step) {
      std::vector<std::vector<float>> gradients;
      for (std::size_t k = first; k < first + count; ++k)
        gradients.push_back(test::gradient_of<float>(0, step, k, weights.size()));
      store.pushpull("a", gradients, weights).wait();
    }
    return weights;
  };
  auto const make = maker<float>(update::momentum{.learning_rate = 0.01}, pp::accumulate{4});
  auto of_one = make(pp::cpu_devices(1), test::alone<comm::threads>());
  auto const expected = train(of_one, 0, 4);
  comm::run_ranks(4, [&](comm::threads const& c) {
    auto store = make(pp::cpu_devices(1), c);
    auto const found = train(store, static_cast<std::size_t>(c.rank()), 1);
    for (std::size_t i = 0; i < found.size(); ++i)
      test::expect(std::abs(found[i] - expected[i]) <= 1e-5F * std::max(1.0F, std::abs(expected[i])));
  });
}

TEST_CASE("micro-batches call no other rank, and a step calls as often as one without them", "[ranks]") {
  test::for_each_reach(4, [](comm::threads_options const& options) {
    comm::run_ranks(4, options, [](comm::threads const& of_rank) {
      test::counting_communicator const c(of_rank), plain_c(of_rank);
      pp::kv_store store{pp::cpu_devices(1), update::adam{}, pp::accumulate{4}, c};
      pp::kv_store plain{pp::cpu_devices(1), update::adam{}, plain_c};
      std::vector<std::string> const keys{"a", "b"};
      std::vector<std::vector<float>> const gradients{std::vector<float>(5000, 1), std::vector<float>(7, 1)};
      auto weights = gradients;
      store.init(keys, gradients);
      plain.init(keys, gradients);
      plain.push(keys, gradients).wait();
      long const of_step = plain_c.calls();
      test::expect(of_step > 0);
      for (int step = 0; step < 3; ++step) {
        long const before = c.calls();
        for (int micro_batch = 0; micro_batch < 3; ++micro_batch) store.pushpull(keys, gradients, weights).wait();
        store.accumulate(keys, gradients).wait();
        test::expect(c.calls() == before);
        store.push(keys, gradients).wait();
        test::expect(c.calls() == before + of_step);
      }
    });
  });
}

TEST_CASE("a step that fails on one rank ends the steps of all ranks, with its text", "[ranks][errors]") {
  static std::atomic<bool> broken = false;
  auto const run = [](auto const& make, comm::threads const& c) {
    auto const rate = [rank = c.rank()](std::int64_t) {
      if (broken && rank == 1) throw std::runtime_error("no rate today");
      return 1.0;
    };
    auto store = make(rate, c);
    std::vector<std::string> const keys{"a", "b"};
    std::vector<std::vector<float>> const zeros{std::vector<float>(5000), std::vector<float>(9)};
    auto weights = zeros;
    store.init(keys, zeros);
    store.pushpull(keys, zeros, weights).wait();
    c.barrier();
    broken = true;
    c.barrier();
    auto const before = store.steps("a");
    auto const push = [&] { store.pushpull(keys, zeros, weights).wait(); };
    auto const began = std::chrono::steady_clock::now();
    std::string text;
    try {
      push();
    } catch (pp::comm_error const& error) {
      test::expect(c.rank() != 1);
      text = error.what();
    } catch (std::runtime_error const& error) {
      test::expect(c.rank() == 1 && store.steps("a") == before);
      text = error.what();
    }
    test::expect(text.find("no rate today") != std::string::npos);
    test::expect(std::chrono::steady_clock::now() - began < std::chrono::seconds(5));
    test::expect_throws<pp::comm_error>(push);
  };
  auto const run_all = [&](auto const& make) {
    test::for_each_reach(3, [&](comm::threads_options options) {
      options.deadline = std::chrono::seconds(20);
      broken = false;
      comm::run_ranks(3, options, [&](comm::threads const& c) { run(make, c); });
    });
  };
  run_all([](auto const& rate, auto const& c) {
    return pp::kv_store{pp::cpu_devices(2), update::sgd{} | update::learning_rate(rate), c};
  });
  run_all([](auto const& rate, auto const& c) {
    return pp::kv_store{pp::cpu_devices(2),
                        update::clip_global_norm(1e9) | (update::sgd{} | update::learning_rate(rate)),
                        pp::accumulate{1}, c};
  });
}

TEST_CASE("a predicate that throws on one rank is an error on all ranks, and adds no key", "[ranks][errors]") {
  comm::run_ranks(3, [](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(1), update::adam{}, c};
    bool fails = c.rank() == 1;
    store.add_group(
        [&](std::string_view) {
          if (fails) throw std::runtime_error("no name today");
          return true;
        },
        update::adam{});
    std::vector<float> const zeros(9);
    auto const text = test::message_of([&] { store.init("a", zeros); });
    test::expect(text.starts_with("init: ranks disagree: rank 0 came with 1 key of a store of ") &&
                 text.ends_with("which fails with: no name today"));
    test::expect(!store.contains("a"));
    fails = true;
    test::expect(test::message_of<std::runtime_error>([&] { store.init("a", zeros); }) == "no name today");
    fails = false;
    store.init("a", zeros);
    test::expect(store.group("a") == 1);
  });
}

TEST_CASE("codes over ranks are those of one process: two bits", "[ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::compress::two_bit{0.5F}, c);
  };
  for (int const ranks : {2, 4}) test::require_same_bits<float>(ranks, 2, 6, make, test::push_and_pull);
}

TEST_CASE("codes over ranks are those of one process: one bit, cast, the largest magnitudes", "[ranks]") {
  test::require_same_bits<float>(
      3, 1, 6,
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::compress::one_bit{}, c);
      },
      test::push_and_pull);
  test::require_same_bits<float>(
      3, 1, 6,
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::compress::cast<pp::bfloat16>{},
                                        c);
      },
      test::push_and_pull);
  test::require_same_bits<float>(
      3, 1, 6,
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::compress::top_k{.ratio = 0.1},
                                        c);
      },
      test::push_and_pull);
}
