/// @file
/// Gradients of several ranks that are accumulated or compressed: the weights are those of one process, bit for bit.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "ranks/rank_sums.hpp"
#include "ranks/same_bits.hpp"
#include "support/catch.hpp"
#include "support/counting_communicator.hpp"
#include "support/expect.hpp"

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
  auto store = plain(pp::cpu_devices(ranks), comm::single{});
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
  auto alone = make(pp::cpu_devices(1), comm::single{});
  auto const expected = train(alone, 0, 4);
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

TEST_CASE("a step over ranks that fails leaves weights, sums and counts, and is made again", "[ranks][errors]") {
  static std::atomic<bool> broken = false;
  static constexpr auto rate = [](std::int64_t) {
    if (broken) throw std::runtime_error("no rate today");
    return 1.0;
  };
  auto const run = [](auto const& rule, comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(2), rule, pp::accumulate{3}, c};
    std::vector<std::string> const keys{"a", "b"};
    auto const filled = [](float x) { return std::vector{std::vector<float>(5000, x), std::vector<float>(9, x)}; };
    auto const ones = filled(1), zeros = filled(0);
    auto weights = zeros;
    store.init(keys, zeros);
    store.push("a", ones[0]);  // one ahead: "a" is due where "b" waits
    store.push(keys, ones).wait();
    auto const all = static_cast<float>(c.size());
    auto const expect_two_and_one = [&] {
      store.pull(keys, weights).wait();
      test::expect(weights == zeros);
      test::expect(store.steps("a") == 0);
      test::expect(store.micro_batches("a") == 2);
      test::expect(store.micro_batches("b") == 1);
      test::expect(store.gradient_sum("a") == std::vector<float>(5000, 2 * all));
      test::expect(store.gradient_sum("b") == std::vector<float>(9, all));
    };
    expect_two_and_one();
    c.barrier();
    broken = true;
    c.barrier();
    for (int i = 0; i < 2; ++i)
      test::expect_throws<std::runtime_error>([&] { store.pushpull(keys, ones, weights).wait(); });
    c.barrier();
    broken = false;
    c.barrier();
    expect_two_and_one();
    store.pushpull(keys, ones, weights).wait();
    test::expect(weights[0] == std::vector<float>(5000, -3 * all));
    test::expect(weights[1] == zeros[1]);
    test::expect(store.micro_batches("a") == 0);
    test::expect(store.micro_batches("b") == 2);
  };
  test::for_each_reach(3, [&](comm::threads_options const& options) {
    comm::run_ranks(3, options, [&](comm::threads const& c) {
      run(update::sgd{} | update::learning_rate(rate), c);
      run(update::clip_global_norm(1e9) | (update::sgd{} | update::learning_rate(rate)), c);
    });
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
