/// @file
/// Rules around a rule: what happens to the weight before it and after it.
#pragma once

#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::update {

/// w = (1 - rate) w, then the rule: weight decay that the rule's adaptive rates do not see (Loshchilov & Hutter 2019),
/// with rate = learning rate times decay. `decoupled_decay{adagrad{...}, 1e-4}`.
template <Updater Rule>
struct decoupled_decay {
  Rule rule;
  double rate = 0;

  static_assert(!PreReduction<Rule>, "decoupled_decay: pipe the stage that is a PreReduction into it");
  static constexpr auto state_names = Rule::state_names;
  static constexpr bool one_element_at_a_time = requires { requires Rule::one_element_at_a_time; };

  /// @throws invalid_argument as the rule does, and on a rate outside [0, 1).
  void validate() const {
    if constexpr (requires { rule.validate(); }) rule.validate();
    detail::expects_in_range("decoupled_decay: rate", rate, 0, 1);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE auto prepare(step<A> const& s) const {
    return pushpull::detail::prepare(rule, s, pushpull::detail::sums_t<Rule>{});
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V, class... State>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, State&... state) const {
    w *= 1 - rate;
    rule(s, w, g, state...);
  }
};
template <class Rule>
decoupled_decay(Rule, double) -> decoupled_decay<Rule>;

/// The rule, then w = min(max(w, -limit), limit).
template <Updater Rule>
struct clip_weights {
  Rule rule;
  double limit;

  static_assert(!PreReduction<Rule>, "clip_weights: pipe the stage that is a PreReduction into it");
  static constexpr auto state_names = Rule::state_names;
  static constexpr bool one_element_at_a_time = requires { requires Rule::one_element_at_a_time; };

  /// @throws invalid_argument as the rule does, and on a negative limit. An infinite one clips nothing.
  void validate() const {
    if constexpr (requires { rule.validate(); }) rule.validate();
    detail::expects_limit("clip_weights: limit", limit);
  }

  template <class A>
  PUSHPULL_HOST_DEVICE auto prepare(step<A> const& s) const {
    return pushpull::detail::prepare(rule, s, pushpull::detail::sums_t<Rule>{});
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V, class... State>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, State&... state) const {
    rule(s, w, g, state...);
    w = min(max(w, -limit), limit);
  }
};
template <class Rule>
clip_weights(Rule, double) -> clip_weights<Rule>;

}  // namespace pushpull::update
