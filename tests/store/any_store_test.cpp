/// @file
/// create and any_store: names, keys of either kind, rules that come and go, errors.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using strings = std::vector<std::string>;
using integers = std::vector<std::int64_t>;
using Catch::Matchers::Contains;

/// What stores here may be asked for. A rule is compiled once more per compressor and list of them, so all have one list.
using compressors = pp::compressors<pp::compress::two_bit>;

}  // namespace

TEST_CASE("create goes by the name's parts, in any case", "[create]") {
  for (std::string const name : {"local", "device", "Local_Update_CPU", "local_allreduce_device", "a word"}) {
    auto store = pp::create(name);
    REQUIRE(store.type() == pp::detail::lower_case(name));
    std::vector<float> const x(5, 2.0F);
    std::vector<float> out(5);
    store.init(3, x);
    store.pull(3, out).wait();
    REQUIRE(out == x);
    REQUIRE(store.rank() == 0);
    REQUIRE(store.num_workers() == 1);
    store.barrier();
  }
}

TEST_CASE("a name of a store of several processes needs a communicator, if only of one rank", "[create][errors]") {
  REQUIRE_THROWS_AS(pp::create("nccl"), pp::invalid_argument);
  REQUIRE_THROWS_WITH(pp::create("NCCL"), Contains("\"nccl\" is a store of ranks of GPUs"));
  for (std::string const name : {"dist", "dist_sync", "dist_device_sync", "DIST_nccl"}) {
    REQUIRE_THROWS_AS(pp::create(name), pp::invalid_argument);
    REQUIRE_THROWS_WITH(pp::create(name), Contains("comm::mpi{}") && Contains(pp::detail::lower_case(name)));
    auto const store = pp::create(name, pp::cpu_devices(2), pp::comm::single{});
    REQUIRE(store.type() == pp::detail::lower_case(name));
    REQUIRE(store.num_workers() == 1);
  }
  REQUIRE_THROWS_WITH(pp::create("dist_async", pp::cpu_devices(2), pp::comm::single{}), Contains("servers"));
  REQUIRE_THROWS_AS(pp::create("local", std::vector<pp::cpu_device<>>()), pp::invalid_argument);
}

TEST_CASE("registered names come before the rules", "[create]") {
  using store_type = pp::created_store_t<pp::cpu_device<>>;
  pp::register_store<store_type>("Dist_Mine", [](std::string const& name, auto const& devices) {
    store_type store(name, devices);
    store.set_optimizer(update::sgd{1.0});
    return store;
  });
  auto store = pp::create("dist_MINE", pp::cpu_devices(2));
  REQUIRE(store.type() == "dist_mine");
  REQUIRE(store.has_updater());
}

TEST_CASE("is_capable knows one capability", "[create]") {
  auto const store = pp::create("local");
  REQUIRE(store.is_capable("optimizer"));
  REQUIRE_THROWS_AS(store.is_capable("flying"), pp::invalid_argument);
}

