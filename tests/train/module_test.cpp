#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/data/array_source.hpp>
#include <pushpull/train/initializers/by_name.hpp>
#include <pushpull/train/metrics/regression.hpp>
#include <pushpull/train/module.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"
#include "train/models.hpp"

using namespace pushpull;
using namespace pushpull::test;

namespace {

using net = train::module<linear_factory>;
using values = std::map<std::string, std::vector<float>>;

std::int64_t const in = 3, out = 2;

/// A module that collects its warnings.
struct warned {
  std::vector<std::string> texts;
  train::module_options options(train::module_options base = {}) {
    base.warn = [this](std::string const& text) { texts.push_back(text); };
    return base;
  }
};

std::map<std::string, tensor_view<float const>> args(std::vector<float> const& w, std::vector<float> const& b) {
  return {{"weight", tensor_view(w.data(), shape{out, in})}, {"bias", tensor_view(b.data(), shape{out})}};
}
std::map<std::string, tensor_view<float const>> seen(float const& x) { return {{"seen", tensor_view(&x, shape{1})}}; }
float const zero = 0;

std::vector<float> weight_of(net const& m) { return to_vector(m.params().args.find("weight")->second); }
std::vector<float> bias_of(net const& m) { return to_vector(m.params().args.find("bias")->second); }

std::vector<float> const w0 = numbers(6, 5), b0 = numbers(2, 6);

void check_close(std::vector<float> const& found, std::vector<double> const& expected) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == Approx(expected[i]).margin(2e-5));
}

void init_sgd(net& m, bool on_store) {
  update::sgd const rule{.learning_rate = 0.1};
  on_store ? m.init_optimizer(rule) : m.init_optimizer(rule, train::on_each_device);
}

/// Bound, with values w0 and b0.
void begin(net& m, linear_batch const& batch, train::module_bind_options options = {}) {
  m.bind(batch.descs().data, batch.descs().labels, options);
  m.set_params(args(w0, b0), seen(zero));
}

}  // namespace

TEST_CASE(
    "A module trains as the closed form does, over a rule, a store and a name [C5.1] [C6.1] [C6.2] [C6.3] [C6.5] "
    "[C14-10]",
    "[train][module]") {
  linear_batch const full{13, in, out}, rest{5, in, out};
  for (int devices : {1, 2, 3}) {
    auto const check = [&](auto const& init) {
      net m(linear_factory{out}, cpu_devices(devices));
      begin(m, full);
      init(m);
      linear_reference expected(w0, b0);
      for (auto const* batch : {&full, &rest, &full, &rest}) {
        m.forward(batch->view());
        m.backward();
        m.update();
        expected.step(*batch, 0.1);
      }
      check_close(weight_of(m), expected.weight);
      check_close(bias_of(m), expected.bias);
      for (std::size_t k = 0; k < static_cast<std::size_t>(devices); ++k)
        CHECK(to_vector(m.group().param(0, k)) == weight_of(m));
    };
    update::sgd const rule{.learning_rate = 0.1};
    check([&](net& m) { m.init_optimizer(rule); });
    check([&](net& m) { m.init_optimizer(rule, train::on_each_device); });
    check([&](net& m) { m.init_optimizer("local", rule); });
  }
}

