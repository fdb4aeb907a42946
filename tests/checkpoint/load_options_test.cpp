/// @file
/// What a checkpoint of another rule, of other keys or amid a step is: refused by name, or loaded as far as asked for.
#include <pushpull/checkpoint/optimizer_states.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/compat/mxnet.hpp>
#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;
namespace update = pushpull::update;
using strings = std::vector<std::string>;
using Catch::Matchers::Contains;

template <class Rule, class... P>
auto make(Rule const& rule, strings const& keys, P const&... policies) {
  pp::kv_store<float, pp::cpu_device<>, Rule, pp::synchronous, P...> store(pp::cpu_devices(2), rule, pp::synchronous{},
                                                                           policies...);
  store.init(keys, std::vector(keys.size(), std::vector<float>(70, 1.0F)));
  return store;
}

/// The file again, with other metadata.
void change(std::filesystem::path const& path, std::function<void(cp::metadata_map&)> const& f) {
  cp::safetensors_file const file(path);
  cp::metadata_map metadata = file.metadata();
  f(metadata);
  cp::write_safetensors(path, file.entries(), metadata);
}

std::vector<float> const ones(70, 1.0F);
strings const one_key{"w"};

/// A load that is refused with these words, and changes nothing.
template <class Store>
void refused(Store& store, std::filesystem::path const& path, strings const& words,
             cp::load_options const& options = {}) {
  auto const steps = store.steps("w");
  auto const carried = store.carried_numbers();
  auto const state = store.state("w", "momentum_buffer");
  std::string message;
  try {
    cp::load_optimizer_states(store, path, options);
  } catch (pp::file_error const& error) {
    message = error.what();
  }
  for (auto const& word : words) CHECK_THAT(message, Contains(word));
  CHECK(store.steps("w") == steps);
  CHECK(store.carried_numbers() == carried);
  CHECK(store.state("w", "momentum_buffer") == state);
}

}  // namespace

namespace own {

/// Rules of a user.
template <int N>
struct unnamed : update::momentum {
  static constexpr auto state_names = pp::states("velocity", "scale");
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(A const&, V& w, V const& g, V&, V&) const noexcept {
    w -= g;
  }
};
struct named : update::momentum {
  static constexpr std::string_view name = "my.rule";
};
struct momentum : update::momentum {};

}  // namespace own

