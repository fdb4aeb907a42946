/// @file
/// The recurrent network as a model of pushpull::train: one executor per device and bucket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/executor_factory.hpp>
#include <span>
#include <string>
#include <vector>

#include "gru.hpp"

namespace train_bucketing {

namespace pp = pushpull;

/// Where a list of tensors has the network's parameters. @tparam T  float const of parameters, float of gradients.
template <class T, class Views>
gru_pointers<T> pointers_to(Views const& views) {
  return {views[0].data(), views[1].data(), views[2].data(), views[3].data(), views[4].data()};
}

/// A replica for sequences of one length. Its output is the probability of each symbol at each place, (rows, length, symbols).
class gru_executor {
 public:
  using device_type = pp::cpu_device<>;
  using view = pp::tensor_view<float>;
  using symbols_view = pp::tensor_view<std::uint8_t>;

  gru_executor(gru_shape shape, device_type const& device, pp::train::input_descriptors const& descs,
               pp::train::buffer_pool<device_type>& pool, pp::train::replica_memory<float, device_type> const& memory)
      : shape_{shape}, network_{shape}, device_{device}, pool_{&pool}, params_{memory.params}, grads_{memory.grads} {
    reshape(descs);
  }

  device_type const& device() const { return device_; }
  auto& inputs() { return inputs_; }
  auto& labels() { return labels_; }
  auto& outputs() { return outputs_; }
  auto& params() { return params_; }
  auto& grads() { return grads_; }
  auto& aux() { return aux_; }

  void reshape(pp::train::input_descriptors const& descs) {
    auto const& symbols = descs.data.at(0).shape;
    inputs_ = {pool_->acquire<std::uint8_t>("symbol", symbols)};
    labels_ = {pool_->acquire<std::uint8_t>("label", symbols)};
    outputs_ = {pool_->acquire<float>("probability",
                                      pp::shape{symbols[0], symbols[1], static_cast<std::int64_t>(shape_.symbols)})};
  }
  void forward(pp::train::mode) {
    network_.forward(pointers_to<float const>(params_), elements(inputs_[0]),
                     static_cast<std::size_t>(inputs_[0].shape()[0]), outputs_[0].data());
  }
  void backward(std::span<pp::tensor_view<float const> const>) {
    network_.backward(pointers_to<float const>(params_), elements(inputs_[0]), elements(labels_[0]), outputs_[0].data(),
                      pointers_to<float>(grads_));
  }

 private:
  static std::span<std::uint8_t const> elements(symbols_view const& of) { return {of.data(), of.size()}; }

  gru_shape shape_;
  gru<float> network_;
  device_type device_;
  pp::train::buffer_pool<device_type>* pool_;
  std::vector<view> outputs_, params_, grads_, aux_;
  std::vector<symbols_view> inputs_, labels_;
};

/// Makes replicas of the network.
struct gru_factory {
  using executor_type = gru_executor;
  gru_shape shape;

  std::vector<std::string> param_names() const {
    return {"embedding.weight", "recurrent.weight", "recurrent.bias", "output.weight", "output.bias"};
  }
  std::vector<std::string> aux_names() const { return {}; }
  std::vector<std::string> output_names() const { return {"probability"}; }
  int output_axis(std::size_t) const { return 0; }
  pp::train::inferred_shapes infer_shapes(pp::train::input_descriptors const&) const {
    auto const symbols = static_cast<std::int64_t>(shape.symbols), hidden = static_cast<std::int64_t>(shape.hidden);
    return {{pp::shape{symbols, 3 * hidden}, pp::shape{3 * hidden, hidden}, pp::shape{hidden},
             pp::shape{symbols, hidden}, pp::shape{symbols}},
            {}};
  }
  gru_executor make(pp::cpu_device<> const& device, pp::train::input_descriptors const& descs,
                    pp::train::replica_requests const&, pp::train::buffer_pool<pp::cpu_device<>>& pool,
                    pp::train::replica_memory<float, pp::cpu_device<>> const& memory) {
    return {shape, device, descs, pool, memory};
  }
};

}  // namespace train_bucketing
