/// @file
/// Some rows of a larger tensor: embeddings' gradients, and the rows that a batch needs.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/row_sparse_tensor.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/bytes.hpp>
#include <pushpull/error.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/copy_bytes.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// The length of a row: the elements at one index of the first dimension of `whole`. @throws invalid_argument on rank
/// 0, and on 2^63 elements or more
inline std::int64_t row_length_of(pushpull::shape const& whole) {
  expects<invalid_argument>(whole.rank() > 0,
                            [] { return std::string("row_sparse: a shape of rank 1 or more expected"); });
  std::int64_t length = 1;
  bool empty = false, countable = true;  // of a tensor without rows a row may have any extents
  for (std::size_t axis = 1; axis < whole.rank(); ++axis) {
    empty = empty || whole[axis] == 0;
    countable = countable && (whole[axis] == 0 || length <= std::numeric_limits<std::int64_t>::max() / whole[axis]);
    length = bounded_product(length, whole[axis]);
  }
  expects<invalid_argument>(empty || countable, [&] {
    return "row_sparse: a row of shape " + to_string(whole) + " has more than 2^63 - 1 elements";
  });
  return empty ? 0 : length;
}

}  // namespace detail

/// Rows that somebody else owns: values (rows, row length) and ids (rows). `T` may be const.
template <class T, Device D = cpu_device<>>
  requires ElementType<std::remove_const_t<T>>
class row_sparse_view {
 public:
  using value_type = T;
  using device_type = D;

  /// @param whole  Shape of the tensor that the rows belong to.
  /// @throws invalid_argument on rank 0, on negative `rows`, and if no memory can hold them
  row_sparse_view(T* values, std::int64_t const* row_ids, std::int64_t rows, pushpull::shape const& whole,
                  D const& device)
      : values_(values), row_ids_(row_ids), rows_(rows), shape_(whole), device_(device) {
    detail::expects<invalid_argument>(
        rows >= 0, [&] { return "row_sparse_view: at least 0 rows expected, got " + std::to_string(rows); });
    detail::bytes_of_rows<invalid_argument, std::remove_const_t<T>>("row_sparse_view", rows,
                                                                    detail::row_length_of(whole), whole);
  }
  /// On the host, device 0.
  row_sparse_view(T* values, std::int64_t const* row_ids, std::int64_t rows, pushpull::shape const& whole)
    requires std::default_initializable<D>
      : row_sparse_view(values, row_ids, rows, whole, D()) {}

  T* values() const noexcept { return values_; }
  std::int64_t const* row_ids() const noexcept { return row_ids_; }
  std::int64_t rows() const noexcept { return rows_; }
  pushpull::shape const& shape() const noexcept { return shape_; }
  D const& device() const noexcept { return device_; }

 private:
  T* values_;
  std::int64_t const* row_ids_;
  std::int64_t rows_;
  pushpull::shape shape_;
  D device_;
};

template <class T, class D>
row_sparse_view(T*, std::int64_t const*, std::int64_t, shape, D) -> row_sparse_view<T, D>;
template <class T>
row_sparse_view(T*, std::int64_t const*, std::int64_t, shape) -> row_sparse_view<T, cpu_device<>>;

/// Rows on one device, with memory of their own. Move-only. What `row_sparse_pull` fills has ascending ids, each once.
template <ElementType T, Device D = cpu_device<>>
class row_sparse {
 public:
  using value_type = T;
  using device_type = D;

  /// `rows` rows, to be written, of a tensor of shape `whole`. @throws invalid_argument, out_of_memory
  row_sparse(D const& device, pushpull::shape const& whole, std::int64_t rows = 0)
      : device_(device), shape_(whole), row_length_(detail::row_length_of(whole)) {
    resize(rows);
  }

  /// Other rows, to be written; no memory is given back. Nothing may be using the old ones.
  /// @throws invalid_argument, out_of_memory
  void resize(std::int64_t rows) {
    detail::expects<invalid_argument>(
        rows >= 0, [&] { return "row_sparse: at least 0 rows expected, got " + std::to_string(rows); });
    reserve(rows);
    rows_ = rows;
    counted_ = true;
  }

  T* values() noexcept { return static_cast<T*>(values_.data()); }
  T const* values() const noexcept { return static_cast<T const*>(values_.data()); }
  std::int64_t* row_ids() noexcept { return static_cast<std::int64_t*>(ids_.data()) + 1; }
  std::int64_t const* row_ids() const noexcept { return static_cast<std::int64_t const*>(ids_.data()) + 1; }
  /// How many rows there are. After row_sparse_pull on a GPU the first call waits for it.
  std::int64_t rows() const {
    if (!counted_) {
      detail::copy_bytes(cpu_device<>(), &rows_, device_, ids_.data(), sizeof(rows_));
      counted_ = true;
    }
    return rows_;
  }
  pushpull::shape const& shape() const noexcept { return shape_; }
  /// Elements of a row.
  std::int64_t row_length() const noexcept { return row_length_; }
  D const& device() const noexcept { return device_; }

  operator row_sparse_view<T, D>() { return {values(), row_ids(), rows(), shape_, device_}; }
  operator row_sparse_view<T const, D>() const { return {values(), row_ids(), rows(), shape_, device_}; }

  /// For stores: memory for up to `rows` rows, of which the device will say in `count()` how many there are.
  void expect_rows(std::int64_t rows) {
    reserve(rows);
    counted_ = false;
  }
  std::int64_t* count() noexcept { return static_cast<std::int64_t*>(ids_.data()); }

 private:
  /// Keeps no content: the count stands before the ids.
  void reserve(std::int64_t rows) {
    std::size_t const bytes = detail::bytes_of_rows<out_of_memory, T>("row_sparse", rows, row_length_, shape_);
    if (values_.bytes() < bytes) values_ = buffer<D>(device_, bytes);
    std::size_t const id_bytes = (static_cast<std::size_t>(rows) + 1) * sizeof(std::int64_t);
    if (ids_.bytes() < id_bytes) ids_ = buffer<D>(device_, id_bytes);
  }

  D device_;
  pushpull::shape shape_;
  std::int64_t row_length_;
  buffer<D> values_, ids_;
  mutable std::int64_t rows_ = 0;
  mutable bool counted_ = true;
};

static_assert(RowSparseTensor<row_sparse<float>> && RowSparseTensor<row_sparse_view<double const>>);
static_assert(!Tensor<row_sparse<float>> && !Tensor<row_sparse_view<float>>);

namespace detail {

template <class T>
inline constexpr bool is_row_sparse_view = false;
template <class T, class D>
inline constexpr bool is_row_sparse_view<row_sparse_view<T, D>> = true;

}  // namespace detail

/// A RowSparseTensor, maybe by reference, with elements of type `E`.
template <class T, class E>
concept RowSparseTensorOf = RowSparseTensor<std::remove_cvref_t<T>> &&
                            std::same_as<std::remove_const_t<typename std::remove_cvref_t<T>::value_type>, E>;

/// One as an expression of type `T` that names memory which outlives the expression.
template <class T>
concept LastingRowSparseTensor =
    RowSparseTensor<std::remove_cvref_t<T>> &&
    (std::is_lvalue_reference_v<T> || std::is_trivially_copyable_v<std::remove_cvref_t<T>> ||
     detail::is_row_sparse_view<std::remove_cvref_t<T>>);

}  // namespace pushpull
