/// @file
/// The order of samples in an epoch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::data {

/// 0 ... count - 1 in an order that seed and epoch determine, the same with every standard library.
inline std::vector<std::int64_t> shuffled(std::int64_t count, std::uint64_t seed, std::int64_t epoch) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  auto const number = static_cast<std::uint64_t>(epoch);
  std::seed_seq seeds{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                      static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32)};
  std::mt19937_64 random(seeds);
  for (std::size_t left = order.size(); left > 1; --left)  // the remainder's bias is below count / 2^64
    std::swap(order[left - 1], order[static_cast<std::size_t>(random() % left)]);
  return order;
}

}  // namespace pushpull::train::data
