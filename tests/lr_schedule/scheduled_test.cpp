/// @file
/// Scheduled hyperparameters: bit for bit what setting them by hand before every step gives. Rules that look at one element
/// at a time run in the pass without a store.
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "update/rule_runner.hpp"

namespace {

namespace pp = pushpull;
namespace lr = pushpull::lr_schedule;
namespace update = pushpull::update;

constexpr int steps = 12;

/// Random tensors of awkward sizes, the same for the same seed.
template <class T>
std::vector<std::vector<T>> tensors(std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<std::vector<T>> result;
  constexpr std::size_t sizes[] = {1, 7, 4099, 0, 33333};
  for (std::size_t const size : sizes) {
    result.emplace_back(size);
    for (T& x : result.back()) x = static_cast<T>(uniform(random));
  }
  return result;
}

/// Weights and states after steps with `updater`, which `before_step(store, t)` may change.
template <class T, class Updater, class F>
std::vector<std::vector<T>> train_store(int devices, Updater const& updater, F const& before_step) {
  pp::kv_store<T, pp::cpu_device<>, Updater, pp::integer_keys, pp::synchronous> store{pp::cpu_devices(devices),
                                                                                      updater};
  auto weights = tensors<T>(1);
  std::vector<std::int64_t> const keys{4, 1, 3, 0, 2};
  store.init(keys, weights);
  for (int t = 1; t <= steps; ++t) {
    before_step(store, t);
    store.pushpull(keys, tensors<T>(static_cast<std::uint32_t>(t + 1)), weights);
  }
  for (auto const key : keys)
    for (auto const name : Updater::state_names) {
      auto const state = store.state(key, name);
      weights.emplace_back(state.begin(), state.end());
    }
  return weights;
}

/// The same without a store: `before_step(runner, t)` is called for each tensor, which is cut into as many slices as there would
/// be devices.
template <class T, class Updater, class F>
std::vector<std::vector<double>> train(std::size_t devices, Updater const& updater, F const& before_step) {
  static_assert(!pp::PreReduction<Updater>);
  std::vector<std::vector<double>> result;
  auto const weights = tensors<T>(1);
  for (std::size_t k = 0; k < weights.size(); ++k) {
    pp::test::rule_runner<T, T, Updater> runner(updater, {weights[k].begin(), weights[k].end()}, devices);
    for (int t = 1; t <= steps; ++t) {
      before_step(runner, t);
      auto const gradient = tensors<T>(static_cast<std::uint32_t>(t + 1))[k];
      runner.step({gradient.begin(), gradient.end()});
    }
    for (std::size_t s = 0; s <= Updater::state_names.size(); ++s) result.push_back(runner.values(s));
  }
  return result;
}

auto const nothing = [](auto const&, int) {};

/// Gives stage `Rule` of a store's or a runner's rule schedule(t) as its rate before step t.
template <class Rule>
auto set_by_hand(auto const& schedule) {
  return [schedule](auto& store, int t) {
    auto rule = store.updater();
    if constexpr (std::is_same_v<decltype(rule), Rule>) {
      rule.learning_rate = schedule(t);
    } else {
      get<Rule>(rule).learning_rate = schedule(t);
    }
    store.set_hyperparameters(rule);
  };
}

/// `pipe | learning_rate(schedule)` against `pipe`, whose stage `Rule` gets schedule(t) as its rate before step t.
template <class T, class Rule>
void compare(auto const& pipe, auto const& schedule) {
  auto const expected = train<T>(1, pipe, set_by_hand<Rule>(schedule));
  REQUIRE(expected != train<T>(1, pipe, nothing));
  for (std::size_t const devices : {std::size_t{1}, std::size_t{3}})
    REQUIRE(train<T>(devices, pipe | update::learning_rate(schedule), nothing) == expected);
}
template <class T, class Rule>
void compare_stores(auto const& pipe, auto const& schedule) {
  auto const expected = train_store<T>(1, pipe, set_by_hand<Rule>(schedule));
  REQUIRE(expected != train_store<T>(1, pipe, nothing));
  for (int const devices : {1, 3})
    REQUIRE(train_store<T>(devices, pipe | update::learning_rate(schedule), nothing) == expected);
}

/// Takes a weight of single floats only, and has its rate in single precision.
struct float_rate {
  float learning_rate = 1;
  static constexpr auto state_names = pp::states();
  PUSHPULL_HOST_DEVICE void operator()(pp::step<float> const&, pp::pack<float>& w, pp::pack<float> g) const noexcept {
    if (g > 0) w -= learning_rate * g;
  }
};

}  // namespace

