/// @file
/// One device's part in a step: its mirror of the weights, its rows of the batch, its gradients.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dataset.hpp"
#include "host_access.hpp"
#include "model.hpp"
#include "perceptron.hpp"

namespace train_classifier {

/// Works on the mirror and the gradients that `parameters` holds for `device`; replicas may run at the same time.
template <class ParameterStore>
class replica {
 public:
  using device_type = typename ParameterStore::device_type;

  replica(perceptron_shape shape, ParameterStore& parameters, device_type const& device) : network_{shape} {
    for (char const* name : parameter_names) {
      weights_.push_back(parameters.value(name, device));
      gradients_.push_back(parameters.grad(name, device));
    }
  }

  /// Writes the gradients of the loss summed over `rows` of `data`.
  batch_result backward(dataset const& data, std::span<std::uint32_t const> rows) {
    share_.images.clear();
    share_.labels.clear();
    append_rows(data, rows, share_);
    perceptron_pointers<float const> const weights{access_.read(weights_[0]), access_.read(weights_[1]),
                                                   access_.read(weights_[2]), access_.read(weights_[3])};
    perceptron_pointers<float> const gradients{access_.write(gradients_[0]), access_.write(gradients_[1]),
                                               access_.write(gradients_[2]), access_.write(gradients_[3])};
    auto const result = network_.backward(weights, share_.images.data(), share_.labels, gradients);
    access_.flush();
    return result;
  }

 private:
  perceptron network_;
  dataset share_;
  host_access<device_type> access_;
  std::vector<typename ParameterStore::view_type> weights_, gradients_;  // in the order of parameter_names
};

}  // namespace train_classifier
