#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <pushpull/pushpull.hpp>
#include <pushpull/train.hpp>
#include <pushpull/train/optimizer/table_optimizer.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "train/line_model.hpp"
#include "train/models.hpp"

using namespace pushpull;
using namespace pushpull::test;
using train::bucketing_module;
using train::grad_request;

namespace {

/// y = sum over the row of w[0] x + b: any number of columns, which is the bucket.
class summing_executor {
 public:
  using device_type = cpu_device<>;
  using view = tensor_view<float>;
  summing_executor(device_type const& device, train::input_descriptors const& descs,
                   train::replica_requests const& requests, train::buffer_pool<device_type>& pool,
                   train::replica_memory<float, device_type> const& memory)
      : device_(device), requests_(requests), params_(memory.params), grads_(memory.grads), aux_(memory.aux) {
    inputs_ = {pool.acquire<float>(descs.data[0].name, descs.data[0].shape)};
    for (auto const& d : descs.labels) labels_.push_back(pool.acquire<float>(d.name, d.shape));
    outputs_ = {pool.acquire<float>("y", shape{descs.data[0].shape[0]})};
  }
  device_type const& device() const { return device_; }
  std::vector<view>& inputs() { return inputs_; }
  std::vector<view>& labels() { return labels_; }
  std::vector<view>& outputs() { return outputs_; }
  std::vector<view>& params() { return params_; }
  std::vector<view>& grads() { return grads_; }
  std::vector<view>& aux() { return aux_; }
  void forward(train::mode run) {
    auto const rows = static_cast<std::size_t>(inputs_[0].shape()[0]);
    for (std::size_t n = 0; n < rows; ++n) outputs_[0].data()[n] = params_[0].data()[0] * sum(n);
    if (run == train::mode::training) aux_[0].data()[0] = static_cast<float>(device_.id() + 1);
  }
  void backward(std::span<tensor_view<float const> const>) {
    float gradient = 0;
    for (std::size_t n = 0; n < outputs_[0].size(); ++n)
      gradient += (outputs_[0].data()[n] - labels_[0].data()[n]) * sum(n);
    grads_[0].data()[0] = gradient + (requests_.params[0] == grad_request::add ? grads_[0].data()[0] : 0);
  }

 private:
  float sum(std::size_t n) const {
    auto const columns = static_cast<std::size_t>(inputs_[0].shape()[1]);
    float result = 0;
    for (std::size_t i = 0; i < columns; ++i) result += inputs_[0].data()[n * columns + i];
    return result;
  }
  device_type device_;
  train::replica_requests requests_;
  std::vector<view> inputs_, labels_, outputs_, params_, grads_, aux_;
};

struct summing_factory {
  using executor_type = summing_executor;
  std::vector<std::string> param_names() const { return {"weight"}; }
  std::vector<std::string> aux_names() const { return {"mean"}; }
  std::vector<std::string> output_names() const { return {"y"}; }
  int output_axis(std::size_t) const { return 0; }
  train::inferred_shapes infer_shapes(train::input_descriptors const&) const { return {{shape{1}}, {shape{1}}}; }
  summing_executor make(cpu_device<> const& device, train::input_descriptors const& descs,
                        train::replica_requests const& requests, train::buffer_pool<cpu_device<>>& pool,
                        train::replica_memory<float, cpu_device<>> const& memory) {
    return {device, descs, requests, pool, memory};
  }
};

using buckets = bucketing_module<summing_factory>;

/// Has some of the parameters "a", "b" and "c", which are numbers. The gradient of each is 1 per row.
class counting_executor {
 public:
  using device_type = cpu_device<>;
  using view = tensor_view<float>;
  counting_executor(device_type const& device, train::input_descriptors const& descs,
                    train::replica_requests const& requests, train::buffer_pool<device_type>& pool,
                    train::replica_memory<float, device_type> const& memory)
      : device_(device), requests_(requests), params_(memory.params), grads_(memory.grads) {
    inputs_ = {pool.acquire<float>(descs.data[0].name, descs.data[0].shape)};
    outputs_ = {pool.acquire<float>("y", descs.data[0].shape)};
  }
  device_type const& device() const { return device_; }
  std::vector<view>& inputs() { return inputs_; }
  std::vector<view> labels() { return {}; }
  std::vector<view>& outputs() { return outputs_; }
  std::vector<view>& params() { return params_; }
  std::vector<view>& grads() { return grads_; }
  std::vector<view> aux() { return {}; }
  void on_grad_ready(std::function<void(std::size_t)> f) { ready_ = std::move(f); }
  void on_param_needed(std::function<void(std::size_t)> f) { needed_ = std::move(f); }
  void forward(train::mode) {
    float sum = 0;
    for (std::size_t i = 0; i < params_.size(); ++i) {
      if (needed_) needed_(i);
      sum += params_[i].data()[0];
    }
    for (std::size_t n = 0; n < outputs_[0].size(); ++n) outputs_[0].data()[n] = sum;
  }
  void backward(std::span<tensor_view<float const> const>) {
    for (std::size_t i = grads_.size(); i-- > 0;) {
      if (requests_.params[i] == grad_request::none) continue;
      float const before = requests_.params[i] == grad_request::add ? grads_[i].data()[0] : 0;
      grads_[i].data()[0] = before + static_cast<float>(outputs_[0].size());
      if (ready_) ready_(i);
    }
  }

 private:
  device_type device_;
  train::replica_requests requests_;
  std::vector<view> inputs_, outputs_, params_, grads_;
  std::function<void(std::size_t)> ready_, needed_;
};

struct counting_factory {
  using executor_type = counting_executor;
  std::vector<std::string> names;

