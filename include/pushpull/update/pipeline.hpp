/// @file
/// Composition: `transform | transform | rule` is an updater, `transform | transform` a transform; still one pass.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/updater.hpp>

namespace pushpull::update {

/// `first`, then `rest`. The states of `first` stand before those of `rest`.
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
  static constexpr bool one_element_at_a_time = requires { requires First::one_element_at_a_time; } ||
                                                requires { requires Rest::one_element_at_a_time; };
  static_assert(!(PreReduction<First> && PreReduction<Rest>), "pipeline: at most one stage may be a PreReduction");

  template <class P, class Q>
  struct scalars {
    P first;
    Q rest;
  };

  void validate() const {
    if constexpr (requires { first.validate(); }) first.validate();
    if constexpr (requires { rest.validate(); }) rest.validate();
  }

  template <class A>
  PUSHPULL_HOST_DEVICE auto prepare(step<A> const& s, double sum) const {
    using P = pushpull::detail::prepared_t<First, A>;
    using Q = pushpull::detail::prepared_t<Rest, A>;
    return scalars<P, Q>{pushpull::detail::prepare(first, s, sum), pushpull::detail::prepare(rest, s, sum)};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
    requires(PreReduction<First> || PreReduction<Rest>)
  PUSHPULL_DEVICE_INLINE V pre_reduce(S const& s, V const& w, V const& g) const {
    if constexpr (PreReduction<First>) {
      return first.pre_reduce(s.first, w, g);
    } else {
      static_assert(First::state_names.size() == 0, "pipeline: a stage before a PreReduction must have no state");
      V h = g;
      first(s.first, w, h);
      return rest.pre_reduce(s.rest, w, h);
    }
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V, class... State>
    requires Updater<Rest>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, State&... state) const {
    V h = g;
    V* const all[] = {&state..., nullptr};
    call_first(s.first, w, h, all, std::make_index_sequence<First::state_names.size()>{});
    call_rest(s.rest, w, h, all, std::make_index_sequence<Rest::state_names.size()>{});
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V, class... State>
    requires GradientTransform<Rest>
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V const& w, V& g, State&... state) const {
    V* const all[] = {&state..., nullptr};
    call_first(s.first, w, g, all, std::make_index_sequence<First::state_names.size()>{});
    call_rest(s.rest, w, g, all, std::make_index_sequence<Rest::state_names.size()>{});
  }

 private:
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class P, class V, std::size_t... I>
  PUSHPULL_DEVICE_INLINE void call_first(P const& p, V const& w, V& g, V* const* state, std::index_sequence<I...>) const {
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

}  // namespace detail

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

}  // namespace pushpull::update
