/// @file
/// Softmax regression on images: its loss, gradient and accuracy.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "train_classifier/dataset.hpp"

namespace train_async {

using train_classifier::classes;
using train_classifier::dataset;

/// A weight per feature and class, and a bias per class, which comes last: (features + 1, classes).
inline std::array<double, classes> scores(dataset const& data, std::size_t image, std::vector<float> const& weights) {
  std::array<double, classes> result{};
  for (std::size_t c = 0; c < classes; ++c) result[c] = weights[data.features * classes + c];
  for (std::size_t f = 0; f < data.features; ++f)
    for (std::size_t c = 0; c < classes; ++c)
      result[c] += double{data.images[image * data.features + f]} * weights[f * classes + c];
  return result;
}

/// Writes the gradient of the mean loss of `batch` images from number `first` on, which go round.
inline void gradient(dataset const& data, std::size_t first, std::size_t batch, std::vector<float> const& weights,
                     std::vector<float>& to) {
  std::fill(to.begin(), to.end(), 0.0F);
  for (std::size_t n = 0; n < batch; ++n) {
    std::size_t const image = (first + n) % data.size();
    auto p = scores(data, image, weights);
    double const largest = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& x : p) sum += x = std::exp(x - largest);
    for (std::size_t c = 0; c < classes; ++c) {
      auto const error =
          static_cast<float>((p[c] / sum - (c == data.labels[image] ? 1 : 0)) / static_cast<double>(batch));
      for (std::size_t f = 0; f < data.features; ++f)
        to[f * classes + c] += error * data.images[image * data.features + f];
      to[data.features * classes + c] += error;
    }
  }
}

/// The share of images that are recognised.
inline double accuracy(dataset const& data, std::vector<float> const& weights) {
  std::size_t right = 0;
  for (std::size_t image = 0; image < data.size(); ++image) {
    auto const s = scores(data, image, weights);
    if (std::max_element(s.begin(), s.end()) - s.begin() == data.labels[image]) ++right;
  }
  return static_cast<double>(right) / static_cast<double>(data.size());
}

}  // namespace train_async
