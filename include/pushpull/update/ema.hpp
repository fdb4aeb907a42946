/// @file
/// An exponential moving average of the weights, kept as a state.
#pragma once

#include <cstddef>
#include <string_view>

#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>
#include <pushpull/update/wrapper.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// The rule, then a = a + rate (w - a), a the average of the weights that the rule has left behind so far (Polyak &
/// Juditsky 1992, with weights that fade by `decay` per update):
///   debias:  rate = (1 - decay) / (1 - decay^t), so that a = (1 - decay) sum_i decay^(t - i) w_i / (1 - decay^t),
///   which
///            is optax.ema's debiased value;
///   else:    rate = 1 - decay from the second update on, and a = w_1 after the first: PyTorch's AveragedModel.
/// `rule | ema(0.999)`, or `ema{rule, 0.999}`. A store's `swap("ema")` puts the average in the weights' place and back.
/// The average is kept in the store's state type: in 16 bits it stands still once (1 - decay) |w - a| is below half a
/// unit of a, so give such a store `element::master<float>`. Row-sparse gradients average the rows that they touch; a
/// key's first update touches all. One state more than the rule: 8 bytes more per float parameter.
template <class Rule = void>
struct ema {
  static_assert(Updater<Rule>, "ema: an Updater expected");
  using wraps = Rule;

  Rule rule;
  double decay = 0.999;
  bool debias = true;

  static constexpr auto state_names = detail::with_state<Rule>("ema");
  static constexpr bool one_element_at_a_time = requires { requires Rule::one_element_at_a_time; };

  /// The average begins at the weights that the first update leaves behind.
  constexpr bool starts_states() const { return true; }

  /// @throws invalid_argument as the rule does, and on a decay outside [0, 1).
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(rule);
    c.in_range("ema: decay", decay, 0, 1);
    c.any("ema: debias", debias);
  }

  template <class A, class P>
  using scalars = detail::wrapped_scalars<A, P>;  ///< `own` is the rate.

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S>
  PUSHPULL_HOST_DEVICE auto prepare(S const& s, pushpull::detail::sums_t<Rule> const& sums) const
      noexcept(pushpull::detail::prepares_noexcept<Rule, typename S::value_type>) {
    using A = typename S::value_type;
    double const rate = s.t == 1 ? 1 : debias ? (1 - decay) / bias_correction(decay, s.t) : 1 - decay;
    return scalars<A, pushpull::detail::prepared_t<Rule, A>>{static_cast<A>(rate),
                                                             pushpull::detail::prepare(rule, s, sums)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t N, class A, class P, class V>
    requires detail::HasTerms<Rule, N, P, V>
  PUSHPULL_DEVICE_INLINE auto pre_reduce(phase<N>, scalars<A, P> const& s, V const& w, V const& g) const noexcept {
    return pushpull::detail::terms<N>(rule, s.rule, w, g);
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t N, class A, class P, class V, class... State>
    requires detail::HasTerms<Rule, N, P, V, State...>
  PUSHPULL_DEVICE_INLINE auto pre_reduce(phase<N>, scalars<A, P> const& s, V const& w, V const& g, V const&,
                                         State const&... state) const noexcept {
    return pushpull::detail::terms<N>(rule, s.rule, w, g, state...);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class P, class V, class... State>
    requires(sizeof...(State) == Rule::state_names.size())
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A, P> const& s, V& w, V const& g, V& average,
                                         State&... state) const noexcept {
    rule(s.rule, w, g, state...);
    average = s.own < A(1) ? average + s.own * (w - average) : w;  // w itself, whatever the state was
  }
};

/// `ema(decay, debias)`: an average that waits for the rule on its left.
template <>
struct ema<void> {
  using awaits_rule = void;

  double decay;
  bool debias;

  explicit constexpr ema(double decay_ = 0.999, bool debias_ = true) : decay(decay_), debias(debias_) {}

  template <Updater Rule>
  constexpr ema<Rule> around(Rule const& rule) const {
    return {rule, decay, debias};
  }
};

ema(double) -> ema<>;
ema(double, bool) -> ema<>;
template <class Rule>
ema(Rule, double) -> ema<Rule>;
template <class Rule>
ema(Rule, double, bool) -> ema<Rule>;

template <class Rule>
inline constexpr std::string_view rule_name<ema<Rule>> = "ema";

}  // namespace pushpull::update
