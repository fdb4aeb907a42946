/// @file
/// Muon: momentum whose matrices are made orthogonal. muon.hpp brings the products of CPUs, muon.cuh those of GPUs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>

#include <cuda/std/array>
#include <cuda/std/cmath>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/matrix_products.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

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
/// yours. On CPUs with muon.hpp, on GPUs with muon.cuh. A key has one owner, which makes its products; a CPU's BLAS bounds R and C
/// by 2^31 - 1. learning_rate, momentum and weight_decay may be scheduled, the others are those of the struct.
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
  product_precision products = product_precision::full;

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
    checks.any("muon: products", static_cast<std::int64_t>(products));
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

  template <class D>
  using library = matrix_products<D>;
  /// Multiplications of an iteration, but for a factor.
  static double cost(std::int64_t rows, std::int64_t columns) {
    return static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(std::min(rows, columns));
  }

  /// X, in u's place.
  template <class A, class Library>
  void transform(matrix<A> const& u, Library const& blas) const {
    blas.normalize(u.terms, u.size, std::max(epsilon, std::numeric_limits<double>::min()), u.scratch);
    if constexpr (Library::has_bfloat16 && std::is_same_v<A, float>) {
      if (products == product_precision::bf16) {  // X lies in scratch, before the other matrices
        auto* const x = reinterpret_cast<bfloat16*>(u.scratch);
        blas.copy(u.terms, x, u.size);
        return blas.copy(orthogonal(u, blas, x, x + u.size), u.terms, u.size);
      }
    }
    A const* const x = orthogonal(u, blas, u.terms, u.scratch);
    if (x != u.terms) blas.copy(x, u.terms, u.size);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A, matrix<A>> prepare(factored_step<A> const& s, sums_type const&) const noexcept {
    auto const& m = s.numbers(0, 0);
    auto const rows = static_cast<double>(m.rows), columns = static_cast<double>(m.columns);
    double const factor = rate == muon_rate::original
                              ? cuda::std::sqrt(columns > 0 && rows > columns ? rows / columns : 1.0)
                              : 0.2 * cuda::std::sqrt(rows > columns ? rows : columns);
    return {detail::to_finite<A>(learning_rate * factor), detail::kept<A>(learning_rate, weight_decay), m};
  }

  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A, matrix_numbers<A>> const& s, V& w, V const& g,
                                         V& m) const noexcept {
    m = momentum * m + (1 - momentum) * g;
    w = s.kept * w - s.rate * s.of.template elements<V>(A(0));
  }

 private:
  /// The iteration on x, of u's shape, with scratch for as many numbers and two squares. @returns where X is then
  template <class E, class A, class Library>
  E const* orthogonal(matrix<A> const& u, Library const& blas, E* x, E* scratch) const {
    using scale = product_scale<E>;
    bool const tall = u.rows > u.columns;  // G = X^T X then, behind X
    std::int64_t const n = std::min(u.rows, u.columns), squares = n * n;
    E *next = scratch, *const g = scratch + u.size, *const polynomial = g + squares;
    for (std::int64_t k = 0; k < iterations; ++k) {
      product_factor<E> const of_x{x, u.columns}, transposed_x{x, u.columns, true}, of_g{g, n},
          of_polynomial{polynomial, n};
      blas.multiply(n, n, u.size / n, scale(1), tall ? transposed_x : of_x, tall ? of_x : transposed_x, scale(0), g,
                    products);
      blas.copy(g, polynomial, squares);
      blas.multiply(n, n, n, static_cast<scale>(c), of_g, of_g, static_cast<scale>(b), polynomial, products);
      blas.copy(x, next, u.size);
      blas.multiply(u.rows, u.columns, n, scale(1), tall ? of_x : of_polynomial, tall ? of_polynomial : of_x,
                    static_cast<scale>(a), next, products);
      std::swap(x, next);
    }
    return x;
  }
};

static_assert(Updater<muon> && Factored<muon>);

template <>
inline constexpr std::string_view rule_name<muon> = "muon";

}  // namespace pushpull::update
