/// @file
/// The step of a module, against the same executors stepped by a loop over a parameter_store: that a trainer adds little.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <oneapi/tbb/parallel_for.h>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/initializers/distributions.hpp>
#include <pushpull/train/module.hpp>
#include <pushpull/train/slicing.hpp>

#include "support/contest.hpp"

namespace {

using namespace pushpull;

/// A model of tensors of given shapes. Both passes compute in registers for a while, which stands for the layers' products:
/// products themselves would take a time that depends on where a store has its memory. Backward writes every gradient.
class executor {
 public:
  using device_type = cpu_device<>;
  using view = tensor_view<float>;
  executor(device_type const& device, train::input_descriptors const& descs, train::buffer_pool<device_type>& pool,
           train::replica_memory<float, device_type> const& memory, int work)
      : device_(device), params_(memory.params), grads_(memory.grads), work_(work) {
    inputs_ = {pool.acquire<float>(descs.data[0].name, descs.data[0].shape)};
    outputs_ = {pool.acquire<float>("y", shape{descs.data[0].shape[0]})};
  }
  device_type const& device() const { return device_; }
  std::vector<view>& inputs() { return inputs_; }
  std::vector<view> labels() { return {}; }
  std::vector<view>& outputs() { return outputs_; }
  std::vector<view>& params() { return params_; }
  std::vector<view>& grads() { return grads_; }
  std::vector<view> aux() { return {}; }
  [[gnu::noinline]] void forward(train::mode) {
    auto const rows = outputs_[0].size(), columns = inputs_[0].size() / rows;
    for (std::size_t n = 0; n < rows; ++n) {
      float sum = 0;
      for (std::size_t i = 0; i < columns; ++i) sum += inputs_[0].data()[n * columns + i];
      outputs_[0].data()[n] = sum;
    }
    compute(work_);
  }
  [[gnu::noinline]] void backward(std::span<tensor_view<float const> const>) {
    compute(2 * work_);
    for (std::size_t i = grads_.size(); i-- > 0;) std::fill_n(grads_[i].data(), grads_[i].size(), 1e-3F);
  }

 private:
  static void compute(int turns) {
    float x = 1;
    for (int i = 0; i < turns; ++i) {
      x = x * 0.5F + 1;
      benchmark::DoNotOptimize(x);
    }
  }

  device_type device_;
  std::vector<view> inputs_, outputs_, params_, grads_;
  int work_;
};

struct factory {
  using executor_type = executor;
  std::vector<shape> shapes;
  int work;

  std::vector<std::string> param_names() const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < shapes.size(); ++i) names.push_back("tensor" + std::to_string(i) + ".weight");
    return names;
  }
  std::vector<std::string> aux_names() const { return {}; }
  std::vector<std::string> output_names() const { return {"y"}; }
  int output_axis(std::size_t) const { return 0; }
  train::inferred_shapes infer_shapes(train::input_descriptors const&) const { return {shapes, {}}; }
  executor make(cpu_device<> const& device, train::input_descriptors const& descs, train::replica_requests const&,
                train::buffer_pool<cpu_device<>>& pool, train::replica_memory<float, cpu_device<>> const& memory) {
    return {device, descs, pool, memory, work};
  }
};

/// @param work  Steps of arithmetic of a forward pass. @param rows  Of a batch. @param columns  Of a row.
void module_step(benchmark::State& state, std::vector<shape> const& shapes, int work, std::int64_t rows,
                 std::int64_t columns) {
  auto const devices = cpu_devices(static_cast<int>(state.range(0)));
  factory const model{shapes, work};
  std::vector<float> const x(static_cast<std::size_t>(rows * columns), 0.5F);
  train::batch<> const batch{.data = {tensor_view(x.data(), shape{rows, columns})}};
  train::input_descriptors const descs{{{.name = "x", .shape = shape{rows, columns}}}, {}};
  double elements = 0;
  for (shape const& s : shapes) elements += static_cast<double>(s.size());

  train::module net{model, devices};
  net.bind(descs.data);
  net.init_params(train::initializers::constant{0.5});
  net.init_optimizer(update::adam{});

  // By hand: each device's executor over its rows, in the mirrors and gradients of a store.
  kv_store store{devices, update::rescale(1.0 / static_cast<double>(rows)) | update::adam{}};
  parameter_store parameters{store};
  auto const names = model.param_names();
  for (std::size_t i = 0; i < shapes.size(); ++i) parameters.add(names[i], tensor<float>(cpu_device<>(), shapes[i]));
  parameters.materialize();
  auto const slices = train::slice_batch(rows, devices.size());
  std::vector<std::unique_ptr<train::buffer_pool<cpu_device<>>>> pools;
  std::vector<executor> replicas;
  for (std::size_t k = 0; k < devices.size(); ++k) {
    train::replica_memory<float, cpu_device<>> memory;
    for (auto const& name : names) {
      memory.params.push_back(parameters.value(name, k));
      memory.grads.push_back(parameters.grad(name, k));
    }
    train::input_descriptors part = descs;
    part.data[0].shape = shape{slices[k].size(), columns};
    pools.push_back(std::make_unique<train::buffer_pool<cpu_device<>>>(devices[k]));
    replicas.emplace_back(devices[k], part, *pools[k], memory, work);
  }
  auto const on_each = [&](auto const& f) {
    if (replicas.size() == 1) return f(std::size_t{0});
    tbb::parallel_for(std::size_t{0}, replicas.size(), f);
  };

  bench::contest contest(1);
  contest.enter("module", [&] {
    net.forward(batch);
    net.backward();
    net.update();
  });
  contest.enter("by hand", [&] {
    on_each([&](std::size_t k) {
      copy(tensor_view(x.data() + slices[k].begin * columns, shape{slices[k].size(), columns}),
           replicas[k].inputs()[0]);
      replicas[k].forward(train::mode::training);
    });
    on_each([&](std::size_t k) { replicas[k].backward({}); });
    parameters.update_all();
  });
  contest.run(state, elements, 28 * elements);
  state.counters["adds us"] = 1e6 * (contest.best(0) - contest.best(1));
  state.counters["adds %"] = 100 * (contest.best(0) / contest.best(1) - 1);
}

/// The perceptron of examples/train_classifier on its digits: 64 pixels, 128 units, 10 classes, batches of 64.
void module_step_digits(benchmark::State& state) {
  module_step(state, {shape{128, 64}, shape{128}, shape{10, 128}, shape{10}}, 30'000, 64, 64);
}
/// 200 tensors of 64 KiB.
void module_step_200_tensors(benchmark::State& state) {
  module_step(state, std::vector<shape>(200, shape{128, 128}), 1'000'000, 64, 1024);
}

BENCHMARK(module_step_digits)->ArgName("devices")->Arg(1)->Arg(2)->UseManualTime()->Iterations(2000);
BENCHMARK(module_step_200_tensors)->ArgName("devices")->Arg(1)->Arg(2)->UseManualTime()->Iterations(100);

}  // namespace
