/// @file
/// A rule that moves no weight against its gradient.
#pragma once

#include <cstddef>
#include <string_view>
#include <type_traits>

#include <cuda/std/array>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>
#include <pushpull/update/wrapper.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Liang et al. 2024, algorithm 1, with the scale of their code: u is the change of a weight under the rule,
///   w = w - u / max(mean, 1e-3) where u g > 0, else w = w;  mean is the share of such elements in the key's tensor, and of those
///   with a gradient whose u is too small to change w.
/// States move as the rule's. `rule | cautious()`, or `cautious{rule}`. All of the rule's change counts, so decay stands
/// outside: `decoupled_decay{adam{} | cautious(), rate}`; norms stand before: `clip_global_norm(1) | adam{} | cautious()`.
/// Costs a phase before the pass, which reads g, w and the rule's states: 44 bytes per float parameter around adam.
template <class Rule = void>
struct cautious {
  static_assert(Updater<Rule>, "cautious: an Updater expected");
  static_assert(!PreReduction<Rule>, "cautious: a rule without sums expected; transforms with sums stand before it");
  static_assert(
      !requires { requires Rule::state_names.size() > Rule::wraps::state_names.size(); },
      "cautious: ema, swa and lookahead average weights: they stand behind it, rule | cautious() | ema(0.999)");
  using wraps = Rule;

  Rule rule;

  static constexpr auto state_names = Rule::state_names;
  static constexpr bool one_element_at_a_time = requires { requires Rule::one_element_at_a_time; };
  static constexpr bool per_tensor = true;
  static constexpr std::size_t phases = 1;
  static constexpr std::size_t first_sums[phases] = {0};
  using sums_type = cuda::std::array<double, 1>;  ///< How many elements move with their gradients.
  template <std::size_t>
  static constexpr std::size_t sums_in_phase() {
    return 1;
  }

  /// @throws invalid_argument as the rule does.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(rule);
  }

  template <class A, class P>
  using scalars = detail::wrapped_scalars<A, P>;  ///< `own` is 1 / max(mean, 1e-3).

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S>
  PUSHPULL_HOST_DEVICE auto prepare(S const& s, sums_type const& sums) const
      noexcept(pushpull::detail::prepares_noexcept<Rule, typename S::value_type>) {
    using A = typename S::value_type;
    double const mean = s.elements > 0 ? sums[0] / static_cast<double>(s.elements) : 1;
    return scalars<A, pushpull::detail::prepared_t<Rule, A>>{static_cast<A>(1 / (mean > 1e-3 ? mean : 1e-3)),
                                                             pushpull::detail::prepare(rule, s, 0.0)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class P, class V, class... State>
    requires(sizeof...(State) == Rule::state_names.size())
  PUSHPULL_DEVICE_INLINE cuda::std::array<V, 1> pre_reduce(phase<0>, scalars<A, P> const& s, V const& w, V const& g,
                                                           State const&... state) const noexcept {
    V const u = detail::change_under(rule, s.rule, w, g, state...);
    return {select(u == V(0) && g != V(0), V(1), mask(u, g))};  // a change too small for its weight is not against it
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class P, class V, class... State>
    requires(sizeof...(State) == Rule::state_names.size())
  PUSHPULL_DEVICE_INLINE void operator()(scalars<A, P> const& s, V& w, V const& g, State&... state) const noexcept {
    V next = w;
    rule(s.rule, next, g, state...);
    V const u = w - next;
    w -= s.own * u * mask(u, g);  // NaN stays NaN
  }

 private:
  /// 1 where u and g have the same sign, else 0.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE static V mask(V const& u, V const& g) {
    return select((u > V(0) && g > V(0)) || (u < V(0) && g < V(0)), V(1), V(0));
  }
};

/// `cautious()`: waits for the rule on its left.
template <>
struct cautious<void> {
  using awaits_rule = void;

  template <Updater Rule>
  constexpr cautious<Rule> around(Rule const& rule) const {
    return {rule};
  }
};

cautious() -> cautious<>;
template <class Rule>
cautious(Rule) -> cautious<Rule>;

template <class Rule>
inline constexpr std::string_view rule_name<cautious<Rule>> = "cautious";

}  // namespace pushpull::update
