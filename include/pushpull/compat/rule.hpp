/// @file
/// Forms of rules that no pipe of other rules gives: where a bias correction is applied, and what it applies to.
#pragma once

#include <cstdint>

#include <cuda/std/cmath>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/update/adabelief.hpp>
#include <pushpull/update/adam.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::compat {

/// `Rule`, which is adam or adabelief, with both bias corrections in the rate:
///   learning_rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon),
/// or none at all. MXNet's and DJL's form; epsilon counts 1 / sqrt(1 - beta2^t) times as much as in PyTorch's.
template <Updater Rule>
struct folded_correction : Rule {  // so that schedules and multipliers find the rate
  bool correct_bias = true;

  /// The rate in step t.
  PUSHPULL_HOST_DEVICE double rate(std::int64_t t) const {
    if (!correct_bias) return this->learning_rate;
    return this->learning_rate * cuda::std::sqrt(update::bias_correction(this->beta2, t)) /
           update::bias_correction(this->beta1, t);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE auto prepare(step<A> const& s) const {
    return update::adam::scalars<A>{static_cast<A>(rate(s.t)), A(1)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& m, V& v) const {
    Rule::operator()(s, w, g, m, v);
  }
};

/// w = (1 - rate(t) weight_decay) w, then the rule: the decay of MXNet 2.0's AdamW, which shares the corrected rate.
struct corrected_decay : folded_correction<update::adam> {
  double weight_decay = 0;

  /// @throws invalid_argument as adam's, and on a negative decay.
  void validate() const {
    folded_correction::validate();
    update::detail::expects_not_negative("corrected_decay: weight_decay", weight_decay);
  }

  /// What depends on t alone.
  template <class A>
  struct scalars {
    A kept;  ///< The part of the weight that decay leaves.
    update::adam::scalars<A> rule;
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const {
    return {static_cast<A>(1 - rate(s.t) * weight_decay), folded_correction::prepare(s)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& m, V& v) const {
    w *= s.kept;
    folded_correction::operator()(s.rule, w, g, m, v);
  }
};

static_assert(Updater<folded_correction<update::adam>> && Updater<folded_correction<update::adabelief>>);
static_assert(Updater<corrected_decay>);

}  // namespace pushpull::compat
