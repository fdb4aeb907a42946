/// @file
/// SOAP: Adam in the eigenbases of Shampoo's statistics. soap.hpp brings the decompositions of CPUs, soap.cuh
/// those of GPUs.
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

/// Vyas et al. 2024, as the authors' code, for a matrix G, with k = t - 1:
///   L = s L + (1 - s) G G^T;   R = s R + (1 - s) G^T G,  s = shampoo_beta, or beta2 if that is negative;
///   update 1 makes U and V, the eigenvectors of L and R, and changes no weight, by its decay neither;   later ones
///   G' = U^T G V;   m = beta1 m + (1 - beta1) G';   v = beta2 v + (1 - beta2) G'^2;
///   u = U (m / (sqrt(v) + epsilon)) V^T,  with normalize divided by its root mean square;
///   w = (1 - learning_rate weight_decay) (w - learning_rate c u),  c = sqrt(1 - beta2^k) / (1 - beta1^k), or 1 without
///   correct_bias;   and if `interval` divides k, U = the Q of a QR decomposition of L U, whose columns are sorted by falling
///   eigenvalues, V that of R V, v's rows and columns are sorted as these columns, and m is turned into the new bases.
/// Rows are the indexes of the first dimension, columns all others: kernels of convolutions are flattened. A side longer than
/// MaxSide has no basis, and vectors have none: they take these steps with G' = G, which are Adam's, the first left out. u is also
/// multiplied by 1 - learning_rate weight_decay, unlike in adamw.
/// On CPUs with soap.hpp, on GPUs with soap.cuh. A key has one owner, which makes its products and decompositions. learning_rate
/// and weight_decay may be scheduled, the others are those of the struct.
/// 2 R C + 2 (R^2 + C^2) numbers of states, of which a step makes copies; workspaces of the step: R C numbers per key, and the
/// most of R C and about 3 n^2 of a key with a longest side n that has a basis, on GPUs n^2 and what cuSOLVER needs. Errors are
/// Shampoo's. A later update that finds no bases makes them on CPUs, as update 1 does. On GPUs, where update 1 may have failed,
/// it starts from the identity: until the interval ends updates are Adam's.
template <std::int64_t MaxSide>
struct soap_up_to {
  double learning_rate = 3e-3;
  double beta1 = 0.95;
  double beta2 = 0.95;
  double shampoo_beta = -1;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
  std::int64_t interval = 10;
  bool normalize = false;
  bool correct_bias = true;

  static constexpr auto state_names = states();
  static constexpr auto matrix_states = states("exp_avg", "exp_avg_sq", "left", "right", "left_basis", "right_basis");
  static constexpr factors factored{.elements = true};
  static constexpr bool per_tensor = true;
  static constexpr std::size_t phases = 2;
  static constexpr std::size_t first_sums[phases] = {0, 0};
  using sums_type = cuda::std::array<double, 1>;  ///< Squares of u.

  /// @throws invalid_argument on a negative rate, decay or epsilon, a beta outside [0, 1), a shampoo_beta outside [-1, 1), or an
  /// interval below 1.
  void validate() const { detail::validate(*this); }
  template <class Checks>
  void check(Checks& c) const {
    c.adaptive("soap", learning_rate, beta1, beta2, epsilon);
    c.in_range("soap: shampoo_beta", shampoo_beta, -1, 1);
    c.not_negative("soap: weight_decay", weight_decay);
    c.at_least("soap: interval", static_cast<double>(interval), 1);
    c.any("soap: normalize", normalize);
    c.any("soap: correct_bias", correct_bias);
  }

  template <class A, class Numbers>
  struct scalars {
    A rate;       ///< Of u.
    A kept;       ///< Of the weight, by its decay.
    bool failed;  ///< Its `transform` has left NaN.
    Numbers of;

    /// See MayRefuse.
    PUSHPULL_HOST_DEVICE bool is_refused() const noexcept { return failed; }

    PUSHPULL_DEVICE_INLINE auto at(std::int64_t number) const noexcept
      requires pushpull::detail::Numbered<Numbers>
    {
      return scalars<A, matrix_numbers<A>>{rate, kept, failed, of.at(number)};
    }
  };

  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(phase<0>, S const&, V const&, V const& g) const noexcept {
    return g;
  }
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE cuda::std::array<V, 1> pre_reduce(phase<1>, S const& s, V const&, V const&) const noexcept {
    V const u = s.of.template elements<V>(0);
    return {u * u};
  }

