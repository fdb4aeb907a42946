/// @file
/// Decompositions of matrices on CPUs, by a LAPACK. Not in the umbrella: needs the target pushpull::lapack.
#pragma once

#include <lapacke.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/device/cpu_matrix_products.hpp>
#include <pushpull/device/matrix_factorizations.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// The routine of the BLAS for a product with the transpose, which fills a triangle.
inline auto syrk(float) { return &cblas_ssyrk; }
inline auto syrk(double) { return &cblas_dsyrk; }
/// The routines of the LAPACK for numbers of a type: eigenvectors by divide and conquer, and the two parts of a QR.
inline auto syevd(float) { return &LAPACKE_ssyevd_work; }
inline auto syevd(double) { return &LAPACKE_dsyevd_work; }
inline auto geqrf(float) { return &LAPACKE_sgeqrf; }
inline auto geqrf(double) { return &LAPACKE_dgeqrf; }
inline auto orgqr(float) { return &LAPACKE_sorgqr; }
inline auto orgqr(double) { return &LAPACKE_dorgqr; }

}  // namespace detail

/// See matrix_factorizations. Extents are below 2^31, as the LAPACK counts. Its columns are our rows.
template <HostDevice D>
class matrix_factorizations<D> : public matrix_products<D> {
 public:
  static constexpr bool reads = true;

  using matrix_products<D>::matrix_products;

  template <class A>
  void add_square(std::int64_t n, std::int64_t inner, A alpha, product_factor<A> const& a, A beta, A* c) const {
    detail::syrk(A{})(CblasRowMajor, CblasUpper, a.transposed ? CblasTrans : CblasNoTrans, static_cast<int>(n),
                      static_cast<int>(inner), alpha, a.first, static_cast<int>(a.width), beta, c, static_cast<int>(n));
    constexpr std::int64_t tile = 32;  // of which two are in the first cache
    for (std::int64_t row = 0; row < n; row += tile)
      for (std::int64_t column = 0; column <= row; column += tile)
        for (std::int64_t i = row; i < std::min(row + tile, n); ++i)
          for (std::int64_t k = column; k < std::min(column + tile, i); ++k) c[i * n + k] = c[k * n + i];
  }

  /// f is a copy, which no result overwrites: compilers vectorize that.
  template <class F>
  void for_each(std::int64_t n, F const f) const {
    for (std::int64_t i = 0; i < n; ++i) f(i);
  }

  template <class A>
  std::int64_t scratch(std::int64_t n) const {
    return std::max(n, eigenvector_scratch<A>(n));
  }

  /// @throws update_error
  template <class A>
  void eigenvectors(std::int64_t n, A* a, A* values, A* scratch) const {
    static_assert(sizeof(lapack_int) <= sizeof(std::int64_t));
    eigenvector_workspace const work(n);
    detail::expects<update_error>(work.is_countable(),
                                  [&] { return "a side of " + std::to_string(n) + " is too long for LAPACK"; });
    auto const size = static_cast<lapack_int>(n);
    auto* const integers = reinterpret_cast<lapack_int*>(scratch + work.padded_numbers());
    expect_success("syevd", detail::syevd(A{})(LAPACK_COL_MAJOR, 'V', 'U', size, a, size, values, scratch,
                                               static_cast<lapack_int>(work.numbers), integers,
                                               static_cast<lapack_int>(work.integers)));
  }

  /// @throws update_error
  template <class A>
  void orthogonalize(std::int64_t n, A* a, A* scratch) const {
    auto const size = static_cast<lapack_int>(n);
    expect_success("geqrf", detail::geqrf(A{})(LAPACK_COL_MAJOR, size, size, a, size, scratch));
    expect_success("orgqr", detail::orgqr(A{})(LAPACK_COL_MAJOR, size, size, size, a, size, scratch));
  }

  void begin() const noexcept {}
  template <class A>
  void finish(A*, std::int64_t) const noexcept {}
  /// @throws update_error
  template <class A>
  void expect_finite(A const* x, std::int64_t count, char const* reason, std::int64_t stride = 1) const {
    std::int64_t infinite = 0;  // a sum, which compilers vectorize
    if (stride == 1) {
      for (std::int64_t i = 0; i < count; ++i) infinite += detail::is_finite(x[i]) ? 0 : 1;
    } else {
      for (std::int64_t i = 0; i < count; ++i) infinite += detail::is_finite(x[i * stride]) ? 0 : 1;
    }
    detail::expects<update_error>(infinite == 0, [&] { return std::string(reason); });
  }

 private:
  static void expect_success(char const* routine, lapack_int info) {
    detail::expects<update_error>(
        info == 0, [&] { return std::string("LAPACK's ") + routine + " failed with info = " + std::to_string(info); });
  }
};

}  // namespace pushpull