TEST_CASE("A call that comes too early says what is missing [C1] [C2] [A6.2] [A6.4]", "[train][module]") {
  linear_batch const batch{8, in, out};
  warned warnings;
  net m(linear_factory{out}, cpu_devices(2), warnings.options());
  CHECK_THROWS_AS(m.data_descs(), not_bound);
  CHECK_THROWS_AS(m.output_shapes(), not_bound);
  CHECK_THROWS_AS(m.init_params(), not_bound);
  CHECK_THROWS_AS(m.set_params(args(w0, b0), seen(zero)), not_bound);
  CHECK_THROWS_AS(m.params(), not_initialized);
  CHECK_THROWS_AS(m.init_optimizer(update::sgd{}), not_bound);
  CHECK_THROWS_AS(m.forward(batch.view()), not_bound);
  CHECK_THROWS_AS(m.reshape(batch.descs().data), not_bound);
  CHECK_THROWS_AS(m.prepare(batch.view()), not_bound);
  train::monitor monitor;
  CHECK_THROWS_AS(m.install_monitor(monitor), not_bound);
  CHECK_THROWS_AS(m.bind(batch.descs().data, batch.descs().labels, {.for_training = false, .inputs_need_grad = true}),
                  bad_option);
  auto wrong = batch.descs();
  wrong.data[0].name = "y";
  CHECK(message_of<bad_option>([&] { m.bind(wrong.data, wrong.labels); }).find("\"x\"") != std::string::npos);
  CHECK(!m.is_bound());  // [C3.2]
  CHECK(warnings.texts.empty());
  wrong = batch.descs();
  wrong.labels[0].name = "other";
  m.bind(wrong.data, wrong.labels);
  CHECK(warnings.texts.size() == 1);
  m.bind(batch.descs().data);
  CHECK(warnings.texts.size() == 2);
  CHECK(m.label_descs()[0].name == "other");
  CHECK_THROWS_AS(m.forward(batch.view()), not_initialized);
  CHECK_THROWS_AS(m.backward(), not_initialized);
  CHECK_THROWS_AS(m.outputs(), not_initialized);
  CHECK_THROWS_AS(m.merged_outputs(), not_initialized);
  CHECK_THROWS_AS(m.states(), not_initialized);
  CHECK_THROWS_AS(m.init_optimizer(update::sgd{}), not_initialized);
  CHECK_THROWS_AS(m.save_checkpoint("none", 1), not_initialized);
  net shared(linear_factory{out}, cpu_devices(2));
  CHECK_THROWS_AS(shared.bind(batch.descs().data, batch.descs().labels, {}, m), not_initialized);
  m.set_params(args(w0, b0), seen(zero));
  CHECK_THROWS_AS(m.update(), no_optimizer);
  CHECK_THROWS_AS(m.save_states("none"), no_optimizer);
  CHECK_THROWS_AS(m.load_states("none"), no_optimizer);
  CHECK_THROWS_AS(shared.share_optimizer(m), no_optimizer);
  CHECK_THROWS_AS(m.input_grads(), not_training);
  m.init_optimizer(update::sgd{});
  m.init_optimizer(update::sgd{});
  CHECK(warnings.texts.size() == 3);
  CHECK_THROWS_AS(m.update(), stale_gradients);  // [C15]
  m.update(true);
  m.forward(batch.view());
  m.backward();
  m.update();
  CHECK_THROWS_AS(m.update(), stale_gradients);
  CHECK_THROWS_AS(m.reduce_grads(), bad_option);
  CHECK_THROWS_AS(m.apply(), bad_option);
  net inference(linear_factory{out}, cpu_devices(2));
  begin(inference, batch, {.for_training = false});
  inference.forward(batch.view());
  CHECK_THROWS_AS(inference.backward(), not_training);
  CHECK_THROWS_AS(inference.init_optimizer(update::sgd{}), not_training);
  CHECK_THROWS_AS(net(linear_factory{out}, cpu_devices(2), {.fixed = {"bais"}}), bad_option);
}

TEST_CASE("Parameters survive a forced bind, also for inference, without a copy [C3.1] [C14-2]", "[train][module]") {
  linear_batch const batch{8, in, out};
  net m(linear_factory{out}, cpu_devices(2));
  begin(m, batch);
  m.init_optimizer(update::adam{.learning_rate = 0.1});
  auto const step = [&] {
    m.forward(batch.view(), train::mode::training);
    m.backward();
    m.update();
  };
  step();
  auto const trained = weight_of(m);
  CHECK(trained != w0);
  auto const* const place = m.group().param(0, 0).data();
  m.bind(batch.descs().data, batch.descs().labels, {.for_training = false, .force_rebind = true});
  CHECK(weight_of(m) == trained);
  m.forward(batch.view());
  m.bind(batch.descs().data, batch.descs().labels, {.force_rebind = true});
  CHECK(weight_of(m) == trained);
  CHECK(m.group().param(0, 0).data() == place);
  step();
  net same(linear_factory{out}, cpu_devices(2));
  begin(same, batch);
  same.init_optimizer(update::adam{.learning_rate = 0.1});
  for (int i = 0; i < 2; ++i) {
    same.forward(batch.view());
    same.backward();
    same.update();
  }
  CHECK(weight_of(m) == weight_of(same));
}

TEST_CASE("A forced bind for which a parameter would have another shape is refused by its name [C3.1] [C3.2] [C14-2]",
          "[train][module]") {
  linear_batch const batch{8, in, out}, wider{8, in + 1, out};
  for (bool with_optimizer : {false, true}) {
    net m(linear_factory{out}, cpu_devices(2));
    begin(m, batch);
    if (with_optimizer) m.init_optimizer(update::sgd{.learning_rate = 0.1});
    auto const text =
        message_of<shape_mismatch>([&] { m.bind(wider.descs().data, wider.descs().labels, {.force_rebind = true}); });
    CHECK(text.find("\"weight\"") != text.npos);
    CHECK(weight_of(m) == w0);
    m.forward(batch.view());  // as before
    CHECK(m.data_descs()[0].shape == shape{8, in});
  }
  net without_values(linear_factory{out}, cpu_devices(2));
  without_values.bind(batch.descs().data, batch.descs().labels);
  without_values.bind(wider.descs().data, wider.descs().labels, {.force_rebind = true});
  without_values.init_params(train::initializers::constant{1});
  CHECK(weight_of(without_values) == std::vector<float>(8, 1));
}