  template <class D>
  using library = matrix_factorizations<D>;
  static std::array<matrix_extents, 6> matrix_states_of(matrix<float> const& m) {
    detail::matrix_sides<MaxSide> const s(m);
    matrix_extents const all{m.rows, m.columns}, left{s.left, s.left}, right{s.right, s.right};
    return {all, all, left, right, left, right};
  }
  template <class A, class Library>
  static std::int64_t scratch_size(matrix<A> const& m, Library const& lapack) {
    return detail::scratch_of_sides<MaxSide>(m, lapack);
  }
  /// Multiplications of a step, with a decomposition in each, but for a factor.
  static double cost(std::int64_t rows, std::int64_t columns) { return detail::cost_of_sides<MaxSide>(rows, columns); }

  /// u, in G's place.
  template <class A, class Library>
  void transform(matrix<A> const& g, Library const& lapack) const {
    state<A> const s(g);
    lapack.begin();
    lapack.expect_finite(g.terms, g.size, "its gradient is not finite");
    double const keep = shampoo_beta < 0 ? beta2 : shampoo_beta;
    for (bool const right : {false, true})
      if (s.side(right) > 0) detail::add_statistics(lapack, g, right, keep, 1 - keep, s.statistics(right));
    if (s.template is_new<Library>(g.t)) {
      lapack.for_each(g.size, detail::set_zero<A>{g.terms});
      for (bool const right : {false, true})
        if (s.side(right) > 0) begin(s, right, g.scratch, lapack);
    } else {
      if constexpr (!Library::reads)
        for (bool const right : {false, true})
          if (s.side(right) > 0) lapack.for_each(1, detail::identity_of_zeros<A>{s.basis(right), s.side(right)});
      s.rotate(g.terms, g.scratch, g, lapack);
      lapack.for_each(g.size,
                      detail::adam_direction<A>{g.terms, s.m, s.v, static_cast<A>(beta1), static_cast<A>(1 - beta1),
                                                static_cast<A>(beta2), static_cast<A>(1 - beta2),
                                                static_cast<A>(detail::beside_root<pack<A>>(epsilon))});
      s.rotate_back(g.terms, g.scratch, g, lapack);
      if ((g.t - 1) % interval == 0 && s.sides.count() != 0) turn(s, g, lapack);
    }
    lapack.finish(g.terms, g.size);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A, matrix<A>> prepare(factored_step<A> const& s, sums_type const& sums) const noexcept {
    auto const& m = s.numbers(0, 0);
    bool const failed = pushpull::detail::is_nan(sums[0]);
    if (s.t == 1) return {A(0), A(1), failed, m};
    double rate = learning_rate;
    if (correct_bias) rate *= cuda::std::sqrt(bias_correction(beta2, s.t - 1)) / bias_correction(beta1, s.t - 1);
    if (normalize) rate /= 1e-30 + cuda::std::sqrt(sums[0] / static_cast<double>(m.size));
    return {detail::to_finite<A>(rate), detail::kept<A>(learning_rate, weight_decay), failed, m};
  }

  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A, matrix_numbers<A>> const& s, V& w, V const&) const noexcept {
    w = s.kept * (w - s.rate * s.of.template elements<V>(A(0)));
  }

 private:
  /// The states of a matrix.
  template <class A>
  struct state {
    detail::matrix_sides<MaxSide> sides;
    A *m, *v;

    explicit state(matrix<A> const& g) : sides(g), m(g.kept), v(g.kept + g.size) {}

