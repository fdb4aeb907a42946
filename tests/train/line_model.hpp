/// @file
/// The model of docs/trainer.md: the smallest that trains.
#pragma once

#include <cstddef>
#include <cstdint>
#include <pushpull/train.hpp>
#include <span>
#include <string>
#include <vector>

namespace line_model {

using namespace pushpull;

// example-begin executor
/// y = w x + b on rows of one number; the loss is the sum of (y - t)^2 / 2.
class line_executor {
 public:
  using device_type = cpu_device<>;
  using view = tensor_view<float>;

  line_executor(device_type const& device, train::input_descriptors const& descs, train::buffer_pool<device_type>& pool,
                train::replica_memory<float, device_type> const& memory)
      : device_(device), params_(memory.params), grads_(memory.grads) {
    for (auto const& d : descs.data) inputs_.push_back(pool.acquire<float>(d.name, d.shape));
    for (auto const& d : descs.labels) labels_.push_back(pool.acquire<float>(d.name, d.shape));
    outputs_.push_back(pool.acquire<float>("y", descs.data[0].shape));
  }
  device_type const& device() const { return device_; }
  std::vector<view> const& inputs() const { return inputs_; }
  std::vector<view> const& labels() const { return labels_; }
  std::vector<view> const& outputs() const { return outputs_; }
  std::vector<view> const& params() const { return params_; }
  std::vector<view> const& grads() const { return grads_; }
  std::vector<view> aux() const { return {}; }

  void forward(train::mode) {
    for (std::size_t n = 0; n < inputs_[0].size(); ++n)
      outputs_[0].data()[n] = params_[0].data()[0] * inputs_[0].data()[n] + params_[1].data()[0];
  }
  void backward(std::span<tensor_view<float const> const>) {  // the output is a loss: no gradients come from outside
    float weight = 0, bias = 0;
    for (std::size_t n = 0; n < inputs_[0].size(); ++n) {
      float const error = outputs_[0].data()[n] - labels_[0].data()[n];
      weight += error * inputs_[0].data()[n];
      bias += error;
    }
    grads_[0].data()[0] = weight;
    grads_[1].data()[0] = bias;
  }

 private:
  device_type device_;
  std::vector<view> inputs_, labels_, outputs_, params_, grads_;
};
// example-end executor

// example-begin factory
struct line {
  using executor_type = line_executor;

  std::vector<std::string> param_names() const { return {"weight", "bias"}; }
  std::vector<std::string> aux_names() const { return {}; }
  std::vector<std::string> output_names() const { return {"y"}; }
  int output_axis(std::size_t) const { return 0; }  // its rows are the samples
  train::inferred_shapes infer_shapes(train::input_descriptors const&) const { return {{shape{1}, shape{1}}, {}}; }

  line_executor make(cpu_device<> const& device, train::input_descriptors const& descs, train::replica_requests const&,
                     train::buffer_pool<cpu_device<>>& pool, train::replica_memory<float, cpu_device<>> const& memory) {
    return {device, descs, pool, memory};
  }
};
// example-end factory

static_assert(train::ExecutorFactory<line>);

}  // namespace line_model
