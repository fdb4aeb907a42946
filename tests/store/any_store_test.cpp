/// @file
/// create and any_store: names, keys of either kind, rules that come and go, errors.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using strings = std::vector<std::string>;
using integers = std::vector<std::int64_t>;
using Catch::Matchers::Contains;

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

TEST_CASE("stores of several processes are refused with the build option that will bring them", "[create][errors]") {
  REQUIRE_THROWS_AS(pp::create("nccl"), pp::invalid_argument);
  REQUIRE_THROWS_WITH(pp::create("NCCL"), Contains("PUSHPULL_NCCL"));
  for (std::string const name : {"dist", "dist_sync", "dist_async", "dist_device_sync", "DIST_nccl"})
    REQUIRE_THROWS_WITH(pp::create(name), Contains("PUSHPULL_MPI") && Contains(pp::detail::lower_case(name)));
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
  using compressors = pp::compressors<pp::compress::two_bit, pp::compress::one_bit>;
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
  store.set_optimizer(update::sgd{1.0});
  store.set_gradient_compression({{"type", "1bit"}});
  store.pushpull("w", g, out).wait();
  REQUIRE(out[0] == 7.0625F - 1.0F);
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
  store.set_optimizer(update::clip_norm(1) | update::sgd{1.0});
  REQUIRE_THROWS_AS(store.push("table", gradients), pp::invalid_argument);
  store.pull("table", table).wait();
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