TEST_CASE("every rule and stage has a name in files that does not depend on the compiler", "[rule_name]") {
  auto const name = [](auto const& rule) { return update::describe<std::remove_cvref_t<decltype(rule)>>().name; };
  using namespace update;
  strings const names{name(adabelief{}),
                      name(adadelta{}),
                      name(adafactor{}),
                      name(adagrad{}),
                      name(adam{}),
                      name(adamax{}),
                      name(adamw{}),
                      name(amsgrad{}),
                      name(dcasgd{}),
                      name(ftml{}),
                      name(ftrl{}),
                      name(group_adagrad{}),
                      name(lamb{}),
                      name(lans{}),
                      name(lars{}),
                      name(lion{}),
                      name(update::momentum{}),
                      name(nadam{}),
                      name(nesterov{}),
                      name(radam{}),
                      name(rmsprop{}),
                      name(centered_rmsprop{}),
                      name(sgd{}),
                      name(sgld{}),
                      name(signsgd{}),
                      name(signum{}),
                      name(update::test{}),
                      name(yogi{})};
  REQUIRE(names == strings{"adabelief", "adadelta",
                           "adafactor", "adagrad",
                           "adam",      "adamax",
                           "adamw",     "amsgrad",
                           "dcasgd",    "ftml",
                           "ftrl",      "group_adagrad",
                           "lamb",      "lans",
                           "lars",      "lion",
                           "momentum",  "nadam",
                           "nesterov",  "radam",
                           "rmsprop",   "centered_rmsprop",
                           "sgd",       "sgld",
                           "signsgd",   "signum",
                           "test",      "yogi"});
  REQUIRE(name(ademamix{}) == "ademamix");
  REQUIRE(name(adopt{}) == "adopt");
  REQUIRE(name(adan{}) == "adan");
  REQUIRE(name(mars{}) == "mars");
  REQUIRE(name(sophia_g{}) == "sophia_g");
  REQUIRE(name(adam_mini{}) == "adam_mini");
  REQUIRE(name(cautious{adam{}}) == "cautious(adam)");
  REQUIRE(name(prodigy{}) == "prodigy");
  REQUIRE(name(dadapt_adam{}) == "dadapt_adam");
  REQUIRE(name(schedule_free_sgd{} | swa(3, 2)) == "swa(schedule_free_sgd)");
  REQUIRE(name(schedule_free_adamw{}) == "schedule_free_adamw");
  REQUIRE(name(add_noise(0.1) | centralize{} | clip_global_norm(1) | clip_norm(1) | delay_compensation{} |
               apply_if_finite{} | dynamic_loss_scale{} | trace(0.9) | rescale(1) | clip_value(1) | weight_decay(1) |
               scale_by_rms{} | scale_by_centered_rms{} | sgd{}) ==
          "add_noise|centralize|clip_global_norm|clip_norm|delay_compensation|apply_if_finite|dynamic_loss_scale|trace|"
          "rescale|"
          "clip_value|weight_decay|scale_by_rms|scale_by_centered_rms|sgd");
  REQUIRE(name(basic_adagrad<epsilon_inside_root>{}) == "adagrad.epsilon_inside_root");
  REQUIRE(name(basic_group_adagrad<epsilon_outside_root>{}) == "group_adagrad.epsilon_outside_root");
  REQUIRE(name(basic_adamax<adamax_epsilon::denominator>{}) == "adamax.epsilon_in_denominator");
  REQUIRE(name(basic_scale_by_rms<epsilon_inside_root>{} | sgd{}) == "scale_by_rms.epsilon_inside_root|sgd");
  REQUIRE(name(basic_scale_by_centered_rms<epsilon_inside_root>{} | sgd{}) ==
          "scale_by_centered_rms.epsilon_inside_root|sgd");
  REQUIRE(name(clip_weights{decoupled_decay{lookahead{sgd{}, 5, 0.5} | ema(0.9), 0.1}, 1}) ==
          "clip_weights(decoupled_decay(ema(lookahead(sgd))))");
  namespace mxnet1 = pp::compat::mxnet1;
  namespace mxnet2 = pp::compat::mxnet2;
  REQUIRE(name(pp::compat::rated_momentum{}) == "rated_momentum");
  REQUIRE(name(pp::compat::rated_nesterov{}) == "rated_nesterov");
  REQUIRE(name(pp::compat::rated_decay{adam{}, 0.1}) == "rated_decay(adam)");
  REQUIRE(name(pp::compat::corrected_decay{}) == "corrected_decay(folded_correction(adam))");
  REQUIRE_THAT(name(mxnet1::lbsgd_lars({})), Contains("layer_rated_momentum.lbsgd"));
  REQUIRE_THAT(name(mxnet2::lars({})), Contains("layer_rated_momentum.lars"));
}

TEST_CASE("a rule of a user has the name that it gives, or its class and its states", "[rule_name]") {
  auto const name = [](auto const& rule) { return update::describe<std::remove_cvref_t<decltype(rule)>>().name; };
  struct local : update::sgd {};
  REQUIRE(name(own::named{}) == "my.rule");
  REQUIRE(name(own::unnamed<3>{}) == "unnamed{velocity,scale}");
  REQUIRE(name(own::momentum{}) == "momentum{momentum_buffer}");  // another rule than the library's
  REQUIRE(name(local{}) == "local{}");
  REQUIRE(name(update::rescale(1) | (own::unnamed<4>{} | update::ema(0.9))) == "rescale|ema(unnamed{velocity,scale})");
}