TEST_CASE("the first keys fix their kind for every operation", "[any_store][errors]") {
  auto store = pp::create("local", pp::cpu_devices(2));
  std::vector<float> const x(5, 2.0F);
  std::vector<float> out(5);
  REQUIRE_THROWS_AS(store.init(std::vector<pp::any_key>{pp::any_key(1), pp::any_key("a")}, std::vector{x, x}),
                    pp::invalid_argument);
  REQUIRE(store.size() == 0);
  store.init(strings{"a", "b"}, std::vector{x, x});
  REQUIRE_THROWS_WITH(store.init(3, x), Contains("strings") && Contains("key 3"));
  REQUIRE_THROWS_AS(store.push(3, x), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.push(integers{3}, std::vector{std::span(x)}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.pull(3, out), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.pull(integers{3}, std::vector{std::span(out)}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.pushpull(3, x, out), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.broadcast(3, x, out), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.wait(3), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.steps(3), pp::invalid_argument);
  REQUIRE(store.keys() == std::vector{pp::any_key("a"), pp::any_key("b")});
  store.pull("b", out).wait();
  REQUIRE(out == x);

  auto numbered = pp::create("local");
  numbered.init(3, x);
  REQUIRE_THROWS_WITH(numbered.push("a", x), Contains("integers"));
}

TEST_CASE("any_store's errors leave it as it was", "[any_store][errors]") {
  auto store = pp::create("local", pp::cpu_devices(2));
  std::vector<float> const x(12, 2.0F), shorter(3);
  std::vector<float> out(12), short_out(3);
  store.init("w", x);
  REQUIRE_THROWS_AS(store.init("w", x), pp::duplicate_key);
  REQUIRE_THROWS_AS(store.init(strings{"q", "q"}, std::vector{x, x}), pp::duplicate_key);
  REQUIRE_THROWS_AS(store.init(strings{}, std::vector<std::vector<float>>{}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.init(strings{"q"}, std::vector{x, x}), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.broadcast("w", x, out), pp::duplicate_key);
  REQUIRE_THROWS_AS(store.broadcast("q", x, short_out), pp::shape_mismatch);
  REQUIRE_FALSE(store.contains("q"));
  REQUIRE_THROWS_AS(store.push("q", x), pp::unknown_key);
  REQUIRE_THROWS_AS(store.pull("q", out), pp::unknown_key);
  REQUIRE_THROWS_AS(store.push("w", shorter), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.pull("w", short_out), pp::shape_mismatch);
  strings const keys{"w", "w"};
  std::vector const one{std::span(x)};
  REQUIRE_THROWS_AS(store.push(keys, one), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.push(strings{}, std::vector<std::span<float const>>{}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.set_steps("w", 3), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.state("w", "momentum_buffer"), pp::invalid_argument);
  store.pull("w", out).wait();
  REQUIRE(out == x);
}

TEST_CASE("any_store pushes, pulls and reduces as kv_store does", "[any_store]") {
  auto store = pp::create("device", pp::cpu_devices(3));
  pp::kv_store plain{pp::cpu_devices(3)};
  strings const keys{"b", "a", "b"}, all{"a", "b"};
  std::vector const values(2, std::vector<float>(5003, 1.0F));
  std::vector<std::vector<float>> gradients(3, std::vector<float>(5003)), out = gradients, expected = gradients;
  for (std::size_t k = 0; k < 3; ++k)
    for (std::size_t i = 0; i < 5003; ++i) gradients[k][i] = static_cast<float>((i * 31 + k * 7) % 17) / 8;
  store.init(all, values);
  plain.init(all, values);
  store.push(keys, gradients, pp::priority{3});
  store.pull(keys, out).wait();
  plain.push(keys, gradients);
  plain.pull(keys, expected).wait();
  REQUIRE(out == expected);
  store.pushpull("a", gradients, out[0]).wait();
  plain.pushpull("a", gradients, expected[0]).wait();
  REQUIRE(out[0] == expected[0]);
  auto in_place = gradients;
  store.pushpull(keys, in_place);
  store.wait();
  plain.pushpull(keys, gradients, expected).wait();
  REQUIRE(in_place == expected);
  store.broadcast(strings{"c", "d"}, values, std::span(out).first(2)).wait();
  REQUIRE(out[1] == values[1]);
}

TEST_CASE("set_optimizer replaces the rule and its states, values stay", "[any_store][set_optimizer]") {
  auto store = pp::create<float, double>("local", pp::cpu_devices(2));
  std::vector<float> const w(700, 10.0F), g(700, 1.0F);
  std::vector<double> const d(9, 1.0 / 3), h(9, 0.25);
  std::vector<float> out(700);
  std::vector<double> fine(9);
  pp::tensor<float> matrix(pp::cpu_device<>(), pp::shape{2, 3});
  store.init("w", w);
  store.init("d", d);
  store.init("matrix", matrix);
  store.set_optimizer(update::momentum{.learning_rate = 1.0, .momentum = 0.5});
  REQUIRE(store.has_updater());
  REQUIRE(store.state_names() == strings{"momentum_buffer"});
  store.push("w", g);
  store.pushpull("w", g, out).wait();
  REQUIRE(out[699] == 7.5F);  // 1, then 1.5
  REQUIRE(store.steps("w") == 2);
  store.set_optimizer(update::sgd{2.0});
  REQUIRE(store.steps("w") == 0);
  REQUIRE(store.shape("matrix") == pp::shape{2, 3});
  store.pushpull("w", g, out);
  store.pushpull("d", h, fine);
  store.wait();
  REQUIRE(out[0] == 5.5F);
  REQUIRE(fine == std::vector<double>(9, 1.0 / 3 - 0.5));
  REQUIRE(store.keys() == std::vector{pp::any_key("w"), pp::any_key("d"), pp::any_key("matrix")});
  REQUIRE_THROWS_AS(store.set_optimizer(update::sgd{-1.0}), pp::invalid_argument);
  store.pushpull("w", g, out).wait();
  REQUIRE(out[0] == 3.5F);
}

TEST_CASE("set_updater takes the place of a rule", "[any_store][set_updater]") {
  auto store = pp::create("local", pp::cpu_devices(2));
  std::vector<float> const w(70, 10.0F), g(70, 1.0F);
  std::vector<float> out(70);
  store.init(5, w);
  store.set_optimizer(update::sgd{1.0});
  store.set_updater([](pp::any_key_view key, auto const& received, auto const& stored) {
    if (key == pp::any_key_view(5))
      for (std::size_t i = 0; i < stored.size(); ++i) stored.data()[i] += 3 * received.data()[i];
  });
  REQUIRE_FALSE(store.has_updater());
  store.pushpull(5, g, out).wait();
  REQUIRE(out == std::vector<float>(70, 13.0F));
  store.set_optimizer(update::sgd{1.0});
  store.pushpull(5, g, out).wait();
  REQUIRE(out == std::vector<float>(70, 12.0F));
}

TEST_CASE("set_gradient_compression goes by name, and keeps values, rule and states", "[any_store][compress]") {
  auto store = pp::create("device", pp::cpu_devices(2), compressors());
  std::vector<float> const w(700, 10.0F), g(700, 0.75F);
  std::vector<float> out(700);
  store.init("w", w);
  store.set_optimizer(update::momentum{.learning_rate = 1.0, .momentum = 0.5});
  store.pushpull("w", g, out).wait();
  REQUIRE(out[699] == 9.25F);
  REQUIRE_THROWS_WITH(store.set_gradient_compression({{"type", "zip"}}), Contains("zip"));
  REQUIRE_THROWS_AS(store.set_gradient_compression({{"threshold", "0.5"}}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.set_gradient_compression({{"type", "2bit"}, {"threshold", "0"}}), pp::invalid_argument);
  REQUIRE_THROWS_WITH(store.set_gradient_compression({{"type", "topk"}}), Contains("compressors<"));
  store.pushpull("w", g, out).wait();
  REQUIRE(out[699] == 9.25F - (0.375F + 0.75F));  // uncompressed as before
  store.set_gradient_compression({{"type", "2bit"}, {"threshold", "0.5"}, {"unknown", "ignored"}});
  REQUIRE(store.steps("w") == 2);
  store.pushpull("w", g, out).wait();
  REQUIRE(out[0] == 8.125F - (0.5625F + 0.5F));  // the code of 0.5; 0.25 stays behind
  store.set_optimizer(update::momentum{.learning_rate = 1.0, .momentum = 0.0});
  store.set_gradient_compression({{"type", "none"}});
  store.pushpull("w", g, out).wait();
  REQUIRE(out[0] == 7.0625F - 0.75F);
  auto local = pp::create("local", pp::cpu_devices(2), compressors());
  REQUIRE_THROWS_WITH(local.set_gradient_compression({{"type", "2bit"}}), Contains("local"));
}

TEST_CASE("any_store takes rows and gives rows", "[any_store][row_sparse]") {
  auto store = pp::create<float, double>("device", pp::cpu_devices(2));
  pp::tensor<float> table(pp::cpu_device<>(), pp::shape{5, 3});
  std::fill_n(table.data(), 15, 1.0F);
  store.init("table", table);
  store.set_optimizer(update::sgd{1.0});
  std::vector<pp::row_sparse<float>> gradients;
  for (int k = 0; k < 2; ++k) {
    gradients.emplace_back(pp::cpu_device<>(), pp::shape{5, 3}, 2);
    gradients.back().row_ids()[0] = 4;
    gradients.back().row_ids()[1] = k;
    std::fill_n(gradients.back().values(), 6, 0.25F);
  }
  store.push("table", gradients);
  store.push("table", gradients[0], pp::row_updates::standard);
  pp::row_sparse<float> out(pp::cpu_device<>(), pp::shape{5, 3});
  store.row_sparse_pull("table", out, std::vector<int>{4, 1, 4}).wait();
  REQUIRE(out.rows() == 2);
  REQUIRE(out.row_ids()[1] == 4);
  REQUIRE(out.values()[0] == 0.75F);
  REQUIRE(out.values()[5] == 0.25F);
  REQUIRE(store.steps("table") == 2);
  REQUIRE_THROWS_AS(store.row_sparse_pull("table", out, std::vector<int>{5}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.row_sparse_pull("other", out, std::vector<int>{1}), pp::unknown_key);
  store.pull("table", table).wait();
  REQUIRE(table.data()[14] == 0.25F);

  auto clipping = pp::create("device", pp::cpu_devices(2));
  clipping.init("table", table);
  clipping.set_optimizer(update::clip_norm(1) | update::sgd{1.0});
  REQUIRE_THROWS_AS(clipping.push("table", gradients), pp::invalid_argument);
  clipping.pull("table", table).wait();
  REQUIRE(table.data()[14] == 0.25F);
}

TEST_CASE("states of an any_store are bytes of the key's type", "[any_store]") {
  auto store = pp::create<pp::bfloat16>("local", pp::cpu_devices(2));
  std::vector<pp::bfloat16> const w(70, pp::convert<pp::bfloat16>(1.0F));
  store.init("w", w);
  store.set_optimizer(update::momentum{});
  store.push("w", w).wait();
  auto const bytes = store.state("w", "momentum_buffer");
  REQUIRE(bytes.size() == 140);
  REQUIRE(std::memcmp(bytes.data(), w.data(), 140) == 0);
  std::vector<std::byte> const zero(140);
  store.set_state("w", "momentum_buffer", zero);
  store.set_steps("w", 7);
  REQUIRE(store.state("w", "momentum_buffer") == zero);
  REQUIRE(store.steps("w") == 7);
  REQUIRE_THROWS_AS(store.set_state("w", "momentum_buffer", std::span(zero).first(138)), pp::shape_mismatch);
}

TEST_CASE("any_store is initialised with rows, of any element type, and as a type that is named", "[any_store]") {
  auto store = pp::create("local", pp::cpu_devices(2));
  pp::row_sparse<float> rows(pp::cpu_device<>(), pp::shape{4, 2}, 2);
  rows.row_ids()[0] = 3;
  rows.row_ids()[1] = 1;
  std::fill_n(rows.values(), 4, 0.5F);
  store.init("rows", rows);
  REQUIRE(store.shape("rows") == pp::shape{4, 2});
  store.init("d", std::vector<double>(3, 0.1));
  store.init(strings{"n"}, std::vector(1, std::vector<std::int32_t>(3, 7)));
  std::vector<float> out(8), three(3);
  store.pull("rows", pp::tensor_view(out.data(), pp::shape{4, 2})).wait();
  REQUIRE(out == std::vector<float>{0, 0, 0.5F, 0.5F, 0, 0, 0.5F, 0.5F});
  store.pull("d", three).wait();
  REQUIRE(three[2] == 0.1F);
  store.pull("n", three).wait();
  REQUIRE(three[0] == 7.0F);
  REQUIRE_THROWS_AS(store.init(7, rows), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.init("rows", rows), pp::duplicate_key);

  auto two = pp::create<float, double>("local");
  two.init<double>("w", std::vector<float>(3, 0.5F));
  REQUIRE(two.dtype("w") == "float64");
}

TEST_CASE("any_store takes lists of rows, and ids per output", "[any_store][row_sparse]") {
  auto store = pp::create("local", pp::cpu_devices(2));
  std::vector<float> const table(15, 1.0F);
  pp::tensor_view const matrix(table.data(), pp::shape{5, 3});
  store.init(strings{"a", "b"}, std::vector{matrix, matrix});
  store.set_optimizer(update::sgd{1.0});
  std::vector<pp::row_sparse<float>> gradients;
  for (int k = 0; k < 3; ++k) {
    gradients.emplace_back(pp::cpu_device<>(), pp::shape{5, 3}, 1);
    gradients.back().row_ids()[0] = k;
    std::fill_n(gradients.back().values(), 3, 0.25F);
  }
  store.push(strings{"b", "a", "b"}, gradients);  // rows 0 and 2 of b, row 1 of a
  store.push("a", gradients[0], pp::priority{2});
  std::vector<pp::row_sparse<float>> out;
  for (int k = 0; k < 2; ++k) out.emplace_back(pp::cpu_device<>(), pp::shape{5, 3});
  store.row_sparse_pull("b", out, std::vector<std::vector<int>>{{0, 4}, {2}}).wait();
  REQUIRE(out[0].rows() == 2);
  REQUIRE(out[0].values()[0] == 0.75F);
  REQUIRE(out[0].values()[3] == 1.0F);
  REQUIRE(out[1].rows() == 1);
  REQUIRE(out[1].values()[0] == 0.75F);
  store.row_sparse_pull(strings{"a", "b"}, out, std::vector<std::vector<float>>{{1}, {1}}).wait();
  REQUIRE(out[0].values()[2] == 0.75F);
  REQUIRE(out[1].values()[2] == 1.0F);
  std::vector<float> whole(15);
  pp::tensor_view const output(whole.data(), pp::shape{5, 3});
  store.pushpull("a", gradients[1], output, pp::row_updates::standard).wait();
  REQUIRE(whole == std::vector<float>{0.75F, 0.75F, 0.75F, 0.5F, 0.5F, 0.5F, 1, 1, 1, 1, 1, 1, 1, 1, 1});
  store.pushpull("a", gradients, output).wait();
  REQUIRE(whole[3] == 0.25F);
  REQUIRE_THROWS_WITH(store.push(strings{"a", "b"}, gradients), "push: 2 keys, 3 gradients");
  REQUIRE_THROWS_WITH(store.row_sparse_pull("b", out, std::vector<std::vector<int>>{{0}}),
                      Contains("2 outputs, 1 tensor of row ids"));
  REQUIRE_THROWS_AS(store.row_sparse_pull(strings{"a", "q"}, out, std::vector<std::vector<int>>{{0}, {0}}),
                    pp::unknown_key);
  REQUIRE_THROWS_AS(store.push(integers{1}, gradients), pp::invalid_argument);
}

TEST_CASE("hyperparameters and groups of any_store change, states and t stay", "[any_store][groups]") {
  auto store = pp::create("device", pp::cpu_devices(2), compressors());
  std::vector<float> const w(700, 10.0F), g(700, 1.0F);
  std::vector<float> out(700);
  store.init(strings{"w", "bias"}, std::vector{w, w});
  auto rule = update::momentum{.learning_rate = 1.0, .momentum = 0.5};
  REQUIRE_THROWS_AS(store.set_hyperparameters(rule), pp::invalid_argument);  // no optimizer
  store.set_optimizer(rule);
  store.push("w", g);
  rule.learning_rate = 2.0;
  store.set_hyperparameters(rule);
  REQUIRE(store.updater<update::momentum>().learning_rate == 2.0);
  REQUIRE_THROWS_WITH(store.set_hyperparameters(update::sgd{1.0}), Contains("another type"));
  REQUIRE_THROWS_AS(store.updater<update::sgd>(), pp::invalid_argument);
  store.pushpull("w", g, out).wait();
  REQUIRE(out[699] == 10.0F - 1.0F - 2 * 1.5F);
  REQUIRE(store.steps("w") == 2);

  auto const is_bias = [](pp::any_key_view key) { return key.string() == "bias"; };
  rule.learning_rate = 0.0;
  REQUIRE(store.groups() == 1);
  REQUIRE(store.add_group(is_bias, rule) == 1);
  REQUIRE(store.group("bias") == 1);
  REQUIRE(store.group("w") == 0);
  store.pushpull("bias", g, out).wait();
  REQUIRE(out == w);
  store.set_gradient_compression({{"type", "2bit"}, {"threshold", "0.5"}});
  REQUIRE(store.groups() == 2);
  REQUIRE(store.group("bias") == 1);
  store.pushpull("bias", g, out).wait();
  REQUIRE(out == w);
  REQUIRE_THROWS_AS(store.set_hyperparameters(rule, 2), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.loss_scale(0), pp::invalid_argument);
}

TEST_CASE("any_store accumulates, where its optimizer was set with that policy", "[any_store][accumulate]") {
  auto store = pp::create("local", pp::cpu_devices(2), compressors());
  std::vector<float> const w(70, 10.0F), g(70, 1.0F);
  std::vector<float> out(70);
  store.init("w", w);
  store.set_optimizer(update::momentum{});
  REQUIRE_THROWS_WITH(store.accumulate("w", g), Contains("accumulate"));
  store.set_optimizer(update::sgd{1.0}, pp::accumulate{3});
  store.push("w", g);
  store.accumulate("w", g);
  REQUIRE(store.micro_batches("w") == 2);
  store.pull("w", out).wait();
  REQUIRE(out == w);
  store.pushpull("w", g, out).wait();
  REQUIRE(out[0] == 7.0F);
  REQUIRE(store.steps("w") == 1);
  store.accumulate(strings{"w"}, std::vector{std::span(g)});
  store.discard_micro_batches("w");
  REQUIRE(store.micro_batches("w") == 0);
}

TEST_CASE("any_store swaps averages in and out, and is not replaced meanwhile", "[any_store][swap]") {
  auto store = pp::create("device", pp::cpu_devices(2), compressors());
  std::vector<float> const w(70, 10.0F), g(70, 1.0F);
  std::vector<float> out(70);
  store.init(strings{"w", "v"}, std::vector{w, w});
  REQUIRE_THROWS_AS(store.swap("ema"), pp::invalid_argument);
  store.set_optimizer(update::sgd{1.0} | update::ema(0.5));
  store.push(strings{"w", "v"}, std::vector(2, std::span(g)));
  store.push("w", g);
  store.wait();
  store.swap("ema");
  REQUIRE(store.swapped("w") == "ema");
  store.pull("w", out).wait();
  REQUIRE(out[0] > 8.3F);  // (0.25 * 9 + 0.5 * 8) / 0.75
  REQUIRE(out[0] < 8.4F);
  REQUIRE_THROWS_WITH(store.set_optimizer(update::momentum{}), Contains("set_optimizer") && Contains("swap it back"));
  REQUIRE_THROWS_WITH(store.set_gradient_compression({{"type", "2bit"}}),
                      Contains("set_gradient_compression") && Contains("swap it back"));
  REQUIRE_THROWS_WITH(store.set_updater([](pp::any_key_view, auto const&, auto const&) {}),
                      Contains("set_updater") && Contains("swap it back"));
  store.swap(strings{"w", "v"}, "ema");
  store.swap("v", "ema");
  store.swap("v", "ema");
  store.pull("w", out).wait();
  REQUIRE(out[0] == 8.0F);
  REQUIRE_THROWS_AS(store.swap("nothing"), pp::invalid_argument);
}

TEST_CASE("any_store is not replaced amid a step of micro-batches", "[any_store][accumulate][errors]") {
  auto store = pp::create("device", pp::cpu_devices(2), compressors());
  std::vector<float> const w(70, 10.0F), g(70, 1.0F);
  std::vector<float> out(70);
  store.init(strings{"v", "w"}, std::vector{w, w});
  store.set_optimizer(update::sgd{1.0}, pp::accumulate{3});
  store.push("w", g);
  auto const refused = [&](std::string const& call, auto const& make) {
    REQUIRE_THROWS_AS(make(), pp::invalid_argument);
    REQUIRE_THROWS_WITH(make(), Contains(call) && Contains("key \"w\"") && Contains("discard_micro_batches"));
  };
  refused("set_optimizer", [&] { store.set_optimizer(update::momentum{}); });
  refused("set_gradient_compression", [&] { store.set_gradient_compression({{"type", "2bit"}}); });
  refused("set_updater", [&] { store.set_updater([](pp::any_key_view, auto const&, auto const&) {}); });
  store.push("w", g);
  store.pushpull("w", g, out).wait();
  REQUIRE(out == std::vector<float>(70, 7.0F));
  store.push("w", g);
  store.discard_micro_batches("w");
  store.set_optimizer(update::momentum{.learning_rate = 0.5});
  store.pushpull("w", g, out).wait();
  REQUIRE(out == std::vector<float>(70, 6.5F));
}

TEST_CASE("any_store assigns weights, states and functions stay", "[any_store][assign]") {
  auto store = pp::create<float, double>("device", pp::cpu_devices(2));
  std::vector<float> const w(70, 10.0F), v(70, 3.0F), g(70, 1.0F);
  std::vector<double> const d(70, 0.1);
  std::vector<float> out(70);
  std::vector<double> fine(70);
  store.init("w", w);
  store.init("d", d);
  store.set_optimizer(update::momentum{.learning_rate = 1.0, .momentum = 0.5});
  store.push("w", g);
  store.assign("w", v);
  store.pushpull("w", g, out).wait();
  REQUIRE(out[0] == 1.5F);
  store.assign("w", d, pp::rule_states::reset);
  REQUIRE(store.steps("w") == 0);
  store.assign(strings{"d"}, std::vector(1, fine));
  store.pull("d", fine).wait();
  REQUIRE(fine[0] == 0.0);
  store.pull("w", out).wait();
  REQUIRE(out[69] == 0.1F);
  REQUIRE_THROWS_AS(store.assign("q", v), pp::unknown_key);
  REQUIRE_THROWS_WITH(store.assign(strings{"w", "q"}, std::vector(1, v)), Contains("2 keys, 1 value"));

  auto replaced = pp::create("device", pp::cpu_devices(1), compressors());
  replaced.init("w", w);
  replaced.set_updater([](pp::any_key_view, auto const&, auto const& stored) {
    for (std::size_t i = 0; i < stored.size(); ++i) stored.data()[i] += 1;
  });
  replaced.set_gradient_compression({{"type", "2bit"}});
  replaced.pushpull("w", g, out).wait();
  REQUIRE(out[0] == 11.0F);
  replaced.reset_updater();
  replaced.pushpull("w", g, out).wait();
  REQUIRE(out[0] == 0.5F);
}

TEST_CASE("parameter_store trains over an any_store as over a kv_store, whatever optimizer comes",
          "[any_store][parameter_store]") {
  auto chosen = pp::create("device", pp::cpu_devices(2));
  pp::kv_store plain{pp::cpu_devices(2), update::momentum{.learning_rate = 0.5}};
  chosen.set_optimizer(update::momentum{.learning_rate = 0.5});
  pp::parameter_store over_any{chosen};
  pp::parameter_store over_plain{plain};
  std::vector<float> w(5003, 1.0F), b(3, 2.0F), fixed(4, 4.0F);
  auto const train = [](auto& parameters) {
    for (int step = 1; step < 4; ++step) {
      for (std::string const name : {"w", "b"})
        for (std::size_t n = 0; n < 2; ++n) {
          auto const grad = parameters.grad(name, n);
          std::fill_n(grad.data(), grad.size(), static_cast<float>(step) * 0.25F);
        }
      parameters.update_all();
    }
  };
  for (auto const add : {true, false}) {
    auto const into = [&](auto& parameters) {
      parameters.add("w", w);
      parameters.add("b", b);
      parameters.add("fixed", fixed, {.requires_grad = false});
      train(parameters);
    };
    if (add) {
      into(over_any);
    } else {
      into(over_plain);
    }
  }
  // Its mirrors and gradients lie outside of the store; the frozen parameter has no gradient.
  REQUIRE(over_any.memory_report().devices[1].mirrors == (5003 + 3 + 4) * sizeof(float));
  REQUIRE(over_any.memory_report().devices[1].gradients == (5003 + 3) * sizeof(float));
  REQUIRE(over_plain.memory_report() == plain.memory_report());
  float const* const mirror = over_any.value("w", 1).data();
  REQUIRE(std::equal(mirror, mirror + 5003, over_plain.value("w", 1).data()));
  REQUIRE(over_any.value("b", 0).data()[2] == over_plain.value("b", 0).data()[2]);
  chosen.set_optimizer(update::sgd{0.5});
  train(over_any);
  REQUIRE(over_any.value("w", 1).data() == mirror);
  over_any.assign("w", std::vector<float>(5003, 0.5F));
  REQUIRE(mirror[5002] == 0.5F);
  over_any.freeze("w");
  over_any.update_all();
  over_any.sync_master();
  REQUIRE(w == std::vector<float>(5003, 0.5F));
  REQUIRE(fixed == std::vector<float>(4, 4.0F));
  chosen.set_optimizer(update::sgd{0.5} | update::ema(0.5));
  over_any.update_all();
  over_any.swap("ema");
  over_any.swap("ema");
  REQUIRE(chosen.steps("b") == 1);
}

namespace {

/// A user's store, as small as the concept allows: keys are integers, the sum of gradients is added to the weights.
class adding_store {
 public:
  using value_type = float;
  using device_type = pp::cpu_device<>;
  using key_type = std::int64_t;
  using view = pp::tensor_view<float>;
  using constant_view = pp::tensor_view<float const>;

  explicit adding_store(std::vector<pp::cpu_device<>> devices) : devices_(std::move(devices)) {}

  std::vector<pp::cpu_device<>> const& devices() const { return devices_; }
  void init(key_type key, constant_view value) { values_[key].assign(value.data(), value.data() + value.size()); }
  /// @throws std::runtime_error at a negative gradient
  void push(key_type key, std::vector<constant_view> const& gradients) {
    for (auto const& g : gradients)
      if (g.data()[0] < 0) throw std::runtime_error("negative");
    for (auto const& g : gradients)
      for (std::size_t i = 0; i < g.size(); ++i) values_[key][i] += g.data()[i];
  }
  void pull(key_type key, std::vector<view> const& outputs) {
    for (auto const& out : outputs) std::copy(values_[key].begin(), values_[key].end(), out.data());
  }
  void pushpull(key_type key, std::vector<constant_view> const& gradients, std::vector<view> const& outputs) {
    push(key, gradients);
    pull(key, outputs);
  }
  void broadcast(key_type key, constant_view value, std::vector<view> const& outputs) {
    init(key, value);
    pull(key, outputs);
  }
  void wait() { ++waits; }

  int waits = 0;

 private:
  std::vector<pp::cpu_device<>> devices_;
  std::map<key_type, std::vector<float>> values_;
};

}  // namespace

TEST_CASE("a user's own Store is created by its name, and works behind any_store's calls", "[any_store][create]") {
  using store_type = pp::created_store_t<pp::cpu_device<>>;
  pp::register_store<store_type>("Adding",
                                 [](std::string const&, auto const& devices) { return adding_store(devices); });
  auto store = pp::create("adding", pp::cpu_devices(2));
  REQUIRE(store.type() == "adding");
  REQUIRE_THROWS_WITH((pp::create<float, double>("adding")), Contains("registered for stores"));
  REQUIRE(store.devices().size() == 2);
  std::vector<float> const w(5, 1.0F), g(5, 0.5F), shorter(3);
  std::vector<float> out(5), other(5);
  store.init(7, w);
  store.init(integers{8, 9}, std::vector{w, w});
  store.push(7, std::vector{std::span(g), std::span(g)}).wait();
  store.pull(7, out).wait();
  REQUIRE(out == std::vector<float>(5, 2.0F));
  store.pushpull(integers{8, 7}, std::vector(2, std::span(g)), std::vector{std::span(out), std::span(other)}).wait();
  REQUIRE(out[0] == 1.5F);
  REQUIRE(other[0] == 2.5F);
  REQUIRE(store.target<adding_store>()->waits == 3);
  // A call that fails at its second key returns when the work on the first is finished.
  std::vector const one_negative{std::vector<float>(5), std::vector<float>(5, -1.0F)};
  REQUIRE_THROWS_AS(store.push(integers{8, 7}, one_negative), std::runtime_error);
  REQUIRE(store.target<adding_store>()->waits == 4);
  REQUIRE(store.target<int>() == nullptr);
  REQUIRE(store.keys() == std::vector{pp::any_key(7), pp::any_key(8), pp::any_key(9)});
  REQUIRE(store.shape(9) == pp::shape{5});
  REQUIRE(store.steps(7) == 0);
  REQUIRE_FALSE(store.has_updater());

  REQUIRE_THROWS_AS(store.init(7, w), pp::duplicate_key);
  REQUIRE_THROWS_AS(store.init("7", w), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.push(6, g), pp::unknown_key);
  REQUIRE_THROWS_AS(store.push(7, shorter), pp::shape_mismatch);
  REQUIRE_THROWS_WITH(store.set_optimizer(update::sgd{1.0}), Contains("user's store"));
  REQUIRE_THROWS_AS(store.set_updater([](auto const&, auto const&, auto const&) {}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.assign(7, w), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.swap("ema"), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.accumulate(7, g), pp::invalid_argument);
  store.pull(7, out).wait();
  REQUIRE(out[0] == 2.5F);
}

TEST_CASE("any_store is made of a kv_store of the user's too", "[any_store]") {
  using rule = update::momentum;
  using store_type = pp::kv_store<float, pp::cpu_device<>, rule>;
  pp::any_store<pp::cpu_device<>, pp::compressors<>, float> store(
      "mine", store_type(pp::cpu_devices(2), rule{.learning_rate = 1.0}));
  std::vector<float> const w(5, 1.0F), g(5, 0.5F);
  std::vector<float> out(5);
  store.init("w", w);
  store.pushpull("w", g, out).wait();
  REQUIRE(out[0] == 0.5F);
  REQUIRE(store.has_updater());
  REQUIRE(store.steps("w") == 1);
  store.set_hyperparameters(rule{.learning_rate = 0.0});
  store.assign("w", w, pp::rule_states::reset);
  store.pushpull("w", g, out).wait();
  REQUIRE(out == w);
  REQUIRE(store.target<store_type>()->steps("w") == 1);
}
