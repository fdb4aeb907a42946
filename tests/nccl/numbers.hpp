/// @file
/// Keys, numbers and rows that stores over ranks of GPUs are tested with.
#pragma once

#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/tensor/row_sparse.hpp>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace pushpull::test {

/// Sizes of keys that are 0, 1, prime, and of more than a leaf per rank.
inline std::vector<std::size_t> const sizes{5, 4099, 1, 0, 1031};

/// As many keys as there are sizes.
inline std::vector<std::string> keys() {
  std::vector<std::string> result;
  for (std::size_t i = 0; i < sizes.size(); ++i) result.push_back("key " + std::to_string(i));
  return result;
}

/// Units of numbers: sums of multiples of a power of two are exact.
constexpr float inexact = 1 / 997.0F, exact = 1 / 256.0F;

/// Random multiples of `unit`, others for each key, step and source.
template <class T = float>
std::vector<T> numbers(std::size_t size, std::size_t key, std::size_t step, std::size_t source, float unit = inexact) {
  std::mt19937 random(static_cast<unsigned>(1 + key + 100 * step + 10000 * source));
  std::vector<T> result(size);
  for (T& x : result) x = static_cast<T>(static_cast<float>(static_cast<int>(random() % 4001) - 2000) * unit);
  return result;
}

inline shape const rows_shape{67, 61};
/// Some rows of such a tensor, of which ids may repeat.
inline row_sparse<float> rows_of(std::size_t step, std::size_t source, float unit = inexact) {
  std::mt19937 random(static_cast<unsigned>(1 + step + 100 * source));
  row_sparse<float> rows(cpu_device<>(), rows_shape, static_cast<std::int64_t>((step + source) % 3 * 9));
  for (std::int64_t i = 0; i < rows.rows(); ++i) rows.row_ids()[i] = static_cast<std::int64_t>(random() % 67);
  for (std::int64_t i = 0; i < rows.rows() * 61; ++i)
    rows.values()[i] = static_cast<float>(static_cast<int>(random() % 4001) - 2000) * unit;
  return rows;
}

}  // namespace pushpull::test
