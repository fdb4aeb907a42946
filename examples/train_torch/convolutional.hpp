/// @file
/// A convolutional network for images.
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <train_classifier/load.hpp>

#include "network.hpp"

namespace train_torch {

/// Two convolutions, each with a maximum over 2x2 pixels, and two dense layers.
struct convolutional : network {
  convolutional(std::int64_t side, std::int64_t channels, std::int64_t hidden)
      : conv1(register_module("conv1", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, channels, 3).padding(1)))),
        conv2(register_module("conv2",
                              torch::nn::Conv2d(torch::nn::Conv2dOptions(channels, 2 * channels, 3).padding(1)))),
        fc1(register_module("fc1", torch::nn::Linear(2 * channels * (side / 4) * (side / 4), hidden))),
        fc2(register_module("fc2", torch::nn::Linear(hidden, static_cast<std::int64_t>(train_classifier::classes)))) {}

  torch::Tensor forward(torch::Tensor x) override {
    x = torch::max_pool2d(torch::relu(conv1(x)), 2);
    x = torch::max_pool2d(torch::relu(conv2(x)), 2);
    return fc2(torch::relu(fc1(x.flatten(1))));
  }

  torch::nn::Conv2d conv1, conv2;
  torch::nn::Linear fc1, fc2;
};

/// Images of shape (rows, 1, side, side).
inline samples samples_of(train_classifier::dataset const& data) {
  auto const rows = static_cast<std::int64_t>(data.size());
  auto const side = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(data.features))));
  auto const images = torch::from_blob(const_cast<float*>(data.images.data()), {rows, 1, side, side});
  auto const labels = torch::from_blob(const_cast<std::uint8_t*>(data.labels.data()), {rows}, torch::kByte);
  return {images.clone(), labels.to(torch::kLong)};
}

/// The chosen images. @throws input_error
inline task learn_images(options const& chosen) {
  auto const data = train_classifier::load(chosen.data);
  task learned{samples_of(data.training), samples_of(data.test), {}};
  auto const side = learned.training.inputs.size(2);
  learned.make = [side, channels = chosen.channels, hidden = chosen.hidden] {
    return std::make_shared<convolutional>(side, channels, hidden);
  };
  return learned;
}

}  // namespace train_torch
