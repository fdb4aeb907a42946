/// @file
/// A rule whose changes of a weight are centralized.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <cuda/std/array>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>
#include <pushpull/update/wrapper.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Yong et al. 2020, behind the rule, as optax.chain(scale_by_adam(), centralize()) and Ranger with gc_loc = False:
///   w = w - (u - mean of u over all dimensions but the first), u the change of a weight under the rule,
/// in tensors of two dimensions or more; others move as the rule says. States move as the rule's, which sees the gradient as
/// it is: `centralize | rule` centralizes that. `rule | centralize_change()`, or `centralize_change{rule}`. All of the rule's
/// change counts, so decay stands outside: `decoupled_decay{adam{} | centralize_change(), rate}`.
/// Costs a phase before the pass, which reads g, w and the rule's states.
template <class Rule = void>
struct centralize_change {
  static_assert(Updater<Rule>, "centralize_change: an Updater expected");
  static_assert(!PreReduction<Rule>,
                "centralize_change: a rule without sums expected; transforms with sums stand before it");
  static_assert(
      !requires { requires Rule::state_names.size() > Rule::wraps::state_names.size(); },
      "centralize_change: ema, swa and lookahead average weights: they stand behind it, rule | centralize_change() | "
      "ema(0.999)");
  using wraps = Rule;

  Rule rule;

  static constexpr auto state_names = Rule::state_names;
  static constexpr factors factored{};
  static constexpr bool one_element_at_a_time = requires { requires Rule::one_element_at_a_time; };
  static constexpr bool per_tensor = true;
  static constexpr std::size_t phases = 1;
  using sums_type = cuda::std::array<double, 0>;

  /// @throws invalid_argument as the rule does.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(rule);
  }

  template <class Numbers, class P>
  struct scalars {
    Numbers of;  ///< Rows.
    P rule;

    PUSHPULL_DEVICE_INLINE auto at(std::int64_t number) const noexcept
      requires pushpull::detail::Numbered<Numbers>
    {
      using rows_type = decltype(of.at(number));
      using rule_type = std::remove_cvref_t<decltype(pushpull::detail::argument(rule, number))>;
      return scalars<rows_type, rule_type>{of.at(number), pushpull::detail::argument(rule, number)};
    }
    /// See MayRefuse.
    PUSHPULL_HOST_DEVICE bool is_refused() const noexcept
      requires pushpull::detail::MayRefuse<P>
    {
      return rule.is_refused();
    }
  };

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A>
  PUSHPULL_HOST_DEVICE auto prepare(factored_step<A> const& s, sums_type const&) const
      noexcept(pushpull::detail::prepares_noexcept<Rule, A>) {
    step<A> const& plain = s;
    return scalars<matrix<A>, pushpull::detail::prepared_t<Rule, A>>{s.numbers(0, 1),
                                                                     pushpull::detail::prepare(rule, plain, 0.0)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Numbers, class P, class V, class... State>
    requires(sizeof...(State) == Rule::state_names.size())
  PUSHPULL_DEVICE_INLINE V pre_reduce(phase<0>, scalars<Numbers, P> const& s, V const& w, V const& g,
                                      State const&... state) const noexcept {
    return detail::change_under(rule, s.rule, w, g, state...);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class A, class P, class V, class... State>
    requires(sizeof...(State) == Rule::state_names.size())
  PUSHPULL_DEVICE_INLINE void operator()(scalars<matrix_numbers<A>, P> const& s, V& w, V const& g,
                                         State&... state) const noexcept {
    rule(s.rule, w, g, state...);
    if (s.of.of_matrix()) w += s.of.template rows<V>(A(0));
  }
};

/// `centralize_change()`: waits for the rule on its left.
template <>
struct centralize_change<void> {
  using awaits_rule = void;

  template <Updater Rule>
  constexpr centralize_change<Rule> around(Rule const& rule) const {
    return {rule};
  }
};

centralize_change() -> centralize_change<>;
template <class Rule>
centralize_change(Rule) -> centralize_change<Rule>;

template <class Rule>
inline constexpr std::string_view rule_name<centralize_change<Rule>> = "centralize_change";

}  // namespace pushpull::update