TEST_CASE("Values of several parameters are written all or none [C4.3] [D3]", "[train][module]") {
  linear_batch const batch{8, in, out};
  net m(linear_factory{out}, cpu_devices(2));
  begin(m, batch);
  kv_store store{cpu_devices(2), update::adam{.learning_rate = 0.1}};
  m.init_optimizer(store);
  m.forward(batch.view());
  m.backward();
  m.update();
  auto const bias = bias_of(m);
  store.swap("weight", "exp_avg");  // a weight cannot be written now, a bias could
  CHECK_THROWS_AS(m.set_params(args(w0, {7, 7}), seen(zero)), invalid_argument);
  store.swap("weight", "exp_avg");
  CHECK(bias_of(m) == bias);
  m.set_params(args(w0, {7, 7}), seen(zero));
  CHECK(bias_of(m) == std::vector<float>{7, 7});
}

TEST_CASE("init_params gives each name a value: given, or the initializer's [C4.1] [C4.2] [C4.4] [C14-6]",
          "[train][module]") {
  linear_batch const batch{8, in, out};
  warned warnings;
  net m(linear_factory{out}, cpu_devices(2), warnings.options());
  m.bind(batch.descs().data, batch.descs().labels);
  std::vector<std::string> order;
  train::initializer const counting = [&](train::parameter_target const& target, std::span<float> numbers_of) {
    order.emplace_back(target.name);
    for (float& x : numbers_of) x = static_cast<float>(target.shape.size());
  };
  m.init_params(counting);
  CHECK(order == std::vector<std::string>{"bias", "weight", "seen"});
  CHECK(weight_of(m) == std::vector<float>(6, 6));
  CHECK(bias_of(m) == std::vector<float>(2, 2));
  m.init_params(counting);
  CHECK((warnings.texts.size() == 1 && order.size() == 3));
  std::map<std::string, tensor_view<float const>> const part{{"weight", tensor_view(w0.data(), shape{out, in})}}, none;
  auto const text = message_of<missing_param>([&] { m.init_params(counting, part, none, {.force = true}); });
  CHECK((text.find("\"bias\"") != text.npos && text.find("\"seen\"") != text.npos));
  CHECK(weight_of(m) == std::vector<float>(6, 6));
  m.init_params(counting, part, none, {.allow_missing = true, .force = true});
  CHECK(weight_of(m) == w0);
  CHECK(bias_of(m) == std::vector<float>(2, 2));
  auto more = args(w0, b0);
  more.emplace("weigth", tensor_view(b0.data(), shape{2}));
  CHECK(message_of<extra_param>([&] {
          m.init_params(counting, more, seen(zero), {.force = true});
        }).find("\"weigth\"") != std::string::npos);
  m.init_params(counting, more, seen(zero), {.allow_extra = true, .force = true});
  CHECK(bias_of(m) == b0);
  std::map<std::string, tensor_view<float const>> const misshapen{{"weight", tensor_view(w0.data(), shape{in, out})},
                                                                  {"bias", tensor_view(b0.data(), shape{out})}};
  CHECK_THROWS_AS(m.set_params(misshapen, seen(zero)), shape_mismatch);
  net fresh(linear_factory{out}, cpu_devices(3));
  fresh.bind(batch.descs().data, batch.descs().labels);
  fresh.init_params(train::initializers::by_suffix{}.set("seen", train::initializers::constant{0}));
  for (float const x : weight_of(fresh)) CHECK((x >= -0.01F && x <= 0.01F));
  CHECK(bias_of(fresh) == std::vector<float>(2, 0));
}

