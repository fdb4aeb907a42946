/// @file
/// Decompositions of matrices on a device, by a LAPACK.
#pragma once

#include <cstdint>
#include <limits>

#include <pushpull/config.hpp>
#include <pushpull/device/matrix_products.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The products and decompositions of a rule's `transform`, on a device of type D. One per store and device.
/// Has:  the members of matrix_products; add_square(n, inner, alpha, a, beta, A* c): c = alpha a a^T + beta c, for a symmetric c of
///       n x n and a of n x inner; int eigenvectors(n, A* a, A* values, A* scratch): the eigenvalues of the symmetric and finite a,
///       ascending, and in its place its eigenvectors, one per row, with eigenvector_scratch<A>(n) numbers of scratch, aligned as
///       64-bit integers are; int orthogonalize(n, A* a, A* scratch): in the place of a's rows those of the Q of a^T = Q R, with n
///       numbers of scratch. Both are 0, or LAPACK's `info` where they have failed.
/// Defined by device/cpu_matrix_factorizations.hpp for CPUs.
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
