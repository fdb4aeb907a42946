/// @file
/// The sides of a matrix from which a rule multiplies it, and the statistics of each.
#pragma once

#include <algorithm>
#include <cstdint>

#include <pushpull/config.hpp>
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

/// How many numbers of scratch a step needs of a matrix: for a product of the matrix or of its longest side with statistics, with
/// two numbers per row, and for the eigenvectors of that side.
template <std::int64_t MaxSide, class A, class Library>
std::int64_t scratch_of_sides(matrix<A> const& m, Library const& lapack) {
  matrix_sides<MaxSide> const sides(m);
  std::int64_t const n = std::max(sides.left, sides.right);
  if (n == 0) return m.size;
  return std::max(std::max(m.size, n * n) + 2 * n, n * (n + 1) + lapack.template scratch<A>(n));
}

/// Replaces statistics by their eigenvectors, one per row. @param values  Ascending, n.
/// @param scratch  As many numbers as the library says, aligned as it says.
template <class A, class Library>
void decompose(Library const& lapack, std::int64_t n, A* statistics, A* values, A* scratch) {
  lapack.expect_finite(statistics, n * n, "its statistics are not finite");
  lapack.eigenvectors(n, statistics, values, scratch);
}

/// statistics = keep statistics + gain G G^T for the left side, G^T G for the right one, of G's rows and columns.
template <class A, class Library>
void add_statistics(Library const& lapack, matrix<A> const& g, bool right, double keep, double gain, A* statistics) {
  std::int64_t const n = right ? g.columns : g.rows;
  product_factor<A> const of_g{g.terms, g.columns, right};
  lapack.add_square(n, g.size / n, static_cast<A>(gain), of_g, static_cast<A>(keep), statistics);
  lapack.expect_finite(statistics, n, "the squares of its gradients are too large for the statistics",
                       n + 1);  // no number is larger than the largest on the diagonal
}

}  // namespace pushpull::inline PUSHPULL_ABI::update::detail
