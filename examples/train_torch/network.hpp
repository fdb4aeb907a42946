/// @file
/// Networks with their samples, and replicas of one network.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "options.hpp"

namespace train_torch {

/// Inputs of shape (rows, ...) and labels of shape (rows) or (rows, labels of a row).
struct samples {
  torch::Tensor inputs, labels;

  std::int64_t rows() const { return labels.size(0); }
  samples select(torch::Tensor const& rows) const {
    return {inputs.index_select(0, rows), labels.index_select(0, rows)};
  }
};

/// From inputs to scores of shape (labels, classes).
struct network : torch::nn::Module {
  virtual torch::Tensor forward(torch::Tensor inputs) = 0;
};

/// What is learned, and by what.
struct task {
  samples training, test;
  std::function<std::shared_ptr<network>()> make;
};

/// Replicas of one network, with the weights that the seed determines.
class replica_group {
 public:
  replica_group(options const& chosen, task const& learned) {
    for (int n = 0; n < chosen.replicas; ++n) {
      torch::manual_seed(chosen.seed);
      replicas_.push_back(learned.make());
    }
  }

  std::vector<std::shared_ptr<network>> const& replicas() const { return replicas_; }

  /// Leaves the gradient of each replica's rows of the batch. @returns the mean loss of the batch
  double backward(samples const& batch) const {
    double loss = 0;
    auto const count = static_cast<std::int64_t>(replicas_.size()), rows = batch.rows();
    for (std::int64_t n = 0; n < count; ++n) {
      auto const first = rows * n / count, last = rows * (n + 1) / count;
      auto const scores = replicas_[static_cast<std::size_t>(n)]->forward(batch.inputs.slice(0, first, last));
      auto const sum =
          torch::nn::functional::cross_entropy(scores, batch.labels.slice(0, first, last).flatten(),
                                               torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum));
      auto const part = sum / static_cast<double>(batch.labels.numel());
      part.backward();
      loss += part.item<double>();
    }
    return loss;
  }

  /// The number of labels that the first replica finds.
  std::int64_t correct(samples const& all) const {
    torch::NoGradGuard const silent;
    std::int64_t result = 0;
    for (std::int64_t first = 0; first < all.rows(); first += 256) {
      auto const last = std::min(first + 256, all.rows());
      auto const found = replicas_[0]->forward(all.inputs.slice(0, first, last)).argmax(1);
      result += found.eq(all.labels.slice(0, first, last).flatten()).sum().item<std::int64_t>();
    }
    return result;
  }

 private:
  std::vector<std::shared_ptr<network>> replicas_;
};

}  // namespace train_torch
