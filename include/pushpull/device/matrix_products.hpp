/// @file
/// Products of matrices on a device, by a BLAS.
#pragma once

#include <cstdint>
#include <type_traits>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// In how many bits GPUs hold the factors of products of floats. Sums are float in any case. CPUs, and products of doubles, take
/// all bits.
enum class product_precision : std::int8_t {
  full,  ///< All bits.
  tf32,  ///< As floats, of whose significands tensor cores read 11 bits.
  bf16,  ///< As bfloat16.
};

/// A row-major matrix, or the transpose of one.
template <class E>
struct product_factor {
  E const* first;
  std::int64_t width;  ///< Numbers from one row to the next, as they lie in memory.
  bool transposed = false;
};

/// The type of the factors of a sum of products of E.
template <class E>
using product_scale = std::conditional_t<std::is_same_v<E, double>, double, float>;

/// The products of a rule's `transform`, on the stream of a device of type D. One per store and device.
/// Has:  multiply(rows, columns, inner, alpha, a, b, beta, c, precision): c = alpha a b + beta c, c dense and row-major;
///       normalize(x, size, least, scratch): x / max(|x|, least), with one number of scratch; copy(from, to, size), which
///       converts; bool has_bfloat16: whether these are for bfloat16 too.
/// Defined by device/cpu_matrix_products.hpp for CPUs and by device/cuda_matrix_products.cuh for GPUs: which to include is
/// which BLAS to link.
template <class D>
class matrix_products;

}  // namespace pushpull