TEST_CASE("a description has stages with states and with numbers apart, and schedules in no part", "[rule_name]") {
  auto const rule = update::dynamic_loss_scale{} | update::clip_global_norm(1) | update::trace(0.9) |
                    update::apply_if_finite{} | update::dynamic_loss_scale{} |
                    update::decoupled_decay{update::adam{}, 0.1} | update::ema(0.9) |
                    update::learning_rate(pp::lr_schedule::constant{0.1});
  auto const d = update::describe<std::remove_const_t<decltype(rule)>>();
  REQUIRE(d.name ==
          "dynamic_loss_scale|clip_global_norm|trace|apply_if_finite|dynamic_loss_scale|ema(decoupled_decay(adam))");
  REQUIRE(d.stateful == "trace|ema(adam)");
  REQUIRE(d.carried.size() == 3);
  REQUIRE(d.carried[0].stage == "dynamic_loss_scale");
  REQUIRE(d.carried[1].stage == "apply_if_finite");
  REQUIRE(d.carried[2].stage == "dynamic_loss_scale.2");
  REQUIRE(d.carried[0].first == 0);
  REQUIRE(d.carried[1].first == 4);  // behind three of the scale and one of the norm
  REQUIRE(d.carried[2].first == 7);
  for (auto const& range : d.carried) REQUIRE(range.count == 3);
}

TEST_CASE("states of another rule are refused with both names, and loaded if that is meant",
          "[optimizer_states][errors]") {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  auto saved = make(update::momentum{}, one_key);
  for (int t = 0; t < 3; ++t) saved.push("w", ones);
  cp::save_optimizer_states(saved, path);

  auto other = make(update::nesterov{}, one_key);  // the same state in another sense
  refused(other, path, {"key \"w\"", "\"momentum\"", "\"nesterov\""});
  refused(other, path, {"\"momentum\"", "\"nesterov\""}, {.other_stages = true});
  auto const report = cp::load_optimizer_states(other, path, {.other_rule = true});
  REQUIRE(report.loaded == one_key);
  REQUIRE((report.missing.empty() && report.left.empty()));
  REQUIRE(other.steps("w") == 3);
  REQUIRE(other.state("w", "momentum_buffer") == saved.state("w", "momentum_buffer"));

  auto same = make(update::momentum{}, one_key);
  for (auto const& [name, states] : {std::pair{"rescale|momentum", "momentum"}, {"momentum|rescale", "momentum"}}) {
    change(path, [&, n = name, s = states](auto& metadata) { metadata["rule"] = n, metadata["rule.states"] = s; });
    refused(same, path, {"\"momentum\"", name, "other_stages"});  // another pipe, another order
    REQUIRE(cp::load_optimizer_states(same, path, {.other_stages = true}).loaded == one_key);
    REQUIRE(same.steps("w") == 3);
    same = make(update::momentum{}, one_key);
  }
  change(path, [](auto& metadata) { metadata["rule"] = metadata["rule.states"] = "trace|momentum"; });
  refused(same, path, {"\"momentum\"", "\"trace|momentum\""}, {.other_stages = true});
  change(path, [](auto& metadata) { metadata["rule"] = std::string(5000, '\n'); });
  refused(same, path, {"\"momentum\"", "???..."});
}

