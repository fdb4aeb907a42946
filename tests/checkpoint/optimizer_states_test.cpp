/// @file
/// Optimizer states: saved, loaded on other devices, and refused where they do not belong.
#include <pushpull/checkpoint/optimizer_states.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;
namespace update = pushpull::update;
using strings = std::vector<std::string>;

constexpr std::size_t sizes[] = {1, 0, 5003, 65};
strings const names{"fc1.weight", "empty", "an/odd \"name\"/", "größe"};

template <class T>
std::vector<std::vector<T>> filled(float offset) {
  std::vector<std::vector<T>> result;
  for (std::size_t const size : sizes) {
    result.emplace_back(size);
    for (std::size_t i = 0; i < size; ++i)
      result.back()[i] = pp::convert<T>(offset + static_cast<float>((i * 31) % 17) / 8 - 1);
  }
  return result;
}

/// Trains a store, saves its states, loads them into stores on other devices, and compares the steps that follow.
template <class Store, class T>
void round_trip(auto const& keys, auto const& rule) {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  auto const values = filled<float>(0);
  auto const gradients = filled<T>(0.25F);
  auto const views = [&](auto& tensors) {
    std::vector<decltype(pp::view_of(tensors[0]))> result;
    for (auto& tensor : tensors) result.push_back(pp::view_of(tensor));
    return result;
  };
  Store trained{pp::cpu_devices(2), rule};
  trained.init(keys, values);
  for (int t = 0; t < 3; ++t) trained.push(keys, gradients);
  trained.push(keys[2], gradients[2]);
  cp::save_optimizer_states(trained, path);
  auto masters = filled<float>(0);
  trained.pull(keys, masters).wait();
  auto expected = filled<T>(0), out = filled<T>(0);
  trained.pushpull(keys, gradients, expected).wait();
  for (int const devices : {1, 3}) {
    Store resumed{pp::cpu_devices(devices), rule};
    resumed.init(keys, views(masters));
    cp::load_optimizer_states(resumed, path);
    REQUIRE(resumed.steps(keys[2]) == 4);
    resumed.pushpull(keys, gradients, out).wait();
    bool same = true;
    for (std::size_t k = 0; k < out.size(); ++k)
      for (std::size_t i = 0; i < out[k].size(); ++i)
        same = same && pp::convert<float>(out[k][i]) == pp::convert<float>(expected[k][i]);
    REQUIRE(same);
    for (auto const& name : Store::state_names()) {
      auto const a = resumed.state(keys[2], name), b = trained.state(keys[2], name);
      REQUIRE(std::equal(a.begin(), a.end(), b.begin(),
                         [](auto x, auto y) { return pp::convert<float>(x) == pp::convert<float>(y); }));
    }
  }
}

using adam_store = pp::kv_store<float, pp::cpu_device<>, update::adam>;

/// A store with steps and states of its own, and what it holds.
struct target {
  adam_store store{pp::cpu_devices(2)};

  target() {
    store.init(names, filled<float>(0));
    auto const gradients = filled<float>(0.5F);
    store.push(names, gradients).wait();
  }
  bool unchanged() const {
    static target const fresh;
    for (auto const& name : names) {
      if (store.steps(name) != 1) return false;
      for (auto const& state : adam_store::state_names())
        if (store.state(name, state) != fresh.store.state(name, state)) return false;
    }
    return true;
  }
};

}  // namespace

TEST_CASE("saved optimizer states make the next step that the saved store makes, on any number of devices",
          "[optimizer_states]") {
  round_trip<adam_store, float>(names, update::adam{.learning_rate = 0.1});
  round_trip<pp::kv_store<float, pp::cpu_device<>, update::momentum, pp::integer_keys>, float>(
      std::vector<std::int64_t>{-3, 8, 1, std::numeric_limits<std::int64_t>::max()}, update::momentum{});
  round_trip<pp::kv_store<pp::bfloat16, pp::cpu_device<>, update::adamw, pp::element::master<float, pp::bfloat16>>,
             pp::bfloat16>(names, update::adamw{.learning_rate = 0.1});
  using codecs = pp::state_codecs<128, pp::codec::linear, pp::codec::of<"exp_avg_sq", pp::codec::unsigned_float4>>;
  round_trip<pp::kv_store<float, pp::cpu_device<>, update::adam, codecs>, float>(names,
                                                                                 update::adam{.learning_rate = 0.1});
}

