#include <cstddef>
#include <cstdint>
#include <map>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/executor_group.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/message_of.hpp"
#include "train/archetypes.hpp"
#include "train/models.hpp"

using namespace pushpull;
using namespace pushpull::test;
using train::executor_group;
using train::grad_request;

namespace {

using group = executor_group<linear_factory>;

/// Initial weights of the linear model.
struct weights {
  std::vector<float> w, b;
  weights(std::int64_t in, std::int64_t out)
      : w(numbers(static_cast<std::size_t>(in * out), 5)), b(numbers(static_cast<std::size_t>(out), 6)) {}
  std::map<std::string, tensor_view<float>> map(std::int64_t in, std::int64_t out) {
    return {{"weight", tensor_view(w.data(), shape{out, in})}, {"bias", tensor_view(b.data(), shape{out})}};
  }
};
std::map<std::string, tensor_view<float>> const no_aux;

std::vector<float> values(tensor_view<float> const& v) { return to_vector(v); }

void check_close(std::vector<float> const& found, std::vector<double> const& expected, double tolerance = 1e-5) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == Approx(expected[i]).margin(tolerance));
}

/// The sum of a gradient over the devices.
std::vector<double> summed(group const& g, std::size_t param, std::size_t devices) {
  std::vector<double> sum(g.grad(param, 0).size());
  for (std::size_t k = 0; k < devices; ++k)
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += g.grad(param, k).data()[i];
  return sum;
}

}  // namespace

TEST_CASE("A group over a parameter_store trains as the closed form does, on any devices [B6.1] [B6.4] [A3.8]",
          "[train][group]") {
  std::int64_t const in = 3, out = 2;
  for (int devices : {1, 2, 3}) {
    group g(linear_factory{out}, cpu_devices(devices));
    linear_batch const first{13, in, out};
    g.bind(first.descs());
    weights initial(in, out);
    g.set_params(initial.map(in, out), no_aux);
    kv_store store{cpu_devices(devices), update::rescale(1.0 / 13) | update::sgd{.learning_rate = 0.1}};
    parameter_store parameters{store};
    for (std::size_t i = 0; i < g.param_names().size(); ++i) parameters.add(g.param_names()[i], g.param(i, 0));
    g.attach(parameters);
    linear_reference expected(initial.w, initial.b);
    for (int step = 0; step < 5; ++step) {
      g.forward(first.view());
      g.backward();
      parameters.update_all();
      expected.step(first, 0.1);
    }
    for (std::size_t k = 0; k < static_cast<std::size_t>(devices); ++k) {
      check_close(values(g.param(0, k)), expected.weight);
      check_close(values(g.param(1, k)), expected.bias);
      CHECK(values(g.param(0, k)) == values(g.param(0, 0)));
      CHECK(g.param(0, k).data() == parameters.value("weight", k).data());
    }
  }
}

