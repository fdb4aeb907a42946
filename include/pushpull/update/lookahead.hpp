/// @file
/// Slow weights that follow the fast ones: Lookahead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>
#include <pushpull/update/wrapper.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Zhang et al. 2019, algorithm 1, as optax.lookahead defines it: the rule moves the (fast) weights; in every k-th
/// update of a key, behind the rule, slow += alpha (w - slow);  w = slow. Slow weights begin at the weights before the
/// first update. The rule's states go on through a synchronisation.
/// `rule | lookahead(5, 0.5)`, or `lookahead{rule, 5, 0.5}`. Slow weights are kept in the store's state type.
/// Row-sparse gradients synchronise the rows that they touch; a key's first update touches all.
/// One state more than the rule: 8 bytes more per float parameter.
template <class Rule = void>
struct lookahead {
  static_assert(Updater<Rule>, "lookahead: an Updater expected");
  using wraps = Rule;

  Rule rule;
  std::int64_t k = 5;
  double alpha = 0.5;

  static constexpr auto state_names = detail::with_state<Rule>("slow");
  static constexpr bool one_element_at_a_time = requires { requires Rule::one_element_at_a_time; };

  /// Slow weights begin at the weights before the first update.
  constexpr bool starts_states() const { return true; }

  /// @throws invalid_argument as the rule does, on a k below 1, or an alpha outside (0, 1].
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(rule);
    c.at_least("lookahead: k", static_cast<double>(k), 1);
    c.in("lookahead: alpha", alpha, {.high = 1, .without_low = true});
  }

  /// The part of an update after the rule.
  struct phase_of_cycle {
    bool first;  ///< Slow weights begin here.
    bool synchronises;
  };
  template <class P>
  using scalars = detail::wrapped_scalars<phase_of_cycle, P>;

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S>
  PUSHPULL_HOST_DEVICE auto prepare(S const& s, pushpull::detail::sums_t<Rule> const& sums) const
      noexcept(pushpull::detail::prepares_noexcept<Rule, typename S::value_type>) {
    using A = typename S::value_type;
    return scalars<pushpull::detail::prepared_t<Rule, A>>{{s.t == 1, s.t % k == 0},
                                                          pushpull::detail::prepare(rule, s, sums)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t N, class P, class V>
    requires detail::HasTerms<Rule, N, P, V>
  PUSHPULL_DEVICE_INLINE auto pre_reduce(phase<N>, scalars<P> const& s, V const& w, V const& g) const noexcept {
    return pushpull::detail::terms<N>(rule, s.rule, w, g);
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t N, class P, class V, class... State>
    requires detail::HasTerms<Rule, N, P, V, State...>
  PUSHPULL_DEVICE_INLINE auto pre_reduce(phase<N>, scalars<P> const& s, V const& w, V const& g, V const&,
                                         State const&... state) const noexcept {
    return pushpull::detail::terms<N>(rule, s.rule, w, g, state...);
  }

  // These branches go one way for all elements of a pass.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class P, class V, class... State>
    requires(sizeof...(State) == Rule::state_names.size())
  PUSHPULL_DEVICE_INLINE void operator()(scalars<P> const& s, V& w, V const& g, V& slow,
                                         State&... state) const noexcept {
    if (s.own.first) slow = w;
    rule(s.rule, w, g, state...);
    if (s.own.synchronises) {
      slow += alpha * (w - slow);
      w = slow;
    }
  }
};

/// `lookahead(k, alpha)`: slow weights that wait for the rule on their left.
template <>
struct lookahead<void> {
  using awaits_rule = void;

  std::int64_t k;
  double alpha;

  explicit constexpr lookahead(std::int64_t k_ = 5, double alpha_ = 0.5) : k(k_), alpha(alpha_) {}

  template <Updater Rule>
  constexpr lookahead<Rule> around(Rule const& rule) const {
    return {rule, k, alpha};
  }
};

lookahead(std::int64_t) -> lookahead<>;
lookahead(int) -> lookahead<>;
lookahead(std::int64_t, double) -> lookahead<>;
lookahead(int, double) -> lookahead<>;
template <class Rule>
lookahead(Rule, std::int64_t, double) -> lookahead<Rule>;

template <class Rule>
inline constexpr std::string_view rule_name<lookahead<Rule>> = "lookahead";

}  // namespace pushpull::update
