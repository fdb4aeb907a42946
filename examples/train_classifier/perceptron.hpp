/// @file
/// A perceptron with one hidden layer: weights in, gradients of the summed loss out, on raw pointers to host memory.
#pragma once

#define EIGEN_DONT_PARALLELIZE  // the devices of the trainer are the threads
#define EIGEN_NO_CUDA           // all of it runs on the host, also when nvcc compiles it
// GCC 12 takes the undefined register in its own AVX-512 intrinsics for a mistake of ours (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <Eigen/Core>
#pragma GCC diagnostic pop
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace train_classifier {

struct perceptron_shape {
  std::size_t inputs = 0;
  std::size_t hidden = 0;
  std::size_t outputs = 0;
};

/// Where the parameters (T = float const) or their gradients (T = float) start; matrices are row-major.
template <class T>
struct perceptron_pointers {
  T* hidden_weight;  ///< (hidden, inputs)
  T* hidden_bias;    ///< (hidden)
  T* output_weight;  ///< (outputs, hidden)
  T* output_bias;    ///< (outputs)
};

/// Cross-entropy summed over some rows, and how many of them have their label as the largest output.
struct batch_result {
  double loss = 0;
  std::size_t correct = 0;
  std::size_t rows = 0;

  friend batch_result operator+(batch_result const& a, batch_result const& b) {
    return {a.loss + b.loss, a.correct + b.correct, a.rows + b.rows};
  }
};

/// The ReLU's corner is rounded over this width ("Huberized ReLU"): z^2 / (2 width) between 0 and width. With a sharp
/// corner the last bit of a sum now and then decides whether a unit takes part. In one run of twenty the weights that
/// one and four devices find then differ by 1e-4 to 1e-2 of the largest; with this one by 2e-6 at most (digits).
inline constexpr float corner_width = 0.05F;

/// ReLU after the hidden layer, softmax and cross-entropy after the output layer.
/// Holds the activations of one batch, so one object serves one thread.
class perceptron {
 public:
  explicit perceptron(perceptron_shape shape) : shape_{shape} {}

  /// Loss and hits of `labels.size()` rows of `images`, shape (rows, inputs).
  /// @throws std::invalid_argument if a label is not below `outputs`.
  batch_result forward(perceptron_pointers<float const> parameters, float const* images,
                       std::span<std::uint8_t const> labels) {
    auto const rows = labels.size();
    hidden_.noalias() =
        block(images, rows, shape_.inputs) * block(parameters.hidden_weight, shape_.hidden, shape_.inputs).transpose();
    hidden_.rowwise() += row(parameters.hidden_bias, shape_.hidden);
    slope_ = (hidden_ / corner_width).cwiseMax(0.0F).cwiseMin(1.0F);
    hidden_ = slope_.cwiseProduct(hidden_ - slope_ * (corner_width / 2));
    probability_.noalias() = hidden_ * block(parameters.output_weight, shape_.outputs, shape_.hidden).transpose();
    probability_.rowwise() += row(parameters.output_bias, shape_.outputs);
    batch_result result;
    losses_.resize(rows);
    for (std::size_t i = 0; i < rows; ++i) softmax(i, labels[i], result);
    return result;
  }

  /// Overwrites `gradients` with the gradients of the loss summed over the rows of the last `forward` (zero for no rows), whose
  /// arguments it gets again.
  void gradients(perceptron_pointers<float const> parameters, float const* images, std::span<std::uint8_t const> labels,
                 perceptron_pointers<float> gradients) {
    auto const rows = labels.size();
    matrix& output_error = probability_;  // softmax and cross-entropy together: error = probability - (1 at the label)
    for (std::size_t i = 0; i < rows; ++i) output_error(index(i), labels[i]) -= 1.0F;
    hidden_error_.noalias() = output_error * block(parameters.output_weight, shape_.outputs, shape_.hidden);
    hidden_error_ = hidden_error_.cwiseProduct(slope_);

    block(gradients.output_weight, shape_.outputs, shape_.hidden).noalias() = output_error.transpose() * hidden_;
    sum_rows(output_error, row(gradients.output_bias, shape_.outputs));
    block(gradients.hidden_weight, shape_.hidden, shape_.inputs).noalias() =
        hidden_error_.transpose() * block(images, rows, shape_.inputs);
    sum_rows(hidden_error_, row(gradients.hidden_bias, shape_.hidden));
  }

  /// `forward` and `gradients`.
  batch_result backward(perceptron_pointers<float const> parameters, float const* images,
                        std::span<std::uint8_t const> labels, perceptron_pointers<float> gradients) {
    auto const result = forward(parameters, images, labels);
    this->gradients(parameters, images, labels, gradients);
    return result;
  }

  /// Of the last `forward`: probabilities (rows, outputs), row-major, and the loss of each row.
  float const* probabilities() const { return probability_.data(); }
  std::vector<float> const& losses() const { return losses_; }

 private:
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using row_vector = Eigen::Matrix<float, 1, Eigen::Dynamic>;

  static Eigen::Index index(std::size_t i) { return static_cast<Eigen::Index>(i); }

  static Eigen::Map<matrix const> block(float const* data, std::size_t rows, std::size_t columns) {
    return {data, index(rows), index(columns)};
  }
  static Eigen::Map<matrix> block(float* data, std::size_t rows, std::size_t columns) {
    return {data, index(rows), index(columns)};
  }
  static Eigen::Map<row_vector const> row(float const* data, std::size_t columns) { return {data, index(columns)}; }
  static Eigen::Map<row_vector> row(float* data, std::size_t columns) { return {data, index(columns)}; }

  /// Sums over the rows one by one. Eigen's own sums start where the memory is aligned, so they round differently in
  /// every run; the products above do not.
  static void sum_rows(matrix const& addends, Eigen::Map<row_vector> sum) {
    sum.setZero();
    for (Eigen::Index i = 0; i < addends.rows(); ++i) sum += addends.row(i);
  }

  /// Turns the outputs of row i into probabilities and counts the row in `result`; in loops, for sum_rows' reason.
  void softmax(std::size_t i, std::uint8_t label, batch_result& result) {
    if (label >= shape_.outputs)
      throw std::invalid_argument{"perceptron: label " + std::to_string(label) + " of " +
                                  std::to_string(shape_.outputs) + " classes"};
    std::span<float> const outputs{probability_.row(index(i)).data(), shape_.outputs};
    auto const largest = std::max_element(outputs.begin(), outputs.end());
    auto const shift = *largest;  // exp cannot overflow, and the sum is at least 1
    auto const label_output = outputs[label] - shift;
    result.correct += largest - outputs.begin() == label ? 1U : 0U;
    float sum = 0;
    for (float& output : outputs) sum += output = std::exp(output - shift);
    for (float& output : outputs) output /= sum;
    losses_[i] = std::log(sum) - label_output;
    result.loss += static_cast<double>(losses_[i]);
    ++result.rows;
  }

  perceptron_shape shape_;
  matrix hidden_;        // (rows, hidden)
  matrix slope_;         // (rows, hidden), the ReLU's derivative
  matrix hidden_error_;  // (rows, hidden)
  matrix probability_;   // (rows, outputs)
  std::vector<float> losses_;
};

}  // namespace train_classifier
