/// @file
/// The example's forward and backward against plain loops in double precision.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <vector>

#include <train_classifier/perceptron.hpp>
#include <train_classifier/random.hpp>

#include "support/catch.hpp"
#include "support/deviation.hpp"

namespace {

using namespace train_classifier;

/// All parameters or all gradients of a perceptron in one array, in the order of perceptron_pointers.
template <class T>
struct parameter_set {
  perceptron_shape shape;
  std::vector<T> values;

  explicit parameter_set(perceptron_shape s)
      : shape{s}, values(s.hidden * s.inputs + s.hidden + s.outputs * s.hidden + s.outputs) {}

  template <class P>
  perceptron_pointers<P> pointers() {
    T* const hidden_bias = values.data() + shape.hidden * shape.inputs;
    T* const output_weight = hidden_bias + shape.hidden;
    return {values.data(), hidden_bias, output_weight, output_weight + shape.outputs * shape.hidden};
  }
};

/// Sum of the cross-entropies, one row and one unit at a time.
double reference_loss(parameter_set<double>& parameters, std::span<float const> images,
                      std::span<std::uint8_t const> labels) {
  auto const [inputs, hidden, outputs] = parameters.shape;
  auto const p = parameters.pointers<double const>();
  double loss = 0;
  for (std::size_t row = 0; row < labels.size(); ++row) {
    std::vector<double> unit(hidden), output(outputs);
    for (std::size_t h = 0; h < hidden; ++h) {
      double z = p.hidden_bias[h];
      for (std::size_t i = 0; i < inputs; ++i)
        z += p.hidden_weight[h * inputs + i] * static_cast<double>(images[row * inputs + i]);
      double const width = static_cast<double>(corner_width);
      unit[h] = z <= 0 ? 0 : z < width ? z * z / (2 * width) : z - width / 2;
    }
    double sum = 0;
    for (std::size_t o = 0; o < outputs; ++o) {
      output[o] = p.output_bias[o];
      for (std::size_t h = 0; h < hidden; ++h) output[o] += p.output_weight[o * hidden + h] * unit[h];
      sum += std::exp(output[o]);
    }
    loss += std::log(sum) - output[labels[row]];
  }
  return loss;
}

/// Weights, images and labels from a seed.
struct problem {
  perceptron_shape shape;
  parameter_set<float> parameters{shape};
  std::vector<float> images;
  std::vector<std::uint8_t> labels;

  problem(perceptron_shape s, std::size_t rows, std::uint64_t seed) : shape{s}, images(rows * s.inputs), labels(rows) {
    generator random{seed};
    for (float& value : parameters.values) value = uniform(random, 0.5F);
    for (float& pixel : images) pixel = uniform(random, 1);
    for (auto& label : labels) label = static_cast<std::uint8_t>(random() % s.outputs);
  }

  parameter_set<float> gradients(std::size_t first, std::size_t count, batch_result& result) {
    parameter_set<float> gradient{shape};
    // What was there before must not matter.
    for (float& value : gradient.values) value = std::numeric_limits<float>::quiet_NaN();
    result = perceptron{shape}.backward(parameters.pointers<float const>(), images.data() + first * shape.inputs,
                                        std::span{labels}.subspan(first, count), gradient.pointers<float>());
    return gradient;
  }
};

}  // namespace

TEST_CASE("backward agrees with central differences of the loss", "[example][perceptron]") {
  auto const rows = GENERATE(as<std::size_t>{}, 1, 2, 7, 33);
  auto const shape = GENERATE(perceptron_shape{5, 3, 2}, perceptron_shape{17, 19, 10}, perceptron_shape{1, 1, 1});
  problem given{shape, rows, 42};
  batch_result result;
  auto const gradient = given.gradients(0, rows, result);

  parameter_set<double> parameters{shape};
  parameters.values.assign(given.parameters.values.begin(), given.parameters.values.end());
  CHECK(result.loss == Approx(reference_loss(parameters, given.images, given.labels)).epsilon(1e-5).margin(1e-6));
  CHECK(result.rows == rows);
  double worst = 0;
  for (std::size_t i = 0; i < parameters.values.size(); ++i) {
    constexpr double step = 1e-6;
    double const value = parameters.values[i];
    parameters.values[i] = value + step;
    double const above = reference_loss(parameters, given.images, given.labels);
    parameters.values[i] = value - step;
    double const below = reference_loss(parameters, given.images, given.labels);
    parameters.values[i] = value;
    double const numeric = (above - below) / (2 * step);
    worst = pushpull::test::larger_deviation(
        worst, std::abs(static_cast<double>(gradient.values[i]) - numeric) / (1 + std::abs(numeric)));
  }
  INFO("largest difference " << worst);
  CHECK(worst < 1e-5);
}