  std::vector<std::string> param_names() const { return names; }
  std::vector<std::string> aux_names() const { return {}; }
  std::vector<std::string> output_names() const { return {"y"}; }
  int output_axis(std::size_t) const { return 0; }
  train::inferred_shapes infer_shapes(train::input_descriptors const&) const {
    return {std::vector<shape>(names.size(), shape{1}), {}};
  }
  counting_executor make(cpu_device<> const& device, train::input_descriptors const& descs,
                         train::replica_requests const& requests, train::buffer_pool<cpu_device<>>& pool,
                         train::replica_memory<float, cpu_device<>> const& memory) {
    return {device, descs, requests, pool, memory};
  }
};

/// y = w times the sum of the rows of "table" whose numbers a row of data has. The gradient of each y is 1.
class lookup_executor {
 public:
  using device_type = cpu_device<>;
  using view = tensor_view<float>;
  lookup_executor(device_type const& device, train::input_descriptors const& descs,
                  train::buffer_pool<device_type>& pool, train::replica_memory<float, device_type> const& memory)
      : device_(device), params_(memory.params), grads_(memory.grads) {
    auto const& ids = descs.data[0].shape;
    inputs_ = {pool.acquire<float>("id", ids)};
    outputs_ = {pool.acquire<float>("y", shape{ids[0], 2})};
  }
  device_type const& device() const { return device_; }
  std::vector<view>& inputs() { return inputs_; }
  std::vector<view> labels() { return {}; }
  std::vector<view>& outputs() { return outputs_; }
  std::vector<view>& params() { return params_; }
  std::vector<view>& grads() { return grads_; }
  std::vector<view> aux() { return {}; }
  void forward(train::mode) {
    for (std::size_t i = 0; i < outputs_[0].size(); ++i)
      outputs_[0].data()[i] = params_[1].data()[0] * sum(i / 2, i % 2);
  }
  void backward(std::span<tensor_view<float const> const>) {
    float weight = 0;
    for (std::size_t i = 0; i < outputs_[0].size(); ++i) weight += sum(i / 2, i % 2);
    grads_[1].data()[0] = weight;
    if (dense_) std::fill_n(grads_[0].data(), grads_[0].size(), 0.0F);
    for (std::size_t i = 0; i < inputs_[0].size(); ++i)
      for (std::size_t k : {0U, 1U}) grads_[0].data()[row(i) * 2 + k] += params_[1].data()[0];
  }

 private:
  std::size_t row(std::size_t i) const { return static_cast<std::size_t>(inputs_[0].data()[i]); }
  float sum(std::size_t n, std::size_t k) const {
    auto const columns = static_cast<std::size_t>(inputs_[0].shape()[1]);
    float result = 0;
    for (std::size_t i = 0; i < columns; ++i) result += params_[0].data()[row(n * columns + i) * 2 + k];
    return result;
  }
  device_type device_;
  std::vector<view> inputs_, outputs_, params_, grads_;

 public:
  bool dense_ = true;
};

struct lookup_factory {
  using executor_type = lookup_executor;
  std::int64_t words, length;
  bool dense = true;

  std::vector<std::string> param_names() const { return {"table", "weight"}; }
  std::vector<std::string> aux_names() const { return {}; }
  std::vector<std::string> output_names() const { return {"y"}; }
  int output_axis(std::size_t) const { return 0; }
  train::inferred_shapes infer_shapes(train::input_descriptors const&) const {
    return {{shape{words, length}, shape{1}}, {}};
  }
  lookup_executor make(cpu_device<> const& device, train::input_descriptors const& descs,
                       train::replica_requests const&, train::buffer_pool<cpu_device<>>& pool,
                       train::replica_memory<float, cpu_device<>> const& memory) {
    lookup_executor made{device, descs, pool, memory};
    made.dense_ = dense;
    return made;
  }
};

using lesser_buckets = bucketing_module<counting_factory>;

/// Bucket 3 has "a", "b", "c", bucket 2 has "c", "a", bucket 1 has "b".
counting_factory lesser(train::bucket_key key) {
  if (key == 3) return {{"a", "b", "c"}};
  return key == 2 ? counting_factory{{"c", "a"}} : counting_factory{{"b"}};
}
std::vector<float> const four_rows(4, 0.0F);
train::batch<> lesser_batch(train::bucket_key key) {
  return {.data = {tensor_view(four_rows.data(), shape{4})}, .bucket = key};
}
std::vector<float> abc_of(lesser_buckets const& m) {
  auto const all = m.params();
  std::vector<float> result;
  for (auto const& [name, value] : all.args) result.push_back(value.view().data()[0]);
  return result;
}

/// All inputs 1, all labels 0.
struct ones {
  std::int64_t rows, columns;
  std::vector<float> x = std::vector<float>(static_cast<std::size_t>(rows * columns), 1.0F);
  std::vector<float> t = std::vector<float>(static_cast<std::size_t>(rows), 0.0F);

  train::batch<> view() const {
    return {.data = {tensor_view(x.data(), shape{rows, columns})},
            .labels = {tensor_view(t.data(), shape{rows})},
            .bucket = columns};
  }
  std::vector<train::descriptor> data() const { return {{.name = "x", .shape = shape{rows, columns}}}; }
  std::vector<train::descriptor> labels() const { return {{.name = "t", .shape = shape{rows}}}; }
};

train::initializers::constant const one{1};

float weight_of(buckets const& m) { return to_vector(m.params().args.find("weight")->second)[0]; }

train::data::array_source<> source_of(linear_batch const& batch, train::data::array_options options) {
  return {{{"x", tensor_view<float const>(batch.x.data(), shape{batch.rows, batch.in})}},
          {{"t", tensor_view<float const>(batch.t.data(), shape{batch.rows, batch.out})}},
          options};
}

}  // namespace

