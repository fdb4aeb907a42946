/// @file
/// The calls of a store of several ranks: which of them all ranks make, whose value counts, and what is refused.
#include <numeric>
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
using pushpull::test::expect_text;
using pushpull::test::expect_throws;
using pushpull::test::message_of;
namespace comm = pushpull::comm;
namespace update = pushpull::update;

std::vector<float> filled(std::size_t size, float x) { return std::vector<float>(size, x); }

template <class Store>
std::vector<float> pulled(Store& store, std::string const& key, std::size_t size) {
  std::vector<float> result(size);
  store.pull(key, result).wait();
  return result;
}

/// f(communicator) on each rank, for ranks that exchange all by messages, and for ranks that share memory.
template <class F>
void on_ranks(int ranks, F const& f) {
  pp::test::for_each_reach(ranks, [&](comm::threads_options const& options) { comm::run_ranks(ranks, options, f); });
}

}  // namespace

TEST_CASE("initial and assigned values are those of rank 0", "[ranks]") {
  on_ranks(3, [](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(2), update::adam{}, c};
    float const mine = 1 + static_cast<float>(c.rank());
    store.init("a", filled(5000, mine));
    expect(pulled(store, "a", 5000) == filled(5000, 1));
    std::vector<double> const wide(5000, 10.0 * mine);
    store.assign("a", wide);
    expect(pulled(store, "a", 5000) == filled(5000, 10));
    std::vector<float> output(3000);
    store.broadcast("b", filled(3000, 20 * mine), output);
    store.wait();
    expect(output == filled(3000, 20));
  });
}

TEST_CASE("a rank pulls alone", "[ranks]") {
  on_ranks(2, [](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(1), update::sgd{}, c};
    store.init("a", filled(5000, 1));
    if (c.rank() == 1) expect(pulled(store, "a", 5000) == filled(5000, 1));
    store.barrier();
  });
}

TEST_CASE("each state exists once over the ranks, and every rank reads all of it", "[ranks]") {
  std::size_t const size = 1 << 16;
  on_ranks(4, [&](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(1), update::momentum{.learning_rate = 1, .momentum = 0.5}, c, pp::synchronous{}};
    store.init("a", filled(size, 0));
    store.push("a", filled(size, 1 + static_cast<float>(c.rank()))).wait();
    auto const momentum = store.template state<float>("a", "momentum_buffer");
    expect(momentum == filled(size, 10));
    expect(store.steps("a") == 1);
    auto const found = store.memory_report();
    expect(found.rank == c.rank());
    pp::memory_use each = found.total();
    expect(each.padding < 25000);
    each.padding = 0;
    std::size_t elsewhere = 0;
    for (int rank = 0; rank < c.size(); ++rank) elsewhere += c.node_of(rank) == c.node_of(c.rank()) ? 0 : 1;
    // A quarter of masters and states, the rest of a mirror; gradients of that quarter from the ranks of other nodes, and a
    // copy of its own gradient for those of this node.
    std::size_t const exchange = elsewhere * size + (elsewhere < 3 ? 4 * size : 0);
    expect(each == pp::memory_use{.masters = size, .states = size, .mirrors = 3 * size, .exchange = exchange});
  });
}