TEST_CASE(
    "set_params reaches devices, store and mirrors, and params returns copies [C4.3] [C4.5] [C14-1] [C14-9] [B8.1]",
    "[train][module]") {
  linear_batch const batch{8, in, out};
  for (bool on_store : {true, false}) {
    net m(linear_factory{out}, cpu_devices(2));
    begin(m, batch);
    init_sgd(m, on_store);
    m.forward(batch.view());
    m.backward();
    m.update();
    auto const before = m.params();
    std::vector<double> const w1{1, 2, 3, 4, 5, 6};
    std::map<std::string, tensor_view<double const>> const some{{"weight", tensor_view(w1.data(), shape{out, in})}},
        none;
    CHECK_THROWS_AS(m.set_params(some, none), missing_param);
    m.set_params(some, none, {.allow_missing = true});
    std::vector<float> const w1_float(w1.begin(), w1.end());
    CHECK(weight_of(m) == w1_float);
    CHECK(bias_of(m) == to_vector(before.args.find("bias")->second));
    CHECK(to_vector(before.args.find("weight")->second) != w1_float);
    linear_reference expected(w1_float, bias_of(m));
    m.forward(batch.view());
    m.backward();
    m.update();
    expected.step(batch, 0.1);
    check_close(weight_of(m), expected.weight);
    check_close(bias_of(m), expected.bias);
    std::map<std::string, tensor_view<double const>> const unknown{{"w", tensor_view(w1.data(), shape{6})}};
    CHECK_THROWS_AS(m.set_params(unknown, none, {.allow_missing = true}), extra_param);
    m.set_params(unknown, none, {.allow_missing = true, .allow_extra = true});
    check_close(weight_of(m), expected.weight);
  }
}

TEST_CASE("A rule with states steps once per key, and all devices hold the same bits [A8-3] [A8-4] [A8-8] [D3]",
          "[train][module]") {
  linear_batch const batch{13, in, out};
  std::vector<std::vector<float>> results;
  for (int devices : {1, 2, 3}) {
    net m(linear_factory{out}, cpu_devices(devices));
    begin(m, batch);
    m.init_optimizer(update::adam{.learning_rate = 0.01});
    for (int i = 0; i < 6; ++i) {
      m.forward(batch.view());
      m.backward();
      m.update();
      for (std::size_t k = 0; k < static_cast<std::size_t>(devices); ++k)
        CHECK(to_vector(m.group().param(0, k)) == to_vector(m.group().param(0, 0)));
    }
    results.push_back(weight_of(m));
    check_close(results.back(), {results.front().begin(), results.front().end()});
  }
}

namespace {

tensor<float> checkpoint_weight(std::string const& prefix) {
  checkpoint::safetensors_file const file(prefix + "-0003.params");
  tensor<float> result(cpu_device<>(), shape{out, in});
  auto const view = result.view();
  checkpoint::copy(file.find("arg:weight"), view);
  return result;
}

}  // namespace

