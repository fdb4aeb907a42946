/// @file
/// Labelled images in memory, as every reader returns them and as the trainer takes them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace train_classifier {

/// Both datasets have ten classes, labelled 0 ... 9.
inline constexpr std::size_t classes = 10;

/// Images of shape (n, features), row by row, pixels from 0 (or centred) to 1, and one label per image.
struct dataset {
  std::size_t features = 0;
  std::vector<float> images;
  std::vector<std::uint8_t> labels;

  std::size_t size() const { return labels.size(); }
};

/// What the weights are fitted to, and what they are judged by.
struct training_and_test {
  dataset training;
  dataset test;
};

/// Subtracts from each pixel its mean over the training images. Without it all images share one large direction, in
/// which steps overshoot: training is slower, and rounding errors grow from step to step.
inline void center(training_and_test& data) {
  auto const features = data.training.features;
  std::vector<double> mean(features);
  for (std::size_t i = 0; i < data.training.images.size(); ++i) mean[i % features] += data.training.images[i];
  for (double& sum : mean) sum /= static_cast<double>(std::max<std::size_t>(data.training.size(), 1));
  for (auto* part : {&data.training, &data.test})
    for (std::size_t i = 0; i < part->images.size(); ++i) part->images[i] -= static_cast<float>(mean[i % features]);
}

/// Appends the rows of `from` named by `rows` to `to`: how a device gets its share of a batch.
inline void append_rows(dataset const& from, std::span<std::uint32_t const> rows, dataset& to) {
  to.features = from.features;
  for (std::size_t const row : rows) {
    auto const image = from.images.begin() + static_cast<std::ptrdiff_t>(row * from.features);
    to.images.insert(to.images.end(), image, image + static_cast<std::ptrdiff_t>(from.features));
    to.labels.push_back(from.labels[row]);
  }
}

}  // namespace train_classifier
