/// @file
/// The concept of a stage that needs sums over many elements before any weight may change.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

#include <cuda/std/array>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/registers/pack.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The number of a phase before the pass, for stages that need several: see PreReduction.
template <std::size_t N>
using phase = std::integral_constant<std::size_t, N>;

namespace detail {

/// The terms of one element in phase `P` of stage `U`, of its states if it asks for them.
template <class U, std::size_t P, class S, class V, class... State>
concept TermsWith = requires(U const& u, S const& s, V const& w, V const& g, State const&... state) {
  u.pre_reduce(phase<P>(), s, w, g, state...);
} || (P == 0 && requires(U const& u, S const& s, V const& w, V const& g, State const&... state) {
                      u.pre_reduce(s, w, g, state...);
                    });

template <class U, std::size_t P, class V, class S, class I>
struct takes_states : std::false_type {};
template <class U, std::size_t P, class V, class S, std::size_t... I>
struct takes_states<U, P, V, S, std::index_sequence<I...>>
    : std::bool_constant<TermsWith<U, P, S, V, repeat_t<I, V>...>> {};

/// Whether phase `P` of `U` has terms of weight and gradient alone, or of the states as well.
template <class U, std::size_t P, class V = pack<float>, class A = float>
inline constexpr bool has_terms = TermsWith<U, P, argument_t<U, A>, V>;
template <class U, std::size_t P, class V = pack<float>, class A = float>
inline constexpr bool has_terms_of_states =
    !has_terms<U, P, V, A> && takes_states<U, P, V, argument_t<U, A>, std::make_index_sequence<state_count<U>>>::value;

/// How many phases `U` needs before the pass: none, one, or what it says.
template <class U>
struct phases_of : std::integral_constant<std::size_t, has_terms<U, 0> || has_terms_of_states<U, 0> ? 1 : 0> {};
template <class U>
  requires requires { U::phases; }
struct phases_of<U> : std::integral_constant<std::size_t, U::phases> {};
template <Wrapping U>
  requires(!requires { U::phases; })
struct phases_of<U> : phases_of<typename U::wraps> {};
template <class U>
inline constexpr std::size_t phase_count = phases_of<U>::value;

/// How many sums there are.
template <class Sums>
inline constexpr std::size_t sum_count = 1;
template <std::size_t N>
inline constexpr std::size_t sum_count<cuda::std::array<double, N>> = N;

/// Number k of one sum or several.
PUSHPULL_HOST_DEVICE inline double& sum(double& sums, std::size_t) { return sums; }
PUSHPULL_HOST_DEVICE inline double const& sum(double const& sums, std::size_t) { return sums; }
template <std::size_t N>
PUSHPULL_HOST_DEVICE double& sum(cuda::std::array<double, N>& sums, std::size_t k) {
  return sums[k];
}
template <std::size_t N>
PUSHPULL_HOST_DEVICE double const& sum(cuda::std::array<double, N> const& sums, std::size_t k) {
  return sums[k];
}

/// How many trailing entries of a stage's sums are not sums but values that persist across steps.
template <class U>
inline constexpr std::size_t carried_count = 0;
template <class U>
  requires requires { U::carried; }
inline constexpr std::size_t carried_count<U> = U::carried;
template <Wrapping U>
inline constexpr std::size_t carried_count<U> = carried_count<typename U::wraps>;

/// Where the sums of phase `P` begin among those of `U`, and how many they are: equally many per phase, unless it says
/// more.
template <class U, std::size_t P>
constexpr std::size_t first_sum() {
  if constexpr (requires { U::first_sums[P]; }) {
    return U::first_sums[P];
  } else if constexpr (Wrapping<U>) {
    return first_sum<typename U::wraps, P>();
  } else {
    return P * (sum_count<sums_t<U>> - carried_count<U>) / phase_count<U>;
  }
}
template <class U, std::size_t P>
constexpr std::size_t count_sums() {
  if constexpr (requires { U::template sums_in_phase<P>(); }) {
    return U::template sums_in_phase<P>();
  } else if constexpr (Wrapping<U>) {
    return count_sums<typename U::wraps, P>();
  } else if constexpr (P + 1 < phase_count<U>) {
    return first_sum<U, P + 1>() - first_sum<U, P>();
  } else {
    return sum_count<sums_t<U>> - carried_count<U> - first_sum<U, P>();
  }
}
template <class U, std::size_t P>
inline constexpr std::size_t sums_in = count_sums<U, P>();

template <class U>
inline constexpr bool carries = requires(U const& u, sums_t<U>& sums) {
  { u.initial_sums() } -> std::same_as<sums_t<U>>;
  u.carry(sums);
};
template <Wrapping U>
inline constexpr bool carries<U> = carries<typename U::wraps>;

/// Whether `U` has values that persist across steps.
template <class U>
concept Carries = carries<U>;

template <class U>
inline constexpr bool may_skip = requires(U const& u, sums_t<U> const& sums) {
  { u.skips(sums) } -> std::same_as<bool>;
};
template <Wrapping U>
inline constexpr bool may_skip<U> = may_skip<typename U::wraps>;

/// Whether `U` may skip a step.
template <class U>
concept MaySkip = may_skip<U>;

/// Whether the pass of `U`, computed in `A`, may leave weights and states alone, for that reason or another.
template <class U, class A>
concept MayLeaveAlone = MaySkip<U> || MayRefuse<prepared_t<U, A>>;

/// The stage inside of a wrapper.
template <Wrapping U>
PUSHPULL_HOST_DEVICE constexpr typename U::wraps const& inside(U const& u) {
  if constexpr (requires { u.rule; }) {
    return u.rule;
  } else {
    return u.stage;
  }
}

/// Whether the first update of a key writes states that a zero gradient alone would leave at 0: such a rule says so in
/// a member `bool starts_states() const`.
template <class U>
constexpr bool starts_states(U const& stage) {
  if constexpr (requires { stage.starts_states(); }) {
    return stage.starts_states();
  } else if constexpr (Wrapping<U>) {
    return starts_states(inside(stage));
  } else if constexpr (requires {
                         stage.first;
                         stage.rest;
                       }) {
    return starts_states(stage.first) || starts_states(stage.rest);
  } else {
    return false;
  }
}

/// Whether the first update of a key does what no later one does for a row that comes later: such a rule says so in a member
/// `static constexpr bool first_update_differs = true`.
template <class U>
constexpr bool first_update_differs(U const& stage) {
  if constexpr (Wrapping<U>) {
    return first_update_differs(inside(stage));
  } else if constexpr (requires {
                         stage.first;
                         stage.rest;
                       }) {
    return first_update_differs(stage.first) || first_update_differs(stage.rest);
  } else {
    return requires { requires U::first_update_differs; };
  }
}

/// The sums before the first step, with the initial persistent values.
template <class U>
PUSHPULL_HOST_DEVICE sums_t<U> initial_sums(U const& u) {
  if constexpr (!Carries<U>) {
    return {};
  } else if constexpr (Wrapping<U>) {
    return initial_sums(inside(u));
  } else {
    return u.initial_sums();
  }
}
template <Carries U>
PUSHPULL_HOST_DEVICE void carry(U const& u, sums_t<U>& sums) noexcept {
  if constexpr (Wrapping<U>) {
    carry(inside(u), sums);
  } else {
    static_assert(noexcept(u.carry(sums)), "PreReduction: carry may throw: write noexcept behind its const");
    u.carry(sums);
  }
}
template <MaySkip U>
PUSHPULL_HOST_DEVICE bool skips(U const& u, sums_t<U> const& sums) noexcept {
  if constexpr (Wrapping<U>) {
    return skips(inside(u), sums);
  } else {
    static_assert(noexcept(u.skips(sums)), "PreReduction: skips may throw: write noexcept behind its const");
    return u.skips(sums);
  }
}

/// Whether the sums of phase `P` are those of each tensor.
template <class U, std::size_t P>
constexpr bool sums_per_tensor() {
  if constexpr (requires { U::template per_tensor_in<P>(); }) {
    return U::template per_tensor_in<P>();
  } else if constexpr (requires { U::per_tensor; }) {
    return U::per_tensor;
  } else if constexpr (Wrapping<U>) {
    return sums_per_tensor<typename U::wraps, P>();
  } else {
    return false;
  }
}

/// Whether any phase has sums of each tensor.
template <class U>
inline constexpr bool is_per_tensor = []<std::size_t... P>(std::index_sequence<P...>) {
  return (sums_per_tensor<U, P>() || ...);
}(std::make_index_sequence<phase_count<U>>());

/// Whether any phase sums over all keys of a step.
template <class U>
inline constexpr bool sums_over_keys = []<std::size_t... P>(std::index_sequence<P...>) {
  return (!sums_per_tensor<U, P>() || ...);
}(std::make_index_sequence<phase_count<U>>());

template <bool IsNoexcept>
PUSHPULL_HOST_DEVICE constexpr void expect_noexcept_terms() {
  static_assert(
      IsNoexcept,
      "PreReduction: pre_reduce may throw amid a phase, where nothing could be undone: write noexcept behind its "
      "const");
}

/// The terms of phase `P`: of weight and gradient, and of the states if the stage asks for them.
PUSHPULL_EXEC_CHECK_DISABLE
template <std::size_t P, class U, class S, class V, class... State>
PUSHPULL_DEVICE_INLINE auto terms(U const& stage, S const& s, V const& w, V const& g, State const&... state) noexcept {
  if constexpr (requires { stage.pre_reduce(phase<P>(), s, w, g); }) {
    expect_noexcept_terms<noexcept(stage.pre_reduce(phase<P>(), s, w, g))>();
    return stage.pre_reduce(phase<P>(), s, w, g);
  } else if constexpr (requires { stage.pre_reduce(phase<P>(), s, w, g, state...); }) {
    expect_noexcept_terms<noexcept(stage.pre_reduce(phase<P>(), s, w, g, state...))>();
    return stage.pre_reduce(phase<P>(), s, w, g, state...);
  } else if constexpr (requires { stage.pre_reduce(s, w, g); }) {
    expect_noexcept_terms<noexcept(stage.pre_reduce(s, w, g))>();
    return stage.pre_reduce(s, w, g);
  } else {
    expect_noexcept_terms<noexcept(stage.pre_reduce(s, w, g, state...))>();
    return stage.pre_reduce(s, w, g, state...);
  }
}

/// Compiles the terms of all phases on packs `V`, so that a stage whose terms may throw is refused where it is given to a
/// store, before any call.
template <class U, class V, class A>
constexpr bool expect_terms() {
  auto const of_phase = []<std::size_t P, std::size_t... S>(phase<P>, std::index_sequence<S...>) {
    using type =
        decltype(terms<P>(std::declval<U const&>(), std::declval<argument_t<U, A> const&>(), std::declval<V const&>(),
                          std::declval<V const&>(), std::declval<repeat_t<S, V> const&>()...));
    static_assert(!std::is_void_v<type>, "PreReduction: pre_reduce returns the element's term");
  };
  [&]<std::size_t... P>(std::index_sequence<P...>) {
    (of_phase(phase<P>(), std::make_index_sequence<state_count<U>>()), ...);
  }(std::make_index_sequence<phase_count<U>>());
  return true;
}

}  // namespace detail

