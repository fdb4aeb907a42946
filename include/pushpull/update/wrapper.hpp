/// @file
/// Rules around a rule: what happens to the weight before it and after it. See ema.hpp and lookahead.hpp for those with
/// states of their own.
///
/// A wrapper has a member `rule` and says `using wraps = Rule`: phases and sums of a PreReduction are then the rule's,
/// and `get<Stage>`, `learning_rate` and `hyperparameter` reach into it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/pipeline.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

namespace detail {

/// `name`, then the states of the rule inside.
template <class Rule>
constexpr auto with_state(std::string_view name) {
  std::array<std::string_view, Rule::state_names.size() + 1> names{};
  names[0] = name;
  for (std::size_t n = 0; n < Rule::state_names.size(); ++n) names[n + 1] = Rule::state_names[n];
  return names;
}

/// The prepared values of a wrapper with scalars of its own: these scalars, and the prepared values of its rule.
template <class Own, class P>
struct wrapped_scalars {
  Own own;
  P rule;

  /// For a rule that tells elements apart.
  PUSHPULL_DEVICE_INLINE auto at(std::int64_t number) const noexcept
    requires pushpull::detail::Numbered<P>
  {
    using rule_type = std::remove_cvref_t<decltype(pushpull::detail::argument(rule, number))>;
    return wrapped_scalars<Own, rule_type>{own, pushpull::detail::argument(rule, number)};
  }
  /// See MayRefuse.
  PUSHPULL_HOST_DEVICE bool is_refused() const noexcept
    requires pushpull::detail::MayRefuse<P>
  {
    return rule.is_refused();
  }
};

/// The weight less what the rule would make of it. Nothing changes.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Rule, class P, class V, std::size_t... I>
PUSHPULL_DEVICE_INLINE V change_under(Rule const& rule, P const& s, V const& w, V const& g, V* copies,
                                      std::index_sequence<I...>) noexcept {
  V next = w;
  rule(s, next, g, copies[I]...);
  return w - next;
}
PUSHPULL_EXEC_CHECK_DISABLE
template <class Rule, class P, class V, class... State>
PUSHPULL_DEVICE_INLINE V change_under(Rule const& rule, P const& s, V const& w, V const& g,
                                      State const&... state) noexcept {
  V copies[sizeof...(State) + 1] = {state..., V(0)};
  return change_under(rule, s, w, g, copies, std::index_sequence_for<State...>{});
}

/// A wrapper that waits for the rule on its left.
template <class W>
concept AwaitsRule = requires { typename W::awaits_rule; };

/// Whether `Rule` has terms in phase N, of the states `State`.
template <class Rule, std::size_t N, class S, class V, class... State>
concept HasTerms = N < pushpull::detail::phase_count<Rule> && pushpull::detail::TermsWith<Rule, N, S, V, State...>;

}  // namespace detail

/// `rule | ema(0.999)` is `ema{rule, 0.999}`, `rule | lookahead(5, 0.5)` is `lookahead{rule, 5, 0.5}`. After a pipe the
/// wrapper wraps its last stage, which changes the weights.
template <Updater Rule, detail::AwaitsRule Wrapper>
constexpr auto operator|(Rule const& rule, Wrapper const& wrapper) {
  return wrapper.around(rule);
}
template <class First, class Rest, detail::AwaitsRule Wrapper>
  requires Updater<Rest>
constexpr auto operator|(pipeline<First, Rest> const& pipe, Wrapper const& wrapper) {
  auto const rest = pipe.rest | wrapper;
  return pipeline<First, std::remove_const_t<decltype(rest)>>{pipe.first, rest};
}

/// w = (1 - rate) w, then the rule: weight decay that the rule's adaptive rates do not see (Loshchilov & Hutter 2019),
/// with rate = learning rate times decay. `decoupled_decay{adagrad{...}, 1e-4}`. `| learning_rate(s)` schedules the
/// rule's rate and leaves this one, which `| hyperparameter<&decoupled_decay<adagrad>::rate>(s)` schedules.
template <Updater Rule>
struct decoupled_decay {
  using wraps = Rule;

  Rule rule;
  double rate = 0;

  static constexpr auto state_names = Rule::state_names;
  static constexpr bool one_element_at_a_time = requires { requires Rule::one_element_at_a_time; };

  /// @throws invalid_argument as the rule does, and on a rate outside [0, 1).
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(rule);
    c.in_range("decoupled_decay: rate", rate, 0, 1);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S>
  PUSHPULL_HOST_DEVICE auto prepare(S const& s, pushpull::detail::sums_t<Rule> const& sums) const
      noexcept(pushpull::detail::prepares_noexcept<Rule, typename S::value_type>) {
    return pushpull::detail::prepare(rule, s, sums);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t N, class S, class V, class... State>
    requires detail::HasTerms<Rule, N, S, V, State...>
  PUSHPULL_DEVICE_INLINE auto pre_reduce(phase<N>, S const& s, V const& w, V const& g,
                                         State const&... state) const noexcept {
    V const decayed = w * (1 - rate);
    return pushpull::detail::terms<N>(rule, s, decayed, g, state...);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V, class... State>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, State&... state) const noexcept {
    w *= 1 - rate;
    rule(s, w, g, state...);
  }
};
template <class Rule>
decoupled_decay(Rule, double) -> decoupled_decay<Rule>;

/// The rule, then w = min(max(w, -limit), limit).
template <Updater Rule>
struct clip_weights {
  using wraps = Rule;

  Rule rule;
  double limit;

  static constexpr auto state_names = Rule::state_names;
  static constexpr bool one_element_at_a_time = requires { requires Rule::one_element_at_a_time; };

  /// @throws invalid_argument as the rule does, and on a negative limit. An infinite one clips nothing.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(rule);
    c.limit("clip_weights: limit", limit);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S>
  PUSHPULL_HOST_DEVICE auto prepare(S const& s, pushpull::detail::sums_t<Rule> const& sums) const
      noexcept(pushpull::detail::prepares_noexcept<Rule, typename S::value_type>) {
    return pushpull::detail::prepare(rule, s, sums);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t N, class S, class V, class... State>
    requires detail::HasTerms<Rule, N, S, V, State...>
  PUSHPULL_DEVICE_INLINE auto pre_reduce(phase<N>, S const& s, V const& w, V const& g,
                                         State const&... state) const noexcept {
    return pushpull::detail::terms<N>(rule, s, w, g, state...);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V, class... State>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, State&... state) const noexcept {
    rule(s, w, g, state...);
    w = min(max(w, -limit), limit);
  }
};
template <class Rule>
clip_weights(Rule, double) -> clip_weights<Rule>;

template <class Rule>
inline constexpr std::string_view rule_name<decoupled_decay<Rule>> = "decoupled_decay";
template <class Rule>
inline constexpr std::string_view rule_name<clip_weights<Rule>> = "clip_weights";

}  // namespace pushpull::update
