/// @file
/// Shampoo: gradients between inverse roots of their statistics. shampoo.hpp brings the decompositions of CPUs,
/// shampoo.cuh those of GPUs.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include <cuda/std/array>
#include <cuda/std/cmath>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/device/matrix_factorizations.hpp>
#include <pushpull/update/matrix_functions.hpp>
#include <pushpull/update/matrix_sides.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// The rule whose step gives Shampoo's its norm, for each tensor.
enum class shampoo_graft {
  none,          ///< Shampoo's own norm.
  sgd_norm,      ///< a = g
  adagrad_norm,  ///< a = g / (sqrt(v) + graft_epsilon), v = v + g^2
  rmsprop_norm,  ///< The same, v = beta2 v + (1 - beta2) g^2.
};

/// Gupta, Koren and Singer 2018, with the interval and the grafting of Anil et al. 2020, for a matrix G:
///   L = beta2 L + (1 - beta2) G G^T;   R = beta2 R + (1 - beta2) G^T G;   with beta2 = 1 sums: L = L + G G^T;
///   each `interval` steps  P = (L + epsilon |L| I)^(-1/4),  Q = (R + epsilon |R| I)^(-1/4),  |L| the largest eigenvalue;
///   d = |a| / |P G Q| P G Q,  a by `graft`;   before the first P and Q  d = a;
///   m = beta1 m + d, or with moving_average beta1 m + (1 - beta1) d;   u = m, or with nesterov beta1 m + d or (1 - beta1) d;
///   w = (1 - learning_rate weight_decay) w - learning_rate u.
/// Rows are the indexes of the first dimension, columns all others: kernels of convolutions are flattened. A side longer than
/// MaxSide has no P or Q, and the root of the other is -1/2. Vectors, and matrices with two such sides, have d = a. The inverse
/// roots are by eigenvectors, in the type that the store computes in; eigenvalues below its epsilon times |L| count as that.
/// On CPUs with shampoo.hpp, on GPUs with shampoo.cuh. A key has one owner, which makes its products and decompositions. learning_rate, beta1 and
/// weight_decay may be scheduled, the others are those of the struct.
/// Two states of elements, and 2 (R^2 + C^2) numbers of matrices, of which a step makes copies; workspaces of the step: R C
/// numbers per key, and the most of R C and about 3 n^2 of a key with a longest side n that has a root, on GPUs n^2 and what
/// cuSOLVER needs. A gradient, statistics or sums that are not finite, or a decomposition that fails, are an update_error on CPUs;
/// the store is then as before. On GPUs, whose numbers the host does not read, such a step leaves the key's weights and states
/// alone, and counts. If the step with the first P and Q failed there, d = a for another interval. After a stage that may skip
/// steps, each step reads the step counts of GPUs.
template <std::int64_t MaxSide>
struct shampoo_up_to {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-6;
  double graft_epsilon = 1e-10;
  double weight_decay = 0;
  std::int64_t interval = 10;
  shampoo_graft graft = shampoo_graft::sgd_norm;
  bool nesterov = true;
  bool moving_average = false;

  static constexpr auto state_names = states("momentum_buffer", "graft_sum");
  static constexpr auto matrix_states = states("left", "right", "left_root", "right_root");
  static constexpr factors factored{.elements = true};
  static constexpr bool per_tensor = true;
  static constexpr std::size_t phases = 2;
  static constexpr std::size_t first_sums[phases] = {0, 0};
  using sums_type = cuda::std::array<double, 2>;  ///< Squares of a, of P G Q.

  /// @throws invalid_argument on a negative rate, decay or epsilon, a beta1 outside [0, 1), a beta2 outside [0, 1], or an
  /// interval below 1.
  void validate() const { detail::validate(*this); }
  template <class Checks>
  void check(Checks& c) const {
    c.not_negative("shampoo: learning_rate", learning_rate);
    c.in_range("shampoo: beta1", beta1, 0, 1);
    c.in("shampoo: beta2", beta2, {.low = 0, .high = 1});
    c.not_negative("shampoo: epsilon", epsilon);
    c.not_negative("shampoo: graft_epsilon", graft_epsilon);
    c.not_negative("shampoo: weight_decay", weight_decay);
    c.at_least("shampoo: interval", static_cast<double>(interval), 1);
    c.any("shampoo: graft", static_cast<std::int64_t>(graft));
    c.any("shampoo: nesterov", nesterov);
    c.any("shampoo: moving_average", moving_average);
  }

  template <class A, class Numbers>
  struct scalars {
    A rate;
    A kept;       ///< Of the weight, by its decay.
    A norm;       ///< |a| / |P G Q|
    bool grafts;  ///< d = a
    bool failed;  ///< Its `transform` has left NaN.
    Numbers of;

    /// See MayRefuse.
    PUSHPULL_HOST_DEVICE bool is_refused() const noexcept { return failed; }

    PUSHPULL_DEVICE_INLINE auto at(std::int64_t number) const noexcept
      requires pushpull::detail::Numbered<Numbers>
    {
      return scalars<A, matrix_numbers<A>>{rate, kept, norm, grafts, failed, of.at(number)};
    }
  };

  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(phase<0>, S const&, V const&, V const& g) const noexcept {
    return g;
  }
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE cuda::std::array<V, 2> pre_reduce(phase<1>, S const& s, V const&, V const& g, V const&,
                                                           V const& v) const noexcept {
    V next = v;
    V const a = grafted(g, next), d = s.of.template elements<V>(0);
    return {a * a, d * d};
  }

