/// @file
/// Random numbers that depend on the seed alone; the standard's distributions and shuffle differ between libraries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

namespace train_classifier {

using generator = std::mt19937_64;

/// A float in [-limit, limit).
inline float uniform(generator& random, float limit) {
  auto const fraction = static_cast<float>(random() >> 40) * 0x1p-24F;
  return (2 * fraction - 1) * limit;
}

/// Fisher and Yates; the modulo's bias is below 2^-32 for any dataset that fits here.
inline void shuffle(std::vector<std::uint32_t>& items, generator& random) {
  for (std::size_t left = items.size(); left > 1; --left) std::swap(items[left - 1], items[random() % left]);
}

/// 0 ... count-1 in the order that `random` gives.
inline std::vector<std::uint32_t> shuffled_indices(std::size_t count, generator& random) {
  std::vector<std::uint32_t> indices(count);
  std::iota(indices.begin(), indices.end(), std::uint32_t{0});
  shuffle(indices, random);
  return indices;
}

}  // namespace train_classifier
