/// @file
/// parameter_store for trainers: iteration over parameters, values that are written, gradients that are overwritten or added to.
#include <algorithm>
#include <iterator>
#include <pushpull/pushpull.hpp>
#include <ranges>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/message_of.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;

std::vector<std::int64_t> const sizes{5, 0, 1, 1023, 4099, 2};

std::string name(std::size_t i) { return "parameter " + std::to_string(i); }
float gradient(std::size_t i, std::size_t batch, std::size_t device, std::size_t element) {
  return static_cast<float>((17 * i + 5 * batch + 3 * device + 7 * element) % 31) / 7.0F - 2.0F;
}
std::vector<std::vector<float>> values(auto& parameters, std::size_t n) {
  std::vector<std::vector<float>> result;
  for (pp::parameter_info const p : parameters) result.push_back(pp::to_vector(parameters.value(p.name, n)));
  return result;
}
void fill(auto const& view, float x) { std::fill_n(view.data(), view.size(), x); }

enum class way { sums, asks, begins, zeros };

/// The weights after steps of three micro-batches each: their sums are written, or each adds to the gradients.
std::vector<std::vector<float>> train(int count, way how) {
  pp::kv_store store{pp::cpu_devices(count), update::adam{.learning_rate = 0.1}};
  pp::parameter_store parameters{store};
  auto const request = how == way::sums ? pp::grad_request::write : pp::grad_request::add;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    parameters.add(name(i), std::vector<float>(static_cast<std::size_t>(sizes[i]), 1.0F), {.request = request});
  std::size_t const devices = store.devices().size();
  std::vector<pp::tensor_view<float>> held;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    for (std::size_t n = 0; n < devices; ++n) held.push_back(parameters.grad(name(i), n));
  for (std::size_t step = 0; step < 4; ++step) {
    if (how == way::zeros) parameters.zero_grad();
    for (std::size_t batch = 3 * step; batch < 3 * step + 3; ++batch)
      for (std::size_t i = 0; i < sizes.size(); ++i)
        for (std::size_t n = 0; n < devices; ++n) {
          bool adds = how == way::asks || how == way::zeros || batch > 3 * step;
          if (how == way::begins) adds = parameters.begin_grad(name(i), n) == pp::grad_request::add;
          auto const view = how == way::asks || how == way::sums ? parameters.grad(name(i), n) : held[i * devices + n];
          for (std::size_t e = 0; e < view.size(); ++e) {
            float const g = gradient(i, batch, n, e);
            view.data()[e] = adds ? view.data()[e] + g : g;
          }
        }
    parameters.update_all();
    if (how == way::begins) fill(held[0], 1e9F);  // nothing reads what a step has used
  }
  for (std::size_t n = 1; n < devices; ++n) REQUIRE((values(parameters, n) == values(parameters, 0)));
  return values(parameters, 0);
}

}  // namespace