  template <class D>
  using library = matrix_factorizations<D>;
  static std::array<matrix_extents, 4> matrix_states_of(matrix<float> const& m) {
    detail::matrix_sides<MaxSide> const s(m);
    matrix_extents const left{s.left, s.left}, right{s.right, s.right};
    return {left, right, left, right};
  }
  template <class A, class Library>
  static std::int64_t scratch_size(matrix<A> const& m, Library const& lapack) {
    return detail::scratch_of_sides<MaxSide>(m, lapack);
  }
  /// Multiplications of a step, with a decomposition in each, but for a factor.
  static double cost(std::int64_t rows, std::int64_t columns) { return detail::cost_of_sides<MaxSide>(rows, columns); }

  /// P G Q, in G's place.
  template <class A, class Library>
  void transform(matrix<A> const& g, Library const& lapack) const {
    detail::matrix_sides<MaxSide> const sides(g);
    lapack.begin();
    lapack.expect_finite(g.terms, g.size, "its gradient is not finite");
    A* statistics = g.kept;
    A* root = g.kept + sides.squares();
    for (bool const right : {false, true}) {
      std::int64_t const n = right ? sides.right : sides.left;
      if (n == 0) continue;
      detail::add_statistics(lapack, g, right, beta2, beta2 < 1 ? 1 - beta2 : 1, statistics);
      bool is_due = g.t >= interval && g.t % interval == 0;
      if constexpr (Library::reads)
        is_due = is_due || (g.t >= interval && !(root[0] > 0));  // none after steps that were refused
      if (is_due) invert(lapack, n, statistics, sides.count(), root, g.scratch);
      statistics += n * n;
      root += n * n;
    }
    if (g.t >= interval) precondition(g, sides, lapack);
    lapack.finish(g.terms, g.size);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A, matrix<A>> prepare(factored_step<A> const& s, sums_type const& sums) const noexcept {
    auto const& m = s.numbers(0, 0);
    bool const failed = pushpull::detail::is_nan(sums[0] + sums[1]);
    // P G Q is 0 where G is, with which a is 0 too, and where P and Q have not been made.
    bool const grafts = s.t < interval || detail::matrix_sides<MaxSide>(m).count() == 0 || !(sums[1] > 0);
    double const norm = grafts || graft == shampoo_graft::none ? 1 : cuda::std::sqrt(sums[0] / sums[1]);
    return {detail::to_finite<A>(learning_rate),
            detail::kept<A>(learning_rate, weight_decay),
            detail::to_finite<A>(norm),
            grafts,
            failed,
            m};
  }

  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A, matrix_numbers<A>> const& s, V& w, V const& g, V& m,
                                         V& v) const noexcept {
    V const a = grafted(g, v), d = s.grafts ? a : s.norm * s.of.template elements<V>(A(0));
    V const change = moving_average ? (1 - beta1) * d : d;
    m = beta1 * m + change;
    w = s.kept * w - s.rate * (nesterov ? beta1 * m + change : m);
  }

 private:
  /// a, and the new v.
  template <class V>
  PUSHPULL_DEVICE_INLINE V grafted(V const& g, V& v) const {
    if (graft == shampoo_graft::none || graft == shampoo_graft::sgd_norm) return g;
    v = graft == shampoo_graft::adagrad_norm ? v + g * g : detail::faded(beta2, v) + (1 - beta2) * g * g;
    return g / (sqrt(v) + detail::beside_root<V>(graft_epsilon));
  }

  /// The inverse root for `sides` sides.
  template <class A, class Library>
  void invert(Library const& lapack, std::int64_t n, A const* statistics, int sides, A* root, A* scratch) const {
    A *const vectors = scratch, *const values = vectors + n * n, *const factors = values + n;
    lapack.copy(statistics, vectors, n * n);
    detail::decompose(lapack, n, vectors, values, factors);
    lapack.for_each(n, detail::half_roots<A>{values, factors, n, epsilon, -0.25 / sides});
    lapack.for_each(n * n, detail::scale_rows<A>{vectors, factors, n});
    product_factor<A> const rows{vectors, n}, transposed{vectors, n, true};
    lapack.multiply(n, n, n, A(1), transposed, rows, A(0), root, product_precision::full);
    lapack.expect_finite(root, n * n, "an inverse root of its statistics is not finite");
  }

  template <class A, class Library>
  static void precondition(matrix<A> const& g, detail::matrix_sides<MaxSide> const& sides, Library const& lapack) {
    A *from = g.terms, *to = g.scratch;
    A const* root = g.kept + sides.squares();
    for (bool const right : {false, true}) {
      std::int64_t const n = right ? sides.right : sides.left;
      if (n == 0) continue;
      product_factor<A> const gradient{from, g.columns}, of_root{root, n};
      lapack.multiply(g.rows, g.columns, n, A(1), right ? gradient : of_root, right ? of_root : gradient, A(0), to,
                      product_precision::full);
      std::swap(from, to);
      root += n * n;
    }
    if (from != g.terms) lapack.copy(from, g.terms, g.size);
  }
};

/// For matrices whose sides have at most 8192 numbers, or one of them.
using shampoo = shampoo_up_to<8192>;

static_assert(Updater<shampoo> && Factored<shampoo>);

template <std::int64_t MaxSide>
inline constexpr std::string_view rule_name<shampoo_up_to<MaxSide>> = "shampoo";

}  // namespace pushpull::update
