/// @file
/// Forms of rules that no pipe of other rules gives: where a bias correction is applied, what it applies to, and what
/// the learning rate multiplies.
#pragma once

#include <cstdint>
#include <string_view>

#include <cuda/std/cmath>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/adabelief.hpp>
#include <pushpull/update/adam.hpp>
#include <pushpull/update/root.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>
#include <pushpull/update/scheduled.hpp>
#include <pushpull/update/signum.hpp>

namespace pushpull::inline PUSHPULL_ABI::compat {

/// `Rule`, which is adam or adabelief, with both bias corrections in the rate:
///   learning_rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon),
/// or none at all. MXNet's and DJL's form; epsilon counts 1 / sqrt(1 - beta2^t) times as much as in PyTorch's.
template <Updater Rule>
struct folded_correction {
  using wraps = Rule;

  Rule rule;
  bool correct_bias = true;

  static constexpr auto state_names = Rule::state_names;

  void validate() const { update::detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(rule);
    c.any("folded_correction: correct_bias", correct_bias);
  }

  /// The rate in step t.
  PUSHPULL_HOST_DEVICE double rate(std::int64_t t) const {
    if (!correct_bias) return rule.learning_rate;
    return rule.learning_rate * cuda::std::sqrt(update::bias_correction(rule.beta2, t)) /
           update::bias_correction(rule.beta1, t);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE auto prepare(step<A> const& s) const noexcept {
    return update::adam::scalars<A>{update::detail::to_finite<A>(rate(s.t)),
                                    static_cast<A>(update::detail::beside_root<pack<A>>(rule.epsilon))};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& m, V& v) const noexcept {
    rule(s, w, g, m, v);
  }
};

/// w = (1 - rate(t) weight_decay) w, then the rule: the decay of MXNet 2.0's AdamW, which shares the corrected rate.
struct corrected_decay {
  using wraps = folded_correction<update::adam>;

  folded_correction<update::adam> rule;
  double weight_decay = 0;

  static constexpr auto state_names = update::adam::state_names;

  /// @throws invalid_argument as adam's, and on a negative decay.
  void validate() const { update::detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(rule);
    c.not_negative("corrected_decay: weight_decay", weight_decay);
  }

  /// The values that depend on t alone.
  template <class A>
  struct scalars {
    A kept;  ///< The part of the weight that decay leaves.
    update::adam::scalars<A> rule;
  };

  template <class A>
  PUSHPULL_HOST_DEVICE scalars<A> prepare(step<A> const& s) const noexcept {
    return {update::detail::kept<A>(rule.rate(s.t), weight_decay), rule.prepare(s)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class V>
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A> const& s, V& w, V const& g, V& m, V& v) const noexcept {
    w *= s.kept;
    rule(s.rule, w, g, m, v);
  }
};

/// m = momentum m + learning_rate g;  w = w - m: momentum that gathers steps, each with the rate of its time, where
/// update::momentum gathers gradients. MXNet's and DJL's SGD.
struct rated_momentum {
  double learning_rate = 1e-2;
  double momentum = 0.9;

  static constexpr auto state_names = states("momentum_buffer");

  /// @throws invalid_argument on a negative rate or a momentum outside [0, 1).
  void validate() const { update::detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("rated_momentum: learning_rate", learning_rate);
    c.in_range("rated_momentum: momentum", momentum, 0, 1);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g, V& m) const noexcept {
    m = momentum * m + learning_rate * g;
    w -= m;
  }
};

/// m = momentum m + learning_rate g;  w = w - (learning_rate g + momentum m): MXNet's and DJL's NAG.
struct rated_nesterov {
  double learning_rate = 1e-2;
  double momentum = 0.9;

  static constexpr auto state_names = rated_momentum::state_names;