TEST_CASE("a parameter_store is a range of its parameters in the order of add", "[parameter_store][info]") {
  auto const expect = [](auto& parameters, auto const& add_group) {
    using store_type = std::remove_cvref_t<decltype(parameters)>;
    static_assert(std::ranges::random_access_range<store_type const> && std::ranges::sized_range<store_type>);
    std::vector<float> const matrix(12, 1.0F);
    parameters.add("weight", pp::tensor_view(matrix.data(), pp::shape{3, 4}), {.weight_decay_multiplier = 0.5});
    parameters.add("statistics", std::vector<float>(5), {.requires_grad = false});
    parameters.add("bias", std::vector<float>(0),
                   {.request = pp::grad_request::add, .learning_rate_multiplier = 2, .weight_decay_multiplier = 0});
    auto const check = [&](std::size_t group) {
      REQUIRE(parameters.size() == 3);
      std::vector<std::string> names;
      for (pp::parameter_info const p : parameters) names.emplace_back(p.name);
      REQUIRE(names == std::vector<std::string>{"weight", "statistics", "bias"});
      REQUIRE(parameters[0].shape == pp::shape{3, 4});
      REQUIRE(parameters[0].dtype == "float32");
      REQUIRE(parameters[0].options.request == pp::grad_request::write);
      REQUIRE(parameters[1].options.request == pp::grad_request::none);
      REQUIRE_FALSE(parameters[1].options.requires_grad);
      auto const bias = parameters.end()[-1].options;
      REQUIRE(bias.request == pp::grad_request::add);
      REQUIRE(bias.learning_rate_multiplier == 2);
      REQUIRE(bias.weight_decay_multiplier == 0);
      REQUIRE(parameters.info("bias").group == group);
      REQUIRE(std::ranges::find(parameters, pp::shape{5}, &pp::parameter_info::shape) - parameters.begin() == 1);
    };
    check(0);
    parameters.materialize();
    check(0);
    add_group();
    check(2);
    REQUIRE(parameters[0].group == 1);
    REQUIRE(parameters[1].group == 0);
    parameters.freeze("bias");
    REQUIRE(parameters[2].options.request == pp::grad_request::none);
    REQUIRE(parameters.request("bias") == pp::grad_request::none);
    parameters.unfreeze("bias");
    REQUIRE(parameters.request("bias") == pp::grad_request::add);
    REQUIRE_THROWS_AS(parameters.info("none"), pp::unknown_key);
  };
  auto const rule = update::adamw{.learning_rate = 0.5, .weight_decay = 0.1};
  for (int const count : {1, 3}) {
    auto const devices = pp::cpu_devices(count);
    {
      pp::kv_store store{devices, rule};
      pp::parameter_store parameters{store};
      expect(parameters, [&] { pp::add_multiplier_groups(parameters, store.updater()); });
      REQUIRE(store.updater(1).learning_rate == 0.5);
      REQUIRE(store.updater(1).weight_decay == 0.05);
      REQUIRE(store.updater(2).learning_rate == 1.0);
      REQUIRE(store.updater(2).weight_decay == 0.0);
    }
    {
      pp::any_store<pp::cpu_device<>, pp::compressors<>, float> store{"local", devices};
      store.set_optimizer(rule);
      pp::parameter_store parameters{store};
      expect(parameters, [&] { pp::add_multiplier_groups(parameters, rule); });
      REQUIRE(store.updater<update::adamw>(2).learning_rate == 1.0);
    }
  }
}

TEST_CASE("parameters of several element types keep the order of add", "[parameter_store][info]") {
  pp::kv_store<pp::type_list<float, pp::bfloat16>, pp::cpu_device<>, update::sgd> store{pp::cpu_devices(2),
                                                                                        update::sgd{1.0}};
  pp::parameter_store parameters{store};
  parameters.add<pp::bfloat16>("a", std::vector<float>(3, 1.0F));
  parameters.add("b", std::vector<float>(2), {.request = pp::grad_request::add});
  REQUIRE_THROWS_AS(parameters.add("b", std::vector<float>(2)), pp::duplicate_key);
  parameters.add<pp::bfloat16>("c", std::vector<float>(1), {.requires_grad = false});
  std::vector<std::string> found;
  for (pp::parameter_info const p : parameters) found.push_back(std::string(p.name) + " " + std::string(p.dtype));
  REQUIRE(found == std::vector<std::string>{"a bfloat16", "b float32", "c bfloat16"});
  REQUIRE(parameters.request("b") == pp::grad_request::add);
  REQUIRE(parameters.begin_grad("b", 1) == pp::grad_request::write);
  REQUIRE(parameters.begin_grad("b", 1) == pp::grad_request::add);
  parameters.set_value("a", std::vector<float>(3, 7.0F));
  REQUIRE(pp::convert<float>(parameters.value<pp::bfloat16>("a", std::size_t{1}).data()[2]) == 7.0F);
  for (std::size_t n = 0; n < 2; ++n) {
    fill(parameters.grad<pp::bfloat16>("a", n), pp::convert<pp::bfloat16>(1.0F));
    fill(parameters.grad<float>("b", n), 1.0F);
  }
  parameters.ready("b");
  parameters.ready("a");
  parameters.update_all();
  REQUIRE(parameters.value<float>("b", std::size_t{1}).data()[1] == -2.0F);
  REQUIRE(pp::convert<float>(parameters.value<pp::bfloat16>("a", std::size_t{1}).data()[0]) == 5.0F);
}