TEST_CASE("a file that is damaged, foreign or another store's is refused, and changes nothing",
          "[optimizer_states][errors]") {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  target t;
  auto const refused = [&](std::string const& reason) {
    REQUIRE_THROWS_AS(cp::load_optimizer_states(t.store, path), pp::file_error);
    REQUIRE_THROWS_WITH(cp::load_optimizer_states(t.store, path), Catch::Matchers::Contains(reason));
    REQUIRE(t.unchanged());
  };
  refused("states");  // there is none
  auto const save = [&](auto rule, auto const& keys, std::size_t first) {
    pp::kv_store store{pp::cpu_devices(1), rule, pp::synchronous{}};
    auto const values = filled<float>(0);
    for (std::size_t k = 0; k < keys.size(); ++k) store.init(keys[k], values[(k + first) % values.size()]);
    cp::save_optimizer_states(store, path);
  };
  save(update::adam{}, names, 0);
  auto const whole = pp::test::read_file(path);
  cp::load_optimizer_states(t.store, path);
  REQUIRE_FALSE(t.unchanged());
  t = target();

  for (std::size_t const size : {std::size_t{0}, std::size_t{7}, std::size_t{100}, whole.size() - 1}) {
    pp::test::write_file(path, whole.substr(0, size));
    refused("");
  }
  pp::test::write_file(path, whole + "x");
  refused("");
  save(update::momentum{}, names, 0);
  refused("got those of \"momentum\"");
  save(update::adam{}, names, 1);
  refused("shape");
  save(update::adam{}, strings{names[0], names[1], names[2]}, 0);
  refused(names[3]);
  save(update::adam{}, strings{names[0], names[1], names[2], names[3], "more"}, 0);
  refused("more");

  std::vector<float> const x(3);
  std::vector<cp::entry> const foreign{cp::entry_of("weight", x)};
  cp::write_safetensors(path, foreign);
  refused("format");
  cp::write_safetensors(path, foreign, {{"format", "pushpull.optimizer_states"}, {"version", "2"}});
  refused("version");
  cp::metadata_map metadata{{"format", "pushpull.optimizer_states"}, {"version", "1"}};
  for (auto const& name : names) metadata[name + "/steps"] = "-1";
  cp::write_safetensors(path, foreign, metadata);
  refused("steps");

  pp::kv_store<double, pp::cpu_device<>, update::adam> other{pp::cpu_devices(1)};
  other.init(names, filled<double>(0));
  cp::save_optimizer_states(other, path);
  refused("F64");

  pp::test::write_file(path, whole);
  cp::load_optimizer_states(t.store, path);  // and the store still takes what is right
  REQUIRE(t.store.steps(names[0]) == 0);
}

TEST_CASE("any_store's states go to a file and into a kv_store", "[optimizer_states]") {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  auto store = pp::create("local", pp::cpu_devices(2));
  auto const values = filled<float>(0), gradients = filled<float>(0.5F);
  store.init(names, values);
  REQUIRE_THROWS_AS(cp::save_optimizer_states(store, path), pp::invalid_argument);
  store.set_optimizer(update::adam{});
  store.push(names, gradients);
  store.push(names, gradients);
  cp::save_optimizer_states(store, path);
  target t;
  cp::load_optimizer_states(t.store, path);
  REQUIRE(t.store.steps(names[2]) == 2);
  store.set_optimizer(update::adam{});
  REQUIRE(store.steps(names[2]) == 0);
  cp::load_optimizer_states(store, path);
  REQUIRE(store.steps(names[2]) == 2);
  auto const bytes = store.state(names[2], "exp_avg");
  auto const elements = t.store.state(names[2], "exp_avg");
  REQUIRE(std::memcmp(bytes.data(), elements.data(), bytes.size()) == 0);
  store.set_optimizer(update::momentum{});
  REQUIRE_THROWS_AS(cp::load_optimizer_states(store, path), pp::file_error);
}