TEST_CASE(
    "Data and labels are cut on their axis, whole arrays go to all devices, outputs are put together [B1.2] [B1.3] "
    "[B5.1] [B6.2] [B6.3] [B7.1] [B7.2]",
    "[train][group]") {
  for (int devices : {1, 2, 3, 5})
    for (std::int64_t rows : {5, 7, 64}) {
      auto const a = numbers(static_cast<std::size_t>(rows * 6), 1), b = numbers(static_cast<std::size_t>(rows * 6), 2);
      auto const c = numbers(6, 3), label = numbers(static_cast<std::size_t>(rows), 4);
      executor_group g(copying_factory{{"a", "b", "c"}, {0, 1, -1}}, cpu_devices(devices));
      g.bind({{{.name = "a", .shape = shape{rows, 2, 3}},
               {.name = "b", .shape = shape{3, rows, 2}, .layout = "TNC"},
               {.name = "c", .shape = shape{2, 3}, .layout = "HW"}},
              {{.name = "t", .shape = shape{rows}}}});
      CHECK(g.batch_size() == rows);
      train::batch<> const batch{.data = {tensor_view(a.data(), shape{rows, 2, 3}),
                                          tensor_view(b.data(), shape{3, rows, 2}), tensor_view(c.data(), shape{2, 3})},
                                 .labels = {tensor_view(label.data(), shape{rows})}};
      g.forward(batch);
      auto const merged = g.merged_outputs();
      CHECK(to_vector(merged[0]) == a);
      CHECK(to_vector(merged[1]) == b);
      CHECK(to_vector(merged[2]) == c);
      CHECK(merged[1].shape() == shape{3, rows, 2});
      auto const shapes = g.output_shapes();
      CHECK((shapes[0].second == shape{rows, 2, 3} && shapes[1].second == shape{3, rows, 2}));
      CHECK(shapes[2] == std::pair(std::string("c"), shape{2, 3}));
      if (devices == 1) CHECK(merged[0].data() == g.output(0, 0).data());
      for (std::size_t k = 0; k < static_cast<std::size_t>(devices); ++k) {
        CHECK(to_vector(g.output(2, k)) == c);
        CHECK(g.output(1, k).shape()[1] == g.layout().slices[k].size());
      }
      // Gradients of outputs are cut like them, on the axis of the output; one without samples goes to all devices.
      auto const heads = std::vector{tensor_view<float const>(b.data(), shape{rows, 2, 3}),
                                     tensor_view<float const>(a.data(), shape{3, rows, 2}),
                                     tensor_view<float const>(c.data(), shape{2, 3})};
      CHECK_THROWS_AS(g.input_grads(), not_training);
      train::input_descriptors const same = g.layout().whole;
      g.bind(same, {.inputs_need_grad = true});
      g.forward(batch);
      g.backward(heads);
      auto const grads = g.merged_input_grads();
      CHECK(to_vector(grads[0]) == b);
      CHECK(to_vector(grads[1]) == a);
      for (std::size_t k = 0; k < static_cast<std::size_t>(devices); ++k) CHECK(to_vector(g.input_grads()[2][k]) == c);
      CHECK_THROWS_AS(g.backward(std::vector{heads[0]}), shape_mismatch);
      CHECK_THROWS_AS(g.backward(std::vector{heads[1], heads[0], heads[2]}), shape_mismatch);
    }
}

TEST_CASE("A list of batches is cut already [B5.3]", "[train][group]") {
  auto const a = numbers(8, 1), b = numbers(8, 2);
  executor_group g(copying_factory{{"x"}, {0}}, cpu_devices(2));
  g.bind({{{.name = "x", .shape = shape{8, 2}}}, {}});
  std::vector<train::batch<>> slices{{.data = {tensor_view(a.data(), shape{4, 2})}},
                                     {.data = {tensor_view(b.data(), shape{4, 2})}}};
  g.forward(std::span<train::batch<> const>(slices));
  CHECK(to_vector(g.output(0, 0)) == a);
  CHECK(to_vector(g.output(0, 1)) == b);
  CHECK_THROWS_AS(g.forward(std::span<train::batch<> const>(slices).first(1)), batch_mismatch);
  slices[1].data = {tensor_view(b.data(), shape{2, 4})};
  CHECK_THROWS_AS(g.forward(std::span<train::batch<> const>(slices)), shape_mismatch);
}

TEST_CASE("Gradients are those of all devices' rows, and idle devices contribute zero [B6.2] [A8-12] [B2.4]",
          "[train][group]") {
  std::int64_t const in = 3, out = 2;
  weights initial(in, out);
  linear_reference const expected(initial.w, initial.b);
  group g(linear_factory{out}, cpu_devices(4), {.work_loads = {2, 1, 1, 3}, .allow_idle = true});
  bool first = true;
  for (std::int64_t rows : {13, 2, 3, 1, 64, 2}) {
    linear_batch const batch{rows, in, out};
    if (std::exchange(first, false)) {
      g.bind(batch.descs());
      g.set_params(initial.map(in, out), no_aux);
    } else {
      g.reshape(batch.descs());
    }
    g.forward(batch.view());
    g.backward();
    auto const [gw, gb] = expected.gradients(batch);
    auto const w = summed(g, 0, 4), b = summed(g, 1, 4);
    for (std::size_t i = 0; i < w.size(); ++i) CHECK(w[i] == Approx(gw[i]).margin(1e-4));
    for (std::size_t i = 0; i < b.size(); ++i) CHECK(b[i] == Approx(gb[i]).margin(1e-4));
  }
  group strict(linear_factory{out}, cpu_devices(4));
  CHECK_THROWS_AS(strict.bind(linear_batch{3, in, out}.descs()), empty_slice);
  CHECK(!strict.is_bound());
}

