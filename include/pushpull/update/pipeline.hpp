/// @file
/// Composition: `transform | transform | rule` is an updater, `transform | transform` a transform; still one pass.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

#include <cuda/std/array>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/checks.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// `first`, then `rest`. The states of `first` precede those of `rest`.
template <GradientTransform First, class Rest>
  requires(Updater<Rest> || GradientTransform<Rest>)
struct pipeline {
  First first;
  Rest rest;

  static constexpr auto state_names = [] {
    std::array<std::string_view, First::state_names.size() + Rest::state_names.size()> names{};
    std::size_t n = 0;
    for (std::string_view const name : First::state_names) names[n++] = name;
    for (std::string_view const name : Rest::state_names) names[n++] = name;
    return names;
  }();
  static constexpr bool one_element_at_a_time =
      requires { requires First::one_element_at_a_time; } || requires { requires Rest::one_element_at_a_time; };
  /// The phases of `first`, then those of `rest`, which see the gradient as it comes there.
  static constexpr std::size_t phases = pushpull::detail::phase_count<First> + pushpull::detail::phase_count<Rest>;
  /// The sums of `first`, then those of `rest`, which begin at number `behind`.
  static constexpr std::size_t behind =
      PreReduction<First> ? pushpull::detail::sum_count<pushpull::detail::sums_t<First>> : 0;
  using sums_type = std::conditional_t<
      !PreReduction<Rest>, pushpull::detail::sums_t<First>,
      std::conditional_t<!PreReduction<First>, pushpull::detail::sums_t<Rest>,
                         cuda::std::array<double, pushpull::detail::sum_count<pushpull::detail::sums_t<First>> +
                                                      pushpull::detail::sum_count<pushpull::detail::sums_t<Rest>>>>>;
  static constexpr auto first_sums = [] {
    constexpr std::size_t of_first = pushpull::detail::phase_count<First>;
    std::array<std::size_t, phases + 1> result{};
    [&]<std::size_t... P>(std::index_sequence<P...>) {
      ((result[P] = pushpull::detail::first_sum<First, P>()), ...);
    }(std::make_index_sequence<of_first>());
    [&]<std::size_t... P>(std::index_sequence<P...>) {
      ((result[of_first + P] = behind + pushpull::detail::first_sum<Rest, P>()), ...);
    }(std::make_index_sequence<phases - of_first>());
    return result;
  }();
  template <std::size_t P>
  static constexpr std::size_t sums_in_phase() {
    constexpr std::size_t of_first = pushpull::detail::phase_count<First>;
    if constexpr (P < of_first) {
      return pushpull::detail::sums_in<First, P>;
    } else {
      return pushpull::detail::sums_in<Rest, P - of_first>;
    }
  }
  template <std::size_t P>
  static constexpr bool per_tensor_in() {
    constexpr std::size_t of_first = pushpull::detail::phase_count<First>;
    if constexpr (P < of_first) {
      return pushpull::detail::sums_per_tensor<First, P>();
    } else {
      return pushpull::detail::sums_per_tensor<Rest, P - of_first>();
    }
  }

  /// The statistics of rows and columns that the stages need, and their phases.
  static constexpr auto factored = [] {
    constexpr auto of_first = pushpull::detail::factors_of<First>;
    constexpr auto of_rest = pushpull::detail::factors_of<Rest>;
    std::array<factors, of_first.size() + of_rest.size()> all{};
    std::size_t n = 0;
    for (factors const& f : of_first) all[n++] = f;
    for (factors const& f : of_rest) all[n++] = f;
    return all;
  }();
  template <std::size_t P>
  static constexpr bool factored_in() {
    constexpr std::size_t of_first = pushpull::detail::phase_count<First>;
    if constexpr (P < of_first) {
      return pushpull::detail::is_factored<First, P>();
    } else {
      return pushpull::detail::is_factored<Rest, P - of_first>();
    }
  }

  /// Whether the terms of a phase depend on states.
  template <std::size_t N>
  static constexpr bool terms_of_states() {
    constexpr std::size_t of_first = pushpull::detail::phase_count<First>;
    if constexpr (N < of_first) {
      return pushpull::detail::has_terms_of_states<First, N>;
    } else {
      return First::state_names.size() != 0 || pushpull::detail::has_terms_of_states<Rest, N - of_first>;
    }
  }

