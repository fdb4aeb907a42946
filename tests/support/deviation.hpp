/// @file
/// Deviations of results from references, in units of the type that stores the results.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include <pushpull/element/dtype.hpp>

namespace pushpull::test {

/// The larger of two deviations; infinity if one is NaN, which std::max passes over.
template <class T>
T larger_deviation(T a, T b) {
  if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<T>::infinity();
  return a < b ? b : a;
}

/// Distance of 1 from the next number of T.
template <class T>
double unit() {
  if constexpr (std::is_same_v<T, half>) return 0x1p-10;
  if constexpr (std::is_same_v<T, bfloat16>) return 0x1p-7;
  if constexpr (std::is_same_v<T, float>) return 0x1p-23;
  return 0x1p-52;
}

/// x as T stores it.
template <class T>
double rounded(double x) {
  return convert<double>(convert<T>(x));
}

/// |got - expected| / (1 + |expected|) in units of T.
template <class T>
double deviation(double got, double expected) {
  return std::abs(got - expected) / (1 + std::abs(expected)) / unit<T>();
}

}  // namespace pushpull::test