TEST_CASE("micro-batches that add to gradients make the step of their sum, whoever begins the sum anew",
          "[parameter_store][requests]") {
  for (int const count : {1, 2, 3, 7}) {
    auto const expected = train(count, way::sums);
    for (way const how : {way::asks, way::begins, way::zeros}) REQUIRE((train(count, how) == expected));
  }
}

TEST_CASE("gradient requests change at any time, and reach all mirrors", "[parameter_store][requests][A8-7]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0}};
  pp::parameter_store parameters{store};
  parameters.add("w", std::vector<float>(3), {.request = pp::grad_request::none});
  REQUIRE_THROWS_AS(parameters.grad("w", 0), pp::invalid_argument);
  REQUIRE(parameters.begin_grad("w", 0) == pp::grad_request::none);
  parameters.update_all();
  parameters.set_request("w", pp::grad_request::add);
  auto const step = [&](float g) {
    for (std::size_t n = 0; n < 2; ++n) {
      auto const view = parameters.grad("w", n);
      for (std::size_t e = 0; e < 3; ++e) view.data()[e] += g;
    }
    parameters.update_all();
    return parameters.value("w", 1).data()[2];
  };
  REQUIRE(step(1) == -2);
  REQUIRE(step(1) == -4);
  parameters.grad("w", 0).data()[2] += 100;
  parameters.discard_grad();
  REQUIRE(step(1) == -6);
  parameters.grad("w", 0).data()[2] += 100;
  parameters.freeze("w");
  parameters.unfreeze("w");
  REQUIRE(step(1) == -8);
  parameters.set_request("w", pp::grad_request::write);
  REQUIRE(parameters.begin_grad("w", 1) == pp::grad_request::write);
  parameters.zero_grad();  // the next backward pass overwrites
  REQUIRE(parameters.grad("w", 1).data()[2] == 1);
  parameters.update_all();
  REQUIRE(parameters.value("w", 0).data()[2] == -10);
  parameters.set_request("w", pp::grad_request::none);
  parameters.update_all();
  REQUIRE(parameters.value("w", 0).data()[2] == -10);
  parameters.set_request("w", pp::grad_request::add);
  REQUIRE(step(1) == -12);
  REQUIRE(store.steps("w") == 6);
  REQUIRE_THROWS_AS(parameters.set_request("v", pp::grad_request::add), pp::unknown_key);
  REQUIRE_THROWS_AS(parameters.begin_grad("w", 2), pp::unknown_device);
}

TEST_CASE("a value is written at any time, to masters and all mirrors", "[parameter_store][set_value]") {
  for (int const count : {1, 2, 3, 7}) {
    pp::kv_store<pp::bfloat16, pp::cpu_device<>, update::momentum, pp::element::master<float>> store{
        pp::cpu_devices(count), update::momentum{.learning_rate = 1, .momentum = 0.5}};
    pp::parameter_store parameters{store};
    std::vector<float> master(5000, 3.0F), statistics(3);
    parameters.add("w", master);
    parameters.add("statistics", statistics, {.requires_grad = false});
    auto const last = static_cast<std::size_t>(count) - 1;
    auto const step = [&] {
      for (std::size_t n = 0; n <= last; ++n)
        fill(parameters.grad("w", n), pp::convert<pp::bfloat16>(n == 0 ? 1.0F : 0.0F));
      parameters.update_all();
    };
    auto const trained = [&] {
      parameters.sync_master();
      REQUIRE(std::ranges::count(master, master[0]) == 5000);
      REQUIRE(pp::convert<float>(parameters.value("w", last).data()[4999]) ==
              pp::convert<float>(pp::convert<pp::bfloat16>(master[0])));
      return master[0];
    };
    parameters.set_value("w", std::vector<float>(5000, 1.0F));  // before there are mirrors
    step();
    REQUIRE(trained() == 0.0F);
    parameters.set_value("w", std::vector<double>(5000, 10.001));
    REQUIRE(trained() == 10.001F);
    step();
    REQUIRE(trained() == Approx(8.501));  // the momentum stayed
    parameters.set_value("w", std::vector<float>(5000, 1.0F), pp::rule_states::reset);
    REQUIRE(store.steps("w") == 0);
    step();
    REQUIRE(trained() == 0.0F);
    parameters.freeze("w");
    parameters.set_value(std::vector<std::string>{"w", "statistics"},
                         std::vector<std::vector<float>>{std::vector<float>(5000, 4.0F), {1, 2, 3}});
    REQUIRE(trained() == 4.0F);
    REQUIRE(statistics == std::vector<float>{1, 2, 3});
    REQUIRE_THROWS_AS(parameters.set_value(std::vector<std::string>{"statistics", "w"},
                                           std::vector<std::vector<float>>{{9, 9, 9}, {9}}),
                      pp::shape_mismatch);
    REQUIRE_THROWS_AS(parameters.set_value("v", master), pp::unknown_key);
    REQUIRE(trained() == 4.0F);
    REQUIRE(statistics == std::vector<float>{1, 2, 3});
  }
}

