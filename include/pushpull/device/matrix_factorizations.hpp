/// @file
/// Decompositions of matrices on a device, by a LAPACK.
#pragma once

#include <cstdint>
#include <limits>

#include <pushpull/config.hpp>
#include <pushpull/device/matrix_products.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The products and decompositions of a rule's `transform`, on a device of type D. One per store and device. A `transform` is
/// written once for both: what it reads or decides by numbers of its matrices is a function for the device.
/// Has:  the members of matrix_products; add_square(n, inner, alpha, a, beta, A* c): c = alpha a a^T + beta c, for a symmetric c of
///       n x n and a of n x inner; for_each(n, f): f(0), ..., f(n - 1) on the device;
///       scratch<A>(n): how many numbers of scratch the next two need, aligned as 64-bit integers are: eigenvectors(n, A* a,
///       A* values, A* scratch): the eigenvalues of the symmetric a of n x n, ascending, and in its place its eigenvectors, one
///       per row; orthogonalize(n, A* a, A* scratch): in the place of a's rows those of the Q of a^T = Q R;
///       begin(), and at the end finish(A* terms, size): around all calls of a `transform`; expect_finite(A const* x, count, reason,
///       stride = 1): that numbers 0, stride, ... of x are finite, for the calls from here on;
///       bool reads: whether the host may read the device's memory.
/// Where expect_finite finds another number, or a decomposition fails, CPUs throw an update_error with the reason. GPUs have
/// nobody to tell: calls go on, with numbers that mean nothing, and `finish` fills the terms with NaN, by which the step of
/// the key is left out.
/// Defined by device/cpu_matrix_factorizations.hpp for CPUs and by device/cuda_matrix_factorizations.cuh for GPUs.
template <class D>
class matrix_factorizations;

/// The workspaces of LAPACK's syevd with eigenvectors, by its documentation: its own answer is a float, which is below some of
/// these numbers.
struct eigenvector_workspace {
  std::int64_t numbers, integers;

  constexpr explicit eigenvector_workspace(std::int64_t n) : numbers(1 + 6 * n + 2 * n * n), integers(3 + 5 * n) {}
  /// Whether a LAPACK can count them, whose integers have 32 bits.
  constexpr bool is_countable() const { return numbers <= std::numeric_limits<std::int32_t>::max(); }
  /// Before the integers, which have 8 bytes each: an even number.
  constexpr std::int64_t padded_numbers() const { return numbers + numbers % 2; }
};
/// How many numbers of scratch `eigenvectors` needs for n x n.
template <class A>
constexpr std::int64_t eigenvector_scratch(std::int64_t n) {
  eigenvector_workspace const w(n);
  return w.padded_numbers() + w.integers * static_cast<std::int64_t>(sizeof(std::int64_t) / sizeof(A));
}

}  // namespace pushpull
