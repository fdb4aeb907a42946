/// @file
/// Checkpoints in a folder: every kind of store, lists of them, one file of them, and saves in the background.
#include <pushpull/checkpoint/optimizer_states.hpp>
#include <pushpull/checkpoint/save_async.hpp>

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

int renames_until_failure = 0;  ///< the call of rename with this number fails

}  // namespace

/// Takes the place of the C library's.
extern "C" int rename(char const* from, char const* to) noexcept {
  if (renames_until_failure > 0 && --renames_until_failure == 0) {
    errno = EIO;
    return -1;
  }
  return ::renameat(AT_FDCWD, from, AT_FDCWD, to);
}

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;
namespace fs = std::filesystem;
namespace update = pushpull::update;
using Catch::Matchers::Contains;
using floats = std::vector<float>;

std::vector<std::string> const keys{"a", "b/c", "empty"};
std::vector<floats> const values{floats(5003, 1), floats(70, 2), floats()};
std::vector<floats> const gradients{floats(5003, 0.5F), floats(70, -3), floats()};

template <class Store>
Store& trained(Store& store, int steps, bool init = true) {
  if (init) store.init(keys, values);
  for (int i = 0; i < steps; ++i) store.push(keys, gradients).wait();
  return store;
}
template <class Store>
std::vector<floats> pulled(Store& store) {
  auto result = values;
  store.pull(keys, result).wait();
  return result;
}
auto adam_store(int devices) {
  return pp::make_kv_store<float>(pp::cpu_devices(devices), update::adam{.learning_rate = 0.1}, pp::synchronous{});
}
std::vector<std::int64_t> steps_in(fs::path const& folder) {
  std::vector<std::int64_t> result;
  for (auto const& each : cp::list(folder)) result.push_back(each.step);
  return result;
}
std::vector<std::string> names_in(fs::path const& folder) {
  std::vector<std::string> result;
  for (auto const& each : fs::directory_iterator(folder)) result.push_back(each.path().filename().string());
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace

TEST_CASE("a checkpoint is a folder with a file of each rank and a manifest", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto store = adam_store(2);
  cp::save(trained(store, 3), folder.file("run"));
  REQUIRE(names_in(folder.file("run")) == std::vector<std::string>{"step-3"});
  REQUIRE(names_in(folder.file("run") / "step-3") == std::vector<std::string>{"manifest.json", "rank-0.safetensors"});
  cp::safetensors_file const file(folder.file("run") / "step-3" / "rank-0.safetensors");
  REQUIRE(file.names() == std::vector<std::string>{"a/exp_avg@0", "a/exp_avg_sq@0", "a@0", "b/c/exp_avg@0",
                                                   "b/c/exp_avg_sq@0", "b/c@0"});
  REQUIRE(file.metadata().at("b/c@0") == "0:70");
  REQUIRE_THAT(pp::test::read_file(folder.file("run") / "step-3" / "manifest.json"),
               Contains("\"format\": \"pushpull.checkpoint\"") && Contains("\"a/steps\": \"3\""));

  auto expected = pulled(trained(store, 4, false));
  auto loaded = adam_store(3);
  trained(loaded, 1);
  auto const report = cp::load(loaded, folder.file("run"));
  REQUIRE(report.loaded == keys);
  REQUIRE(loaded.steps("a") == 3);
  REQUIRE(pulled(trained(loaded, 4, false)) == expected);
}

TEST_CASE("a kv_store loads what an any_store saved, and keys of one owner what slices saved", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto saved = pp::create("local", pp::cpu_devices(2));
  saved.init(keys, values);
  saved.set_optimizer(update::adam{.learning_rate = 0.1}, pp::accumulate{2});
  for (int i = 0; i < 3; ++i) saved.push(keys, gradients).wait();
  cp::save(saved, folder.file("run"));
  auto loaded = pp::make_kv_store<float>(pp::cpu_devices(3), update::adam{.learning_rate = 0.1}, pp::accumulate{2},
                                         pp::placement::owners{});
  loaded.init(keys, gradients);
  cp::load(loaded, folder.file("run"));
  REQUIRE(loaded.micro_batches("a") == 1);
  REQUIRE(pulled(loaded) == pulled(saved));
  saved.push(keys, gradients).wait();
  loaded.push(keys, gradients).wait();
  REQUIRE(pulled(loaded) == pulled(saved));
  cp::save(loaded, folder.file("run"));
  saved.push(keys, gradients).wait();
  cp::load(saved, folder.file("run"));
  REQUIRE(saved.steps("b/c") == 2);
  REQUIRE(saved.micro_batches("b/c") == 0);
  REQUIRE(pulled(saved) == pulled(loaded));
}

TEST_CASE("stores of several element types, of several rules and without a rule are saved as a whole", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  {
    auto const make = [](int devices) {
      auto store = pp::make_kv_store<pp::type_list<float, pp::bfloat16>>(
          pp::cpu_devices(devices), update::adamw{.learning_rate = 0.1}, pp::element::master<float>{},
          pp::synchronous{});
      store.init("f", floats(300, 1));
      store.init("b", std::vector<pp::bfloat16>(70, pp::convert<pp::bfloat16>(2.0F)));
      return store;
    };
    auto saved = make(2), loaded = make(3);
    auto const train = [](auto& store) {
      store.push("f", floats(300, 0.5F)).wait();
      store.push("b", std::vector<pp::bfloat16>(70, pp::convert<pp::bfloat16>(-3.0F))).wait();
    };
    train(saved);
    cp::save(saved, folder.file("types"));
    cp::load(loaded, folder.file("types"));
    train(saved);
    train(loaded);
    for (auto* const store : {&saved, &loaded}) REQUIRE(store->steps("b") == 2);
    floats x(70), y(70);
    saved.of<pp::bfloat16>().pull("b", x).wait();  // masters
    loaded.of<pp::bfloat16>().pull("b", y).wait();
    REQUIRE(x == y);
    REQUIRE(pp::convert<float>(pp::convert<pp::bfloat16>(x[0])) != x[0]);
  }
  {
    pp::rules const chosen{update::adam{},
                           pp::where([](std::string_view name) { return name == "a"; }, update::momentum{})};
    pp::kv_store saved{pp::cpu_devices(2), chosen, pp::synchronous{}},
        loaded{pp::cpu_devices(1), chosen, pp::synchronous{}};
    cp::save(trained(saved, 2), folder.file("rules"));
    trained(loaded, 1);
    cp::load(loaded, folder.file("rules"));
    REQUIRE(pulled(trained(loaded, 1, false)) == pulled(trained(saved, 1, false)));
    auto other = adam_store(1);
    trained(other, 0);
    REQUIRE_THROWS_WITH(cp::load(other, folder.file("rules")), Contains("\"adam\"") && Contains("\"momentum\""));
    REQUIRE(pulled(other) == values);
  }
  {
    pp::kv_store<float, pp::cpu_device<>> saved{pp::cpu_devices(2)}, loaded{pp::cpu_devices(3)};
    cp::save(trained(saved, 1), folder.file("sums"), {.step = 12});
    trained(loaded, 0);
    cp::load(loaded, folder.file("sums"));
    REQUIRE(pulled(loaded) == gradients);
    REQUIRE(steps_in(folder.file("sums")) == std::vector<std::int64_t>{12});
  }
}

TEST_CASE("parameters are saved as a whole, those that are not trained from the mirror that the program writes",
          "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto const rule = update::adam{.learning_rate = 0.1};
  auto const add = [](auto& parameters) {
    parameters.add("w", std::vector<pp::bfloat16>(5000, pp::convert<pp::bfloat16>(1.0F)));
    parameters.add("mean", std::vector<pp::bfloat16>(3), {.requires_grad = false});
  };
  auto const train = [](auto& parameters) {
    auto const g = parameters.grad("w", 0);
    for (std::size_t i = 0; i < g.size(); ++i) g.data()[i] = pp::convert<pp::bfloat16>(0.25F);
    parameters.update_all();
  };
  pp::kv_store<pp::bfloat16, pp::cpu_device<>, update::adam, pp::element::master<float>> store{pp::cpu_devices(1),
                                                                                               rule},
      other{pp::cpu_devices(2), rule};
  pp::parameter_store saved{store}, loaded{other};
  add(saved);
  add(loaded);
  train(saved);
  saved.value("mean", 0).data()[1] = pp::convert<pp::bfloat16>(7.0F);
  cp::save(saved, folder.file("run"));
  cp::load(loaded, folder.file("run"));
  for (std::size_t n = 0; n < 2; ++n) {
    REQUIRE(pp::convert<float>(loaded.value("mean", n).data()[1]) == 7);
    REQUIRE(pp::convert<float>(loaded.value("w", n).data()[4999]) ==
            pp::convert<float>(saved.value("w", 0).data()[4999]));
  }
  train(saved);
  train(loaded);
  floats x(5000), y(5000);
  store.pull("w", x).wait();
  other.pull("w", y).wait();
  REQUIRE(x == y);
  REQUIRE(other.steps("w") == 2);
}

TEST_CASE("a checkpoint that does not fit changes nothing, and options permit differences", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto const run = folder.file("run");
  auto store = adam_store(2);
  cp::save(trained(store, 2), run);
  auto const refused = [&](auto& other, std::string const& why) {
    auto const before = pulled(other);
    REQUIRE_THROWS_WITH(cp::load(other, run), Contains(why));
    REQUIRE(pulled(other) == before);
    REQUIRE(other.steps("a") == 1);
  };
  pp::kv_store momentum{pp::cpu_devices(1), update::momentum{}, pp::synchronous{}};
  refused(trained(momentum, 1), "got those of \"adam\"");
  auto more = adam_store(1);
  trained(more, 1).init("more", floats(3, 4));
  refused(more, "more");
  REQUIRE(cp::load(more, run, {.new_keys = true}).missing == std::vector<std::string>{"more"});
  REQUIRE(more.steps("a") == 2);
  REQUIRE(pulled(more) == pulled(store));
  auto fewer = adam_store(1);
  fewer.init("b/c", values[1]);
  REQUIRE_THROWS_WITH(cp::load(fewer, run), Contains("the store has no such key"));
  cp::load(fewer, run, {.gone_keys = true});
  REQUIRE(fewer.state("b/c", "exp_avg") == store.state("b/c", "exp_avg"));
  auto empty = adam_store(1);
  trained(empty, 1);
  REQUIRE_THROWS_WITH(cp::load(empty, folder.file("none")), Contains("a whole checkpoint expected, found none"));
  pp::kv_store averaged{pp::cpu_devices(1), update::ema(update::sgd{}, 0.5), pp::synchronous{}};
  trained(averaged, 1).swap("ema");
  REQUIRE_THROWS_AS(cp::save(averaged, run), pp::invalid_argument);
  REQUIRE(steps_in(run) == std::vector<std::int64_t>{2});
}

TEST_CASE("one file of a checkpoint has weights for any reader and states for load_optimizer_states", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto store = pp::make_kv_store<float>(pp::cpu_devices(3), update::adam{.learning_rate = 0.1}, pp::accumulate{2});
  cp::save(trained(store, 3), folder.file("run"));
  auto const file = folder.file("one.safetensors");
  cp::consolidate(folder.file("run"), file);
  cp::safetensors_file const one(file);
  std::vector<floats> weights = values;
  for (std::size_t i = 0; i < keys.size(); ++i) cp::copy(one.find(keys[i]), weights[i]);
  REQUIRE(weights == pulled(store));
  auto loaded = pp::make_kv_store<float>(pp::cpu_devices(2), update::adam{.learning_rate = 0.1}, pp::accumulate{2});
  loaded.init(keys, weights);
  REQUIRE(cp::load_optimizer_states(loaded, file).left.empty());
  REQUIRE(loaded.micro_batches("a") == 1);
  REQUIRE(pulled(trained(loaded, 3, false)) == pulled(trained(store, 3, false)));
  REQUIRE_THROWS_AS(cp::consolidate(folder.file("none"), file), pp::file_error);
}

TEST_CASE("parts that do not have every element once are refused", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto store = adam_store(1);
  trained(store, 1);
  auto const refused = [&](auto const& change, std::string const& why) {
    auto job = cp::detail::begin_save(store, "save", {}, folder.file("run"), {});
    change(job.copy);
    cp::detail::complete(job, {cp::detail::write_file(job)});
    REQUIRE_THROWS_WITH(cp::load(store, folder.file("run")), Contains(why));
  };
  refused([](auto& copy) { copy.entries.erase(copy.entries.begin()); }, "\"a\": every element once expected");
  refused(
      [](auto& copy) {
        copy.entries[0].shape = {5000};
        copy.entries[0].bytes = copy.entries[0].bytes.first(20000);
      },
      "\"a\": every element once expected, a part begins or ends at 5000 and not at 5003");
  refused([](auto& copy) { copy.entries.push_back({"a@7", "F32", {1}, copy.entries[0].bytes.first(4)}); },
          "\"a\": every element once expected");
  refused([](auto& copy) { copy.entries.push_back({"a@07", "F32", {1}, copy.entries[0].bytes.first(4)}); },
          "a part of a tensor of the manifest expected");
  for (char const* const name : {"a@5003", "a@-1", "a@07", "a@", "a", "c@0"})
    refused([&](auto& copy) { copy.entries[0].name = name; }, "a part of a tensor of the manifest expected");
}

TEST_CASE("the newest whole checkpoint counts, and keep removes the others", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto const run = folder.file("run");
  auto store = adam_store(2);
  trained(store, 0);
  REQUIRE(cp::list(run).empty());
  for (int i = 0; i < 5; ++i) cp::save(trained(store, 1, false), run);
  REQUIRE(steps_in(run) == std::vector<std::int64_t>{5, 4, 3, 2, 1});
  cp::load(store, run / "step-3");  // a folder that is a checkpoint itself
  REQUIRE(store.steps("a") == 3);
  cp::load(store, run);
  REQUIRE(store.steps("a") == 5);
  fs::rename(run / "step-1", run / "step-1.partial");
  fs::remove(run / "step-4" / "rank-0.safetensors");
  fs::create_directory(run / "step-x");
  fs::create_directory(run / "step-6.partial");
  REQUIRE(steps_in(run) == std::vector<std::int64_t>{5, 3, 2});
  cp::keep(run, 2);
  REQUIRE(names_in(run) == std::vector<std::string>{"step-3", "step-4", "step-5", "step-6.partial", "step-x"});
  cp::save(trained(store, 1, false), run, {.keep = 1});
  REQUIRE(names_in(run) == std::vector<std::string>{"step-6", "step-x"});
  cp::save(store, run, {.step = 4});
  cp::save(store, run, {.step = 3, .keep = 1});  // of a run that went back: not removed by the save that wrote it
  REQUIRE(names_in(run) == std::vector<std::string>{"step-3", "step-6", "step-x"});
  cp::keep(run, 1);
  REQUIRE(names_in(run) == std::vector<std::string>{"step-6", "step-x"});
  fs::resize_file(run / "step-6" / "rank-0.safetensors", 100);
  REQUIRE(cp::list(run).empty());
  REQUIRE_THROWS_AS(cp::keep(run, 0), pp::invalid_argument);
}

TEST_CASE("a checkpoint takes the place of one of the same step, which stays whole until then", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto const run = folder.file("run");
  auto store = adam_store(1);
  cp::save(trained(store, 1), run);
  store.assign("a", floats(5003, 9));
  auto const loads = [&](float expected) {
    auto loaded = adam_store(2);
    cp::load(trained(loaded, 0), run);
    REQUIRE(pulled(loaded)[0] == floats(5003, expected));
  };
  cp::save(store, run);
  loads(9);
  REQUIRE(names_in(run) == std::vector<std::string>{"step-1"});
  // As if a program had been killed between its two renames, and then amid the removal of a damaged one.
  fs::rename(run / "step-1", run / "step-1.replaced");
  loads(9);
  fs::copy(run / "step-1.replaced", run / "step-1");
  REQUIRE(steps_in(run) == std::vector<std::int64_t>{1});
  fs::remove(run / "step-1" / "manifest.json");
  loads(9);
  REQUIRE(steps_in(run) == std::vector<std::int64_t>{1});
  store.assign("a", floats(5003, 4));
  cp::save(store, run);
  loads(4);
  REQUIRE(names_in(run) == std::vector<std::string>{"step-1"});

  store.assign("a", floats(5003, 5));
  for (int const failing : {1, 2}) {  // of the old folder, of the new one
    INFO(failing);
    renames_until_failure = failing;
    REQUIRE_THROWS_AS(cp::save(store, run), pp::file_error);
    REQUIRE(renames_until_failure == 0);
    loads(4);
    REQUIRE(steps_in(run) == std::vector<std::int64_t>{1});
  }
  cp::save(store, run);
  loads(5);
  REQUIRE(names_in(run) == std::vector<std::string>{"step-1"});
}

TEST_CASE("a save in the background has the values of its call, and its handle tells how it went", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto const run = folder.file("run");
  auto store = adam_store(2);
  trained(store, 1);
  cp::async_save const none;
  REQUIRE(none.done());
  none.wait();
  {
    auto handle = cp::save_async(store, run);
    trained(store, 1, false);
    handle.wait();
    REQUIRE(handle.done());
    auto moved = std::move(handle);
    moved = cp::save_async(store, run);
  }  // the handle waits
  REQUIRE(steps_in(run) == std::vector<std::int64_t>{2, 1});
  cp::load(store, run / "step-1");
  REQUIRE(store.steps("a") == 1);
}

TEST_CASE("docs/training_steps.md saves a run in a folder and resumes it", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  fs::path const run = folder.file("run");
  auto const rule = update::adam{.learning_rate = 0.1};
  floats weight{1, 2, 3, 4, 5, 6};
  auto const steps = [](auto& parameters, int count) {
    for (int t = 0; t < count; ++t) {
      auto const w = parameters.value("fc1.weight", 0), g = parameters.grad("fc1.weight", 0);
      for (std::size_t i = 0; i < 6; ++i) g.data()[i] = 3 * w.data()[i] - 1;
      parameters.update_all();
    }
  };
  {
    namespace checkpoint = pp::checkpoint;
    pp::kv_store store{pp::cpu_devices(2), rule};
    pp::parameter_store parameters{store};
    parameters.add("fc1.weight", weight);
    steps(parameters, 5);
    // example-begin folder
    checkpoint::save(parameters, run, {.keep = 3});  // run/step-5

    checkpoint::async_save const saving = checkpoint::save_async(parameters, run);  // writes while training goes on
    // example-end folder
    steps(parameters, 5);
    parameters.sync_master();
  }
  floats const expected = std::exchange(weight, floats(6));
  {
    namespace checkpoint = pp::checkpoint;
    using namespace pp;
    // example-begin resume_folder
    kv_store store{cpu_devices(3), rule};
    parameter_store parameters{store};
    parameters.add("fc1.weight", weight);
    parameters.materialize();
    checkpoint::load(parameters, run);  // the newest that is whole
    // example-end resume_folder
    steps(parameters, 5);
    parameters.sync_master();
  }
  REQUIRE(weight == expected);
  pp::checkpoint::consolidate(run, folder.file("weights"));
  REQUIRE(cp::safetensors_file(folder.file("weights")).find("fc1.weight").shape == pp::shape{6});
}

TEST_CASE("checksums are those of zlib", "[checkpoint]") {
  REQUIRE(cp::detail::crc32_of("") == "00000000");
  REQUIRE(cp::detail::crc32_of("123456789") == "cbf43926");
  REQUIRE(cp::detail::crc32_of("The quick brown fox jumps over the lazy dog") == "414fa339");
}