TEST_CASE("A checkpoint resumes bit for bit, on any number of devices [C7] [C14-4] [C14-5] [C14-6]",
          "[train][module]") {
  temporary_folder const folder;
  std::string const prefix = folder.file("model").string();
  linear_batch const batch{12, in, out};
  auto const steps = [&](net& m, int count) {
    for (int i = 0; i < count; ++i) {
      m.forward(batch.view());
      m.backward();
      m.update();
    }
  };
  auto const rule = update::adam{.learning_rate = 0.01};
  for (int devices : {1, 2, 4}) {
    net m(linear_factory{out}, cpu_devices(devices));
    begin(m, batch);
    m.init_optimizer(rule);
    steps(m, 3);
    m.save_checkpoint(prefix, 3);
    steps(m, 4);
    auto const expected = m.params();
    for (int others : {devices, 3}) {
      net resumed = net::load(prefix, 3, linear_factory{out}, cpu_devices(others));
      CHECK((resumed.is_initialized() && !resumed.is_bound()));
      CHECK(resumed.params().args.size() == 2);
      resumed.bind(batch.descs().data, batch.descs().labels);
      resumed.init_optimizer(rule);
      steps(resumed, 4);
      if (others == devices) {
        CHECK(weight_of(resumed) == to_vector(expected.args.find("weight")->second));
        CHECK(bias_of(resumed) == to_vector(expected.args.find("bias")->second));
      } else {
        auto const close = to_vector(expected.args.find("weight")->second);
        check_close(weight_of(resumed), {close.begin(), close.end()});
      }
    }
    m.load_checkpoint(prefix, 3);  // into a module at work
    steps(m, 4);
    CHECK(weight_of(m) == to_vector(expected.args.find("weight")->second));
  }
  CHECK(std::filesystem::exists(prefix + "-0003.params"));
  CHECK(std::filesystem::exists(prefix + "-0003.states"));
  for (char const* other : {"-12.states", "-x4.params", "-.params", "-0002.params", "er-0050.params"})
    std::ofstream(prefix + other).put('x');
  CHECK(train::newest_checkpoint(prefix) == 3);
  CHECK_FALSE(train::newest_checkpoint(prefix + "/none").has_value());
  CHECK_FALSE(train::newest_checkpoint(prefix + "s").has_value());
  checkpoint::safetensors_file const file(prefix + "-0003.params");
  CHECK(file.names() == std::vector<std::string>{"arg:bias", "arg:weight", "aux:seen"});
  net local = net::load(prefix, 3, linear_factory{out}, cpu_devices(2));
  local.bind(batch.descs().data, batch.descs().labels);
  CHECK_THROWS_AS(local.init_optimizer(rule, {.update_on_store = false}), bad_option);
  local.init_optimizer(rule, train::on_each_device);
  steps(local, 4);

  net other(linear_factory{out}, cpu_devices(2));
  begin(other, batch);
  auto const entry = [](char const* name, std::vector<float> const& x, shape const& extents) {
    return checkpoint::entry_of(name, tensor_view(x.data(), extents));
  };
  checkpoint::write_safetensors(prefix + "-12345.params", std::vector{entry("arg:weight", w0, shape{out, in}),
                                                                      entry("arg:bais", b0, shape{out})});
  auto const text = message_of<missing_param>([&] { other.load_checkpoint(prefix, 12345, {.states = false}); });
  for (char const* name : {"\"bias\"", "\"seen\"", "\"bais\""}) CHECK(text.find(name) != text.npos);
  CHECK(bias_of(other) == b0);
  CHECK_THROWS_AS(other.load_checkpoint(prefix, 12345, {.states = false, .allow_missing = true}), extra_param);
  other.load_checkpoint(prefix, 12345, {.states = false, .allow_missing = true, .allow_extra = true});
  // A module that is not bound takes the values of a file whole, or refuses it.
  auto const load = [&](std::int64_t epoch, train::checkpoint_options options) {
    return net::load(prefix, epoch, linear_factory{out}, cpu_devices(2), {}, options);
  };
  CHECK_THROWS_AS(load(12345, {.states = false}), missing_param);
  CHECK_THROWS_AS(load(12345, {.states = false, .allow_missing = true}), extra_param);
  net unbound(linear_factory{out}, cpu_devices(2));
  CHECK_THROWS_AS(unbound.load_checkpoint(prefix, 12345, {.states = false}), missing_param);
  CHECK((!unbound.is_initialized() && !unbound.is_bound()));
  net lenient = load(12345, {.states = false, .allow_missing = true, .allow_extra = true});
  lenient.bind(batch.descs().data, batch.descs().labels);
  CHECK(weight_of(lenient) == w0);
  CHECK(bias_of(lenient) == std::vector<float>(2, 0));  // as init_params has it
  float const seen_value = to_vector(lenient.params().aux.find("seen")->second)[0];
  CHECK((std::abs(seen_value) > 0 && std::abs(seen_value) <= 0.01F));
  net misshapen = load(3, {});
  CHECK_THROWS_AS(misshapen.bind({{.name = "x", .shape = shape{12, in + 1}}}, batch.descs().labels), shape_mismatch);
  CHECK(!misshapen.is_bound());
  misshapen.bind(batch.descs().data, batch.descs().labels);  // the values wait for data that fit
  CHECK(weight_of(misshapen) == to_vector(checkpoint_weight(prefix)));
  checkpoint::write_safetensors(prefix + "-0001.params", std::vector{entry("weight", w0, shape{out, in})});
  CHECK_THROWS_AS(other.load_checkpoint(prefix, 1), file_error);
  CHECK_THROWS_AS(other.load_checkpoint(prefix, 2), file_error);
}

TEST_CASE("Names that a checkpoint lacks get values, and each load takes its own states alone [C7] [C14-6]",
          "[train][module]") {
  temporary_folder const folder;
  auto const prefix = folder.file("run").string();
  linear_batch const batch{8, in, out};
  checkpoint::write_safetensors(prefix + "-0007.params", std::vector{checkpoint::entry_of("arg:bias", b0)});
  for (bool const bound_first : {true, false}) {
    net m(linear_factory{out}, cpu_devices(2));
    if (bound_first) m.bind(batch.descs().data, batch.descs().labels);
    m.load_checkpoint(prefix, 7, {.states = false, .allow_missing = true});
    if (!bound_first) m.bind(batch.descs().data, batch.descs().labels);
    CHECK(bias_of(m) == b0);
    auto const weight = weight_of(m);
    CHECK(std::count(weight.begin(), weight.end(), 0.0F) == 0);
    for (std::size_t k = 0; k < 2; ++k) CHECK(to_vector(m.group().param(0, k)) == weight);
  }
  net saved(linear_factory{out}, cpu_devices(2)), loaded(linear_factory{out}, cpu_devices(2));
  begin(saved, batch);
  init_sgd(saved, true);
  saved.save_checkpoint(prefix, 1);
  saved.save_checkpoint(prefix, 2, {.states = false});
  loaded.bind(batch.descs().data, batch.descs().labels);
  loaded.load_checkpoint(prefix, 1);
  loaded.load_checkpoint(prefix, 2, {.states = false});
  std::filesystem::remove(prefix + "-0001.states");
  init_sgd(loaded, true);  // would not find the states of 1
}

