/// @file
/// How many bytes tensors take, computed so that no shape overflows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// No tensor and no allocation is larger: differences of its pointers fit their type.
inline constexpr auto max_bytes = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max());

/// a b, or the largest number if that is less. Neither is negative.
constexpr std::int64_t bounded_product(std::int64_t a, std::int64_t b) {
  constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
  return b != 0 && a > largest / b ? largest : a * b;
}

/// a + b, or the largest number if that is less. Neither is negative.
constexpr std::int64_t bounded_sum(std::int64_t a, std::int64_t b) {
  constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
  return a > largest - b ? largest : a + b;
}

/// Bytes of a tensor of elements `T`. @throws Error, whose text begins with `what`, if they are more than `max_bytes`
template <class Error, ElementType T>
std::size_t bytes_of(char const* what, pushpull::shape const& shape) {
  expects<Error>(shape.size() <= max_bytes / sizeof(T), [&] {
    return std::string(what) + ": shape " + to_string(shape) + " of " + std::string(dtype_traits<T>::name) +
           " has more than 2^63 - 1 bytes";
  });
  return shape.size() * sizeof(T);
}

/// Same as bytes_of, but of `rows` rows of a tensor of shape `whole`, each of `row_length` elements.
template <class Error, ElementType T>
std::size_t bytes_of_rows(char const* what, std::int64_t rows, std::int64_t row_length, pushpull::shape const& whole) {
  auto const elements = static_cast<std::uint64_t>(bounded_product(rows, row_length));
  // Each row has an id, and the ids are stored with one more number.
  expects<Error>(
      elements <= max_bytes / sizeof(T) && static_cast<std::uint64_t>(rows) < max_bytes / sizeof(std::int64_t), [&] {
        return std::string(what) + ": " + std::to_string(rows) + " rows of shape " + to_string(whole) + " of " +
               std::string(dtype_traits<T>::name) + " have more than 2^63 - 1 bytes";
      });
  return static_cast<std::size_t>(elements) * sizeof(T);
}

}  // namespace pushpull::detail
