/// @file
/// Muon: momentum whose matrices are made orthogonal. Not in the umbrella: needs the target pushpull::blas.
#pragma once

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>

#include <cuda/std/array>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

namespace detail {

/// Products of row-major matrices by the BLAS, in float and double: c = alpha a b + beta c, where a or b may be transposed.
inline void product(CBLAS_TRANSPOSE of_a, CBLAS_TRANSPOSE of_b, std::int64_t rows, std::int64_t columns,
                    std::int64_t inner, float alpha, float const* a, std::int64_t width_a, float const* b,
                    std::int64_t width_b, float beta, float* c) {
  cblas_sgemm(CblasRowMajor, of_a, of_b, static_cast<int>(rows), static_cast<int>(columns), static_cast<int>(inner),
              alpha, a, static_cast<int>(width_a), b, static_cast<int>(width_b), beta, c, static_cast<int>(columns));
}
inline void product(CBLAS_TRANSPOSE of_a, CBLAS_TRANSPOSE of_b, std::int64_t rows, std::int64_t columns,
                    std::int64_t inner, double alpha, double const* a, std::int64_t width_a, double const* b,
                    std::int64_t width_b, double beta, double* c) {
  cblas_dgemm(CblasRowMajor, of_a, of_b, static_cast<int>(rows), static_cast<int>(columns), static_cast<int>(inner),
              alpha, a, static_cast<int>(width_a), b, static_cast<int>(width_b), beta, c, static_cast<int>(columns));
}

}  // namespace detail

/// The factor of the learning rate, for a matrix of R rows and C columns.
enum class muon_rate {
  original,         ///< sqrt(max(1, R / C)): Jordan 2024.
  match_rms_adamw,  ///< 0.2 sqrt(max(R, C)): Liu et al. 2025.
};

/// Jordan et al. 2024, as PyTorch's Muon, with products in the type that the store computes in (PyTorch: bfloat16):
///   m = momentum m + (1 - momentum) g;   u = nesterov ? momentum m + (1 - momentum) g : m;
///   X = u / max(|u|, epsilon);  `iterations` times X = a X + (b G + c G^2) X, G = X X^T;
///   w = (1 - learning_rate weight_decay) w - learning_rate f X,  f by `rate`.
/// Rows are the indexes of the first dimension, columns all others: kernels of convolutions are flattened. Give vectors and
/// embeddings another rule: `rules{muon{}, where(is_no_matrix, adamw{})}`, with a predicate of
/// yours. On CPUs. A key has one owner, which makes its products; the BLAS bounds R and C by 2^31 - 1. learning_rate, momentum and
/// weight_decay may be scheduled, the others are those of the struct.
/// One state; workspaces of the step: R C numbers per key, and R C + 2 min(R, C)^2 of the key that needs most.
struct muon {
  double learning_rate = 1e-3;
  double momentum = 0.95;
  double weight_decay = 0.1;
  double epsilon = 1e-7;
  double a = 3.4445, b = -4.7750, c = 2.0315;
  std::int64_t iterations = 5;
  bool nesterov = true;
  muon_rate rate = muon_rate::original;

  static constexpr auto state_names = states("momentum_buffer");
  static constexpr factors factored{.elements = true};
  static constexpr bool per_tensor = true;
  using sums_type = cuda::std::array<double, 0>;

  /// @throws invalid_argument on a negative rate, decay or epsilon, a momentum outside [0, 1), or iterations outside
  /// [0, 100).
  void validate() const { detail::validate(*this); }
  template <class Checks>
  void check(Checks& checks) const {
    checks.not_negative("muon: learning_rate", learning_rate);
    checks.in_range("muon: momentum", momentum, 0, 1);
    checks.not_negative("muon: weight_decay", weight_decay);
    checks.not_negative("muon: epsilon", epsilon);
    checks.finite("muon: a", a);
    checks.finite("muon: b", b);
    checks.finite("muon: c", c);
    checks.in_range("muon: iterations", static_cast<double>(iterations), 0, 100);
    checks.any("muon: nesterov", nesterov);
    checks.any("muon: rate", static_cast<std::int64_t>(rate));
  }

  template <class A, class Numbers>
  struct scalars {
    A rate;  ///< learning_rate f
    A kept;  ///< Of the weight, by its decay.
    Numbers of;

    PUSHPULL_DEVICE_INLINE auto at(std::int64_t number) const noexcept
      requires pushpull::detail::Numbered<Numbers>
    {
      return scalars<A, matrix_numbers<A>>{rate, kept, of.at(number)};
    }
  };

  /// u.
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(S const&, V const&, V const& g, V const& m) const noexcept {
    V const next = momentum * m + (1 - momentum) * g;
    return nesterov ? momentum * next + (1 - momentum) * g : next;
  }

  /// X, in u's place.
  template <class A>
  void transform(matrix<A> const& u) const noexcept {
    bool const tall = u.rows > u.columns;  // G = X^T X then, behind X
    std::int64_t const n = std::min(u.rows, u.columns), squares = n * n;
    A *x = u.terms, *next = u.scratch, *const g = u.scratch + u.size, *const polynomial = g + squares;
    double sum = 0;
    for (std::int64_t i = 0; i < u.size; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    double const inverse = 1 / std::max(std::sqrt(sum), std::max(epsilon, std::numeric_limits<double>::min()));
    for (std::int64_t i = 0; i < u.size; ++i) x[i] = static_cast<A>(static_cast<double>(x[i]) * inverse);
    for (std::int64_t k = 0; k < iterations; ++k) {
      detail::product(tall ? CblasTrans : CblasNoTrans, tall ? CblasNoTrans : CblasTrans, n, n, u.size / n, A(1), x,
                      u.columns, x, u.columns, A(0), g);
      std::copy_n(g, squares, polynomial);
      detail::product(CblasNoTrans, CblasNoTrans, n, n, n, static_cast<A>(c), g, n, g, n, static_cast<A>(b),
                      polynomial);
      std::copy_n(x, u.size, next);
      if (tall)
        detail::product(CblasNoTrans, CblasNoTrans, u.rows, n, n, A(1), x, n, polynomial, n, static_cast<A>(a), next);
      else
        detail::product(CblasNoTrans, CblasNoTrans, n, u.columns, n, A(1), polynomial, n, x, u.columns,
                        static_cast<A>(a), next);
      std::swap(x, next);
    }
    if (x != u.terms) std::copy_n(x, u.size, u.terms);
  }

  template <class A>
  scalars<A, matrix<A>> prepare(factored_step<A> const& s, sums_type const&) const noexcept {
    auto const& m = s.numbers(0, 0);
    auto const rows = static_cast<double>(m.rows), columns = static_cast<double>(m.columns);
    double const factor = rate == muon_rate::original ? std::sqrt(std::max(1.0, columns > 0 ? rows / columns : 1))
                                                      : 0.2 * std::sqrt(std::max(rows, columns));
    return {detail::to_finite<A>(learning_rate * factor), detail::kept<A>(learning_rate, weight_decay), m};
  }

  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A, matrix_numbers<A>> const& s, V& w, V const& g,
                                         V& m) const noexcept {
    m = momentum * m + (1 - momentum) * g;
    w = s.kept * w - s.rate * s.of.template elements<V>(A(0));
  }
};

static_assert(Updater<muon> && Factored<muon>);

template <>
inline constexpr std::string_view rule_name<muon> = "muon";

}  // namespace pushpull::update
