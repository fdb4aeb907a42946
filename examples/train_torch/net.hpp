/// @file
/// The network, its images as tensors of LibTorch, and its replicas.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <train_classifier/dataset.hpp>
#include <vector>

#include "options.hpp"

namespace train_torch {

/// Images of shape (rows, 1, side, side) with their labels.
struct labelled_images {
  torch::Tensor images, labels;
  std::int64_t rows() const { return labels.size(0); }
};

inline labelled_images tensors_of(train_classifier::dataset const& data) {
  auto const rows = static_cast<std::int64_t>(data.size());
  auto const side = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(data.features))));
  auto const images = torch::from_blob(const_cast<float*>(data.images.data()), {rows, 1, side, side});
  auto const labels = torch::from_blob(const_cast<std::uint8_t*>(data.labels.data()), {rows}, torch::kByte);
  return {images.clone(), labels.to(torch::kLong)};
}

/// Two convolutions, each with a maximum over 2x2 pixels, and two dense layers.
struct net : torch::nn::Module {
  net(std::int64_t side, std::int64_t channels, std::int64_t hidden)
      : conv1(register_module("conv1", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, channels, 3).padding(1)))),
        conv2(register_module("conv2",
                              torch::nn::Conv2d(torch::nn::Conv2dOptions(channels, 2 * channels, 3).padding(1)))),
        fc1(register_module("fc1", torch::nn::Linear(2 * channels * (side / 4) * (side / 4), hidden))),
        fc2(register_module("fc2", torch::nn::Linear(hidden, static_cast<std::int64_t>(train_classifier::classes)))) {}

  torch::Tensor forward(torch::Tensor x) {
    x = torch::max_pool2d(torch::relu(conv1(x)), 2);
    x = torch::max_pool2d(torch::relu(conv2(x)), 2);
    return fc2(torch::relu(fc1(x.flatten(1))));
  }

  torch::nn::Conv2d conv1, conv2;
  torch::nn::Linear fc1, fc2;
};

/// Replicas of one network, with the weights that the seed determines.
class replica_group {
 public:
  replica_group(options const& chosen, std::int64_t side) {
    for (int n = 0; n < chosen.replicas; ++n) {
      torch::manual_seed(chosen.seed);
      replicas_.push_back(std::make_shared<net>(side, chosen.channels, chosen.hidden));
    }
  }

  std::vector<std::shared_ptr<net>> const& replicas() const { return replicas_; }

  /// Leaves the gradient of each replica's rows of the batch, of which `rows` are the numbers. @returns the batch's mean loss
  double backward(labelled_images const& data, torch::Tensor const& rows) const {
    double loss = 0;
    auto const count = static_cast<std::int64_t>(replicas_.size()), batch = rows.size(0);
    for (std::int64_t n = 0; n < count; ++n) {
      auto const mine = rows.slice(0, batch * n / count, batch * (n + 1) / count);
      auto const scores = replicas_[static_cast<std::size_t>(n)]->forward(data.images.index_select(0, mine));
      auto const options = torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum);
      auto const sum = torch::nn::functional::cross_entropy(scores, data.labels.index_select(0, mine), options);
      auto const part = sum / static_cast<double>(batch);
      part.backward();
      loss += part.item<double>();
    }
    return loss;
  }

  /// The number of images that the first replica classifies correctly.
  std::int64_t correct(labelled_images const& data) const {
    torch::NoGradGuard const silent;
    std::int64_t result = 0;
    for (std::int64_t first = 0; first < data.rows(); first += 1024) {
      auto const last = std::min(first + 1024, data.rows());
      auto const found = replicas_[0]->forward(data.images.slice(0, first, last)).argmax(1);
      result += found.eq(data.labels.slice(0, first, last)).sum().item<std::int64_t>();
    }
    return result;
  }

 private:
  std::vector<std::shared_ptr<net>> replicas_;
};

}  // namespace train_torch