TEST_CASE("a loss scale is added, dropped and exchanged for a guard on resume where that is meant",
          "[optimizer_states][loss_scale]") {
  pp::test::temporary_folder const folder;
  auto const plain_path = folder.file("plain"), scaled_path = folder.file("scaled");
  update::dynamic_loss_scale const scale{.initial = 8, .interval = 2};
  auto plain = make(update::momentum{}, one_key);
  auto scaled = make(scale | update::momentum{}, one_key);
  auto guarded = make(update::apply_if_finite{} | update::momentum{}, one_key);
  for (int t = 0; t < 3; ++t) {
    plain.push("w", ones);
    scaled.push("w", ones);
  }
  cp::save_optimizer_states(plain, plain_path);
  cp::save_optimizer_states(scaled, scaled_path);
  auto const numbers = scaled.carried_numbers();
  REQUIRE(numbers[1] == 16);

  refused(guarded, scaled_path, {"\"dynamic_loss_scale|momentum\"", "\"apply_if_finite|momentum\""});
  auto report = cp::load_optimizer_states(guarded, scaled_path, {.other_stages = true});
  REQUIRE(report.loaded == one_key);
  REQUIRE(report.missing == strings{"apply_if_finite"});
  REQUIRE(report.left == strings{"dynamic_loss_scale"});
  REQUIRE(guarded.carried_numbers() == std::vector<double>{0, 0, 0});
  REQUIRE(guarded.steps("w") == 3);

  refused(scaled, plain_path, {"\"dynamic_loss_scale|momentum\"", "\"momentum\""});
  auto added = make(scale | update::momentum{}, one_key);
  report = cp::load_optimizer_states(added, plain_path, {.other_stages = true});
  REQUIRE(report.missing == strings{"dynamic_loss_scale"});
  REQUIRE(added.carried_numbers()[1] == 8);
  REQUIRE(added.state("w", "momentum_buffer") == plain.state("w", "momentum_buffer"));

  refused(plain, scaled_path, {"\"dynamic_loss_scale|momentum\"", "\"momentum\""});
  report = cp::load_optimizer_states(plain, scaled_path, {.other_stages = true});
  REQUIRE(report.left == strings{"dynamic_loss_scale"});

  report = cp::load_optimizer_states(added, scaled_path);
  REQUIRE((report.missing.empty() && report.left.empty()));
  REQUIRE(added.carried_numbers() == numbers);
  change(scaled_path, [](auto& metadata) { metadata["rule"] = "dynamic_loss_scale|rescale|momentum"; });
  added = make(scale | update::momentum{}, one_key);
  report = cp::load_optimizer_states(added, scaled_path, {.other_stages = true});
  REQUIRE((report.missing.empty() && report.left.empty()));
  REQUIRE(added.carried_numbers() == numbers);
  auto stranger = make(scale | update::momentum{}, {"other"});  // no key in common
  cp::load_options const keys_differ{.new_keys = true, .gone_keys = true};
  REQUIRE_THROWS_WITH(cp::load_optimizer_states(stranger, plain_path, keys_differ),
                      Contains("\"dynamic_loss_scale|momentum\"") && Contains("\"momentum\""));
  change(scaled_path, [](auto& metadata) { metadata["carried.dynamic_loss_scale"] = "1 2 "; });
  refused(added, scaled_path, {"carried.dynamic_loss_scale", "3 numbers"}, {.other_stages = true});
}

TEST_CASE("keys that are new and keys that are gone are refused, or reported", "[optimizer_states][errors]") {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  auto saved = make(update::momentum{}, {"gone", "w", "gone/too"});
  for (auto const* const key : {"gone", "w", "gone/too"}) saved.push(key, ones);
  cp::save_optimizer_states(saved, path);
  auto store = make(update::momentum{}, {"new", "w"});
  store.push("new", ones);
  store.push("new", ones);
  auto const before = store.state("new", "momentum_buffer");
  refused(store, path, {"\"new/steps\""});
  refused(store, path, {"\"new/steps\""}, {.gone_keys = true});
  refused(store, path, {"gone", "no such key", "gone_keys"}, {.new_keys = true});
  auto const report = cp::load_optimizer_states(store, path, {.new_keys = true, .gone_keys = true});
  REQUIRE(report.loaded == strings{"w"});
  REQUIRE(report.missing == strings{"new"});
  REQUIRE(report.left == strings{"gone", "gone/too"});
  REQUIRE(store.steps("w") == 1);
  REQUIRE(store.steps("new") == 2);
  REQUIRE(store.state("new", "momentum_buffer") == before);

  // A state that the rule does not have is no key that is gone.
  cp::safetensors_file const file(path);
  std::vector<cp::entry> entries(file.entries().begin(), file.entries().end());
  entries.push_back(entries.back());
  entries.back().name = "w/exp_avg";
  cp::write_safetensors(path, entries, file.metadata());
  refused(store, path, {"\"w/exp_avg\""}, {.new_keys = true, .gone_keys = true});
  REQUIRE(cp::load_optimizer_states(store, path, {.new_keys = true, .gone_keys = true, .other_rule = true}).left ==
          strings{"gone", "gone/too", "w/exp_avg"});
}

