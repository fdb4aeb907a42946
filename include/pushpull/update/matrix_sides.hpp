/// @file
/// The sides of a matrix from which a rule multiplies it, and the statistics of each.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/device/matrix_factorizations.hpp>
#include <pushpull/device/matrix_products.hpp>
#include <pushpull/registers/row_column_statistics.hpp>

namespace pushpull::inline PUSHPULL_ABI::update::detail {

/// Which sides of a matrix have statistics: those of at most `MaxSide` numbers. Tensors of one dimension have none.
template <std::int64_t MaxSide>
struct matrix_sides {
  std::int64_t left;   ///< Its rows, or 0.
  std::int64_t right;  ///< Its columns, or 0.

  template <class A>
  PUSHPULL_HOST_DEVICE explicit matrix_sides(matrix<A> const& m)
      : left(m.is_matrix && m.size > 0 && m.rows <= MaxSide ? m.rows : 0),
        right(m.is_matrix && m.size > 0 && m.columns <= MaxSide ? m.columns : 0) {}

  PUSHPULL_HOST_DEVICE int count() const { return (left > 0 ? 1 : 0) + (right > 0 ? 1 : 0); }
  std::int64_t squares() const { return left * left + right * right; }
};

/// The multiplications of the products from both sides, of the statistics and of decompositions, but for a factor.
template <std::int64_t MaxSide>
double cost_of_sides(std::int64_t rows, std::int64_t columns) {
  auto const r = static_cast<double>(rows), c = static_cast<double>(columns);
  double const left = rows <= MaxSide ? r : 0, right = columns <= MaxSide ? c : 0;
  return r * c * (1 + left + right) + left * left * left + right * right * right;
}

/// Whether all numbers are finite.
template <class A>
bool all_finite(A const* x, std::int64_t size) {
  return std::all_of(x, x + size, [](A number) { return pushpull::detail::is_finite(number); });
}

/// The reason that a decomposition gives for its failure.
inline std::string failed_decomposition(char const* routine, int info) {
  return std::string("LAPACK's ") + routine + " failed with info = " + std::to_string(info);
}

/// How many numbers of scratch a step with decompositions of n x n needs: of `eigenvectors` with a matrix and its values.
template <class A>
std::int64_t decomposition_scratch(std::int64_t n) {
  return n > 0 ? n * (n + 1) + eigenvector_scratch<A>(n) : 0;
}

/// Replaces statistics by their eigenvectors, one per row. @param values  Ascending, n. @param scratch
/// eigenvector_scratch(n) numbers. @returns why it failed, or nothing
template <class A, class Library>
std::string decompose(Library const& lapack, std::int64_t n, A* statistics, A* values, A* scratch) {
  if (!eigenvector_workspace(n).is_countable()) return "a side of " + std::to_string(n) + " is too long for LAPACK";
  if (!all_finite(statistics, n * n)) return "its statistics are not finite";
  int const info = lapack.eigenvectors(n, statistics, values, scratch);
  return info != 0 ? failed_decomposition("syevd", info) : std::string();
}

/// statistics = keep statistics + gain G G^T for the left side, G^T G for the right one, of G's rows and columns.
/// @returns why it failed, or nothing
template <class A, class Library>
std::string add_statistics(Library const& lapack, matrix<A> const& g, bool right, double keep, double gain,
                           A* statistics) {
  std::int64_t const n = right ? g.columns : g.rows;
  product_factor<A> const of_g{g.terms, g.columns, right};
  lapack.add_square(n, g.size / n, static_cast<A>(gain), of_g, static_cast<A>(keep), statistics);
  for (std::int64_t i = 0; i < n; ++i)  // no number is larger than the largest on the diagonal
    if (!pushpull::detail::is_finite(statistics[i * n + i]))
      return "the squares of its gradients are too large for the statistics";
  return {};
}

}  // namespace pushpull::inline PUSHPULL_ABI::update::detail