TEST_CASE("A forced bind asks for no gradient that the optimizer does not train [C3.1] [C3.2]", "[train][module]") {
  linear_batch const batch{8, in, out};
  auto const descs = batch.descs();
  std::map<std::string, train::grad_request, std::less<>> const no_bias{{"bias", train::grad_request::none}};
  train::module_bind_options const all{.force_rebind = true}, fewer{.requests = no_bias, .force_rebind = true};
  auto const trains = [&](net& m, bool bias) {
    auto const before = bias_of(m);
    m.forward_backward(batch.view());
    m.update();
    CHECK((bias_of(m) == before) == !bias);
  };
  linear_factory const model{out};
  net first(model, cpu_devices(2));
  begin(first, batch, fewer);
  model.counts->make_fails_on_device = 1;
  CHECK_THROWS_AS(first.bind(descs.data, descs.labels, all), std::runtime_error);
  model.counts->make_fails_on_device = -1;
  init_sgd(first, true);
  CHECK(message_of<bad_option>([&] { first.bind(descs.data, descs.labels, all); }).find("\"bias\"") !=
        std::string::npos);
  CHECK(first.group().request(1) == train::grad_request::none);
  trains(first, false);
  first.bind(descs.data, descs.labels, fewer);
  trains(first, false);

  net second(linear_factory{out}, cpu_devices(2));
  begin(second, batch);
  second.bind(descs.data, descs.labels, fewer);  // its gradients of before stay
  init_sgd(second, true);
  trains(second, false);
  second.bind(descs.data, descs.labels, all);
  trains(second, true);
}

TEST_CASE("The store may be the user's: with a rule, without, or an any_store [C5.1] [C5.2] [C5.4]",
          "[train][module]") {
  linear_batch const batch{8, in, out};
  auto const devices = cpu_devices(2);
  auto const train_once = [&](net& m) {
    m.forward(batch.view());
    m.backward();
    m.update();
    return weight_of(m);
  };
  auto const reference = [&](double rate) {
    linear_reference expected(w0, b0);
    expected.step(batch, rate);
    return expected.weight;
  };
  kv_store ruled{devices, update::sgd{.learning_rate = 0.1}};
  net first(linear_factory{out}, devices);
  begin(first, batch);
  first.init_optimizer(ruled);
  check_close(train_once(first), reference(0.8));  // sums over 8 samples: the store's rule stays as it is
  CHECK(first.optimizer().store<decltype(ruled)>() == &ruled);
  CHECK(ruled.contains("weight"));

  kv_store plain{devices};
  net second(linear_factory{out}, devices);
  begin(second, batch);
  second.init_optimizer(plain, update::sgd{.learning_rate = 0.1});
  CHECK(!second.optimizer().updates_on_store());
  second.forward(batch.view());
  second.backward();
  second.reduce_grads();  // [C15]
  auto const [gw, gb] = linear_reference(w0, b0).gradients(batch);
  for (std::size_t k = 0; k < 2; ++k) check_close(to_vector(second.group().grad(1, k)), gb);
  second.apply();
  check_close(weight_of(second), reference(0.1));

  auto any = create("device", devices);
  net third(linear_factory{out}, devices);
  begin(third, batch);
  CHECK_THROWS_AS(third.init_optimizer(any), no_optimizer);
  third.init_optimizer(any, update::sgd{.learning_rate = 0.1});
  CHECK(third.optimizer().updates_on_store());
  check_close(train_once(third), reference(0.1));

  kv_store elsewhere{cpu_devices(1), update::sgd{}};
  net fourth(linear_factory{out}, devices);
  begin(fourth, batch);
  CHECK_THROWS_AS(fourth.init_optimizer(elsewhere), unknown_device);
  CHECK_THROWS_AS(fourth.init_optimizer(ruled), duplicate_key);
  CHECK(!fourth.has_optimizer());
  CHECK_THROWS_AS(fourth.init_optimizer("dist_async", update::sgd{}), invalid_argument);
  fourth.init_optimizer("device", update::rescale(1) | update::sgd{.learning_rate = 0.1});
  check_close(train_once(fourth), reference(0.8));  // a rule that rescales is not changed
}