TEST_CASE("docs/training_steps.md resumes with a loss scale and keys that were added", "[optimizer_states]") {
  namespace checkpoint = cp;
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  auto saved = make(update::momentum{}, one_key);
  saved.push("w", ones);
  cp::save_optimizer_states(saved, path);
  auto store = make(update::dynamic_loss_scale{} | update::momentum{}, {"w", "new"});
  // example-begin load_options
  auto const report = checkpoint::load_optimizer_states(store, path, {.new_keys = true, .other_stages = true});
  for (auto const& name : report.missing) std::printf("not in the file: %s\n", name.c_str());
  for (auto const& name : report.left) std::printf("left in the file: %s\n", name.c_str());
  // example-end load_options
  REQUIRE(report.loaded == one_key);
  REQUIRE(report.missing == strings{"new", "dynamic_loss_scale"});
  REQUIRE(report.left.empty());
}

TEST_CASE(
    "a file that names no rule, as earlier versions wrote, is loaded where the rule keeps nothing, or if it is trusted",
    "[optimizer_states][errors]") {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  auto const unnamed = [](auto& metadata) {
    for (auto const* const name : {"rule", "rule.states", "carried.dynamic_loss_scale"}) metadata.erase(name);
  };
  auto plain = make(update::momentum{}, one_key);
  plain.push("w", ones);
  cp::save_optimizer_states(plain, path);
  change(path, unnamed);
  plain.push("w", ones);
  refused(plain, path, {"\"momentum\"", "names no rule", "other_rule"});
  refused(plain, path, {"names no rule"}, {.other_stages = true});
  REQUIRE(cp::load_optimizer_states(plain, path, {.other_rule = true}).loaded == one_key);
  REQUIRE(plain.steps("w") == 1);

  auto scaled = make(update::dynamic_loss_scale{.initial = 8, .interval = 2} | update::momentum{}, one_key);
  REQUIRE(cp::load_optimizer_states(scaled, path, {.other_rule = true}).missing == strings{"dynamic_loss_scale"});
  scaled.push("w", ones);
  cp::save_optimizer_states(scaled, path);
  change(path, unnamed);
  auto const numbers = scaled.carried_numbers();
  scaled.push("w", ones);
  refused(scaled, path, {"names no rule"});
  cp::load_optimizer_states(scaled, path, {.other_rule = true});
  REQUIRE(scaled.carried_numbers() == numbers);

  pp::kv_store<float, pp::cpu_device<>, update::sgd> stateless{pp::cpu_devices(1)};
  stateless.init("w", ones);
  stateless.push("w", ones).wait();
  cp::save_optimizer_states(stateless, path);
  change(path, unnamed);
  stateless.push("w", ones).wait();
  cp::load_optimizer_states(stateless, path);
  REQUIRE(stateless.steps("w") == 1);
}

TEST_CASE("a step count that no rule can take is refused, in a file and in a call", "[optimizer_states][errors]") {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  auto store = make(update::momentum{}, one_key);
  store.push("w", ones);
  cp::save_optimizer_states(store, path);
  for (auto const* const count :
       {"-1", "9007199254740993", "9223372036854775807", "18446744073709551616", "1.5", "", " 1"}) {
    INFO(count);
    change(path, [&](auto& metadata) { metadata["w/steps"] = count; });
    refused(store, path, {"w/steps", "a count of steps", "9007199254740992", "\"" + std::string(count) + "\""});
  }
  for (std::int64_t const t : {std::int64_t{-1}, pp::max_steps + 1, std::numeric_limits<std::int64_t>::max()})
    REQUIRE_THROWS_WITH(store.set_steps("w", t), Contains("key \"w\"") && Contains("9007199254740992"));
  REQUIRE(store.steps("w") == 1);
  change(path, [&](auto& metadata) { metadata["w/steps"] = "9007199254740992"; });
  cp::load_optimizer_states(store, path);
  store.push("w", ones);
  REQUIRE(store.steps("w") == pp::max_steps + 1);
}

