/// @file
/// Rules of MXNet's groups and modules that are about several parts at once: labels, axes, names, rows.
#include <cstddef>
#include <cstdint>
#include <map>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/data/array_source.hpp>
#include <pushpull/train/data/prefetcher.hpp>
#include <pushpull/train/metrics/composite.hpp>
#include <pushpull/train/metrics/regression.hpp>
#include <pushpull/train/module.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "train/models.hpp"

using namespace pushpull;
using namespace pushpull::test;

TEST_CASE("B5.2: labels are loaded if the group was bound with labels and the batch has any", "[train][group]") {
  train::executor_group g(linear_factory{2}, cpu_devices(2));
  linear_batch const batch{6, 3, 2};
  g.bind(batch.descs());
  std::vector<std::vector<float>> labels;
  train::metrics::custom seen{"labels", [&](auto const& of_device, auto const&, train::counted_rows) {
                                labels.push_back(to_vector(of_device[0]));
                                return train::metrics::weighted_sum{};
                              }};
  std::vector<std::vector<float>> const expected{{batch.t.begin(), batch.t.begin() + 6},
                                                 {batch.t.begin() + 6, batch.t.end()}};
  g.forward(batch.view());
  g.update_metric(seen);
  CHECK(labels == expected);
  auto unlabelled = batch.view();
  unlabelled.labels.clear();
  g.forward(unlabelled);
  labels.clear();
  g.update_metric(seen);
  CHECK(labels == expected);
}

TEST_CASE("B11-3: inputs without samples are whole on every device, and there is no batch size", "[train][group]") {
  train::executor_group g(copying_factory{{"x"}, {-1}}, cpu_devices(3));
  std::vector<float> const x{1, 2, 3, 4, 5, 6};
  g.bind({{{.name = "x", .shape = shape{2, 3}, .layout = "HW"}}, {}});
  CHECK(!g.batch_size());
  train::batch<> batch;
  batch.data = {tensor_view(x.data(), shape{2, 3})};
  g.forward(batch);
  for (std::size_t k = 0; k < 3; ++k) CHECK(to_vector(g.outputs()[0][k]) == x);
  CHECK(to_vector(g.merged_outputs()[0]) == x);
  train::metrics::loss sum;
  g.update_metric(sum);
  CHECK(sum.values()[0].value == Approx(3.5));
  g.backward(std::vector{tensor_view<float const>(x.data(), shape{2, 3})});
}

TEST_CASE("B11-4: each output is put together on an axis of its own, whichever is asked", "[train][group]") {
  train::executor_group g(copying_factory{{"a", "b"}, {1, 0}}, cpu_devices(2));
  std::vector<float> const a{1, 2, 3, 4, 5, 6, 7, 8}, b{1, 2, 3, 4};
  g.bind({{{.name = "a", .shape = shape{2, 4}, .layout = "TN"}, {.name = "b", .shape = shape{4}, .layout = "N"}}, {}});
  train::batch<> batch;
  batch.data = {tensor_view(a.data(), shape{2, 4}), tensor_view(b.data(), shape{4})};
  g.forward(batch);
  CHECK(g.axis_of_output(0) == 1);
  CHECK(g.axis_of_output(1) == 0);
  CHECK(to_vector(g.merged_outputs()[1]) == b);
  CHECK(to_vector(g.merged_outputs()[0]) == a);
  CHECK(to_vector(g.output(0, 1)) == std::vector<float>{3, 4, 7, 8});
}

TEST_CASE("C5.3, C14-3: names choose multipliers, whether they are known before or after the parameters",
          "[train][module]") {
  linear_batch const batch{4, 3, 2};
  std::vector<float> const ones(6, 1.0F), none(8);
  float const zero = 0;
  auto const rule = update::weight_decay(0.1) | update::sgd{.learning_rate = 0.5};
  auto const without_decay = update::weight_decay(0) | update::sgd{.learning_rate = 0.5};
  auto const is_bias = [](std::string_view name) { return name.ends_with("bias"); };
  for (bool const before : {true, false}) {
    kv_store store{cpu_devices(2), rule};
    train::module net(linear_factory{2}, cpu_devices(2));
    net.bind(batch.descs().data, batch.descs().labels);
    net.set_params(std::map<std::string, tensor_view<float const>>{{"weight", tensor_view(ones.data(), shape{2, 3})},
                                                                   {"bias", tensor_view(ones.data(), shape{2})}},
                   std::map<std::string, tensor_view<float const>>{{"seen", tensor_view(&zero, shape{1})}});
    if (before) store.add_group(is_bias, without_decay);
    net.init_optimizer(store);
    if (!before) store.add_group(is_bias, without_decay);
    net.forward(batch.view());
    net.backward(std::vector{tensor_view<float const>(none.data(), shape{4, 2})});
    net.update();
    auto const trained = net.params();
    CHECK(to_vector(trained.args.find("weight")->second) == std::vector<float>(6, 0.95F));
    CHECK(to_vector(trained.args.find("bias")->second) == std::vector<float>(2, 1.0F));
  }
}