TEST_CASE(
    "A request writes, adds until zero_grad, or does nothing; overrides come last [B4.1] [B4.2] [B4.3] [B11-2] "
    "[C14-11] [A6.6] [B3.2] [B3.3]",
    "[train][group]") {
  std::int64_t const in = 3, out = 2;
  weights initial(in, out);
  linear_batch const batch{7, in, out};
  linear_reference const expected(initial.w, initial.b);
  auto const [gw, gb] = expected.gradients(batch);
  auto const run = [&](train::bind_options options, int passes, bool zero = false) {
    auto g = std::make_unique<group>(linear_factory{out}, cpu_devices(2));
    g->bind(batch.descs(), std::move(options));
    g->set_params(initial.map(in, out), no_aux);
    for (int i = 0; i < passes; ++i) {
      g->forward(batch.view());
      if (zero && i == passes - 1) g->zero_grad();
      g->backward();
    }
    return g;
  };
  auto const times = [](std::vector<double> v, double factor) {
    for (double& x : v) x *= factor;
    return v;
  };
  auto const check = [&](group& g, std::size_t param, std::vector<double> const& sum) {
    auto const found = summed(g, param, 2);
    REQUIRE(found.size() == sum.size());
    for (std::size_t i = 0; i < sum.size(); ++i) CHECK(found[i] == Approx(sum[i]).margin(1e-4));
  };
  check(*run({}, 2), 0, gw);
  auto const adds = run({.requests = grad_request::add}, 3);
  check(*adds, 0, times(gw, 3));
  check(*adds, 1, times(gb, 3));
  check(*run({.requests = grad_request::add}, 3, true), 0, gw);
  auto const fixed = run({.fixed = {"bias"}}, 1);
  check(*fixed, 0, gw);
  CHECK(fixed->grad(1, 0).data() == nullptr);  // keeps its place
  CHECK(fixed->request(1) == grad_request::none);
  using map = std::map<std::string, grad_request, std::less<>>;
  auto const mixed = run({.requests = map{{"bias", grad_request::add}}, .fixed = {"bias", "weight"}}, 2);
  check(*mixed, 1, times(gb, 2));
  CHECK(mixed->grad(0, 0).data() == nullptr);
  auto const listed =
      run({.requests = std::vector{grad_request::none, grad_request::none, grad_request::write, grad_request::add}}, 2);
  check(*listed, 0, gw);
  check(*listed, 1, times(gb, 2));
  CHECK_THROWS_AS(run({.requests = std::vector{grad_request::write}}, 1), bad_option);
  CHECK_THROWS_AS(run({.requests = map{{"bais", grad_request::add}}}, 1), unknown_key);
  CHECK_THROWS_AS(run({.fixed = {"bais"}}, 1), unknown_key);
  group inference(linear_factory{out}, cpu_devices(2));
  inference.bind(batch.descs(), {.for_training = false});
  inference.forward(batch.view());
  CHECK(inference.grad(0, 0).data() == nullptr);
  CHECK_THROWS_AS(inference.backward(), not_training);
  CHECK_THROWS_AS(inference.bind(batch.descs(), {.for_training = false, .inputs_need_grad = true}), bad_option);
}

TEST_CASE("Gradients of the data come in the order of the descriptors [B7.3]", "[train][group]") {
  std::int64_t const in = 3, out = 2;
  weights initial(in, out);
  linear_batch const batch{7, in, out};
  group g(linear_factory{out}, cpu_devices(3));
  g.bind(batch.descs(), {.inputs_need_grad = true});
  g.set_params(initial.map(in, out), no_aux);
  g.forward(batch.view());
  g.backward();
  auto const found = to_vector(g.merged_input_grads()[0]);
  for (std::size_t n = 0; n < 7; ++n)
    for (std::size_t i = 0; i < 3; ++i) {
      double sum = 0;
      for (std::size_t o = 0; o < 2; ++o) {
        double y = initial.b[o];
        for (std::size_t j = 0; j < 3; ++j) y += double{initial.w[o * 3 + j]} * batch.x[n * 3 + j];
        sum += (y - batch.t[n * 2 + o]) * initial.w[o * 3 + i];
      }
      CHECK(found[n * 3 + i] == Approx(sum).margin(1e-5));
    }
}