/// A stage that needs sums over the gradients of all keys of a step, or over each tensor, before any weight may change.
/// Only then does the step read its gradients in a phase before the pass.
/// Needs:  template <class V> V pre_reduce(S const& s, V w, V g) const noexcept: the element's term, zero for
///         w = g = 0, or pre_reduce(s, w, g, state...), which reads the states and changes nothing;
///         prepare(step<A>, double sum) -> S: called with 0 before that phase and with the sum of all terms after it.
/// May:    ask for several sums: using sums_type = cuda::std::array<double, N>, which prepare takes in place of a
///         double, while pre_reduce returns a cuda::std::array<V, N>;
///         ask for those of each tensor: static constexpr bool per_tensor = true; `elements` of the step is then the
///         tensor's size;
///         ask for several phases, each of which knows the sums of those before: static constexpr std::size_t phases =
///         N, with pre_reduce(phase<P>, s, w, g, state...) for each, and as first_sums[P] the place of the phase's
///         sums among all;
///         keep values that persist across steps, the last `static constexpr std::size_t carried` of its sums:
///         initial_sums() returns them before the first step, carry(sums), noexcept, changes them after each, when the
///         sums over all keys are known;
///         skip a step: bool skips(sums) const noexcept. Weights, states and t of its keys then stay, outputs are
///         written.
/// See also Factored, whose terms are summed by rows and columns.
/// Models: update::clip_global_norm, clip_norm, lars, lamb, lans, apply_if_finite, dynamic_loss_scale, and every
/// pipeline or wrapper that holds one.
template <class U>
concept PreReduction =
    detail::HasStateNames<U> && (detail::phase_count<U> > 0) &&
    (detail::has_terms<U, 0> || detail::has_terms_of_states<U, 0>) &&
    requires(U const& stage, detail::step_of<U, float> const& s) { stage.prepare(s, detail::sums_t<U>{}); };

}  // namespace pushpull