TEST_CASE(
    "Buckets share parameters, gradients, memory and the optimizer [B9.1] [B9.2] [B9.3] [B9.4] [C10.1] [C10.2] [C10.3] "
    "[C10.4]",
    "[train][bucketing]") {
  for (int devices : {1, 2}) {
    std::vector<train::bucket_key> made;
    buckets m([&](train::bucket_key key) { return made.push_back(key), summing_factory(); }, 5, cpu_devices(devices));
    ones const large{4, 5}, small{4, 2};
    CHECK_THROWS_AS(m.forward(small.view()), not_bound);
    CHECK_THROWS_AS(m.select(2, small.data(), small.labels()), not_bound);
    m.bind(large.data(), large.labels());
    CHECK_THROWS_AS(m.forward(small.view()), not_initialized);
    m.init_params(train::initializer(one));
    CHECK(made == std::vector<train::bucket_key>{5});
    m.init_optimizer(update::sgd{.learning_rate = 0.01});
    auto const bytes = m.group().pool(0).bytes();
    double w = 1;
    for (auto const* batch : {&large, &small, &small, &large}) {
      m.forward(batch->view());
      CHECK(m.current_key() == batch->columns);
      m.backward();
      m.update();
      w -= 0.01 * w * static_cast<double>(batch->columns * batch->columns);
      CHECK(weight_of(m) == Approx(w));
      CHECK(m.current().group().param(0, 0).data() == m.group().param(0, 0).data());
    }
    CHECK((made.size() == 2 && m.keys() == std::vector<train::bucket_key>{2, 5}));
    CHECK(m.group().pool(0).bytes() == bytes);
    CHECK(m.group().pool(0).replaced() == 0);
    ones const wider{4, 9};
    m.prepare(wider.view());  // binds it, and stays [C8]
    CHECK((m.current_key() == 5 && made.size() == 3));
    m.forward(large.view());
    CHECK(to_vector(m.merged_outputs()[0])[0] == Approx(5 * w));
    m.forward(wider.view());
    CHECK(m.group().pool(0).bytes() > bytes);  // larger than the default: new memory, and the old one stays
    CHECK(m.group().pool(0).replaced() == 1);
    m.forward(large.view());
    CHECK(to_vector(m.merged_outputs()[0])[0] == Approx(5 * w));
    m.bind(large.data(), large.labels(), {.force_rebind = true});
    CHECK(weight_of(m) == Approx(w));
    m.forward(small.view());
    CHECK(to_vector(m.merged_outputs()[0])[0] == Approx(2 * w));
  }
}

TEST_CASE("A step after a bucket with fewer parameters leaves the others alone [C6.1] [C10.2] [C10.3]",
          "[train][bucketing]") {
  // A parameter has the value that it has after as many steps as its buckets made, whatever steps came between.
  auto const check = [](auto const& init) {
    auto const trained = [&](std::vector<train::bucket_key> const& order,
                             std::vector<train::bucket_key> const& between = {}) {
      lesser_buckets m(lesser, 3, cpu_devices(2));
      m.bind({{.name = "x", .shape = shape{4}}});
      m.init_params(train::initializer(one));
      init(m);
      for (train::bucket_key const key : order) {
        m.forward_backward(lesser_batch(key));
        for (train::bucket_key const other : between) {
          m.prepare(lesser_batch(other));
          m.select(other, {});
        }
        m.update();
      }
      return abc_of(m);
    };
    std::vector<std::vector<float>> after;  // [steps][parameter]
    for (std::size_t steps = 0; steps <= 7; ++steps) after.push_back(trained(std::vector<train::bucket_key>(steps, 3)));
    CHECK(after[7] != after[6]);
    std::vector<train::bucket_key> const order{3, 2, 1, 2, 3, 3, 1, 2, 1, 3};  // a 7, b 7, c 7
    auto const found = trained(order);
    CHECK(found == std::vector<float>{after[7][0], after[7][1], after[7][2]});
    CHECK(trained(order, {3, 1}) == found);
    CHECK(trained(order, {1, 3}) == found);
    CHECK(trained({2, 2, 2, 1}) == std::vector<float>{after[3][0], after[1][1], after[3][2]});
    CHECK(trained({3, 1, 1}) == std::vector<float>{after[1][0], after[3][1], after[1][2]});
  };
  auto const rule = update::adam{.learning_rate = 0.1};
  check([&](lesser_buckets& m) { m.init_optimizer(rule); });
  check([&](lesser_buckets& m) { m.init_optimizer(rule, train::on_each_device); });
  check([&](lesser_buckets& m) { m.init_optimizer("device", rule); });
  check([&](lesser_buckets& m) { m.init_optimizer(rule, {.overlap = train::overlap::on}); });
  check([&](lesser_buckets& m) { m.init_optimizer(rule, train::in_backward); });
}

TEST_CASE("Gradients of parameters that a bucket lacks are in no norm [C6.1] [C10.2]", "[train][bucketing]") {
  lesser_buckets m(lesser, 3, cpu_devices(1));
  m.bind({{.name = "x", .shape = shape{4}}});
  m.init_params(train::initializer(one));
  m.init_optimizer(update::clip_global_norm{1.0} | update::sgd{.learning_rate = 1},
                   {.rescale = train::rescale_policy::none});
  m.forward_backward(lesser_batch(3));  // the norm of 4, 4, 4 becomes 1
  m.update();
  auto expected = std::vector<float>(3, 1 - 1 / std::sqrt(3.0F));
  auto const close = [&] {
    auto const found = abc_of(m);
    for (std::size_t i = 0; i < 3; ++i) CHECK(found[i] == Approx(expected[i]));
  };
  close();
  m.forward_backward(lesser_batch(1));  // of 4 alone
  m.update();
  expected[1] -= 1;
  close();
  m.forward_backward(lesser_batch(2));
  m.update();
  for (std::size_t const i : {std::size_t{0}, std::size_t{2}}) expected[i] -= 1 / std::sqrt(2.0F);
  close();
}

