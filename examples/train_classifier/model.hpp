/// @file
/// The trained weights in a file.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <ostream>
#include <span>

namespace train_classifier {

/// Writes all weights, layer by layer, as little-endian float32 without a header.
template <class Params>
void write_weights(Params const& trained, std::ostream& file) {
  for (char const* name : {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}) {
    auto const& tensor = trained.args.find(name)->second;
    for (float const value : std::span{tensor.data(), tensor.size()}) {
      auto const bits = std::bit_cast<std::uint32_t>(value);
      std::array<char, 4> little_endian{};
      for (unsigned i = 0; i < 4; ++i) little_endian[i] = static_cast<char>(bits >> 8 * i & 0xFFU);
      file.write(little_endian.data(), little_endian.size());
    }
  }
}

}  // namespace train_classifier
