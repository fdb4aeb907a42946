/// @file
/// The code that the README and docs/ show, compiled and run.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <pushpull/pushpull.hpp>
#include <pushpull/store/table/embedding_table.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace update = pushpull::update;

namespace {

template <class Weight, class Gradient>
void backward(Weight const& w, Gradient const& g) {
  for (std::size_t i = 0; i < g.size(); ++i) g.data()[i] = 16 * w.data()[i];
}

}  // namespace

TEST_CASE("the README's parameter_store program trains", "[readme]") {
  auto const devices = pushpull::cpu_devices(2);
  int const batch = 32;
  std::vector<float> weight(128 * 64, 1.0F), bias(128, 0.5F);

  // example-begin parameter_store
  pushpull::kv_store store{devices, update::rescale(1.0 / batch) | update::adam{}};
  pushpull::parameter_store parameters{store};
  parameters.add("fc1.weight", pushpull::tensor_view(weight.data(), pushpull::shape{128, 64}));
  parameters.add("fc1.bias", bias);

  for (auto const& device : devices) {
    auto const w = parameters.value("fc1.weight", device);  // this device's mirror: read it
    auto const g = parameters.grad("fc1.weight", device);   // this device's gradient: overwrite it
    backward(w, g);
  }
  parameters.update_all();   // reduce, update, write every mirror
  parameters.sync_master();  // trained values back into weight and bias
  // example-end parameter_store

  REQUIRE(weight.front() == Approx(0.999));
  REQUIRE(weight.back() == Approx(0.999));
  REQUIRE(bias.front() == 0.5F);
}

TEST_CASE("the README's spelled-out store takes bfloat16 gradients over a float master", "[readme]") {
  // example-begin spelled_out
  pushpull::kv_store<pushpull::bfloat16, pushpull::cpu_device<>, update::adamw, pushpull::element::master<float>,
                     pushpull::reduce::mean, pushpull::integer_keys>
      store{pushpull::cpu_devices(2), update::adamw{.learning_rate = 3e-4}};
  // example-end spelled_out

  store.init(7, std::vector<float>(10, 1.0F));
  std::vector<pushpull::bfloat16> const gradient(10, pushpull::convert<pushpull::bfloat16>(2.0F));
  store.push(7, gradient);
  std::vector<float> weight(10);
  store.pull(7, weight).wait();
  REQUIRE(weight[9] == Approx(1 - 3e-4 * 1e-2 - 3e-4));
}

