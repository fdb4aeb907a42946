/// @file
/// Adafactor: second moments as products of one number per row and one per column.
#pragma once

#include <string_view>

#include <cuda/std/array>
#include <cuda/std/cmath>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Shazeer & Stern 2018, as torch.optim.Adafactor, with b = t^beta2_decay and norms of each key:
///   r = (1 - b) r + b mean over each row of g^2;   c = (1 - b) c + b mean over each column of g^2;
///   v = r c / max(mean of r, epsilon1);   u = g / sqrt(max(v, epsilon1^2));
///   rate = max(epsilon2, rms(w)) min(learning_rate, 1 / sqrt(t)) / max(1, rms(u) / d);
///   w = (1 - learning_rate weight_decay) w - rate u.
/// Rows and columns are those of the last two dimensions, the mean of r is that of each matrix. Tensors of fewer dimensions
/// have v = (1 - b) v + b g^2, which stands in "row_var" where PyTorch says "variance". A matrix keeps a number per row and
/// one per column. Two phases before the pass, the first reads g twice, the second g and w.
struct adafactor {
  double learning_rate = 1e-2;
  double beta2_decay = -0.8;
  double epsilon1 = 0;  ///< 0: from 1 to the next number of the weights' type, PyTorch's None.
  double epsilon2 = 1e-3;
  double d = 1;
  double weight_decay = 0;

  static constexpr auto state_names = states();
  static constexpr factors factored{.rows = "row_var", .columns = "col_var", .last_dimensions = true};
  static constexpr bool per_tensor = true;
  static constexpr std::size_t phases = 2;
  static constexpr std::size_t first_sums[phases] = {0, 0};
  using sums_type = cuda::std::array<double, 2>;  ///< Squares of w, of u.

  /// @throws invalid_argument on a negative rate, epsilon or decay, a beta2_decay above 0, or a d below 1: as PyTorch.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("adafactor: learning_rate", learning_rate);
    c.not_negative("adafactor: epsilon1", epsilon1);
    c.not_negative("adafactor: epsilon2", epsilon2);
    c.not_negative("adafactor: weight_decay", weight_decay);
    c.in("adafactor: beta2_decay", beta2_decay, {.low = -detail::largest_hyperparameter, .high = 0});
    c.at_least("adafactor: d", d, 1);
  }

  template <class A, class Numbers>
  struct scalars {
    A rate;
    A kept;     ///< Of the weight, by its decay.
    A epsilon;  ///< epsilon1, and its square.
    A square;
    Numbers of;  ///< Rows and columns.

    PUSHPULL_DEVICE_INLINE auto at(std::int64_t number) const noexcept
      requires pushpull::detail::Numbered<Numbers>
    {
      return scalars<A, matrix_numbers<A>>{rate, kept, epsilon, square, of.at(number)};
    }
  };

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(phase<0>, S const&, V const&, V const& g) const noexcept {
    return g * g;
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE cuda::std::array<V, 2> pre_reduce(phase<1>, S const& s, V const& w,
                                                           V const& g) const noexcept {
    V const u = direction(s, g);
    return {w * w, u * u};
  }

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A, matrix<A>> prepare(factored_step<A> const& s, sums_type const& sums) const noexcept {
    double const t = static_cast<double>(s.t), gain = cuda::std::pow(t, beta2_decay);
    matrix<A> const& m = s.numbers(1 - gain, gain);
    double const size = static_cast<double>(m.size), root = 1 / cuda::std::sqrt(t);
    double const weight = cuda::std::sqrt(sums[0] / size), update = cuda::std::sqrt(sums[1] / size) / d;
    double const rate = (weight > epsilon2 ? weight : epsilon2) * (learning_rate < root ? learning_rate : root) /
                        (update > 1 ? update : 1);
    double const least = detail::inside_root<pack<A>>(epsilon1 > 0 ? epsilon1 : m.weight_epsilon);
    return {detail::to_finite<A>(rate), detail::kept<A>(learning_rate, weight_decay), static_cast<A>(least),
            static_cast<A>(detail::inside_root<pack<A>>(least * least)), m};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g) const noexcept {
    w = s.kept * w - s.rate * direction(s, g);
  }

 private:
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V direction(S const& s, V const& g) const {
    V const r = s.of.template rows<V>(0), c = s.of.template columns<V>(0);
    V const v = r * c / max(s.of.template row_means<V>(), s.epsilon);
    return g / sqrt(max(v, s.square));
  }
};

static_assert(Updater<adafactor> && Factored<adafactor>);

template <>
inline constexpr std::string_view rule_name<adafactor> = "adafactor";

}  // namespace pushpull::update