  template <class P, class Q>
  struct scalars {
    P first;
    Q rest;

    /// For stages that tell elements apart.
    PUSHPULL_DEVICE_INLINE auto at(std::int64_t number) const noexcept
      requires(pushpull::detail::Numbered<P> || pushpull::detail::Numbered<Q>)
    {
      using pushpull::detail::argument;
      using first_type = std::remove_cvref_t<decltype(argument(first, number))>;
      using rest_type = std::remove_cvref_t<decltype(argument(rest, number))>;
      return scalars<first_type, rest_type>{argument(first, number), argument(rest, number)};
    }
    /// See MayRefuse.
    PUSHPULL_HOST_DEVICE bool is_refused() const noexcept
      requires(pushpull::detail::MayRefuse<P> || pushpull::detail::MayRefuse<Q>)
    {
      return pushpull::detail::is_refused(first) || pushpull::detail::is_refused(rest);
    }
  };

  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(first);
    c.stage(rest);
  }

  template <class S>
  PUSHPULL_HOST_DEVICE auto prepare(S const& s, sums_type const& sums) const
      noexcept(pushpull::detail::prepares_noexcept<First, typename S::value_type> &&
               pushpull::detail::prepares_noexcept<Rest, typename S::value_type>) {
    using A = typename S::value_type;
    using P = pushpull::detail::prepared_t<First, A>;
    using Q = pushpull::detail::prepared_t<Rest, A>;
    return scalars<P, Q>{pushpull::detail::prepare(first, s, of_first(sums)),
                         pushpull::detail::prepare(rest, pushpull::detail::behind<First>(s), of_rest(sums))};
  }

  /// Of both sides: see Updater.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class P, class Q>
    requires(pushpull::detail::Hoists<First, P> || pushpull::detail::Hoists<Rest, Q>)
  PUSHPULL_DEVICE_INLINE auto hoist(scalars<P, Q> const& s) const noexcept {
    static_assert(pushpull::detail::takes_hoisted<First, pack<float>, float>() &&
                      pushpull::detail::takes_hoisted<Rest, pack<float>, float>(),
                  "operator|: a stage has a hoist, and no operator takes its result, or that operator takes a weight, "
                  "gradient or state by value, or one of the two may throw: write noexcept behind the const of both");
    using of_first = decltype(pushpull::detail::hoist(first, s.first));
    using of_rest = decltype(pushpull::detail::hoist(rest, s.rest));
    return scalars<of_first, of_rest>{pushpull::detail::hoist(first, s.first), pushpull::detail::hoist(rest, s.rest)};
  }

  /// The persistent values before the first step: see PreReduction.
  PUSHPULL_HOST_DEVICE sums_type initial_sums() const
    requires(pushpull::detail::Carries<First> || pushpull::detail::Carries<Rest>)
  {
    sums_type sums{};
    put<0>(sums, pushpull::detail::initial_sums(first));
    put<behind>(sums, pushpull::detail::initial_sums(rest));
    return sums;
  }
  PUSHPULL_HOST_DEVICE void carry(sums_type& sums) const noexcept
    requires(pushpull::detail::Carries<First> || pushpull::detail::Carries<Rest>)
  {
    if constexpr (pushpull::detail::Carries<First>) {
      auto own = of_first(sums);
      pushpull::detail::carry(first, own);
      put<0>(sums, own);
    }
    if constexpr (pushpull::detail::Carries<Rest>) {
      auto own = of_rest(sums);
      pushpull::detail::carry(rest, own);
      put<behind>(sums, own);
    }
  }
  PUSHPULL_HOST_DEVICE bool skips(sums_type const& sums) const noexcept
    requires(pushpull::detail::MaySkip<First> || pushpull::detail::MaySkip<Rest>)
  {
    bool result = false;
    if constexpr (pushpull::detail::MaySkip<First>) result = pushpull::detail::skips(first, of_first(sums));
    if constexpr (pushpull::detail::MaySkip<Rest>) result = result || pushpull::detail::skips(rest, of_rest(sums));
    return result;
  }

  /// The sums that belong to each side.
  PUSHPULL_HOST_DEVICE static auto of_first(sums_type const& sums) {
    return part<pushpull::detail::sums_t<First>, 0>(sums);
  }
  PUSHPULL_HOST_DEVICE static auto of_rest(sums_type const& sums) {
    return part<pushpull::detail::sums_t<Rest>, behind>(sums);
  }

  /// The terms of the stage whose phase it is, of the gradient as it comes there.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t N, class S, class V, class... State>
    requires(N < phases && (sizeof...(State) == state_names.size() || !terms_of_states<N>()))
  PUSHPULL_DEVICE_INLINE auto pre_reduce(phase<N>, S const& s, V const& w, V const& g,
                                         State const&... state) const noexcept {
    constexpr std::size_t of_first = pushpull::detail::phase_count<First>;
    V all[sizeof...(State) + 1] = {state..., V(0)};  // copies: nothing changes yet
    if constexpr (N < of_first) {
      return terms<N, 0>(first, s.first, w, g, all, std::make_index_sequence<first_states<State...>>{});
    } else {
      V h = g;
      [&]<std::size_t... I>(std::index_sequence<I...>) {
        first(s.first, w, h, all[I]...);
      }(std::make_index_sequence<First::state_names.size()>{});
      return terms<N - of_first, First::state_names.size()>(rest, s.rest, w, h, all,
                                                            std::make_index_sequence<rest_states<State...>>{});
    }
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V, class... State>
    requires Updater<Rest>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, State&... state) const noexcept {
    V h = g;
    V* const all[] = {&state..., nullptr};
    call_first(s.first, w, h, all, std::make_index_sequence<First::state_names.size()>{});
    call_rest(s.rest, w, h, all, std::make_index_sequence<Rest::state_names.size()>{});
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V, class... State>
    requires GradientTransform<Rest>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V const& w, V& g, State&... state) const noexcept {
    V* const all[] = {&state..., nullptr};
    call_first(s.first, w, g, all, std::make_index_sequence<First::state_names.size()>{});
    call_rest(s.rest, w, g, all, std::make_index_sequence<Rest::state_names.size()>{});
  }

 private:
  template <class... State>
  static constexpr std::size_t first_states = sizeof...(State) == 0 ? 0 : First::state_names.size();
  template <class... State>
  static constexpr std::size_t rest_states = sizeof...(State) == 0 ? 0 : Rest::state_names.size();

  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t N, std::size_t Begin, class Stage, class P, class V, std::size_t... I>
  PUSHPULL_DEVICE_INLINE static auto terms(Stage const& stage, P const& p, V const& w, V const& g, V const* state,
                                           std::index_sequence<I...>) {
    return pushpull::detail::terms<N>(stage, p, w, g, state[Begin + I]...);
  }

  /// Sums of `Sums` from number `Begin` on; zero for a side that asks for none.
  template <class Sums, std::size_t Begin, class All>
  PUSHPULL_HOST_DEVICE static Sums part(All const& all) {
    Sums result{};
    if constexpr (pushpull::detail::sum_count<Sums> != 0 && pushpull::detail::sum_count<All> != 0)
      for (std::size_t k = 0; k < pushpull::detail::sum_count<Sums>; ++k)
        if (Begin + k < pushpull::detail::sum_count<All>)
          pushpull::detail::sum(result, k) = pushpull::detail::sum(all, Begin + k);
    return result;
  }
  template <std::size_t Begin, class Sums, class All>
  PUSHPULL_HOST_DEVICE static void put(All& all, Sums const& sums) {
    if constexpr (pushpull::detail::sum_count<Sums> != 0 && pushpull::detail::sum_count<All> != 0)
      for (std::size_t k = 0; k < pushpull::detail::sum_count<Sums>; ++k)
        if (Begin + k < pushpull::detail::sum_count<All>)
          pushpull::detail::sum(all, Begin + k) = pushpull::detail::sum(sums, k);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class P, class V, std::size_t... I>
  PUSHPULL_DEVICE_INLINE void call_first(P const& p, V const& w, V& g, V* const* state,
                                         std::index_sequence<I...>) const {
    first(p, w, g, *state[I]...);
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class P, class W, class V, std::size_t... I>
  PUSHPULL_DEVICE_INLINE void call_rest(P const& p, W& w, V& g, V* const* state, std::index_sequence<I...>) const {
    rest(p, w, g, *state[First::state_names.size() + I]...);
  }
};

namespace detail {

template <class Stage, class P>
inline constexpr bool has_stage = std::same_as<Stage, P>;
template <class Stage, class First, class Rest>
inline constexpr bool has_stage<Stage, pipeline<First, Rest>> = has_stage<Stage, First> || has_stage<Stage, Rest>;
template <class Stage, class W>
  requires(pushpull::detail::Wrapping<W> && requires(W w) { w.rule; })
inline constexpr bool has_stage<Stage, W> = std::same_as<Stage, W> || has_stage<Stage, typename W::wraps>;

}  // namespace detail

/// The stage of type `Stage` in the rule inside a wrapper, such as decoupled_decay.
template <class Stage, pushpull::detail::Wrapping W>
  requires requires(W w) { w.rule; }
constexpr Stage& get(W& from) {
  static_assert(detail::has_stage<Stage, W>, "get: the pipe has no such stage");
  if constexpr (std::same_as<Stage, W>) {
    return from;
  } else if constexpr (std::same_as<Stage, typename W::wraps>) {
    return from.rule;
  } else {
    return get<Stage>(from.rule);
  }
}
template <class Stage, pushpull::detail::Wrapping W>
  requires requires(W w) { w.rule; }
constexpr Stage const& get(W const& from) {
  return get<Stage>(const_cast<W&>(from));
}

/// The stage of type `Stage` in a pipe, the first one if there are several: to read or change its hyperparameters.
template <class Stage, class First, class Rest>
constexpr Stage& get(pipeline<First, Rest>& p) {
  static_assert(detail::has_stage<Stage, pipeline<First, Rest>>, "get: the pipe has no such stage");
  if constexpr (std::same_as<Stage, First>) {
    return p.first;
  } else if constexpr (detail::has_stage<Stage, First>) {
    return get<Stage>(p.first);
  } else if constexpr (std::same_as<Stage, Rest>) {
    return p.rest;
  } else {
    return get<Stage>(p.rest);
  }
}
template <class Stage, class First, class Rest>
constexpr Stage const& get(pipeline<First, Rest> const& p) {
  return get<Stage>(const_cast<pipeline<First, Rest>&>(p));
}

/// `transform | rule` and `transform | transform`. A rule or transform of another namespace needs a stage of ours on
/// the left, or `using pushpull::update::operator|`.
template <GradientTransform First, class Rest>
  requires(Updater<Rest> || GradientTransform<Rest>)
constexpr pipeline<First, Rest> operator|(First const& first, Rest const& rest) {
  return {first, rest};
}
/// Says that a rule must be the last stage of a pipe.
template <Updater First, class Rest>
  requires(Updater<Rest> || GradientTransform<Rest>)
constexpr Rest operator|(First const&, Rest const& rest) {
  static_assert(
      !Updater<First>,
      "operator|: a rule ends a pipe: transforms stand before it, as in clip_value(1) | sgd{}, and there is one "
      "rule");
  return rest;
}
/// Says that a stage takes a state by value.
template <class First, class Rest>
  requires(pushpull::detail::CopiesAState<First> || pushpull::detail::CopiesAState<Rest>)
constexpr Rest operator|(First const&, Rest const& rest) {
  static_assert(
      !(pushpull::detail::CopiesAState<First> || pushpull::detail::CopiesAState<Rest>),
      "operator|: a stage takes a state by value or as const, so the state stays as it began: take each state "
      "as V&");
  return rest;
}
/// Says that a stage lacks noexcept.
template <class First, class Rest>
  requires(pushpull::detail::MayThrowPerElement<First> || pushpull::detail::MayThrowPerElement<Rest>)
constexpr Rest operator|(First const&, Rest const& rest) {
  static_assert(
      !(pushpull::detail::MayThrowPerElement<First> || pushpull::detail::MayThrowPerElement<Rest>),
      "operator|: a stage's operator may throw amid a pass, where nothing could be undone: write noexcept behind "
      "its const, and behind that of at(number), if what prepare returns has one");
  return rest;
}

}  // namespace pushpull::update
