/// @file
/// Statistics of the rows and columns of a tensor that is seen as matrices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

#include <pushpull/config.hpp>
#include <pushpull/registers/pack.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The statistics of rows and columns that a stage needs: see Factored.
struct factors {
  std::string_view rows = {};     ///< The state of each row, by its name; without one its number lasts for a step.
  std::string_view columns = {};  ///< The state of each column; without one nothing is asked of columns.
  bool last_dimensions =
      false;              ///< A matrix per index of the dimensions before the last two; else one of all elements,
                          ///< whose rows are the indexes of the first dimension.
  bool elements = false;  ///< The terms of all elements go to the stage's `transform`, in place of sums: see Factored.
};

/// The rows and columns of a state of a whole matrix.
struct matrix_extents {
  std::int64_t rows, columns;

  std::int64_t size() const { return rows * columns; }
};

template <class A>
struct matrix;

/// The numbers for the elements of a pack: what the operator of a Factored stage is given.
template <class A>
class matrix_numbers {
 public:
  PUSHPULL_DEVICE_INLINE matrix_numbers(matrix<A> const* of, std::int64_t element) : of_(of), element_(element) {}

  /// Each element's row, `outside` where the tensor has ended.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V rows(A outside) const {
    if constexpr (V::size > 1) {
      if (in_one_row<V>()) return V(of_->row[of_->row_of(element_)]);
      if (of_->columns == 1 && element_ + width<V> <= of_->size) return load<V>(of_->row + element_);
    }
    return gather<V>(outside, [m = of_](std::int64_t row, std::int64_t) PUSHPULL_INLINE_LAMBDA { return m->row[row]; });
  }
  /// Each element's column; 1 where columns have no numbers.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V columns(A outside) const {
    if (of_->column == nullptr) return V(1);
    if constexpr (V::size > 1) {
      if (in_one_row<V>()) {
        std::int64_t const row = of_->row_of(element_);
        return load<V>(of_->column + of_->batch_of(row) * of_->columns + (element_ - row * of_->columns));
      }
    }
    return gather<V>(outside, [m = of_](std::int64_t row, std::int64_t column)
                                  PUSHPULL_INLINE_LAMBDA { return m->column[m->batch_of(row) * m->columns + column]; });
  }
  /// The mean over all rows of each element's matrix; 1 where columns have no numbers.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V row_means() const {
    if (of_->column == nullptr) return V(1);
    if (of_->batches == 1) return V(static_cast<A>(of_->mean[0]));
    return gather<V>(A(1), [m = of_](std::int64_t row, std::int64_t)
                               PUSHPULL_INLINE_LAMBDA { return static_cast<A>(m->mean[m->batch_of(row)]); });
  }
  /// Each element of what `transform` left, `outside` where the tensor has ended.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V elements(A outside) const {
    using E = typename V::element_type;  // double where squares of floats overflow
    if constexpr (std::is_same_v<E, A>)
      if (element_ + width<V> <= of_->size) return load<V>(of_->terms + element_);
    V result(outside);
    for (std::int64_t lane = 0; lane < width<V> && element_ + lane < of_->size; ++lane)
      reinterpret_cast<E*>(&result)[lane] = static_cast<E>(of_->terms[element_ + lane]);
    return result;
  }
  /// Whether the tensor has two dimensions or more.
  PUSHPULL_DEVICE_INLINE bool of_matrix() const { return of_->is_matrix; }

 private:
  template <class V>
  static constexpr auto width = static_cast<std::int64_t>(V::size);

  template <class V>
  PUSHPULL_DEVICE_INLINE bool in_one_row() const {
    std::int64_t const column = element_ - of_->row_of(element_) * of_->columns;
    return element_ < of_->size && column + width<V> <= of_->columns;
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE static V load(A const* from) {
    V result;
    std::memcpy(static_cast<void*>(&result), from, sizeof(V));
    return result;
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V, class F>
  PUSHPULL_DEVICE_INLINE V gather(A outside, F const& number) const {
    V result(outside);
    std::int64_t row = of_->row_of(element_), column = element_ - row * of_->columns;
    for (std::size_t lane = 0; lane < V::size; ++lane) {
      if (element_ + static_cast<std::int64_t>(lane) >= of_->size) break;
      if constexpr (V::size == 1) {
        result = V(number(row, column));
      } else {
        reinterpret_cast<A*>(&result)[lane] = number(row, column);
      }
      if (++column == of_->columns) {
        column = 0;
        ++row;
      }
    }
    return result;
  }

  matrix<A> const* of_;
  std::int64_t element_;
};

/// The statistics of one stage for one tensor's rows and columns. Rows are numbered across all matrices.
template <class A>
struct matrix {
  std::int64_t first;    ///< The number of the tensor's first element among all elements of the store.
  std::int64_t size;     ///< Elements.
  std::int64_t batches;  ///< Matrices.
  std::int64_t rows;     ///< Of each.
  std::int64_t columns;
  bool is_matrix;         ///< The tensor has two dimensions or more.
  double weight_epsilon;  ///< From 1 to the next number of the weights' type.
  A* row;                 ///< A number per row.
  A* column;              ///< A number per column, or null.
  double* mean;           ///< The mean of each matrix's row numbers, where columns have numbers.
  double* motion;         ///< How numbers move in this step: see factored_step.
  A* terms;               ///< A number per element, of which `transform` makes others, or null.
  A* scratch;  ///< Room for `transform`: size + 2 min(rows, columns)^2 numbers, or as many as the stage says.
  A* kept;     ///< The stage's states of whole matrices, one after another, as they are and as `transform` leaves them.
  std::int64_t t;  ///< Where it has such states: see step.

  /// How many numbers `scratch` has.
  PUSHPULL_HOST_DEVICE std::int64_t scratch_size() const {
    std::int64_t const least = rows < columns ? rows : columns;
    return size + 2 * least * least;
  }

  PUSHPULL_DEVICE_INLINE matrix_numbers<A> at(std::int64_t number) const noexcept { return {this, number - first}; }

  PUSHPULL_DEVICE_INLINE std::int64_t row_of(std::int64_t element) const { return quotient(element, columns); }
  PUSHPULL_DEVICE_INLINE std::int64_t batch_of(std::int64_t of) const { return batches == 1 ? 0 : quotient(of, rows); }
  PUSHPULL_HOST_DEVICE std::int64_t all_rows() const { return batches * rows; }
  /// That have numbers.
  PUSHPULL_HOST_DEVICE std::int64_t all_columns() const { return column == nullptr ? 0 : batches * columns; }

 private:
  /// Divisions of 64 bits take several times as long.
  PUSHPULL_DEVICE_INLINE static std::int64_t quotient(std::int64_t a, std::int64_t b) {
    if (((a | b) >> 32) != 0) return a / b;
    return static_cast<std::int64_t>(static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b));
  }
};

}  // namespace pushpull