TEST_CASE("a scheduled rate equals a rate that is set before every step", "[lr_schedule]") {
  lr::warm_up const schedule{lr::cosine{.base = 0.3, .final = 0.01, .updates = 7}, 3, 0.05};
  compare<float, update::momentum>(update::momentum{.momentum = 0.8, .dampening = 0.25}, schedule);
  compare<float, update::adam>(update::clip_value(0.4) | update::weight_decay(0.05) | update::adam{}, schedule);
  compare<double, update::adamw>(update::adamw{.weight_decay = 0.1}, schedule);
}

TEST_CASE("so does that of rules with sums, phases and random numbers", "[lr_schedule]") {
  auto const schedule = 0.1 * lr::multi_step_decay{.base = 1, .milestones = {2, 5}};
  compare_stores<float, update::adamw>(update::clip_global_norm(0.5) | update::adamw{}, schedule);
  compare_stores<float, update::lans>(update::clip_norm(0.7) | update::lans{.weight_decay = 0.01}, schedule);
  compare_stores<float, update::sgld>(update::sgld{}, schedule);
}

TEST_CASE("so does that of the rule inside a wrapper", "[lr_schedule]") {
  lr::linear const schedule{.base = 0.3, .final = 0.01, .updates = 8};
  compare<float, update::adam>(update::adam{} | update::ema(0.9), schedule);
  compare<float, update::momentum>(update::weight_decay(0.1) | update::clip_weights{update::momentum{}, 1.5}, schedule);
  compare_stores<float, update::adam>(
      update::decoupled_decay{update::clip_global_norm(0.5) | update::adam{}, 0.01} | update::lookahead(3), schedule);
  // The schedule may also stand inside, and the wrapper's own hyperparameter may have one.
  auto const inside = update::ema{update::sgd{} | update::learning_rate(schedule), 0.9};
  REQUIRE(train<float>(2, inside, nothing) ==
          train<float>(1, update::sgd{} | update::ema(0.9) | update::learning_rate(schedule), nothing));
  using averaged = update::ema<update::sgd>;
  auto const own = update::sgd{} | update::ema(0.9) | update::hyperparameter<&averaged::decay>(schedule);
  auto const set = [&](auto& store, int t) { store.set_hyperparameters({update::sgd{}, schedule(t)}); };
  REQUIRE(train<float>(2, own, nothing) == train<float>(1, averaged{update::sgd{}, 0.9}, set));
}

TEST_CASE("a scheduled rule stands behind transforms as it does in a whole pipe", "[lr_schedule]") {
  lr::step_decay const schedule{.base = 0.5, .updates = 3};
  auto const whole =
      update::clip_value(0.4) | update::weight_decay(0.05) | update::adam{} | update::learning_rate(schedule);
  auto const last =
      update::clip_value(0.4) | (update::weight_decay(0.05) | (update::adam{} | update::learning_rate(schedule)));
  REQUIRE(train<float>(2, whole, nothing) == train<float>(2, last, nothing));
}