TEST_CASE("any_store's sums of micro-batches go to a file and back, and into no store that does not accumulate",
          "[optimizer_states]") {
  pp::test::temporary_folder const folder;
  std::vector<float> const w(5, 1.0F), g(5, 0.5F);
  std::vector<float> out(5);
  auto const make = [&] {
    auto store = pp::create("local", pp::cpu_devices(2));
    store.init("w", w);
    store.set_optimizer(update::sgd{1.0}, pp::accumulate{2});
    return store;
  };
  auto saved = make(), loaded = make();
  saved.push("w", g).wait();
  cp::save_optimizer_states(saved, folder.file("states"));
  cp::load_optimizer_states(loaded, folder.file("states"));
  REQUIRE(loaded.micro_batches("w") == 1);
  loaded.pushpull("w", g, out).wait();
  REQUIRE(out == std::vector<float>(5, 0.0F));
  auto other = pp::create("local", pp::cpu_devices(2));
  other.init("w", w);
  other.set_optimizer(update::sgd{1.0});
  REQUIRE_THROWS_WITH(cp::load_optimizer_states(other, folder.file("states")), Catch::Contains("does not accumulate"));
}

TEST_CASE("a store without an optimizer has no states to save or load, and works on", "[optimizer_states][errors]") {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  auto store = pp::create("local", pp::cpu_devices(2));
  store.init("w", std::vector<float>(5, 2.0F));
  REQUIRE_THROWS_AS(cp::save_optimizer_states(store, path), pp::invalid_argument);
  REQUIRE_THROWS_WITH(cp::save_optimizer_states(store, path),
                      Catch::Contains("save_optimizer_states") && Catch::Contains("no optimizer"));
  REQUIRE_FALSE(std::filesystem::exists(path));
  REQUIRE_THROWS_WITH(cp::load_optimizer_states(store, path), Catch::Contains("no optimizer"));
  std::vector<float> x(5);
  store.pull("w", x).wait();
  REQUIRE(x == std::vector<float>(5, 2.0F));
  store.set_optimizer(update::sgd{1.0});
  store.pushpull("w", x).wait();
  REQUIRE(x == std::vector<float>(5, 0.0F));
  cp::save_optimizer_states(store, path);
  cp::load_optimizer_states(store, path);
  REQUIRE(store.steps("w") == 1);
}

TEST_CASE("states belong to names: keys may have been registered in another order", "[optimizer_states]") {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("states");
  target t;
  std::vector<float> const once(5003, 1.0F);
  t.store.push(names[2], once).wait();
  cp::save_optimizer_states(t.store, path);
  adam_store other{pp::cpu_devices(3)};
  auto const values = filled<float>(0);
  for (std::size_t k = names.size(); k-- > 0;) other.init(names[k], values[k]);
  cp::load_optimizer_states(other, path);
  for (auto const& name : names) {
    REQUIRE(other.steps(name) == t.store.steps(name));
    REQUIRE(other.state(name, "exp_avg") == t.store.state(name, "exp_avg"));
  }
}

TEST_CASE("an integer and a string that reads like it are two keys of a file", "[optimizer_states][any_keys]") {
  pp::test::temporary_folder const folder;
  using store_type = pp::kv_store<float, pp::cpu_device<>, pp::update::momentum, pp::any_keys>;
  std::vector<float> const w(5, 1.0F), g(5, 0.5F), h(5, 0.25F);
  std::vector const keys{pp::any_key(7), pp::any_key("7"), pp::any_key("\"7\""), pp::any_key("w")};
  store_type saved{pp::cpu_devices(1)}, loaded{pp::cpu_devices(2)};
  for (auto* const store : {&saved, &loaded}) store->init(keys, std::vector(4, w));
  saved.push(7, g);
  saved.push("7", h);
  saved.push("7", h);
  saved.wait();
  pp::checkpoint::save_optimizer_states(saved, folder.file("states"));
  pp::checkpoint::load_optimizer_states(loaded, folder.file("states"));
  for (auto const& key : keys) {
    REQUIRE(loaded.steps(key) == saved.steps(key));
    REQUIRE(loaded.state(key, "momentum_buffer") == saved.state(key, "momentum_buffer"));
  }
  REQUIRE(loaded.steps(7) == 1);
  REQUIRE(loaded.steps("7") == 2);

  pp::kv_store<float, pp::cpu_device<>, pp::update::momentum> strings{pp::cpu_devices(1)};
  store_type other{pp::cpu_devices(1)};
  strings.init("7", w);
  other.init("7", w);
  strings.push("7", g).wait();
  pp::checkpoint::save_optimizer_states(strings, folder.file("strings"));
  pp::checkpoint::load_optimizer_states(other, folder.file("strings"));
  REQUIRE(other.steps("7") == 1);
}