TEST_CASE("a checkpoint amid a step holds the sums of its micro-batches, and a load forgets those of the store",
          "[optimizer_states][accumulate]") {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  strings const keys{"a", "w"};
  auto const gradients = [](float a, float w) {
    return std::vector{std::vector<float>(70, a), std::vector<float>(70, w)};
  };
  auto const weights = [&](auto& store) {
    auto values = gradients(0, 0);
    store.pull(keys, values);
    return values;
  };
  for (std::int64_t const n : {0, 3}) {
    auto saved = make(update::momentum{1}, keys, pp::accumulate{n});
    auto const add = [&](auto& store, std::vector<std::vector<float>> const& g) {
      n == 0 ? store.accumulate(keys, g) : store.push(keys, g);
    };
    add(saved, gradients(1, 2));
    saved.accumulate("w", ones);
    cp::save_optimizer_states(saved, path);
    for (bool const poisoned : {false, true}) {
      auto loaded = make(update::momentum{1}, keys, pp::accumulate{n});
      if (poisoned) add(loaded, gradients(std::nanf(""), std::nanf("")));
      REQUIRE(cp::load_optimizer_states(loaded, path).loaded == keys);
      REQUIRE(loaded.micro_batches("a") == 1);
      REQUIRE(loaded.micro_batches("w") == 2);
      REQUIRE(loaded.gradient_sum("w") == std::vector<float>(70, 3.0F));
      auto twin = make(update::momentum{1}, keys, pp::accumulate{n});
      twin.set_micro_batches("a", 1, std::vector<float>(70, 1.0F));
      twin.set_micro_batches("w", 2, std::vector<float>(70, 3.0F));
      for (auto* const store : {&loaded, &twin})
        for (int i = 0; i < 3; ++i) store->push(keys, gradients(4, 8));
      REQUIRE(weights(loaded) == weights(twin));
      REQUIRE(weights(loaded)[1][69] < -9);
    }
    auto fresh = make(update::momentum{1}, keys, pp::accumulate{n});
    auto const report = cp::load_optimizer_states(fresh, path, {.micro_batches = false});
    REQUIRE(report.left == strings{"a/gradient.sum", "w/gradient.sum"});
    REQUIRE(fresh.micro_batches("w") == 0);

    auto without = make(update::momentum{1}, keys);
    refused(without, path, {"gradient.sum", "micro-batches", "does not accumulate"});
    REQUIRE(cp::load_optimizer_states(without, path, {.micro_batches = false}).left.size() == 2);
    for (auto const* const count : {"0", "-3", "9007199254740993", "x"}) {
      change(path, [&](auto& metadata) { metadata["w/gradient.sum"] = count; });
      refused(fresh, path, {"w/gradient.sum", "micro-batches"});
    }
    change(path, [&](auto& metadata) { metadata.erase("w/gradient.sum"); });
    refused(fresh, path, {"w/gradient.sum"});

    add(saved, gradients(std::nanf(""), 1));  // what a file does not hold is forgotten
    saved.discard_micro_batches("w");
    cp::save_optimizer_states(without, path);
    cp::load_optimizer_states(saved, path);
    REQUIRE(saved.micro_batches("a") == 0);
    for (int i = 0; i < 3; ++i) saved.push(keys, gradients(1, 1));
    REQUIRE(weights(saved)[0][69] < 1);
  }
}

TEST_CASE("while a state stands in the place of weights nothing is saved and nothing is loaded",
          "[optimizer_states][swap][errors]") {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  auto store = make(update::momentum{} | update::ema(0.9), one_key);
  store.push("w", ones);
  store.push("w", ones);
  cp::save_optimizer_states(store, path);
  auto const file = pp::test::read_file(path);
  auto const average = store.state("w", "ema");
  store.swap("ema");
  auto const weights = store.state("w", "ema");
  REQUIRE_THROWS_AS(cp::save_optimizer_states(store, path), pp::invalid_argument);
  REQUIRE_THROWS_WITH(cp::save_optimizer_states(store, path),
                      Contains("save_optimizer_states: key \"w\"") && Contains("\"ema\"") && Contains("swap it back"));
  REQUIRE(pp::test::read_file(path) == file);
  REQUIRE_THROWS_AS(cp::load_optimizer_states(store, path), pp::invalid_argument);
  REQUIRE_THROWS_WITH(cp::load_optimizer_states(store, path),
                      Contains("load_optimizer_states: key \"w\"") && Contains("\"ema\"") && Contains("swap it back"));
  REQUIRE(store.state("w", "ema") == weights);
  store.swap("ema");
  REQUIRE(store.state("w", "ema") == average);
  cp::load_optimizer_states(store, path);
  cp::save_optimizer_states(store, path);
  REQUIRE(pp::test::read_file(path) == file);
}