TEST_CASE("A group reshapes back and forth without moving parameters [B10.1] [B11-1] [B11-5]", "[train][group]") {
  std::int64_t const in = 3, out = 2;
  weights initial(in, out);
  linear_factory factory{out};
  group g(factory, cpu_devices(2));
  linear_batch const a{8, in, out}, b{5, in, out};
  g.bind(a.descs());
  g.set_params(initial.map(in, out), no_aux);
  auto const* const place = g.param(0, 1).data();
  CHECK(factory.counts->made == 2);
  for (auto const* batch : {&b, &a, &b, &b, &a}) {
    g.reshape(batch->descs());
    CHECK(g.layout().whole == batch->descs());
    g.forward(batch->view());
    CHECK(g.merged_outputs()[0].shape() == shape{batch->rows, out});
  }
  CHECK(factory.counts->made == 2);
  CHECK(factory.counts->reshaped == 8);  // twice the same shapes are one reshape
  CHECK(g.param(0, 1).data() == place);
  CHECK_THROWS_AS(g.reshape(linear_batch{8, in + 1, out}.descs()), shape_mismatch);
  CHECK(g.layout().whole == a.descs());
  g.forward(a.view());
  CHECK_THROWS_AS(g.forward(b.view()), shape_mismatch);
  // Labels may come or not; those that come are loaded.
  train::batch<> unlabelled = a.view();
  unlabelled.labels.clear();
  g.forward(unlabelled);
  auto other = a;
  for (float& t : other.t) t += 1;
  g.forward(other.view());
  g.backward();
  auto const [gw, gb] = linear_reference(initial.w, initial.b).gradients(other);
  CHECK(summed(g, 1, 2)[0] == Approx(gb[0]).margin(1e-4));
  // An executor without reshape is made again.
  executor_group copies(copying_factory{{"x"}, {0}}, cpu_devices(2));
  copies.bind({{{.name = "x", .shape = shape{8, 2}}}, {}});
  copies.reshape({{{.name = "x", .shape = shape{6, 2}}}, {}});
  copies.forward(train::batch<>{.data = {tensor_view(a.x.data(), shape{6, 2})}});
  CHECK(to_vector(copies.merged_outputs()[0]) == std::vector<float>(a.x.begin(), a.x.begin() + 12));
}

TEST_CASE("A failed bind names the offender and changes nothing [B1.4] [B3.1] [B3.4]", "[train][group]") {
  group g(linear_factory{2}, cpu_devices(2));
  using inputs = train::input_descriptors;
  CHECK_THROWS_AS(g.bind({}), bad_option);
  CHECK(message_of<batch_mismatch>([&] {
          g.bind(inputs{{{.name = "x", .shape = shape{8, 3}}}, {{.name = "t", .shape = shape{7, 2}}}});
        }).find("\"t\"") != std::string::npos);
  CHECK_THROWS_AS(g.bind(inputs{{{.name = "x", .shape = shape{8, 3}}, {.name = "x", .shape = shape{8, 3}}}, {}}),
                  bad_option);
  CHECK_THROWS_AS(g.bind(inputs{{{.name = "x", .shape = shape{8}}}, {}}), shape_mismatch);
  CHECK_THROWS_AS(g.bind(inputs{{{.name = "x", .shape = shape{8, 3}, .dtype = "float64"}}, {}}), dtype_mismatch);
  CHECK(!g.is_bound());
  CHECK_THROWS_AS(g.forward(linear_batch{8, 3, 2}.view()), not_bound);
  CHECK_THROWS_AS(g.backward(), not_bound);
  CHECK_THROWS_AS(g.merged_outputs(), not_bound);
  CHECK_THROWS_AS(group(linear_factory{}, cpu_devices(2), {.work_loads = {1}}), bad_option);  // [B2.1]
  CHECK_THROWS_AS(group(linear_factory{}, {cpu_device<>(1), cpu_device<>(1)}), duplicate_device);
  CHECK_THROWS_AS(group(linear_factory{}, {}), bad_option);
}