TEST_CASE("A6.1: fit needs an optimizer and a metric, and tells callbacks that training begins", "[train][module]") {
  linear_batch const batch{4, 3, 2};
  train::data::array_source<float> source({{"x", tensor_view(batch.x.data(), shape{4, 3})}},
                                          {{"t", tensor_view(batch.t.data(), shape{4, 2})}}, {.batch = 2});
  train::module net(linear_factory{2}, cpu_devices(1));
  train::metrics::mse metric;
  struct told {
    std::int64_t* epochs;
    void on_begin(train::training_begin const& e) { *epochs = e.epochs; }
  };
  std::int64_t epochs = 0;
  train::fit_options const options{.epochs = 2, .callbacks = train::callback_list{told{&epochs}}};
  CHECK_THROWS_AS(net.fit(source, metric, options), no_optimizer);
  CHECK(epochs == 0);
  net.init_optimizer(update::sgd{.learning_rate = 0.1});
  net.fit(source, metric, options);
  CHECK(epochs == 2);
}

TEST_CASE("a module trains to the same weights over a prefetcher, and from where a source was",
          "[train][module][data]") {
  linear_batch const batch{23, 3, 2};
  using source_type = train::data::array_source<float>;
  auto const source = [&] {
    return source_type({{"x", tensor_view(batch.x.data(), shape{23, 3})}},
                       {{"t", tensor_view(batch.t.data(), shape{23, 2})}}, {.batch = 4, .shuffle = 9});
  };
  std::vector<float> const zeros(6);
  auto const trained = [&](auto data, std::int64_t first, std::int64_t epochs, std::vector<float> weight) {
    train::module net(linear_factory{2}, cpu_devices(2));
    net.bind_to(data);
    float const zero = 0;
    net.set_params(std::map<std::string, tensor_view<float const>>{{"weight", tensor_view(weight.data(), shape{2, 3})},
                                                                   {"bias", tensor_view(zeros.data(), shape{2})}},
                   std::map<std::string, tensor_view<float const>>{{"seen", tensor_view(&zero, shape{1})}});
    net.init_optimizer(update::sgd{.learning_rate = 0.1});
    train::metrics::mse metric;
    net.fit(data, metric, {.epochs = epochs, .begin_epoch = first});
    return to_vector(net.params().args.find("weight")->second);
  };
  auto const expected = trained(source(), 0, 3, zeros);
  CHECK(expected != zeros);
  CHECK(trained(train::data::prefetcher<source_type>(source(), 3), 0, 3, zeros) == expected);
  auto later = source();
  later.seek({2, 0});
  CHECK(trained(later, 2, 3, zeros) != trained(source(), 2, 3, zeros));  // another order
}

TEST_CASE("C6.4: pushed rows change the store's copy; what was pulled before stays until rows are pulled again",
          "[train][rows]") {
  kv_store store{cpu_devices(2), update::weight_decay(0) | update::sgd{.learning_rate = 1}};
  store.init("embedding", tensor_view(std::vector<float>(12, 1.0F).data(), shape{4, 3}));
  row_sparse<float> pulled(cpu_device<>(), shape{4, 3}), gradient(cpu_device<>(), shape{4, 3}, 1);
  std::vector<std::int64_t> const rows{1, 2};
  store.row_sparse_pull("embedding", pulled, rows).wait();
  gradient.row_ids()[0] = 2;
  std::fill_n(gradient.values(), 3, 0.25F);
  store.push("embedding", gradient).wait();
  CHECK(pulled.values()[3] == Approx(1));
  store.row_sparse_pull("embedding", pulled, rows).wait();
  CHECK(pulled.values()[0] == Approx(1));
  CHECK(pulled.values()[3] == Approx(0.75));
}
