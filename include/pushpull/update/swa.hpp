/// @file
/// An average of weights in which all samples count the same: stochastic weight averaging.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>
#include <pushpull/update/wrapper.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// Izmailov et al. 2018, algorithm 1, as PyTorch's AveragedModel: the rule, then in the updates start, start + every,
/// start + 2 every, ... of a key a = a + (w - a) / n, n being how many of them there have been; up to update `start` a = w.
/// `rule | swa(start, every)`, or `swa{rule, start, every}`. A store's `swap("swa")` puts the average in the weights' place
/// and back. The average is kept in the store's state type: give stores of 16-bit weights `element::master<float>`.
/// Row-sparse gradients average the rows that they touch; a key's first update touches all. One state more than the rule:
/// 8 bytes more per float parameter.
template <class Rule = void>
struct swa {
  static_assert(Updater<Rule>, "swa: an Updater expected");
  using wraps = Rule;

  Rule rule;
  std::int64_t start = 1;
  std::int64_t every = 1;

  static constexpr auto state_names = detail::with_state<Rule>("swa");
  static constexpr bool one_element_at_a_time = requires { requires Rule::one_element_at_a_time; };

  /// The average begins at the weights that the first update leaves behind.
  constexpr bool starts_states() const { return true; }

  /// @throws invalid_argument as the rule does, and on a start or every below 1.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(rule);
    c.at_least("swa: start", static_cast<double>(start), 1);
    c.at_least("swa: every", static_cast<double>(every), 1);
  }

  template <class A, class P>
  using scalars = detail::wrapped_scalars<A, P>;  ///< `own` is 1 / n, or 0 between samples.

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S>
  PUSHPULL_HOST_DEVICE auto prepare(S const& s, pushpull::detail::sums_t<Rule> const& sums) const
      noexcept(pushpull::detail::prepares_noexcept<Rule, typename S::value_type>) {
    using A = typename S::value_type;
    std::int64_t const since = s.t - start;
    double const rate = since <= 0 ? 1 : since % every == 0 ? 1 / (1 + static_cast<double>(since / every)) : 0;
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
    average = s.own < A(1) ? average + s.own * (w - average) : w;  // w itself, whatever the average was
  }
};

/// `swa(start, every)`: an average that waits for the rule on its left.
template <>
struct swa<void> {
  using awaits_rule = void;

  std::int64_t start;
  std::int64_t every;

  explicit constexpr swa(std::int64_t start_ = 1, std::int64_t every_ = 1) : start(start_), every(every_) {}

  template <Updater Rule>
  constexpr swa<Rule> around(Rule const& rule) const {
    return {rule, start, every};
  }
};

template <std::integral Start>
swa(Start) -> swa<>;
template <std::integral Start, std::integral Every>
swa(Start, Every) -> swa<>;
template <class Rule>
swa(Rule, std::int64_t, std::int64_t) -> swa<Rule>;

template <class Rule>
inline constexpr std::string_view rule_name<swa<Rule>> = "swa";

}  // namespace pushpull::update