namespace {

/// What each rank holds of one list of parameters.
template <class Make>
std::vector<pp::memory_use> held_by_ranks(int ranks, std::vector<std::size_t> const& sizes, Make const& make) {
  std::vector<pp::memory_use> result(static_cast<std::size_t>(ranks));
  comm::run_ranks(ranks, [&](comm::threads const& c) {
    auto store = make(c);
    using tensor = pp::tensor<typename decltype(store)::value_type>;
    std::vector<tensor> values;
    std::vector<std::string> names;
    for (std::size_t const size : sizes) {
      values.emplace_back(pp::cpu_device<>(), pp::shape{static_cast<std::int64_t>(size)});
      names.push_back(std::to_string(names.size()));
    }
    store.init_resident(std::span<std::string const>(names), std::span<tensor const>(values),
                        std::vector<bool>(sizes.size(), true));
    result[static_cast<std::size_t>(c.rank())] = store.memory_report().total();
  });
  return result;
}

/// @param arrays  Of states.
template <class Make>
void require_shares(std::size_t arrays, Make const& make) {
  std::vector<std::size_t> const sizes{70'001, 5, 0, 3'000, 64, 20'000};
  std::size_t const leaf = 1024 * sizeof(float);
  auto const alone = held_by_ranks(1, sizes, make).front();
  REQUIRE((alone.states > 0) == (arrays > 0));
  for (int const ranks : {2, 3, 4, 7}) {
    CAPTURE(ranks);
    pp::memory_use sum;
    for (pp::memory_use const& each : held_by_ranks(ranks, sizes, make)) {
      REQUIRE(each.states <= alone.states / static_cast<std::size_t>(ranks) + arrays * leaf);
      REQUIRE(each.gradients == alone.gradients);
      sum += each;
    }
    REQUIRE(sum.masters == alone.masters);
    REQUIRE(sum.states == alone.states);
  }
}

}  // namespace

TEST_CASE("a rank of P holds a P-th of masters and states, to a leaf per array", "[ranks]") {
  auto const of = [](auto const& rule) {
    return [rule](comm::threads const& c) { return pp::make_kv_store<float>(pp::cpu_devices(1), rule, c); };
  };
  require_shares(0, of(update::sgd{}));
  require_shares(1, of(update::momentum{}));
  require_shares(2, of(update::adam{}));
  require_shares(2, of(update::lamb{}));
  require_shares(2, [](comm::threads const& c) {
    return pp::make_kv_store<pp::bfloat16>(pp::cpu_devices(1), update::adam{}, pp::element::master<float>{}, c);
  });
}

TEST_CASE("a swap over ranks shows the averages in all mirrors", "[ranks]") {
  on_ranks(3, [](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(2), update::ema(update::sgd{.learning_rate = 1}, 0.5), c, pp::synchronous{}};
    store.init("a", filled(5000, 0));
    for (int step = 0; step < 2; ++step) store.push("a", filled(5000, 1)).wait();
    auto const weights = pulled(store, "a", 5000);
    auto const averages = store.template state<float>("a", "ema");
    store.swap("ema");
    expect(pulled(store, "a", 5000) == averages);
    store.swap("ema");
    expect(pulled(store, "a", 5000) == weights);
    expect(weights != averages);
  });
}

TEST_CASE("ranks that name other keys all get an error that names the first difference", "[ranks]") {
  on_ranks(3, [](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(1), update::sgd{}, c};
    bool const differs = c.rank() == 2;
    std::vector<std::string> const keys{"a", differs ? "c" : "b"};
    std::vector<std::vector<float>> const values(2, filled(3, 1));
    expect(message_of<pp::invalid_argument>([&] { store.init(keys, values); }) ==
           "init: ranks disagree: rank 0 came with key \"b\" of shape (3) of float32, rank 2 with key \"c\" of shape "
           "(3) of float32");
    expect_throws<pp::invalid_argument>([&] { store.init("d", filled(differs ? 4 : 3, 1)); });
    expect(store.keys().empty());
    store.init("a", filled(3, 1));  // the store still works
    expect(pulled(store, "a", 3) == filled(3, 1));
  });
}

TEST_CASE("after a call to other ranks has failed the store says so", "[ranks]") {
  auto const all = comm::threads::make(2, {.deadline = std::chrono::milliseconds(300)});
  auto const run = [&](int rank) {
    pp::kv_store store{pp::cpu_devices(1), update::sgd{}, all[static_cast<std::size_t>(rank)]};
    auto const ones = filled(5000, 1);
    store.init("a", ones);
    if (rank == 1) return;  // leaves
    auto const late = message_of<pp::comm_timeout>([&] { store.push("a", ones).wait(); });
    expect_text(late, "rank 1");
    auto const after = message_of<pp::comm_error>([&] { store.push("a", ones).wait(); });
    expect_text(after, "push: an earlier call to other ranks failed");
    expect_throws<pp::comm_error>([&] { pulled(store, "a", 5000); });
  };
  std::jthread const other(run, 1);
  run(0);
}

TEST_CASE("outputs that show more than mirrors do are filled from the masters of all ranks", "[ranks]") {
  on_ranks(3, [](comm::threads const& c) {
    auto store = pp::make_kv_store<pp::bfloat16>(pp::cpu_devices(2), update::sgd{.learning_rate = 1},
                                                 pp::element::master<float>{}, c);
    std::vector<float> values(5000);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = 1 + static_cast<float>(i) * 0x1p-20F;
    store.init("a", values);
    store.init("b", filled(3, 2));
    std::vector<float> a(values.size()), b(3);
    store.pull("a", a);
    store.pull("b", b);
    store.wait();
    expect(a == values);
    expect(b == filled(3, 2));
    std::vector<pp::bfloat16> rounded(values.size());
    if (c.rank() == 0) store.pull("a", rounded).wait();  // alone
    store.barrier();
  });
}

TEST_CASE("ranks whose rules or devices differ are told so at init", "[ranks]") {
  on_ranks(2, [](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(c.rank() + 1), update::sgd{}, c};
    expect(message_of<pp::invalid_argument>([&] { store.init("a", filled(3, 1)); }) ==
           "init: ranks disagree: rank 0 came with 1 key of a store of float32 on 1 device with the rule sgd, rank 1 "
           "with 1 key of a store of float32 on 2 devices with the rule sgd");
  });
}