TEST_CASE("states that cannot be written leave the file that is there", "[optimizer_states][errors]") {
  pp::test::temporary_folder const folder;
  target t;
  REQUIRE_THROWS_AS(cp::save_optimizer_states(t.store, folder.file("no folder") / "states"), pp::file_error);
  REQUIRE(t.unchanged());
}

TEST_CASE("the scale is part of a checkpoint, and goes to any number of devices", "[checkpoint][loss_scale]") {
  pp::test::temporary_folder const folder;
  auto const file = folder.file("states.safetensors");
  auto const rule = update::dynamic_loss_scale{.initial = 3, .growth = 1.1, .interval = 2} | update::adam{};
  pp::kv_store saved{pp::cpu_devices(2), rule, pp::synchronous{}}, loaded{pp::cpu_devices(3), rule, pp::synchronous{}};
  std::vector<float> const w(100, 1), g(100, 3);
  auto const pulled = [](auto& store) {
    std::vector<float> out(100);
    store.pull("w", out);
    return out;
  };
  saved.init("w", w);
  for (int i = 0; i < 5; ++i) saved.push("w", g).wait();
  cp::save_optimizer_states(saved, file);
  loaded.init("w", pulled(saved));
  cp::load_optimizer_states(loaded, file);
  REQUIRE(loaded.carried_numbers() == saved.carried_numbers());
  for (int i = 0; i < 5; ++i) {
    saved.push("w", g).wait();
    loaded.push("w", g).wait();
  }
  REQUIRE(pulled(loaded) == pulled(saved));
  REQUIRE(*loaded.loss_scale(2) == *saved.loss_scale(1));

  // A file of another rule says what is missing and changes nothing.
  pp::kv_store other{pp::cpu_devices(1), update::adam{}, pp::synchronous{}};
  other.init("w", w);
  REQUIRE_THROWS_WITH(cp::load_optimizer_states(other, file), Catch::Contains("\"dynamic_loss_scale|adam\""));
  REQUIRE(other.steps("w") == 0);
}

TEST_CASE("states of rules of different types go into one file", "[checkpoint][rules]") {
  pp::test::temporary_folder const folder;
  auto const file = folder.file("states");
  auto const adam_but = [](std::string_view key) {  // one type for both stores
    return pp::rules{update::adam{},
                     pp::where([key](std::string_view name) { return name == key; }, update::momentum{})};
  };
  auto const chosen = adam_but("b");
  pp::accumulate const pairs{2};
  pp::kv_store saved{pp::cpu_devices(2), chosen, pp::synchronous{}, pairs},
      loaded{pp::cpu_devices(3), chosen, pp::synchronous{}, pairs};
  strings const keys{"a", "b", "c"};
  std::vector const g(3, std::vector<float>(100, 0.5F));
  auto values = g;
  saved.init(keys, values);
  for (int i = 0; i < 3; ++i) saved.push(keys, g);
  cp::save_optimizer_states(saved, file);
  saved.pull(keys, values);
  loaded.init(keys, values);
  cp::load_optimizer_states(loaded, file);
  auto again = values;
  saved.pushpull(keys, g, values);
  loaded.pushpull(keys, g, again);
  REQUIRE(again == values);
  REQUIRE(loaded.steps("b") == 2);

  pp::kv_store exchanged{pp::cpu_devices(1), adam_but("c"), pp::synchronous{}, pairs};
  exchanged.init(keys, values);
  REQUIRE_THROWS_WITH(cp::load_optimizer_states(exchanged, file),
                      Catch::Contains("key \"b\"") && Catch::Contains("\"adam\"") && Catch::Contains("\"momentum\""));
}

