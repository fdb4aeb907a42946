/// @file
/// Functions over the numbers of matrices, which rules that keep matrices run on the matrices' device.
#pragma once

#include <cstdint>

#include <cuda/std/cmath>
#include <cuda/std/limits>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>

namespace pushpull::inline PUSHPULL_ABI::update::detail {

/// factors[k] = value k, which is at least `epsilon` of A times the largest, to the power, for the product of two of them.
template <class A>
struct half_roots {
  A const* values;  ///< Ascending.
  A* factors;
  std::int64_t n;
  double epsilon, power;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t k) const {
    auto const largest = static_cast<double>(values[n - 1]), own = static_cast<double>(values[k]);
    double const value = (own > 0 ? own : 0) + epsilon * largest;
    double const least = static_cast<double>(cuda::std::numeric_limits<A>::epsilon()) * largest;
    factors[k] = largest > 0 ? static_cast<A>(cuda::std::pow(value > least ? value : least, power)) : A(1);
  }
};

/// Multiplies each row by its factor.
template <class A>
struct scale_rows {
  A* x;
  A const* factors;
  std::int64_t columns;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const { x[i] *= factors[i / columns]; }
};

/// x = 0.
template <class A>
struct set_zero {
  A* x;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const { x[i] = A(0); }
};

/// f(0) makes a square matrix of zeros the identity. Others have a number in their first row.
template <class A>
struct identity_of_zeros {
  A* x;
  std::int64_t n;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t) const {
    for (std::int64_t i = 0; i < n; ++i)
      if (x[i] > A(0) || x[i] < A(0)) return;
    for (std::int64_t i = 0; i < n; ++i) x[i * (n + 1)] = A(1);
  }
};

/// m = beta1 m + (1 - beta1) x;   v = beta2 v + (1 - beta2) x^2;   x = m / (sqrt(v) + epsilon).
template <class A>
struct adam_direction {
  A *x, *m, *v;
  A beta1, of_m, beta2, of_v, epsilon;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    A const g = x[i];
    m[i] = beta1 * m[i] + of_m * g;
    v[i] = beta2 * v[i] + of_v * g * g;
    x[i] = m[i] / (cuda::std::sqrt(v[i]) + epsilon);
  }
};

/// Exchanges the first rows of a square matrix with the last ones: number i of the first half of the rows.
template <class A>
struct reverse_rows {
  A* x;
  std::int64_t n;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int64_t const row = i / n, other = i + (n - 1 - 2 * row) * n;
    A const number = x[i];
    x[i] = x[other];
    x[other] = number;
  }
};

/// products[k] = row k of a times row k of b.
template <class A>
struct dot_rows {
  A const *a, *b;
  A* products;
  std::int64_t n;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t k) const {
    A sum = A(0);
    for (std::int64_t i = k * n; i < (k + 1) * n; ++i) sum += a[i] * b[i];
    products[k] = sum;
  }
};

/// order[i] = the number of the i-th largest value, the earlier one of two that are equal. NaN counts as the lowest
/// number.
template <class A>
struct falling_order {
  A const* values;
  std::int32_t* order;
  std::int64_t n;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t k) const {
    A const own = number(k);
    std::int64_t before = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      A const other = number(j);
      if (other > own || (!(other < own) && j < k)) ++before;
    }
    order[before] = static_cast<std::int32_t>(k);
  }

 private:
  PUSHPULL_HOST_DEVICE A number(std::int64_t k) const {
    return pushpull::detail::is_nan(values[k]) ? cuda::std::numeric_limits<A>::lowest() : values[k];
  }
};

/// to's row k = from's row order[k].
template <class A>
struct take_rows {
  A const* from;
  A* to;
  std::int32_t const* order;
  std::int64_t columns;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int64_t const row = i / columns;
    to[i] = from[i + (order[row] - row) * columns];
  }
};

/// to's column k = from's column order[k].
template <class A>
struct take_columns {
  A const* from;
  A* to;
  std::int32_t const* order;
  std::int64_t columns;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int64_t const column = i % columns;
    to[i] = from[i - column + order[column]];
  }
};

}  // namespace pushpull::inline PUSHPULL_ABI::update::detail
