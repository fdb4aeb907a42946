/// @file
/// The perceptron as a model of pushpull::train: one executor per device.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/executor_factory.hpp>
#include <span>
#include <string>
#include <vector>

#include "dataset.hpp"
#include "host_access.hpp"
#include "perceptron.hpp"

namespace train_classifier {

namespace pp = pushpull;

/// A replica of the perceptron. Its outputs are probabilities and the loss of each row; replicas may run at the same time.
template <pp::Device Device>
class perceptron_executor {
 public:
  using device_type = Device;
  using view = pp::tensor_view<float, Device>;

  perceptron_executor(perceptron_shape shape, Device const& device, pp::train::input_descriptors const& descs,
                      pp::train::buffer_pool<Device>& pool, pp::train::replica_memory<float, Device> const& memory)
      : network_{shape}, device_{device}, pool_{&pool}, params_{memory.params}, grads_{memory.grads} {
    reshape(descs);
  }

  Device const& device() const { return device_; }
  auto& inputs() { return inputs_; }
  auto& labels() { return labels_; }
  auto& outputs() { return outputs_; }
  auto& params() { return params_; }
  auto& grads() { return grads_; }
  auto& aux() { return aux_; }

  void reshape(pp::train::input_descriptors const& descs) {
    auto const& images = descs.data.at(0);
    auto const rows = images.rows();
    inputs_ = {pool_->template acquire<float>(images.name, images.shape)};
    labels_ = {pool_->template acquire<std::uint8_t>("label", pp::shape{rows})};
    outputs_ = {pool_->template acquire<float>("probability", pp::shape{rows, static_cast<std::int64_t>(classes)}),
                pool_->template acquire<float>("loss", pp::shape{rows})};
  }

  void forward(pp::train::mode) {
    network_.forward(weights(), access_.read(inputs_[0]), label_span());
    std::copy_n(network_.probabilities(), outputs_[0].size(), access_.write(outputs_[0]));
    std::copy_n(network_.losses().data(), outputs_[1].size(), access_.write(outputs_[1]));
    access_.flush();
  }
  void backward(std::span<pp::tensor_view<float const, Device> const>) {
    network_.gradients(
        weights(), access_.read(inputs_[0]), label_span(),
        {access_.write(grads_[0]), access_.write(grads_[1]), access_.write(grads_[2]), access_.write(grads_[3])});
    access_.flush();
  }

 private:
  perceptron_pointers<float const> weights() {
    return {access_.read(params_[0]), access_.read(params_[1]), access_.read(params_[2]), access_.read(params_[3])};
  }
  std::span<std::uint8_t const> label_span() { return {access_.read(labels_[0]), labels_[0].size()}; }

  perceptron network_;
  Device device_;
  pp::train::buffer_pool<Device>* pool_;
  host_access<Device> access_;
  std::vector<view> inputs_, outputs_, params_, grads_, aux_;
  std::vector<pp::tensor_view<std::uint8_t, Device>> labels_;
};

/// Makes replicas of a perceptron.
template <pp::Device Device>
struct perceptron_factory {
  using executor_type = perceptron_executor<Device>;
  perceptron_shape shape;

  std::vector<std::string> param_names() const { return {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}; }
  std::vector<std::string> aux_names() const { return {}; }
  std::vector<std::string> output_names() const { return {"probability", "loss"}; }
  int output_axis(std::size_t) const { return 0; }
  pp::train::inferred_shapes infer_shapes(pp::train::input_descriptors const&) const {
    auto const inputs = static_cast<std::int64_t>(shape.inputs), hidden = static_cast<std::int64_t>(shape.hidden),
               outputs = static_cast<std::int64_t>(shape.outputs);
    return {{pp::shape{hidden, inputs}, pp::shape{hidden}, pp::shape{outputs, hidden}, pp::shape{outputs}}, {}};
  }
  executor_type make(Device const& device, pp::train::input_descriptors const& descs,
                     pp::train::replica_requests const&, pp::train::buffer_pool<Device>& pool,
                     pp::train::replica_memory<float, Device> const& memory) {
    return {shape, device, descs, pool, memory};
  }
};

}  // namespace train_classifier