TEST_CASE("With add, a step is of the parameters of all buckets since the last one [C10.3] [C14-11]",
          "[train][bucketing]") {
  lesser_buckets m(lesser, 3, cpu_devices(2), {.fixed = {"c"}});
  m.bind({{.name = "x", .shape = shape{4}}}, {}, {.requests = grad_request::add});
  m.init_params(train::initializer(one));
  m.init_optimizer(update::sgd{.learning_rate = 0.125}, {.rescale = train::rescale_policy::none});
  auto const pass = [&](train::bucket_key key) { m.forward_backward(lesser_batch(key)); };
  pass(2);
  pass(1);
  pass(1);
  m.update();
  CHECK(abc_of(m) == std::vector<float>{0.5F, 0, 1});  // 4 of a, 8 of b
  m.zero_grad();
  pass(1);  // the sums of all end, also that of "a", which this bucket has not
  pass(3);
  m.update();
  CHECK(abc_of(m) == std::vector<float>{0, -1, 1});
  // Requests by name and by position reach buckets that lack some of the names.
  std::map<std::string, grad_request, std::less<>> const by_name{{"a", grad_request::none}, {"x", grad_request::none}};
  std::vector<grad_request> const by_place{grad_request::none, grad_request::none, grad_request::write,
                                           grad_request::write};
  for (train::grad_requests const& requests : {train::grad_requests(by_name), train::grad_requests(by_place)}) {
    lesser_buckets named(lesser, 3, cpu_devices(1));
    named.bind({{.name = "x", .shape = shape{4}}}, {}, {.requests = requests});
    named.init_params(train::initializer(one));
    named.init_optimizer(update::sgd{.learning_rate = 1});
    for (train::bucket_key const key : {1, 2, 3}) {
      named.forward_backward(lesser_batch(key));
      named.update();
    }
    CHECK(abc_of(named) == std::vector<float>{1, -1, -1});
  }
}

TEST_CASE("With add, gradients of several buckets add up until zero_grad [C10.3] [C14-11]", "[train][bucketing]") {
  buckets m([](train::bucket_key) { return summing_factory(); }, 5, cpu_devices(2));
  ones const large{4, 5}, small{4, 2};
  m.bind(large.data(), large.labels(), {.requests = grad_request::add});
  m.init_params(train::initializer(one));
  m.init_optimizer(update::sgd{.learning_rate = 0.01});
  double w = 1;
  for (int step = 0; step < 3; ++step) {
    m.zero_grad();
    double sum = 0;
    for (auto const* batch : {&large, &small, &small}) {
      m.forward(batch->view());
      m.backward();
      sum += 4 * w * static_cast<double>(batch->columns * batch->columns);
    }
    CHECK(m.group().grad(0, 0).data()[0] + m.group().grad(0, 1).data()[0] == Approx(sum));
    m.update();
    w -= 0.01 * sum / 12;  // the mean over all samples
    CHECK(weight_of(m) == Approx(w));
  }
}

TEST_CASE("A bucketing module saves its keys and resumes [C7] [C14-7]", "[train][bucketing]") {
  temporary_folder const folder;
  std::string const prefix = folder.file("buckets").string();
  ones const large{4, 5}, small{4, 2};
  auto const run = [&](buckets& m, int steps) {
    for (int i = 0; i < steps; ++i) {
      m.forward((i % 2 == 0 ? small : large).view());
      m.backward();
      m.update();
    }
  };
  auto const make = [](train::bucket_key) { return summing_factory(); };
  buckets m(make, 5, cpu_devices(2));
  m.bind(large.data(), large.labels());
  m.init_params(train::initializer(one));
  m.init_optimizer(update::sgd{.learning_rate = 0.01});
  run(m, 2);
  m.save_checkpoint(prefix, 2);
  CHECK(train::read_bucket_keys(prefix) == std::vector<train::bucket_key>{2, 5});
  run(m, 2);
  buckets resumed(make, 5, cpu_devices(2));
  resumed.load_checkpoint(prefix, 2);
  resumed.bind(large.data(), large.labels());
  resumed.init_optimizer(update::sgd{.learning_rate = 0.01});
  run(resumed, 2);
  CHECK(weight_of(resumed) == weight_of(m));
}