  /// @throws invalid_argument as rated_momentum's.
  void validate() const { update::detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("rated_nesterov: learning_rate", learning_rate);
    c.in_range("rated_nesterov: momentum", momentum, 0, 1);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g, V& m) const noexcept {
    V const h = learning_rate * g;
    m = momentum * m + h;
    w -= h + momentum * m;
  }
};

/// update::signsgd with two decays, of which multipliers change one: w = (1 - learning_rate (weight_decay + wd_lh)) w -
/// learning_rate sign(g). MXNet's, where wd_mult leaves wd_lh alone.
struct lasting_signsgd {
  double learning_rate = 1e-2;
  double weight_decay = 0;
  double wd_lh = 0;

  static constexpr auto state_names = states();

  /// @throws invalid_argument on a negative rate or decay.
  void validate() const { update::detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(update::signsgd{learning_rate, weight_decay});
    c.not_negative("lasting_signsgd: wd_lh", wd_lh);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g) const noexcept {
    update::signsgd{learning_rate, weight_decay + wd_lh}(s, w, g);
  }
};

/// update::signum whose decay is wd_lh, which multipliers leave alone. MXNet's.
struct lasting_signum {
  double learning_rate = 1e-2;
  double momentum = 0.9;
  double wd_lh = 0;

  static constexpr auto state_names = update::signum::state_names;

  /// @throws invalid_argument on a negative rate or decay, or a momentum outside [0, 1).
  void validate() const { update::detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(update::signum{learning_rate, momentum});
    c.not_negative("lasting_signum: wd_lh", wd_lh);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, V& m) const noexcept {
    update::signum{learning_rate, momentum, wd_lh}(s, w, g, m);
  }
};

/// w = (1 - learning_rate weight_decay) w, then the rule whose learning rate that is, also where a schedule sets it:
/// the decay of MXNet 1.x's AdaGrad and of DJL's AdamW.
template <Updater Rule>
  requires(update::detail::has_hyperparameter<update::detail::learning_rate_member, Rule> && !PreReduction<Rule>)
struct rated_decay {
  using wraps = Rule;

  Rule rule;
  double weight_decay = 0;

  static constexpr auto state_names = Rule::state_names;

  /// @throws invalid_argument as the rule's, and unless learning_rate weight_decay is in [0, 1).
  void validate() const { update::detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(rule);
    c.in_range("rated_decay: learning_rate weight_decay", decay(), 0, 1);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE auto prepare(step<A> const& s) const noexcept(pushpull::detail::prepares_noexcept<Rule, A>) {
    return pushpull::detail::prepare(rule, s, 0.0);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V, class... State>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, State&... state) const noexcept {
    w *= 1 - decay();
    rule(s, w, g, state...);
  }

 private:
  PUSHPULL_DEVICE_INLINE double decay() const {
    using rate = update::detail::learning_rate_member;
    return rate::in(update::detail::holder_of<rate>(rule)) * weight_decay;
  }
};
template <class Rule>
rated_decay(Rule, double) -> rated_decay<Rule>;

static_assert(Updater<rated_momentum> && Updater<rated_nesterov> && Updater<rated_decay<update::adam>>);
static_assert(Updater<folded_correction<update::adam>> && Updater<folded_correction<update::adabelief>>);
static_assert(Updater<corrected_decay> && Updater<lasting_signsgd> && Updater<lasting_signum>);

}  // namespace pushpull::compat

namespace pushpull::inline PUSHPULL_ABI::update {

template <class Rule>
inline constexpr std::string_view rule_name<compat::folded_correction<Rule>> = "folded_correction";
template <>
inline constexpr std::string_view rule_name<compat::corrected_decay> = "corrected_decay";
template <>
inline constexpr std::string_view rule_name<compat::rated_momentum> = "rated_momentum";
template <>
inline constexpr std::string_view rule_name<compat::rated_nesterov> = "rated_nesterov";
template <>
inline constexpr std::string_view rule_name<compat::lasting_signsgd> = "lasting_signsgd";
template <>
inline constexpr std::string_view rule_name<compat::lasting_signum> = "lasting_signum";
template <class Rule>
inline constexpr std::string_view rule_name<compat::rated_decay<Rule>> = "rated_decay";

}  // namespace pushpull::update
