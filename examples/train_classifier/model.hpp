/// @file
/// The weights on the host: the store's masters, which training starts from and ends in.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <utility>
#include <vector>

#include "perceptron.hpp"
#include "random.hpp"

namespace train_classifier {

/// The names under which the store knows the parameters, in the order of `perceptron_pointers`.
inline constexpr std::array<char const*, 4> parameter_names{"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"};

/// All parameters of a perceptron.
struct model {
  perceptron_shape shape;
  std::vector<float> hidden_weight, hidden_bias, output_weight, output_bias;

  perceptron_pointers<float const> pointers() const {
    return {hidden_weight.data(), hidden_bias.data(), output_weight.data(), output_bias.data()};
  }
};

/// Uniform weights of variance 2 / fan-in, which keep the size of activations behind a ReLU (He et al. 2015), and zero
/// biases.
inline model initial_model(perceptron_shape shape, generator& random) {
  auto const weights = [&](std::size_t outputs, std::size_t inputs) {
    auto const limit = std::sqrt(6 / static_cast<float>(inputs));
    std::vector<float> values(outputs * inputs);
    for (float& value : values) value = uniform(random, limit);
    return values;
  };
  auto hidden = weights(shape.hidden, shape.inputs);
  auto output = weights(shape.outputs, shape.hidden);
  return {shape, std::move(hidden), std::vector<float>(shape.hidden), std::move(output),
          std::vector<float>(shape.outputs)};
}

/// Writes all weights, layer by layer, as little-endian float32 without a header.
inline void write_weights(model const& trained, std::ostream& file) {
  for (auto const* parameter :
       {&trained.hidden_weight, &trained.hidden_bias, &trained.output_weight, &trained.output_bias})
    for (float const value : *parameter) {
      auto const bits = std::bit_cast<std::uint32_t>(value);
      std::array<char, 4> little_endian{};
      for (unsigned i = 0; i < 4; ++i) little_endian[i] = static_cast<char>(bits >> 8 * i & 0xFFU);
      file.write(little_endian.data(), little_endian.size());
    }
}

}  // namespace train_classifier