TEST_CASE("gradients of parts of a batch sum to those of the batch", "[example][perceptron]") {
  problem given{{64, 32, 10}, 20, 7};
  batch_result whole, first, second;
  auto const expected = given.gradients(0, 20, whole);
  auto const a = given.gradients(0, 13, first);
  auto const b = given.gradients(13, 7, second);
  for (std::size_t i = 0; i < expected.values.size(); ++i)
    REQUIRE(a.values[i] + b.values[i] == Approx(expected.values[i]).epsilon(1e-4).margin(1e-5));
  CHECK((first + second).correct == whole.correct);
  CHECK((first + second).loss == Approx(whole.loss));
}

TEST_CASE("no rows give zero gradients", "[example][perceptron]") {
  problem given{{8, 4, 3}, 0, 1};
  batch_result result;
  auto const gradient = given.gradients(0, 0, result);
  for (float const value : gradient.values) REQUIRE(value == 0);
  CHECK(result.rows == 0);
  CHECK(result.loss == 0);
  CHECK(result.correct == 0);
}

TEST_CASE("the first and the last label are labels, the next is not", "[example][perceptron]") {
  problem given{{8, 4, 3}, 2, 1};
  batch_result result;
  given.labels = {0, 2};
  given.gradients(0, 2, result);
  CHECK(std::isfinite(result.loss));
  given.labels = {0, 3};
  CHECK_THROWS_AS(given.gradients(0, 2, result), std::invalid_argument);
}

TEST_CASE("hits count the rows whose label has the largest output", "[example][perceptron]") {
  problem given{{2, 2, 3}, 4, 1};
  for (float& value : given.parameters.values) value = 0;
  given.parameters.values.back() = 1;  // the bias of class 2: every row is taken for one
  given.labels = {2, 0, 2, 1};
  batch_result result;
  given.gradients(0, 4, result);
  CHECK(result.correct == 2);
}

TEST_CASE("outputs beyond the range of exp give a finite loss and finite gradients", "[example][perceptron]") {
  problem given{{2, 2, 3}, 1, 1};
  for (float& value : given.parameters.values) value = 0;
  given.parameters.values.back() = 1000;
  given.labels = {0};
  batch_result result;
  auto const gradient = given.gradients(0, 1, result);
  CHECK(result.loss == Approx(1000));
  for (float const value : gradient.values) REQUIRE(std::isfinite(value));
}

TEST_CASE("results do not depend on where memory starts", "[example][perceptron]") {
  problem given{{19, 21, 10}, 16, 3};
  batch_result result;
  auto const expected = given.gradients(0, 16, result);
  auto const offset = GENERATE(range(1, 16));
  // The same numbers, `offset` floats further on in every array.
  auto const shift = static_cast<std::ptrdiff_t>(offset);
  std::vector<float> parameters(given.parameters.values.size() + 16), images(given.images.size() + 16);
  std::copy(given.parameters.values.begin(), given.parameters.values.end(), parameters.begin() + shift);
  std::copy(given.images.begin(), given.images.end(), images.begin() + shift);
  parameter_set<float> moved{given.shape};
  std::vector<float> memory(moved.values.size() + 16);
  auto const at = [&](float* start) {
    auto const p = moved.pointers<float>();
    auto const from = [&](float* q) { return start + shift + (q - moved.values.data()); };
    return perceptron_pointers<float>{from(p.hidden_weight), from(p.hidden_bias), from(p.output_weight),
                                      from(p.output_bias)};
  };
  auto const weights = at(parameters.data());
  perceptron{given.shape}.backward(
      {weights.hidden_weight, weights.hidden_bias, weights.output_weight, weights.output_bias}, images.data() + shift,
      given.labels, at(memory.data()));
  for (std::size_t i = 0; i < expected.values.size(); ++i)
    REQUIRE(memory[i + static_cast<std::size_t>(offset)] == expected.values[i]);
}