TEST_CASE("a value that a swap has put away is not written, and the sum of micro-batches stays",
          "[parameter_store][set_value]") {
  auto const rule = update::sgd{1.0} | update::ema(0.5);
  pp::kv_store store{pp::cpu_devices(2), rule, pp::accumulate{}};
  pp::parameter_store parameters{store};
  for (char const* each : {"a", "b"}) parameters.add(each, std::vector<float>(10, 1.0F));
  auto const set_gradients = [&] {
    for (char const* each : {"a", "b"})
      for (std::size_t n = 0; n < 2; ++n) fill(parameters.grad(each, n), 0.25F);
  };
  set_gradients();
  parameters.update_all();
  store.swap("b", "ema");
  std::vector<float> const tens(10, 10.0F);
  REQUIRE_THROWS_WITH(parameters.set_value("b", tens),
                      Catch::Matchers::Contains("\"b\"") && Catch::Matchers::Contains("\"ema\""));
  REQUIRE_THROWS_AS(parameters.set_value(std::vector<std::string>{"a", "b"}, std::vector{tens, tens}),
                    pp::invalid_argument);
  REQUIRE(parameters.value("a", 1).data()[9] == 0.5F);  // none of the list
  parameters.set_value("a", tens);
  store.swap("b", "ema");
  REQUIRE(parameters.value("b", 1).data()[9] == 0.5F);
  set_gradients();
  parameters.accumulate_all();
  parameters.set_value("a", std::vector<float>(10, 20.0F));
  parameters.set_value("b", std::vector<float>(10, 20.0F), pp::rule_states::reset);
  REQUIRE(store.micro_batches("a") == 1);
  REQUIRE(store.micro_batches("b") == 0);
  parameters.update_all();
  REQUIRE(parameters.value("a", 0).data()[0] == 19.0F);
  REQUIRE(parameters.value("b", 0).data()[0] == 19.5F);
}

TEST_CASE("a parameter without memory for gradients is stepped by those that come", "[parameter_store][requests]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0}};
  pp::parameter_store parameters{store};
  parameters.add("own", std::vector<float>(1000), {.keeps_gradient = false});
  parameters.add("frozen", std::vector<float>(1000), {.requires_grad = false, .keeps_gradient = false});
  parameters.materialize();
  REQUIRE(parameters.memory_report().total().gradients == 0);
  REQUIRE_THROWS_WITH(parameters.grad("own", 0), Catch::Matchers::Contains("keeps no gradient"));
  REQUIRE(parameters.begin_grad("own", 0) == pp::grad_request::none);
  parameters.update_all();
  std::vector<float> const ones(1000, 1.0F);
  parameters.update("own", ones);
  parameters.update("own", std::vector{ones, ones});
  parameters.update("frozen", ones);
  REQUIRE(parameters.value("own", 1).data()[999] == -3.0F);
  REQUIRE(parameters.value("frozen", 1).data()[999] == 0.0F);
  parameters.unfreeze("frozen");
  parameters.update("frozen", ones);
  REQUIRE(parameters.value("frozen", 0).data()[0] == -1.0F);
  REQUIRE(parameters.memory_report().total().gradients == 0);
  REQUIRE_THROWS_AS(parameters.update("own", std::vector<float>(999)), pp::shape_mismatch);
  REQUIRE(store.steps("own") == 2);
}