TEST_CASE(
    "fit binds, trains, scores, predicts and calls back in order [A6.5] [A6.7] [B8.2] [B8.3] [B10.3] [B11-6] [C9.1] "
    "[C9.2] "
    "[C9.3] [C9.4] [C9.5] [C14-8] [C14-12]",
    "[train][module]") {
  linear_batch const all{22, 3, 2};
  for (int devices : {1, 3}) {
    auto source = source_of(all, {.batch = 6});
    auto held_out = source_of(all, {.batch = 11});
    train::module m(linear_factory{2}, cpu_devices(devices));
    train::metrics::mse metric;
    CHECK_THROWS_AS(m.fit(source, metric, {}), bad_option);  // [C2]
    CHECK_THROWS_AS(m.fit(source, metric, {.epochs = 1, .initial = one}), no_optimizer);
    CHECK((m.is_bound() && m.is_initialized()));
    m.init_optimizer(update::sgd{.learning_rate = 0.1});
    std::vector<std::string> events;
    struct recorder {
      std::vector<std::string>* events;
      void on_begin(train::training_begin const& e) const {
        events->push_back("begin " + std::to_string(e.first_epoch));
      }
      void on_batch_end(train::batch_end const& e) const {
        events->push_back("batch " + std::to_string(e.batch) + " of " + std::to_string(e.samples));
      }
      void on_validation_batch_end(train::batch_end const& e) const {
        events->push_back("validation " + std::to_string(e.batch));
      }
      void on_epoch_end(train::epoch_end const& e) const { events->push_back("epoch " + std::to_string(e.samples)); }
      void on_end(train::training_end const& e) const { events->push_back("end " + std::to_string(e.next_epoch)); }
    };
    auto const result =
        m.fit(source, metric, {.epochs = 2, .begin_epoch = 1, .callbacks = train::callback_list(recorder{&events})},
              &held_out);
    CHECK(events == std::vector<std::string>{"begin 1", "batch 0 of 6", "batch 1 of 6", "batch 2 of 6", "batch 3 of 4",
                                             "validation 0", "validation 1", "epoch 22", "end 2"});
    CHECK((result.next_epoch == 2 && result.stopped.empty()));
    CHECK(result.training.at(0).value > result.validation.at(0).value);
    linear_reference expected(std::vector<float>(6, 1), std::vector<float>(2, 1));
    auto again = source_of(all, {.batch = 6});
    again.reset();
    for (auto batch = again.next(); batch; batch = again.next()) {
      linear_batch copy{6, 3, 2};
      copy.x = to_vector(batch->data[0]);
      copy.t = to_vector(batch->labels[0]);
      expected.step(copy, 0.1);
    }
    auto const weight = to_vector(m.params().args.find("weight")->second);
    for (std::size_t i = 0; i < 6; ++i) CHECK(weight[i] == Approx(expected.weight[i]).margin(1e-5));
    // The statistics of all devices became their mean at the end of the epoch.
    for (std::size_t k = 1; k < static_cast<std::size_t>(devices); ++k)
      CHECK(m.group().aux(0, k).data()[0] == m.group().aux(0, 0).data()[0]);
    // score counts each sample once, whatever the batches and devices.
    auto sevens = source_of(all, {.batch = 7});
    double error = 0;
    linear_reference const now(weight, to_vector(m.params().args.find("bias")->second));
    for (std::size_t n = 0; n < 22; ++n)
      for (std::size_t o = 0; o < 2; ++o) {
        double y = now.bias[o] - all.t[n * 2 + o];
        for (std::size_t i = 0; i < 3; ++i) y += now.weight[o * 3 + i] * all.x[n * 3 + i];
        error += y * y / 44;
      }
    CHECK(m.score(sevens, metric).at(0).value == Approx(error).epsilon(1e-5));
    CHECK(m.score(sevens, metric, {.batches = 0}).size() == 1);
    // predict removes padding and joins batches.
    auto const predicted = m.predict(sevens);
    REQUIRE((predicted.size() == 1 && predicted[0].shape() == shape{22, 2}));
    for (std::size_t n = 0; n < 22; ++n) {
      double y = now.bias[1];
      for (std::size_t i = 0; i < 3; ++i) y += now.weight[3 + i] * all.x[n * 3 + i];
      CHECK(predicted[0].data()[n * 2 + 1] == Approx(y).margin(1e-5));
    }
    auto const one_array = m.predict(tensor_view<float const>(all.x.data(), shape{5, 3}));
    CHECK(one_array.shape() == shape{5, 2});
    std::int64_t calls = 0;
    m.predict_each(sevens, [&](auto const& outputs, std::int64_t n, auto const& batch) {
      CHECK((n == calls++ && outputs[0].shape()[0] == 7 - batch.pad));
    });
    CHECK(calls == 4);
  }
}

TEST_CASE(
    "Monitors see every executor, states keep their values, metrics take other labels [B10.2] [B10.3] [B10.4] [C12]",
    "[train][module]") {
  linear_batch const batch{8, 3, 2};
  train::module m(linear_factory{2}, cpu_devices(2));
  m.bind(batch.descs().data, batch.descs().labels);
  m.init_params(train::initializer(one));
  train::monitor monitor({.interval = 2, .sort = true});
  m.install_monitor(monitor);
  for (int step = 0; step < 2; ++step) {
    m.tic();
    m.forward(batch.view());
    auto const records = m.toc();
    CHECK(records.size() == (step == 0 ? 8U : 0U));  // two devices' y, weight, bias, seen
    if (step == 0) CHECK((records[0].name == "bias" && records[7].name == "y"));
  }
  train::monitor with_inputs({.pattern = "x|t", .statistic = [](auto const& all) { return all; }, .inputs = true});
  m.install_monitor(with_inputs);
  m.tic();
  m.forward(batch.view());
  auto const inputs = m.toc();  // x and t of each device: together the batch
  REQUIRE((inputs.size() == 4 && inputs[0].name == "x" && inputs[3].name == "t"));
  CHECK(inputs[0].statistic == std::vector<double>(batch.x.begin(), batch.x.begin() + 12));
  CHECK(inputs[2].statistic == std::vector<double>(batch.x.begin() + 12, batch.x.end()));
  CHECK(inputs[3].statistic == std::vector<double>(batch.t.begin() + 8, batch.t.end()));
  m.install_monitor(monitor);
  m.set_states(0.5);
  m.forward(batch.view());
  auto const with_state = to_vector(m.merged_outputs()[0]);
  using nested = std::vector<std::vector<std::vector<float>>>;
  m.set_states(nested{{{0}, {0}}});
  m.forward(batch.view());
  auto const without = to_vector(m.merged_outputs()[0]);
  for (std::size_t i = 0; i < without.size(); ++i) CHECK(with_state[i] == Approx(without[i] + 0.5F));
  CHECK(m.states().size() == 1);
  CHECK_THROWS_AS(m.set_states(nested{{{0}}}), shape_mismatch);
  m.set_states(2);
  m.init_optimizer(update::sgd{.learning_rate = 0.1});  // makes the executors again
  CHECK(m.states()[0][1].data()[0] == 2);
  m.set_states(0);
  m.forward(batch.view());
  train::metrics::mae metric;
  m.update_metric(metric, std::vector{tensor_view<float const>(without.data(), shape{8, 2})});
  CHECK(metric.values().at(0).value == 0);
  std::vector<std::vector<tensor_view<float const>>> slices;
  for (auto const rows : m.group().layout().slices)
    slices.push_back({tensor_view<float const>(without.data() + rows.begin * 2, shape{rows.size(), 2})});
  metric.reset();  // of nothing the mean is NaN
  m.update_metric(metric, slices);
  CHECK(metric.values().at(0).value == 0);
}