namespace concepts {

using namespace pushpull::train;
namespace type = pushpull::test::archetype;

static_assert(Executor<type::executor> && Executor<linear_executor> && Executor<copying_executor>);
static_assert(!Executor<type::no_forward> && !Executor<type::no_backward> && !Executor<type::no_grads>);
static_assert(!Executor<type::outputs_in_no_order> && !Executor<type::params_elsewhere> && !Executor<type::no_device>);
static_assert(!Executor<int> && !Executor<type::executor_factory>);
static_assert(ModelSpec<type::model_spec> && !ModelSpec<type::no_shapes> && !ModelSpec<type::no_axis>);
static_assert(!ModelSpec<type::unnamed>);
static_assert(ExecutorFactory<type::executor_factory> && ExecutorFactory<linear_factory>);
static_assert(!ExecutorFactory<type::model_spec> && !ExecutorFactory<type::makes_another>);
static_assert(ReshapableExecutor<type::reshapable> && !ReshapableExecutor<type::executor>);
static_assert(HookedExecutor<type::hooked> && !HookedExecutor<type::executor> && !WaitingExecutor<type::hooked>);
static_assert(WaitingExecutor<type::waiting> && WaitingExecutor<linear_executor>);
static_assert(InputGradExecutor<type::with_input_grads> && !InputGradExecutor<type::executor>);
static_assert(StatefulExecutor<type::stateful> && !StatefulExecutor<type::executor>);
static_assert(MonitoredExecutor<type::monitored> && !MonitoredExecutor<type::executor>);
static_assert(SlicingPolicy<balanced> && SlicingPolicy<half_even> && SlicingPolicy<half_up> &&
              SlicingPolicy<ceil_step>);
static_assert(!SlicingPolicy<int>);

}  // namespace concepts

TEST_CASE("A group asks no more of an executor than its concept says [D1]", "[train][group]") {
  executor_group g(test::archetype::executor_factory{}, cpu_devices(2));
  std::vector<float> const x(4, 2);
  g.bind({{{.name = "x", .shape = shape{4}}}, {}});
  train::batch<> const batch{.data = {tensor_view(x.data(), shape{4})}};
  g.forward(batch);
  g.backward();
  g.reshape({{{.name = "x", .shape = shape{3}}}, {}});
  CHECK(g.merged_outputs()[0].shape() == shape{3});
  CHECK_THROWS_AS(g.bind({{{.name = "x", .shape = shape{4}}}, {}}, {.inputs_need_grad = true}), bad_option);
}

TEST_CASE("Without samples all devices run the whole input, and results are those of one [B1.2] [B1.3] [B11-3]",
          "[train][group]") {
  auto const a = numbers(6, 1);
  executor_group g(copying_factory{{"x"}, {0}}, cpu_devices(3));
  g.bind({{{.name = "x", .shape = shape{2, 3}, .layout = "HW"}}, {}}, {.inputs_need_grad = true});
  CHECK(!g.batch_size());
  g.forward(train::batch<>{.data = {tensor_view(a.data(), shape{2, 3})}});
  for (std::size_t k = 0; k < 3; ++k) CHECK(to_vector(g.output(0, k)) == a);
  CHECK(to_vector(g.merged_outputs()[0]) == a);
  CHECK(g.output_shapes()[0].second == shape{2, 3});
  g.backward(std::vector{tensor_view<float const>(a.data(), shape{2, 3})});
  for (std::size_t k = 0; k < 3; ++k) CHECK(to_vector(g.input_grads()[0][k]) == a);
}

TEST_CASE("get_params is the mean over devices, in float at least [B8.1] [B8.2] [B8.4]", "[train][group]") {
  std::int64_t const in = 3, out = 2;
  weights initial(in, out);
  group g(linear_factory{out}, cpu_devices(3));
  g.bind(linear_batch{7, in, out}.descs());
  auto more = initial.map(in, out);
  more.emplace("extra", tensor_view(initial.b.data(), shape{out}));
  CHECK_THROWS_AS(g.set_params(more, no_aux), extra_param);
  g.set_params(more, no_aux, true);
  std::vector<double> found(6);
  std::map<std::string, tensor_view<double>> wanted{{"weight", tensor_view(found.data(), shape{out, in})}}, none;
  g.get_params(wanted, none);
  for (std::size_t i = 0; i < 6; ++i) CHECK(static_cast<float>(found[i]) == initial.w[i]);
  for (std::size_t k = 0; k < 3; ++k) g.param(0, k).data()[0] = static_cast<float>(k);
  g.set_identical(false);
  g.get_params(wanted, none);
  CHECK(found[0] == Approx(1));
  std::map<std::string, tensor_view<double>> unknown{{"w", tensor_view(found.data(), shape{6})}};
  CHECK_THROWS_AS(g.get_params(unknown, none), unknown_key);
  // Sums of half in half would be infinite.
  std::vector<half> const large(1, convert<half>(60000.0F));
  std::vector<tensor_view<half const>> const replicas(3, tensor_view(large.data(), shape{1}));
  CHECK(train::mean_over(replicas)[0] == Approx(convert<float>(large[0])));
}