TEST_CASE("docs/embedding_tables.md trains rows of ids that come as they come", "[readme]") {
  // example-begin embedding_table
  pushpull::kv_store store{pushpull::cpu_devices(2), update::adam{}};
  pushpull::embedding_table words{
      store, "words", 16, {.capacity = 1'000'000, .evicts = pushpull::eviction::least_recently_used}};

  std::vector<std::int64_t> const ids{7, -1, 7, 0x7FFF'FFFF'FFFF'FFFF};  // any; they may repeat
  std::vector<float> rows(ids.size() * 16), gradients(rows.size(), 0.5F);
  words.pull(ids, rows);       // row i is of ids[i]; a new id gets a row from the initializer
  words.push(ids, gradients);  // one step; the gradients of equal ids are added
  // example-end embedding_table
  std::vector<float> after(rows.size());
  words.find(ids, after);
  REQUIRE(words.size() == 3);
  REQUIRE(after[0] == Approx(rows[0] - 1e-3).epsilon(1e-4));
  REQUIRE(after[0] == after[2 * 16]);
}

TEST_CASE("docs/stores.md creates a store by name", "[readme]") {
  std::vector<float> weight(10, 1.0F);
  std::vector<float> const gradient(10, 1.0F);
  // example-begin any_store
  auto store = pushpull::create("device", pushpull::cpu_devices(2));  // any_store<cpu_device<>, float>
  store.init(7, weight);
  store.set_optimizer(update::momentum{.learning_rate = 0.1});
  store.pushpull(7, gradient, weight).wait();
  // example-end any_store
  REQUIRE(weight[9] == Approx(0.9));
}

TEST_CASE("docs/stores.md changes a hyperparameter of a stage", "[readme]") {
  pushpull::kv_store store{pushpull::cpu_devices(1), update::clip_value(1) | update::weight_decay(0) | update::adamw{}};
  // example-begin hyperparameters
  auto rule = store.updater();
  get<update::adamw>(rule).learning_rate *= 0.1;
  store.set_hyperparameters(rule);
  // example-end hyperparameters
  REQUIRE(get<update::adamw>(store.updater()).learning_rate == Approx(1e-4));
}

TEST_CASE("docs/stores.md pushes rows of an embedding and pulls others", "[readme]") {
  using pushpull::row_sparse;
  using pushpull::shape;
  pushpull::kv_store store{pushpull::cpu_devices(2), update::sgd{1.0}};
  shape const whole{1000, 64};
  pushpull::tensor<float> const table(store.devices().front(), whole);
  std::vector<row_sparse<float>> gradients;
  for (auto const& device : store.devices()) {
    // example-begin row_gradient
    row_sparse<float> gradient(device, shape{1000, 64}, 1);  // 1 of 1000 rows of 64 elements
    gradient.row_ids()[0] = 7;
    std::fill_n(gradient.values(), gradient.row_length(), 0.5F);
    // example-end row_gradient
    gradients.push_back(std::move(gradient));
  }
  row_sparse<float> needed(store.devices().front(), whole);
  std::vector<int> const row_ids{8, 7, 8};
  pushpull::wait_at_exit const finished{store};
  // example-begin rows
  store.init("embedding", table);                       // dense, of shape (rows, length)
  store.push("embedding", gradients);                   // one row_sparse per source
  store.row_sparse_pull("embedding", needed, row_ids);  // the rows of the next batch
  // example-end rows
  store.wait();
  REQUIRE(needed.rows() == 2);
  REQUIRE(needed.row_ids()[0] == 7);
  REQUIRE(needed.values()[63] == -1.0F);
  REQUIRE(needed.values()[64] == 0.0F);
}

TEST_CASE("docs/training_steps.md walks over parameters and steps during the backward pass", "[readme]") {
  using pushpull::parameter_info;
  pushpull::kv_store store{pushpull::cpu_devices(1), update::sgd{1.0}};
  pushpull::parameter_store parameters{store};
  for (char const* name : {"fc1.weight", "fc1.bias"}) parameters.add(name, std::vector<float>(3));
  // example-begin parameters
  for (parameter_info const p : parameters) std::printf("%s: %zu\n", std::string(p.name).c_str(), p.shape.size());
  parameters.set_value("fc1.bias", std::vector<float>(3, 0.5F));
  // example-end parameters
  auto const backward = [&](std::size_t i) { std::fill_n(parameters.grad(parameters[i].name, 0).data(), 3, 1.0F); };
  std::vector<float> seen;
  auto const forward = [&](std::string_view name) { seen.push_back(parameters.value(name, 0).data()[2]); };
  // example-begin ready
  for (std::size_t i = parameters.size(); i-- > 0;) {
    backward(i);                           // writes the gradient of parameter i
    parameters.ready(parameters[i].name);  // its update runs beside the rest of the backward pass
  }
  for (parameter_info const p : parameters) {
    parameters.wait(p.name);  // for this parameter only
    forward(p.name);
  }
  // example-end ready
  REQUIRE(seen == std::vector<float>{-1.0F, -0.5F});
}

TEST_CASE("docs/lr_schedules.md schedules a rate and a decay", "[readme]") {
  auto const devices = pushpull::cpu_devices(1);
  // example-begin lr_schedule
  namespace lr = pushpull::lr_schedule;
  pushpull::kv_store store{devices,
                           update::clip_value(1) | update::adamw{} |
                               update::learning_rate(lr::warm_up{lr::cosine{.base = 1e-3, .updates = 9500}, 500})};
  // example-end lr_schedule
  std::vector<float> weight(10, 1.0F);
  std::vector<float> const gradient(10, 1.0F);
  store.init("w", weight);
  store.pushpull("w", gradient, weight).wait();
  REQUIRE(weight[9] == 1.0F);
  store.pushpull("w", gradient, weight).wait();
  REQUIRE(weight[9] == Approx(1 - 1e-3 / 500));

  // example-begin hyperparameter
  auto const rule = update::adamw{} | update::learning_rate(lr::one_cycle{.peak = 1e-2, .updates = 10000}) |
                    update::hyperparameter<&update::adamw::weight_decay>(lr::linear{0.0, 0.1, 10000});
  // example-end hyperparameter
  REQUIRE(rule.at(5001).stage.weight_decay == Approx(0.05));

  // example-begin own_schedule
  struct inverse_time {
    double base = 0.1;
    PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const { return base / static_cast<double>(t); }
  };
  auto const decaying = update::sgd{} | update::learning_rate(lr::warm_up{inverse_time{}, 100});
  // example-end own_schedule
  REQUIRE(decaying.at(102).learning_rate == 0.1 / 2);
}

TEST_CASE("docs/lr_schedules.md steps a plateau", "[readme]") {
  pushpull::kv_store store{pushpull::cpu_devices(1), update::clip_value(1) | update::adam{}};
  double const validation_loss = 1;
  // example-begin plateau
  pushpull::lr_schedule::plateau plateau(1e-3, {.patience = 3});  // PyTorch's ReduceLROnPlateau
  // after every evaluation
  auto rule = store.updater();
  get<update::adam>(rule).learning_rate = plateau.step(validation_loss);
  store.set_hyperparameters(rule);
  // example-end plateau
  REQUIRE(get<update::adam>(store.updater()).learning_rate == 1e-3);
}

TEST_CASE("docs/updaters.md evaluates averages of weights", "[readme]") {
  auto const devices = pushpull::cpu_devices(2);
  std::vector<float> weight(10, 1.0F);
  std::vector<float> const gradient(10, 1.0F);
  double seen = 0;
  auto const evaluate = [&](auto& store) {
    store.pull("w", weight).wait();
    seen = double{weight[9]};
  };
  // example-begin swap
  pushpull::kv_store store{devices, update::sgd{0.5} | update::ema(0.9)};
  store.init("w", weight);
  for (int step = 0; step < 3; ++step) store.push("w", gradient).wait();
  store.swap("ema");
  evaluate(store);
  store.swap("ema");
  // example-end swap
  REQUIRE(seen == Approx((0.81 * 0.5 + 0.9 * 0.0 - 0.5) * 0.1 / (1 - 0.729)));
  evaluate(store);
  REQUIRE(seen == Approx(-0.5));
}

TEST_CASE("docs/training_steps.md gives biases a rule of their own", "[readme]") {
  auto const devices = pushpull::cpu_devices(2);
  // example-begin rules
  auto const is_bias = [](std::string_view name) { return name.ends_with("bias"); };
  pushpull::kv_store store{devices, pushpull::rules{update::adamw{}, pushpull::where(is_bias, update::sgd{0.1})}};
  // example-end rules
  store.init("bias", std::vector<float>{1});
  REQUIRE(store.rule("bias") == 1);
}