TEST_CASE("Steps that begin in the backward pass give the same bits [D1] [A8-10]", "[train][module]") {
  linear_batch const batch{13, in, out}, rest{2, in, out};
  auto const rule = update::adam{.learning_rate = 0.01};
  for (int devices : {1, 3}) {
    auto const trained = [&](auto const& init) {
      net m(linear_factory{out}, cpu_devices(devices), {.allow_idle = true});
      begin(m, batch);
      init(m);
      for (auto const* b : {&batch, &rest, &batch, &batch}) {
        m.forward(b->view());
        m.backward();
        m.update();
      }
      return std::pair(weight_of(m), bias_of(m));
    };
    auto const after = trained([&](net& m) { m.init_optimizer(rule, {.overlap = train::overlap::off}); });
    CHECK(trained([&](net& m) { m.init_optimizer(rule, {.overlap = train::overlap::on}); }) == after);
    CHECK(trained([&](net& m) { m.init_optimizer(rule, train::in_backward); }) == after);
  }
}

TEST_CASE("Gradients that are added begin no step in the backward pass [B4.1] [C14-11]", "[train][module]") {
  linear_batch const batch{13, in, out};
  auto const trained = [&](train::overlap overlap) {
    net m(linear_factory{out}, cpu_devices(2));
    begin(m, batch, {.requests = train::grad_request::add});
    m.init_optimizer(update::sgd{.learning_rate = 0.1}, {.overlap = overlap});
    for (int step = 0; step < 3; ++step) {
      m.zero_grad();
      for (int part = 0; part < 2; ++part) {
        m.forward(batch.view());
        m.backward();
      }
      m.update();
    }
    return weight_of(m);
  };
  CHECK(trained(train::overlap::on) == trained(train::overlap::off));
}

TEST_CASE("After a backward pass that failed the next batches make the same steps as without it [A6.3] [D1]",
          "[train][module]") {
  linear_batch const batch{13, in, out};
  linear_reference expected(w0, b0);
  expected.step(batch, 0.1);
  auto const check = [&](int devices, int complete, train::module_bind_options bound, train::overlap overlap) {
    linear_factory const model{out};
    net m(model, cpu_devices(devices));
    begin(m, batch, bound);
    m.init_optimizer(update::sgd{.learning_rate = 0.1}, {.overlap = overlap});
    model.counts->backward_fails_on_device = 0;
    model.counts->backward_fails_after = complete;
    REQUIRE_THROWS_AS(m.forward_backward(batch.view()), std::runtime_error);
    REQUIRE_THROWS_AS(m.update(), stale_gradients);
    model.counts->backward_fails_on_device = -1;
    m.forward_backward(batch.view());
    m.update();
    check_close(weight_of(m), expected.weight);
    check_close(bias_of(m), expected.bias);
  };
  check(2, 1, {}, train::overlap::on);
  check(2, 1, {}, train::overlap::off);
  check(1, 0, {.requests = train::grad_request::add}, train::overlap::off);
}

TEST_CASE("The halves of a step come in their order, and gradients from before the optimizer in none [C15]",
          "[train][module]") {
  linear_batch const batch{8, in, out};
  net m(linear_factory{out}, cpu_devices(2));
  begin(m, batch, {.requests = train::grad_request::add});
  m.forward_backward(batch.view());
  init_sgd(m, false);
  CHECK_THROWS_AS(m.update(), stale_gradients);
  CHECK_THROWS_AS(m.reduce_grads(), stale_gradients);
  CHECK_THROWS_AS(m.apply(), stale_gradients);
  m.forward_backward(batch.view());
  CHECK_THROWS_AS(m.apply(), stale_gradients);
  m.reduce_grads();
  CHECK_THROWS_AS(m.reduce_grads(), stale_gradients);
  CHECK_THROWS_AS(m.update(), stale_gradients);
  m.apply();
  CHECK_THROWS_AS(m.apply(), stale_gradients);
  linear_reference expected(w0, b0);
  expected.step(batch, 0.1);
  check_close(weight_of(m), expected.weight);
  for (std::size_t k = 0; k < 2; ++k) CHECK(to_vector(m.group().param(0, k)) == weight_of(m));
}