TEST_CASE("any hyperparameter of a rule or a transform can be scheduled, several of one too", "[lr_schedule]") {
  lr::linear const rate{.base = 0.3, .final = 0.01, .updates = 8}, decay{.base = 0.01, .final = 0.5, .updates = 10};
  auto const rule =
      update::adamw{} | update::learning_rate(rate) | update::hyperparameter<&update::adamw::weight_decay>(decay);
  auto const set_rule = [&](auto& store, int t) {
    store.set_hyperparameters({.learning_rate = rate(t), .weight_decay = decay(t)});
  };
  REQUIRE(train<float>(2, rule, nothing) == train<float>(1, update::adamw{}, set_rule));

  lr::exponential_decay const limit{.base = 0.9, .gamma = 0.8};
  auto const clipped =
      update::clip_value(7) | update::hyperparameter<&update::clip_value::limit>(limit) | update::sgd{};
  auto const set_clipped = [&](auto& store, int t) {
    store.set_hyperparameters(update::clip_value(limit(t)) | update::sgd{});
  };
  REQUIRE(train<float>(2, clipped, nothing) == train<float>(1, update::clip_value(7) | update::sgd{}, set_clipped));

  auto const norm =
      update::clip_global_norm(7) | update::hyperparameter<&update::clip_global_norm::max_norm>(limit) | update::sgd{};
  auto const set_norm = [&](auto& store, int t) {
    store.set_hyperparameters(update::clip_global_norm(limit(t)) | update::sgd{});
  };
  static_assert(pp::PreReduction<decltype(norm)>);
  REQUIRE(train_store<float>(2, norm, nothing) ==
          train_store<float>(1, update::clip_global_norm(7) | update::sgd{}, set_norm));
}

TEST_CASE("rules for single floats and hyperparameters in float can be scheduled", "[lr_schedule]") {
  lr::linear const rate{.base = 0.3, .final = 0.01, .updates = 8};
  auto const set = [&](auto& store, int t) {
    store.set_hyperparameters({.learning_rate = static_cast<float>(rate(t))});
  };
  REQUIRE(train<float>(2, float_rate{} | update::learning_rate(rate), nothing) == train<float>(1, float_rate{}, set));
}

TEST_CASE("every key counts its own updates", "[lr_schedule]") {
  pp::kv_store store{pp::cpu_devices(2),
                     update::sgd{} | update::learning_rate([](std::int64_t t) { return t == 1 ? 8.0 : 1.0; }),
                     pp::synchronous{}};
  std::vector<float> const zero(100), one(100, 1.0F);
  store.init("a", zero);
  store.init("b", zero);
  store.push("a", one);
  store.push("a", one);
  store.push("b", one);
  std::vector<float> a(100), b(100);
  store.pull("a", a);
  store.pull("b", b);
  REQUIRE(a == std::vector<float>(100, -9.0F));
  REQUIRE(b == std::vector<float>(100, -8.0F));
}

TEST_CASE("stages and schedules of a pipe are found and change between steps", "[lr_schedule]") {
  auto const pipe = update::rescale(2) | update::sgd{} | update::learning_rate(lr::constant{1});
  pp::kv_store store{pp::cpu_devices(1), pipe, pp::synchronous{}};
  std::vector<float> w(10), g(10, 1.0F);
  store.init("w", w);
  store.pushpull("w", g, w);
  REQUIRE(w[9] == -2);
  auto rule = store.updater();
  get<lr::constant>(rule).value = 0.25;
  get<update::rescale>(rule).factor = 4;
  get<update::sgd>(rule).learning_rate = 100;  // the schedule's value replaces it
  store.set_hyperparameters(rule);
  store.pushpull("w", g, w);
  REQUIRE(w[9] == -3);
  auto const twice = update::adamw{} | update::learning_rate(lr::constant{1}) |
                     update::hyperparameter<&update::adamw::weight_decay>(lr::linear{0, 1, 4});
  REQUIRE(get<update::adamw>(twice).beta1 == 0.9);
  REQUIRE(get<lr::constant>(twice).value == 1);
  REQUIRE(get<lr::linear>(twice).final == 1);
  REQUIRE(twice.at(3).at(3).weight_decay == 0.5);
  REQUIRE(twice.stage.at(3).learning_rate == 1);
}

TEST_CASE("stores refuse the parameters of a schedule, and of the rule under it", "[lr_schedule]") {
  auto const devices = pp::cpu_devices(1);
  auto const bad_schedule =
      update::rescale(1) | update::sgd{} | update::learning_rate(lr::cosine{.base = 1, .updates = 0});
  REQUIRE_THROWS_AS((pp::kv_store{devices, bad_schedule}), pp::invalid_argument);
  auto const bad_rule = update::adam{.beta1 = 2} | update::learning_rate(lr::constant{1});
  REQUIRE_THROWS_AS((pp::kv_store{devices, bad_rule}), pp::invalid_argument);
}
