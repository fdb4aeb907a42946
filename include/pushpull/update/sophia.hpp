/// @file
/// Sophia: steps by an estimate of the Hessian's diagonal, which some of the gradients are for.
#pragma once

#include <cstdint>
#include <string_view>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Liu et al. 2023, algorithm 3 with the estimator of algorithm 2 (Gauss-Newton-Bartlett, Sophia-G). Updates number
/// interval + 1, 2 (interval + 1), ... of a key are given the gradient of a mean loss whose labels are drawn from the model's own
/// outputs, and leave the weight alone:
///   h = beta2 h + (1 - beta2) batch g^2.
/// The others:   m = beta1 m + (1 - beta1) g;
///   w = (1 - learning_rate weight_decay) w - learning_rate (m / max(rho h, epsilon) within +-1).
/// 28 bytes per float parameter.
struct sophia_g {
  double learning_rate = 1e-4;
  double beta1 = 0.965;
  double beta2 = 0.99;
  double epsilon = 1e-15;
  double rho = 0.04;
  double weight_decay = 0;
  double batch = 1;            ///< Samples that the mean loss is of.
  std::int64_t interval = 10;  ///< Updates of the weight between those of h.

  static constexpr auto state_names = states("exp_avg", "hessian");

  /// @throws invalid_argument as adam's, on a negative rho, weight_decay or batch, and on an interval below 1.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.adaptive("sophia_g", learning_rate, beta1, beta2, epsilon);
    c.not_negative("sophia_g: rho", rho);
    c.not_negative("sophia_g: weight_decay", weight_decay);
    c.not_negative("sophia_g: batch", batch);
    c.at_least("sophia_g: interval", static_cast<double>(interval), 1);
  }

  /// The values that depend on t alone.
  template <class A>
  struct scalars {
    bool estimates;  ///< An update of h.
    A rate;
    A kept;  ///< Of the weight, by its decay.
    A gain;  ///< (1 - beta2) batch
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    return {interval < s.t && s.t % (interval + 1) == 0, static_cast<A>(learning_rate),
            detail::kept<A>(learning_rate, weight_decay), detail::to_finite<A>((1 - beta2) * batch)};
  }

  // The branch goes one way for all elements of a pass.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& h) const noexcept {
    if (s.estimates) {
      h = detail::faded(beta2, h) + s.gain * g * g;
      return;
    }
    m = beta1 * m + (1 - beta1) * g;
    V const u = m / max(rho * min(h, detail::largest_number<V>), detail::inside_root<V>(epsilon));
    w = s.kept * w - s.rate * min(max(u, V(-1)), V(1));
  }
};

static_assert(Updater<sophia_g>);

template <>
inline constexpr std::string_view rule_name<sophia_g> = "sophia_g";

}  // namespace pushpull::update