TEST_CASE("Gradients of inputs without samples are not divided [B1.3] [C14-10]", "[train][module]") {
  linear_batch const batch{8, in, out};
  auto descs = batch.descs();
  net m(linear_factory{out}, cpu_devices(1));
  m.bind(descs.data, descs.labels, {.requests = train::grad_request::add});
  m.set_params(args(w0, b0), seen(zero));
  init_sgd(m, true);
  m.forward_backward(batch.view());
  m.update();
  for (auto* const list : {&descs.data, &descs.labels})
    for (auto& each : *list) each.layout = "CD";
  m.bind(descs.data, descs.labels, {.requests = train::grad_request::add, .force_rebind = true});
  m.zero_grad();
  m.forward_backward(batch.view());
  m.forward_backward(batch.view());
  m.update();
  linear_reference expected(w0, b0);
  expected.step(batch, 0.1);
  expected.step(batch, 0.1 * 8 * 2);
  check_close(weight_of(m), expected.weight);
}

TEST_CASE("A shared bind that is ignored leaves the optimizer alone", "[train][module]") {
  linear_batch const batch{8, in, out};
  warned seen_texts;
  net other(linear_factory{out}, cpu_devices(2)), m(linear_factory{out}, cpu_devices(2), seen_texts.options());
  for (net* each : {&other, &m}) {
    begin(*each, batch);
    init_sgd(*each, true);
  }
  auto const* const own = &m.optimizer();
  m.bind(batch.descs().data, batch.descs().labels, {}, other);
  CHECK(seen_texts.texts.size() == 1);
  CHECK(&m.optimizer() == own);
}

TEST_CASE("A device without rows adds nothing, in several batches one after the other [A8-12]", "[train][module]") {
  linear_batch const full{13, in, out}, rest{2, in, out};
  for (bool const on_store : {true, false}) {
    net m(linear_factory{out}, cpu_devices(3), {.allow_idle = true});
    begin(m, full);
    init_sgd(m, on_store);
    linear_reference expected(w0, b0);
    for (auto const* batch : {&full, &rest, &rest, &rest}) {
      m.forward(batch->view());
      m.backward();
      m.update();
      expected.step(*batch, 0.1);
    }
    check_close(weight_of(m), expected.weight);
  }
}

TEST_CASE(
    "Names choose multipliers; changed rates and groups of a store stay when batches change [C5.3] [C14-3] [C14-10]",
    "[train][module]") {
  linear_batch const batch{8, in, out}, rest{5, in, out};
  auto const rule = update::weight_decay(0.1) | update::sgd{.learning_rate = 0.1};
  using store_type = kv_store<float, cpu_device<>, decltype(update::rescale(1) | rule)>;
  for (bool on_store : {true, false}) {
    net m(linear_factory{out}, cpu_devices(2));
    begin(m, batch);
    train::optimizer_options const by_name{.multipliers = train::decay_weights_only};
    on_store ? m.init_optimizer(rule, by_name) : m.init_optimizer(rule, train::on_each_device, by_name);
    linear_reference expected(w0, b0);
    auto const decayed = [&](linear_batch const& b, double rate) {
      auto const before = expected.weight;
      expected.step(b, rate);
      for (std::size_t i = 0; i < before.size(); ++i) expected.weight[i] -= rate * 0.1 * before[i];
    };
    double rate = 0.1;
    for (auto const* b : {&batch, &batch, &rest, &batch}) {
      m.forward(b->view());
      m.backward();
      m.update();
      decayed(*b, rate);
      CHECK(m.optimizer().learning_rate() == rate);
      if (!on_store || rate < 0.1) continue;
      auto& store = *m.optimizer().store<store_type>();
      CHECK(store.groups() == 2);
      rate = 0.05;
      for (std::size_t group = 0; group < 2; ++group) {
        auto changed = store.updater(group);
        get<update::sgd>(changed).learning_rate = rate;
        get<update::rescale>(changed).factor = 1;  // as of a new rule: the next step sets it
        store.set_hyperparameters(changed, group);
      }
    }
    check_close(weight_of(m), expected.weight);
    check_close(bias_of(m), expected.bias);
  }
}

TEST_CASE("Row ids of dense parameters give a warning each [C8]", "[train][module]") {
  linear_batch const batch{8, in, out};
  warned warnings;
  net m(linear_factory{out}, cpu_devices(2), warnings.options());
  begin(m, batch);
  auto const ids = [](auto const&) { return std::map<std::string, std::vector<std::int64_t>>{{"weight", {0, 1}}}; };
  m.prepare(batch.view());
  m.prepare(batch.view(), ids);
  CHECK(warnings.texts.size() == 1);
  m.init_optimizer(update::sgd{});
  m.prepare(batch.view(), ids);
  CHECK(warnings.texts.size() == 2);
  auto const wrong = [](auto const&) { return std::map<std::string, std::vector<std::int64_t>>{{"w", {0}}}; };
  CHECK_THROWS_AS(m.prepare(batch.view(), wrong), unknown_key);
}