TEST_CASE("ranks whose hyperparameters differ are told the first that does", "[ranks]") {
  on_ranks(3, [](comm::threads const& c) {
    bool const differs = c.rank() == 2;
    auto const rule = [&](double rate) { return update::adam{.learning_rate = differs ? rate : 0.1}; };
    pp::kv_store store{pp::cpu_devices(1), rule(0.2), c};
    auto const init = [&](std::string const& key) { store.init(key, filled(5000, 1)); };
    std::string const difference =
        "ranks disagree: rank 0 came with adam: learning_rate 0.1, rank 2 with adam: learning_rate ";
    expect(message_of([&] { init("a"); }) == "init: " + difference + "0.2");
    store.set_hyperparameters(rule(0.1));
    init("a");

    expect(message_of([&] { store.set_hyperparameters(rule(0.3)); }) == "set_hyperparameters: " + difference + "0.3");
    expect(message_of([&] { store.set_hyperparameters(rule(-1)); })
               .starts_with("set_hyperparameters: ranks disagree: rank 0 came with parameter group 0, rank 2 with "
                            "parameter group 0, which fails with: adam: learning_rate: "));
    expect(store.updater().learning_rate == 0.1);

    auto const all = [](std::string_view) { return true; };
    expect(message_of([&] { store.add_group(all, rule(0.4)); }) == "add_group: " + difference + "0.4");
    expect(message_of([&] {
             store.add_group([&](std::string_view key) { return differs == (key == "b"); }, rule(0.1));
           }) == "add_group: ranks disagree: rank 0 came with key \"a\", rank 2 with nothing");
    expect(store.groups() == 1);
    // Claims of later keys are compared when these come.
    expect(store.add_group([&](std::string_view key) { return differs && key == "b"; }, rule(0.1)) == 1);
    expect(
        message_of([&] { init("b"); }) ==
        "init: ranks disagree: rank 0 came with key \"b\" of shape (5000) of float32, rank 2 with key \"b\" of shape "
        "(5000) of float32, in parameter group 1");
    init("c");

    auto const ones = filled(5000, 1);
    store.push("a", ones).wait();  // the store works on
    expect(store.steps("a") == 1);
  });
}

TEST_CASE("ranks whose schedules differ are told in which update", "[ranks]") {
  namespace lr = pp::lr_schedule;
  on_ranks(2, [](comm::threads const& c) {
    auto const updates = [&](std::int64_t of_rank_1) { return c.rank() == 1 ? of_rank_1 : 20; };
    pp::kv_store store{pp::cpu_devices(1), update::sgd{} | update::learning_rate(lr::step_decay{1, updates(40), 0.5}),
                       c};
    expect(message_of([&] { store.init("a", filled(3, 1)); }) ==
           "init: ranks disagree: rank 0 came with step_decay 0.5 in update 21, rank 1 with step_decay 1 in update 21");
  });
}

TEST_CASE("a command of rank 0 comes to the handlers of all ranks, between the steps", "[ranks][command]") {
  on_ranks(3, [](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(1), update::adam{.learning_rate = 0.5}, c};
    store.init("a", filled(5000, 1));
    std::vector<std::string> got;
    store.on_command([&](std::int64_t head, std::string_view body) {
      got.push_back(std::to_string(head) + " " + std::string(body) + " after " + std::to_string(store.steps("a")));
      if (head == 1) store.set_hyperparameters(update::adam{.learning_rate = std::stod(std::string(body))});
    });
    auto const ones = filled(5000, 1);
    store.push("a", ones);
    store.push("a", ones);
    bool const is_first = c.rank() == 0;
    store.command(is_first ? 1 : 7, is_first ? "0.25" : "of another rank");
    expect(store.updater().learning_rate == 0.25);
    store.push("a", ones);
    store.command(2, std::string(is_first ? 100'000 : 0, 'x'));
    expect(got == std::vector<std::string>{"1 0.25 after 2", "2 " + std::string(100'000, 'x') + " after 3"});

    store.on_command([&](std::int64_t, std::string_view body) {
      if (c.rank() == 1) throw std::runtime_error("no " + std::string(body));
    });
    if (c.rank() == 1) {
      expect(message_of<std::runtime_error>([&] { store.command(5, "room"); }) == "no room");
    } else {
      expect(message_of<pp::error>([&] { store.command(5, c.rank() == 0 ? "room" : ""); }) ==
             "command 5: the handler failed on rank 1: no room");
    }
    store.push("a", ones).wait();  // the store works on
    expect(store.steps("a") == 4);
  });
}
