/// @file
/// Products of matrices on CPUs, by a CBLAS. Not in the umbrella: needs the target pushpull::blas.
#pragma once

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/matrix_products.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// The routine of the BLAS for numbers of a type.
inline auto gemm(float) { return &cblas_sgemm; }
inline auto gemm(double) { return &cblas_dgemm; }

}  // namespace detail

/// See matrix_products. Extents are below 2^31, as the BLAS counts.
template <HostDevice D>
class matrix_products<D> {
 public:
  static constexpr bool has_bfloat16 = false;

  explicit matrix_products(D const&) {}

  template <class A>
  void multiply(std::int64_t rows, std::int64_t columns, std::int64_t inner, A alpha, product_factor<A> const& a,
                product_factor<A> const& b, A beta, A* c, product_precision) const noexcept {
    auto const of = [](auto const& factor) { return factor.transposed ? CblasTrans : CblasNoTrans; };
    detail::gemm(A{})(CblasRowMajor, of(a), of(b), static_cast<int>(rows), static_cast<int>(columns),
                      static_cast<int>(inner), alpha, a.first, static_cast<int>(a.width), b.first,
                      static_cast<int>(b.width), beta, c, static_cast<int>(columns));
  }

  /// The norm is summed in double.
  template <class A>
  void normalize(A* x, std::int64_t size, double least, A*) const noexcept {
    double sum = 0;
    for (std::int64_t i = 0; i < size; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    double const inverse = 1 / std::max(std::sqrt(sum), least);
    for (std::int64_t i = 0; i < size; ++i) x[i] = static_cast<A>(static_cast<double>(x[i]) * inverse);
  }

  template <class A>
  void copy(A const* from, A* to, std::int64_t size) const noexcept {
    std::copy_n(from, size, to);
  }
};

}  // namespace pushpull