TEST_CASE("An error of one device comes after all devices have ended, and the module works on [A8-1] [A6.3]",
          "[train][module]") {
  linear_batch const batch{8, 3, 2};
  linear_factory factory{2};
  train::module m(factory, cpu_devices(3));
  m.bind(batch.descs().data, batch.descs().labels);
  m.init_params(train::initializer(one));
  m.init_optimizer(update::sgd{.learning_rate = 0.1});
  auto& counts = *factory.counts;
  counts.pause = std::chrono::milliseconds(30);
  for (int device : {0, 1, 2}) {
    counts.fails_on_device = device;
    counts.ended = 0;
    CHECK_THROWS_AS(m.forward(batch.view()), std::runtime_error);
    CHECK(counts.ended == 2);
  }
  counts.fails_on_device = -1;
  counts.pause = {};
  linear_reference expected(std::vector<float>(6, 1), std::vector<float>(2, 1));
  for (int step = 0; step < 2; ++step) {
    m.forward(batch.view());
    m.backward();
    m.update();
    expected.step(batch, 0.1);
  }
  auto const trained = to_vector(m.params().args.find("weight")->second);
  for (std::size_t i = 0; i < 6; ++i) CHECK(trained[i] == Approx(expected.weight[i]).margin(1e-5));
}

TEST_CASE("A table of rows is trained as a dense parameter, and moves the rows of the batch alone [C6.4] [C8]",
          "[train][module]") {
  std::int64_t const words = 40, length = 2, columns = 3, batch_rows = 7;
  auto const first = numbers(static_cast<std::size_t>(words * length), 3);
  auto const ids_of = [&](int step) {
    std::vector<float> ids;
    for (std::int64_t i = 0; i < batch_rows * columns; ++i)
      ids.push_back(static_cast<float>((i * i + step * 11) % 17 * 2));  // even rows below 34
    return ids;
  };
  auto const train_module = [&](bool dense, auto const& init, auto const& before, int devices) {
    train::module m(lookup_factory{words, length, dense}, cpu_devices(devices));
    m.bind({{.name = "id", .shape = shape{batch_rows, columns}}});
    std::map<std::string, tensor_view<float const>> const values{
        {"table", tensor_view(first.data(), shape{words, length})}},
        none;
    m.init_params(train::initializers::constant{1}, values, none, {.allow_missing = true});
    init(m);
    for (int step = 0; step < 5; ++step) {
      auto const ids = ids_of(step);
      train::batch<> const batch{.data = {tensor_view(ids.data(), shape{batch_rows, columns})}};
      before(m, batch, ids);
      m.forward(batch);
      m.backward();
      m.update();
    }
    auto const all = m.params();
    auto result = to_vector(all.args.find("table")->second);
    for (float const x : to_vector(all.args.find("weight")->second)) result.push_back(x);
    return result;
  };
  auto const nothing = [](auto const&...) {};
  for (int devices : {1, 3}) {
    update::adagrad const rule{.learning_rate = 0.1};
    auto const dense = train_module(true, [&](auto& m) { m.init_optimizer(rule); }, nothing, devices);
    auto const sparse = train_module(
        false,
        [&](auto& m) {
          CHECK_THROWS_AS(m.init_optimizer(rule, train::tables{{"tabel"}}), bad_option);
          m.init_optimizer(rule, train::tables{{"table"}});
          // No step reads or moves a row outside its batch: not odd ones, of which no batch has any.
          for (std::size_t k = 0; k < static_cast<std::size_t>(devices); ++k)
            for (std::size_t row = 1; row < static_cast<std::size_t>(words); row += 2)
              m.group().grad(0, k).data()[row * 2] = m.group().param(0, k).data()[row * 2] = NAN;
        },
        [&](auto& m, auto const& batch, std::vector<float> const& ids) {
          // A batch finds the values of the store in its rows, whatever the mirrors had.
          for (std::size_t k = 0; k < static_cast<std::size_t>(devices); ++k)
            for (float const id : ids) m.group().param(0, k).data()[static_cast<std::size_t>(id) * 2] = 1e9F;
          m.prepare(batch, [&](auto const&) {
            return std::map<std::string, std::vector<std::int64_t>>{{"table", {ids.begin(), ids.end()}}};
          });
        },
        devices);
    REQUIRE(dense.size() == sparse.size());
    for (std::size_t i = 0; i < dense.size(); ++i) CHECK(sparse[i] == Approx(dense[i]).margin(1e-6));
    CHECK(std::memcmp(&sparse[2], &first[2], 2 * sizeof(float)) == 0);  // row 1
    CHECK(std::abs(sparse[0] - first[0]) > 0.01F);
  }
}