TEST_CASE("docs/training_steps.md evaluates on averages, saves a run and resumes it", "[optimizer_states]") {
  pp::test::temporary_folder const folder;
  auto const weights_path = folder.file("weights"), states_path = folder.file("states");
  auto const rule = update::adam{.learning_rate = 0.1} | update::ema(0.9);
  auto const steps = [](auto& parameters, std::size_t devices, int count) {
    for (int t = 0; t < count; ++t) {
      for (std::size_t n = 0; n < devices; ++n) {
        auto const w = parameters.value("fc1.weight", n), g = parameters.grad("fc1.weight", n);
        for (std::size_t i = 0; i < 6; ++i) g.data()[i] = n == 0 ? 3 * w.data()[i] - 1 : 0;
      }
      parameters.update_all();
    }
  };
  double evaluated = 0;
  auto const evaluate = [&](auto& parameters) { evaluated = double{parameters.value("fc1.weight", 1).data()[5]}; };

  std::vector<float> weight{1, 2, 3, 4, 5, 6};
  {
    pp::kv_store store{pp::cpu_devices(2), rule};
    pp::parameter_store parameters{store};
    parameters.add("fc1.weight", pp::tensor_view(weight.data(), pp::shape{2, 3}));
    steps(parameters, 2, 5);

    // example-begin averages
    parameters.swap("ema");  // the mirrors hold the averages,
    evaluate(parameters);
    parameters.swap("ema");  // and the weights again, bit for bit
    // example-end averages
    REQUIRE(evaluated == double{store.state("fc1.weight", "ema")[5]});

    {
      namespace checkpoint = pp::checkpoint;
      using pp::shape;
      using pp::tensor_view;
      // example-begin save
      parameters.sync_master();
      checkpoint::write_safetensors(
          weights_path, std::vector{checkpoint::entry_of("fc1.weight", tensor_view(weight.data(), shape{2, 3}))});
      checkpoint::save_optimizer_states(store, states_path);
      // example-end save
    }
    steps(parameters, 2, 5);
    parameters.sync_master();
  }

  std::vector<float> const expected = std::exchange(weight, std::vector<float>(6));
  {
    namespace checkpoint = pp::checkpoint;
    using namespace pp;
    // example-begin resume
    kv_store store{cpu_devices(3), rule};
    parameter_store parameters{store};
    tensor_view const w(weight.data(), shape{2, 3});
    copy(checkpoint::safetensors_file(weights_path).find("fc1.weight"), w);
    parameters.add("fc1.weight", w);
    parameters.materialize();  // states belong to keys: the store has none before
    checkpoint::load_optimizer_states(store, states_path);
    // example-end resume
    steps(parameters, store.devices().size(), 5);
    parameters.sync_master();
  }
  REQUIRE(weight == expected);
}

TEST_CASE("states of a store of several element types go into one file", "[checkpoint][typed_kv_store]") {
  pp::test::temporary_folder const folder;
  auto const file = folder.file("states");
  auto const rule = update::adamw{.learning_rate = 0.1};
  std::vector<float> const f(300, 0.75F), gradient_f(300, 0.5F);
  std::vector<pp::bfloat16> const b(70, pp::convert<pp::bfloat16>(2.0F)),
      gradient_b(70, pp::convert<pp::bfloat16>(-3.0F));
  auto const round_trip = [&](std::int64_t steps, auto... policies) {
    auto saved = pp::make_kv_store<pp::type_list<float, pp::bfloat16>>(pp::cpu_devices(2), rule, policies...);
    saved.init("f", f);
    saved.init("b", b);
    for (int i = 0; i < 3; ++i) {
      saved.push("f", gradient_f);
      saved.push("b", gradient_b);
    }
    cp::save_optimizer_states(saved, file);
    auto loaded = pp::make_kv_store<pp::type_list<float, pp::bfloat16>>(pp::cpu_devices(3), rule, policies...);
    loaded.init("b", b);
    REQUIRE_THROWS_AS(cp::load_optimizer_states(loaded, file), pp::file_error);
    loaded.init("f", f);
    cp::load_optimizer_states(loaded, file);
    REQUIRE(loaded.steps("b") == steps);
    if constexpr (decltype(loaded)::accumulates) {
      REQUIRE(loaded.micro_batches("b") == 1);
      REQUIRE(loaded.template of<pp::bfloat16>().gradient_sum("b") == std::vector<float>(70, -3.0F));
      REQUIRE(loaded.template of<float>().gradient_sum("f") == gradient_f);
    }
    REQUIRE(loaded.template of<float>().state("f", "exp_avg") == saved.template of<float>().state("f", "exp_avg"));
    auto const x = loaded.template of<pp::bfloat16>().state("b", "exp_avg_sq");
    auto const y = saved.template of<pp::bfloat16>().state("b", "exp_avg_sq");
    REQUIRE(std::equal(x.begin(), x.end(), y.begin(), y.end(), [](auto v, auto w) {
      return pp::convert<float>(v) == pp::convert<float>(w) && pp::convert<float>(v) != 0;
    }));
  };
  round_trip(3);
  round_trip(1, pp::element::master<float>{}, pp::accumulate{2});
}