    std::int64_t side(bool right) const { return right ? sides.right : sides.left; }
    A* statistics(bool right) const { return v + (v - m) + (right ? sides.left * sides.left : 0); }
    /// The transpose of U or V: a vector per row.
    A* basis(bool right) const { return statistics(right) + sides.squares(); }
    /// Whether there are no bases yet: in the first update, and after one that was refused. The host does not see the latter
    /// on GPUs.
    template <class Library>
    bool is_new(std::int64_t t) const {
      if constexpr (Library::reads) {
        if (sides.count() != 0) {
          bool const right = sides.left == 0;
          return std::all_of(basis(right), basis(right) + side(right), [](A x) { return !(x > 0 || x < 0); });
        }
      }
      return t == 1;
    }
    /// U^T x V, in x's place.
    template <class Library>
    void rotate(A* x, A* scratch, matrix<A> const& g, Library const& blas) const {
      rotate_by(false, x, scratch, g, blas);
    }
    /// U x V^T.
    template <class Library>
    void rotate_back(A* x, A* scratch, matrix<A> const& g, Library const& blas) const {
      rotate_by(true, x, scratch, g, blas);
    }

   private:
    template <class Library>
    void rotate_by(bool back, A* x, A* scratch, matrix<A> const& g, Library const& blas) const {
      A *from = x, *to = scratch;
      for (bool const right : {false, true}) {
        std::int64_t const n = side(right);
        if (n == 0) continue;
        product_factor<A> const of_x{from, g.columns}, of_basis{basis(right), n, back != right};
        blas.multiply(g.rows, g.columns, n, A(1), right ? of_x : of_basis, right ? of_basis : of_x, A(0), to,
                      product_precision::full);
        std::swap(from, to);
      }
      if (from != x) blas.copy(from, x, g.size);
    }
  };

  /// The eigenvectors of the statistics, by falling eigenvalues.
  template <class A, class Library>
  static void begin(state<A> const& s, bool right, A* scratch, Library const& lapack) {
    std::int64_t const n = s.side(right);
    A* const basis = s.basis(right);
    lapack.copy(s.statistics(right), basis, n * n);
    detail::decompose(lapack, n, basis, scratch, scratch + n + n % 2);  // where integers of 64 bits may lie
    lapack.for_each(n / 2 * n, detail::reverse_rows<A>{basis, n});
    lapack.expect_finite(basis, n * n, "its eigenvectors are not finite");
  }

  /// Moves the bases, and the averages with them.
  template <class A, class Library>
  static void turn(state<A> const& s, matrix<A> const& g, Library const& lapack) {
    s.rotate_back(s.m, g.scratch, g, lapack);
    for (bool const right : {false, true})
      if (s.side(right) > 0) turn(s, right, g, lapack);
    s.rotate(s.m, g.scratch, g, lapack);
    lapack.expect_finite(s.m, g.size, "its average is not finite in the new bases");
  }
  /// A power iteration, and the QR decomposition that makes a basis of its result.
  template <class A, class Library>
  static void turn(state<A> const& s, bool right, matrix<A> const& g, Library const& lapack) {
    std::int64_t const n = s.side(right);
    A *const basis = s.basis(right), *const product = g.scratch, *const values = product + std::max(g.size, n * n);
    auto* const order = reinterpret_cast<std::int32_t*>(values + n);
    product_factor<A> const of_basis{basis, n}, of_statistics{s.statistics(right), n};
    lapack.multiply(n, n, n, A(1), of_basis, of_statistics, A(0), product, product_precision::full);
    lapack.expect_finite(product, n * n, "its statistics are not finite");
    lapack.for_each(n, detail::dot_rows<A>{basis, product, values, n});
    lapack.expect_finite(values, n, "its eigenvalues are not finite");
    lapack.for_each(n, detail::falling_order<A>{values, order, n});
    lapack.for_each(n * n, detail::take_rows<A>{product, basis, order, n});
    lapack.copy(s.v, product, g.size);
    if (right) {
      lapack.for_each(g.size, detail::take_columns<A>{product, s.v, order, g.columns});
    } else {
      lapack.for_each(g.size, detail::take_rows<A>{product, s.v, order, g.columns});
    }
    lapack.orthogonalize(n, basis, g.scratch);
    lapack.expect_finite(basis, n * n, "its basis is not finite");
  }
};

/// For matrices whose sides have at most 10,000 numbers, or one of them.
using soap = soap_up_to<10000>;

static_assert(Updater<soap> && Factored<soap>);

template <std::int64_t MaxSide>
inline constexpr std::string_view rule_name<soap_up_to<MaxSide>> = "soap";

}  // namespace pushpull::update