TEST_CASE("Buckets share tables of rows [C6.4] [C8] [C10.2]", "[train][bucketing]") {
  auto const first = numbers(40, 3);
  auto const trained = [&](bool dense) {
    bucketing_module<lookup_factory> m([&](train::bucket_key) { return lookup_factory{20, 2, dense}; }, 3,
                                       cpu_devices(2));
    m.bind({{.name = "id", .shape = shape{4, 3}}});
    std::map<std::string, tensor_view<float const>> const values{{"table", tensor_view(first.data(), shape{20, 2})}},
        none;
    m.init_params(train::initializers::constant{1}, values, none, {.allow_missing = true});
    update::adagrad const rule{.learning_rate = 0.1};
    dense ? m.init_optimizer(rule) : m.init_optimizer(rule, train::tables{{"table"}});
    for (std::int64_t const columns : {3, 1, 2, 1, 3}) {
      std::vector<float> ids;
      for (std::int64_t i = 0; i < 4 * columns; ++i) ids.push_back(static_cast<float>((i * 5 + columns) % 9));
      train::batch<> const batch{.data = {tensor_view(ids.data(), shape{4, columns})}, .bucket = columns};
      if (!dense)
        m.prepare(batch, [&](auto const&) {
          return std::map<std::string, std::vector<std::int64_t>>{{"table", {ids.begin(), ids.end()}}};
        });
      m.forward_backward(batch);
      m.update();
    }
    return to_vector(m.params().args.find("table")->second);
  };
  auto const dense = trained(true), sparse = trained(false);
  for (std::size_t i = 0; i < dense.size(); ++i) CHECK(sparse[i] == Approx(dense[i]).margin(1e-6));
  CHECK(sparse != first);
}

TEST_CASE("fit, score and predict pull the rows of tables that their batches need [C6.4] [C9.1]", "[train][module]") {
  std::int64_t const words = 30, samples = 22, columns = 3;
  std::vector<float> ids;
  for (std::int64_t i = 0; i < samples * columns; ++i) ids.push_back(static_cast<float>(i * i % 13 * 2));  // even rows
  auto const row_ids = [](train::batch<> const& batch) {
    auto const& values = batch.data.front();
    return std::map<std::string, std::vector<std::int64_t>>{{"table", {values.data(), values.data() + values.size()}}};
  };
  auto const first = numbers(static_cast<std::size_t>(words) * 2, 5);
  auto const trained = [&](bool dense, auto const&... rows) {
    train::data::array_source<> source({{"id", tensor_view<float const>(ids.data(), shape{samples, columns})}}, {},
                                       {.batch = 6, .shuffle = 7, .last = train::data::last_batch::partial});
    train::module m(lookup_factory{words, 2, dense}, cpu_devices(2));
    m.bind_to(source);
    std::map<std::string, tensor_view<float const>> const values{{"table", tensor_view(first.data(), shape{words, 2})}},
        none;
    m.init_params(train::initializers::constant{1}, values, none, {.allow_missing = true});
    update::adagrad const rule{.learning_rate = 0.1};
    dense ? m.init_optimizer(rule) : m.init_optimizer(rule, train::tables{{"table"}});
    if (!dense)  // no row counts that no batch has asked for
      for (std::size_t k : {0U, 1U}) std::fill_n(m.group().param(0, k).data(), first.size(), NAN);
    train::metrics::loss metric;
    if (!dense) REQUIRE_THROWS_AS(m.fit(source, metric, {.epochs = 1}), bad_option);  // no row would ever move
    m.fit(source, metric, {.epochs = 1}, nullptr, rows...);
    auto const result = m.fit(source, metric, {.epochs = 2}, &source, rows...);
    std::vector<float> all{static_cast<float>(result.training[0].value),
                           static_cast<float>(result.validation[0].value)};
    source.reset();
    all.push_back(static_cast<float>(m.score(source, metric, {}, rows...)[0].value));
    for (float const y : to_vector(m.predict(source, true, rows...).front())) all.push_back(y);
    for (float const x : to_vector(m.params().args.find("table")->second)) all.push_back(x);
    return all;
  };
  auto const dense = trained(true), sparse = trained(false, row_ids);
  REQUIRE(dense.size() == sparse.size());
  for (std::size_t i = 0; i < dense.size(); ++i) CHECK(sparse[i] == Approx(dense[i]).margin(1e-5));
}

TEST_CASE("Auxiliary states are averaged, rescaling may follow the bound batch [B8.2] [B8.3] [B8.4] [C5.2] [C14-10]",
          "[train][module]") {
  ones const full{6, 2}, rest{3, 2};
  train::module m(summing_factory(), cpu_devices(3));
  m.bind(full.data(), full.labels());
  m.init_params(train::initializer(one));
  m.init_optimizer(update::sgd{.learning_rate = 0.01}, {.rescale = train::rescale_policy::bound_batch});
  m.forward_backward(full.view());
  CHECK(to_vector(m.params().aux.find("mean")->second)[0] == 2);  // of 1, 2, 3
  CHECK(m.group().aux(0, 0).data()[0] == 1);
  m.spread_aux();
  CHECK(m.group().aux(0, 0).data()[0] == 2);
  m.forward_backward(rest.view());
  m.update();
  CHECK(m.group().param(0, 0).data()[0] == Approx(1 - 0.01 * 4 * 3 / 6));

  // Devices without rows wrote none: the value they hold is the initial one.
  ones const single{1, 2}, two{2, 2};
  train::module idle(summing_factory(), cpu_devices(3), {.allow_idle = true});
  idle.bind(single.data(), single.labels());
  idle.init_params(train::initializer(train::initializers::constant{9}));
  auto const mean = [&] { return to_vector(idle.params().aux.find("mean")->second)[0]; };
  CHECK(mean() == Approx(9));
  idle.forward(single.view(), train::mode::inference);
  CHECK(mean() == Approx(9));
  idle.forward(single.view(), train::mode::training);
  float sum = 0, devices = 0;
  for (std::size_t k = 0; k < 3; ++k)
    if (float const x = idle.group().aux(0, k).data()[0]; x < 9) sum += x, ++devices;
  CHECK(devices == Approx(1));
  CHECK(mean() == Approx(sum));
  idle.forward(two.view(), train::mode::training);
  CHECK(mean() == Approx(1.5));
  idle.spread_aux();
  for (std::size_t k = 0; k < 3; ++k) CHECK(idle.group().aux(0, k).data()[0] == Approx(1.5));
  idle.forward(single.view(), train::mode::training);
  CHECK(mean() == Approx(sum));
}

TEST_CASE("The three forms of a training loop end at the same line", "[train][documentation]") {
  using line_model::line;
  std::int64_t const rows = 64;
  auto const x = numbers(64, 1);
  std::vector<float> t;
  for (float const each : x) t.push_back(3 * each - 1);
  std::vector<float> weight{0}, bias{0};
  int const steps = 200;
  {
    // example-begin bare
    kv_store store{cpu_devices(2), update::rescale(1.0 / 64) | update::momentum{.learning_rate = 0.1}};
    parameter_store parameters{store};
    parameters.add("weight", weight);
    parameters.add("bias", bias);
    for (int step = 0; step < steps; ++step) {
      for (std::size_t device = 0; device < 2; ++device) {
        float w = 0, b = 0;
        for (std::size_t n = 32 * device; n < 32 * (device + 1); ++n) {
          float const y =
              parameters.value("weight", device).data()[0] * x[n] + parameters.value("bias", device).data()[0];
          w += (y - t[n]) * x[n];
          b += y - t[n];
        }
        parameters.grad("weight", device).data()[0] = w;
        parameters.grad("bias", device).data()[0] = b;
      }
      parameters.update_all();
    }
    parameters.sync_master();
    // example-end bare
  }
  std::vector<float> const expected{weight[0], bias[0]};
  CHECK(weight[0] == Approx(3).margin(1e-3));
  weight = bias = {0};
  train::batch<> const batch{.data = {tensor_view<float const>(x.data(), shape{rows})},
                             .labels = {tensor_view<float const>(t.data(), shape{rows})}};
  {
    // example-begin group
    kv_store store{cpu_devices(2), update::rescale(1.0 / 64) | update::momentum{.learning_rate = 0.1}};
    parameter_store parameters{store};
    parameters.add("weight", weight);
    parameters.add("bias", bias);
    train::executor_group group{line{}, cpu_devices(2)};
    group.bind({{{.name = "x", .shape = shape{rows}}}, {{.name = "t", .shape = shape{rows}}}});
    group.attach(parameters);  // executors read the store's mirrors, and write its gradients
    for (int step = 0; step < steps; ++step) {
      group.forward(batch);
      group.backward();
      parameters.update_all();
    }
    parameters.sync_master();
    // example-end group
  }
  CHECK(weight[0] == Approx(expected[0]));
  CHECK(bias[0] == Approx(expected[1]));
  {
    // example-begin module
    train::module model{line{}, cpu_devices(2)};
    model.bind({{.name = "x", .shape = shape{rows}}}, {{.name = "t", .shape = shape{rows}}});
    model.init_params(train::initializers::constant{0});
    model.init_optimizer(update::momentum{.learning_rate = 0.1});
    for (int step = 0; step < steps; ++step) {
      model.forward(batch);
      model.backward();
      model.update();
    }
    auto const trained = model.params();
    // example-end module
    CHECK(to_vector(trained.args.find("weight")->second)[0] == Approx(expected[0]));
  }
  temporary_folder const folder;
  std::string const prefix = folder.file("line").string();
  {
    // example-begin fit
    train::data::array_source<> source({{"x", tensor_view<float const>(x.data(), shape{rows})}},
                                       {{"t", tensor_view<float const>(t.data(), shape{rows})}},
                                       {.batch = 16, .shuffle = 7});
    train::metrics::mse error;
    train::module model{line{}, cpu_devices(2)};
    model.bind_to(source);
    model.init_params(train::initializers::constant{0});
    model.init_optimizer(update::momentum{.learning_rate = 0.1});
    model.fit(
        source, error,
        {.epochs = 30, .callbacks = train::callback_list(train::callbacks::save_module_every(model, prefix, 10))});
    // example-end fit
    CHECK(error.values().at(0).value < 1e-3);
    auto const whole = to_vector(model.params().args.find("weight")->second);
    {
      // example-begin resume
      auto resumed = train::module<line>::load(prefix, 20, line{}, cpu_devices(2));  // or any other number of devices
      resumed.bind_to(source);
      resumed.init_optimizer(update::momentum{.learning_rate = 0.1});
      source.seek({.epoch = 20});
      resumed.fit(source, error, {.epochs = 30, .begin_epoch = 20});
      // example-end resume
      CHECK(to_vector(resumed.params().args.find("weight")->second) == whole);
    }
  }
}
