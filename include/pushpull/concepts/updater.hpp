/// @file
/// The concepts of optimizer rules and gradient transforms, and the values that both may ask for.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

#include <cuda/std/array>
#include <pushpull/config.hpp>
#include <pushpull/registers/pack.hpp>
#include <pushpull/registers/row_column_statistics.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The step of an update, as a rule sees it; computed in `A`.
template <class A>
struct step {
  using value_type = A;
  std::int64_t t;             ///< Updates of this key so far, this one included: the first update sees 1.
  std::int64_t elements = 0;  ///< Of the key's tensor, for a rule with sums of each tensor: see PreReduction. Else 0.
};

/// The largest count of steps that a key can be given: rules and schedules compute with t in double, which is exact up
/// to it.
inline constexpr std::int64_t max_steps = std::int64_t{1} << 53;

/// The step as a Factored stage sees it.
template <class A>
struct factored_step : step<A> {
  matrix<A> const* matrices;  ///< Of the tensor, one for each such stage from this one on.

  /// The numbers of the tensor's rows and columns, each of which becomes keep * number + gain * m in the stage's
  /// phase, m being the mean over the row or column of the terms that `pre_reduce` gives.
  PUSHPULL_HOST_DEVICE matrix<A> const& numbers(double keep, double gain) const {
    matrices->motion[0] = keep;
    matrices->motion[1] = gain;
    return *matrices;
  }
};

/// Lists the names of a rule's state tensors, in the order in which its operator takes them: checkpoints use them.
template <class... Names>
constexpr std::array<std::string_view, sizeof...(Names)> states(Names... names) {
  return {std::string_view(names)...};
}

namespace detail {

template <class U>
concept HasStateNames = requires {
  { U::state_names.size() } -> std::convertible_to<std::size_t>;
  requires U::state_names.size() == 0 || std::convertible_to<decltype(U::state_names[0]), std::string_view>;
};

template <class U>
inline constexpr std::size_t state_count = U::state_names.size();

/// The sums that a PreReduction asks for: `U::sums_type`, else one.
template <class U>
struct sums_of {
  using type = double;
};
template <class U>
  requires requires { typename U::sums_type; }
struct sums_of<U> {
  using type = typename U::sums_type;
};
template <class U>
using sums_t = typename sums_of<U>::type;

/// A stage around another one: it says whose phases and sums it passes on. See update/wrapper.hpp.
template <class U>
concept Wrapping = requires { typename U::wraps; };
template <Wrapping U>
  requires(!requires { typename U::sums_type; })
struct sums_of<U> : sums_of<typename U::wraps> {};

/// The statistics of rows and columns that the stages of `U` need, in the order of their phases.
template <class U>
constexpr auto list_factors() {
  if constexpr (requires { U::factored.size(); }) {
    return U::factored;
  } else if constexpr (requires { U::factored; }) {
    return std::array<factors, 1>{U::factored};
  } else if constexpr (Wrapping<U>) {
    return list_factors<typename U::wraps>();
  } else {
    return std::array<factors, 0>{};
  }
}
template <class U>
inline constexpr auto factors_of = list_factors<U>();
template <class U>
inline constexpr std::size_t factored_count = factors_of<U>.size();

/// The argument of `prepare` of `U`.
template <class U, class A>
using step_of = std::conditional_t<(factored_count<U> > 0), factored_step<A>, step<A>>;

/// The step for the stages after `First` in a pipe.
template <class First, class A>
PUSHPULL_HOST_DEVICE step<A> behind(step<A> const& s) {
  return s;
}
template <class First, class A>
PUSHPULL_HOST_DEVICE factored_step<A> behind(factored_step<A> const& s) {
  return {{s.t, s.elements}, s.matrices + factored_count<First>};
}

template <class U, class S, class Sums>
PUSHPULL_HOST_DEVICE auto prepare_in(U const& rule, S const& s, Sums const& sums) {
  if constexpr (requires { rule.prepare(s, sums); }) {
    return rule.prepare(s, sums);
  } else if constexpr (requires { rule.prepare(s); }) {
    return rule.prepare(s);
  } else {
    return s;
  }
}

/// The result of `prepare` of `U`, or the step itself. `sums` are those that a PreReduction needs.
template <class U, class A, class Sums>
PUSHPULL_HOST_DEVICE auto prepare(U const& rule, step<A> const& s, Sums const& sums) {
  return prepare_in(rule, s, sums);
}
template <class U, class A, class Sums>
  requires(factored_count<U> > 0)
PUSHPULL_HOST_DEVICE auto prepare(U const& rule, factored_step<A> const& s, Sums const& sums) {
  return prepare_in(rule, s, sums);
}

template <class U, class A>
using prepared_t =
    decltype(detail::prepare(std::declval<U const&>(), std::declval<step_of<U, A> const&>(), sums_t<U>{}));

/// Whether `prepare` of `U` cannot throw.
template <class U, class A>
inline constexpr bool prepares_noexcept = [] {
  using S = step_of<U, A>;
  if constexpr (requires(U const& rule, S const& s, sums_t<U> const& sums) { rule.prepare(s, sums); }) {
    return requires(U const& rule, S const& s, sums_t<U> const& sums) {
      { rule.prepare(s, sums) } noexcept;
    };
  } else if constexpr (requires(U const& rule, S const& s) { rule.prepare(s); }) {
    return requires(U const& rule, S const& s) {
      { rule.prepare(s) } noexcept;
    };
  } else {
    return true;
  }
}();

/// May refuse a step: a schedule has given a hyperparameter a value that the rule refuses. The pass then leaves
/// weights and states alone, while t counts on.
template <class P>
concept MayRefuse = requires(P const& p) {
  { p.is_refused() } -> std::same_as<bool>;
};
template <class P>
PUSHPULL_HOST_DEVICE bool is_refused([[maybe_unused]] P const& p) noexcept {
  if constexpr (MayRefuse<P>) {
    return p.is_refused();
  } else {
    return false;
  }
}

/// Has a member `at`: the operator is given `prepared.at(number)` instead, number being that of the pack's first
/// element among all elements of the store.
template <class P>
concept Numbered = requires(P const& p, std::int64_t number) { p.at(number); };

/// The first argument of the operator for elements from `number` on.
template <class P>
PUSHPULL_DEVICE_INLINE decltype(auto) argument(P const& p, std::int64_t number) {
  if constexpr (Numbered<P>) {
    return p.at(number);
  } else {
    return (p);
  }
}

/// Computes numbers of its own from its hyperparameters and from the result P of its `prepare`.
template <class U, class P>
concept Hoists = requires(U const& rule, P const& prepared) { rule.hoist(prepared); };

/// The numbers of a step that every element takes: the result of `hoist` where the rule has that, else that of `prepare`.
PUSHPULL_EXEC_CHECK_DISABLE
template <class U, class P>
PUSHPULL_DEVICE_INLINE auto hoist([[maybe_unused]] U const& rule, P const& prepared) {
  if constexpr (Hoists<U, P>) {
    return rule.hoist(prepared);
  } else {
    return prepared;
  }
}
template <class U, class A>
using hoisted_t = decltype(detail::hoist(std::declval<U const&>(), std::declval<prepared_t<U, A> const&>()));
/// The type of the first argument of the operator that the pass calls.
template <class U, class A>
using hoisted_argument_t =
    std::remove_cvref_t<decltype(detail::argument(std::declval<hoisted_t<U, A> const&>(), std::int64_t{}))>;

/// The type of the first argument of the operator of `U`.
template <class U, class A>
using argument_t =
    std::remove_cvref_t<decltype(detail::argument(std::declval<prepared_t<U, A> const&>(), std::int64_t{}))>;

template <std::size_t, class T>
using repeat_t = T;

template <class U, class V, class P, class I>
struct is_updater_call : std::false_type {};
template <class U, class V, class P, std::size_t... I>
struct is_updater_call<U, V, P, std::index_sequence<I...>> {
  static constexpr bool value = requires(U const& rule, P const& p, V& w, V const& g, repeat_t<I, V>&... state) {
    { rule(p, w, g, state...) } -> std::same_as<void>;
  };
};

template <class U, class V, class P, class I>
struct is_transform_call : std::false_type {};
template <class U, class V, class P, std::size_t... I>
struct is_transform_call<U, V, P, std::index_sequence<I...>> {
  static constexpr bool value = requires(U const& transform, P const& p, V const& w, V& g, repeat_t<I, V>&... state) {
    { transform(p, w, g, state...) } -> std::same_as<void>;
  };
};

template <class U, class V, class P, class I>
struct is_noexcept_call : std::false_type {};
template <class U, class V, class P, std::size_t... I>
struct is_noexcept_call<U, V, P, std::index_sequence<I...>> {
  using indices = std::index_sequence<I...>;
  static constexpr bool as_rule = requires(U const& rule, P const& p, V& w, V const& g, repeat_t<I, V>&... state) {
    { rule(p, w, g, state...) } noexcept;
  };
  static constexpr bool as_transform =
      requires(U const& transform, P const& p, V const& w, V& g, repeat_t<I, V>&... state) {
        { transform(p, w, g, state...) } noexcept;
      };
  static constexpr bool value = (as_rule || !is_updater_call<U, V, P, indices>::value) &&
                                (as_transform || !is_transform_call<U, V, P, indices>::value);
};

template <class P>
concept QuietlyNumbered = !Numbered<P> || requires(P const& p, std::int64_t number) {
  { p.at(number) } noexcept;
};

template <class U, class V, class P, class I>
struct is_constant_call : std::false_type {};
template <class U, class V, class P, std::size_t... I>
struct is_constant_call<U, V, P, std::index_sequence<I...>> {
  static constexpr bool value =
      requires(U const& rule, P const& p, V const& g, repeat_t<I, V>&... state) { rule(p, V(), g, state...); };
};

/// Callable with a weight that it cannot change: a transform that forgot to take the gradient by reference.
template <class U, class V, class A>
concept LeavesWeightAlone = is_constant_call<U, V, argument_t<U, A>, std::make_index_sequence<state_count<U>>>::value;

template <class U, class V, class P, std::size_t Copied, class I>
struct copies_state : std::false_type {};
template <class U, class V, class P, std::size_t Copied, std::size_t... I>
struct copies_state<U, V, P, Copied, std::index_sequence<I...>> {
  static constexpr bool value = requires(U const& stage, P const& p, V& w, V& g) {
    stage(p, w, g, std::declval<std::conditional_t<I == Copied, V, V&>>()...);
  };
};

template <class U, class V, class P, class I>
struct copies_any_state : std::false_type {};
template <class U, class V, class P, std::size_t... I>
struct copies_any_state<U, V, P, std::index_sequence<I...>>
    : std::bool_constant<(copies_state<U, V, P, I, std::index_sequence<I...>>::value || ...)> {};

/// Callable with a state that it cannot change, which would then stay as it began: one taken by value.
template <class U, class V, class A>
concept LeavesAStateAlone = copies_any_state<U, V, argument_t<U, A>, std::make_index_sequence<state_count<U>>>::value;

/// A stage that a pipe refuses because it takes a state by value.
template <class U>
concept CopiesAState = HasStateNames<U> && LeavesAStateAlone<U, pack<float>, float>;

/// A rule that changes the weight and keeps its states: `rule(prepared, w, g, state...)`.
template <class U, class V, class A>
concept UpdatesWeightWith = is_updater_call<U, V, argument_t<U, A>, std::make_index_sequence<state_count<U>>>::value;

/// A transform that changes the gradient and keeps its states: `transform(prepared, w, g, state...)`.
template <class U, class V, class A>
concept TransformsGradientWith =
    is_transform_call<U, V, argument_t<U, A>, std::make_index_sequence<state_count<U>>>::value;

/// Code that runs per element cannot throw: the operator, and `at` of the result of `prepare`. During a pass nothing
/// could be undone.
template <class U, class V, class A>
concept IsNoexceptPerElement =
    QuietlyNumbered<prepared_t<U, A>> &&
    is_noexcept_call<U, V, argument_t<U, A>, std::make_index_sequence<state_count<U>>>::value;

/// Whether an operator of a rule or transform takes the result of its `hoist` and changes what it has to, and nothing of it
/// may throw.
template <class U, class V, class A>
constexpr bool takes_hoisted() {
  if constexpr (Hoists<U, prepared_t<U, A>>) {
    using indices = std::make_index_sequence<state_count<U>>;
    using argument = hoisted_argument_t<U, A>;
    constexpr bool is_rule = is_updater_call<U, V, argument, indices>::value;
    constexpr bool keeps_weight = is_constant_call<U, V, argument, indices>::value;
    constexpr bool is_quiet = QuietlyNumbered<hoisted_t<U, A>> && is_noexcept_call<U, V, argument, indices>::value &&
                              requires(U const& rule, prepared_t<U, A> const& prepared) {
                                { rule.hoist(prepared) } noexcept;
                              };
    return is_quiet && (is_rule ? !keeps_weight : is_transform_call<U, V, argument, indices>::value) &&
           !copies_any_state<U, V, argument, indices>::value;
  } else {
    return true;
  }
}

/// A stage that a pipe refuses because it lacks noexcept.
template <class U>
concept MayThrowPerElement =
    HasStateNames<U> && !CopiesAState<U> &&
    (UpdatesWeightWith<U, pack<float>, float> || TransformsGradientWith<U, pack<float>, float>) &&
    !IsNoexceptPerElement<U, pack<float>, float>;

/// Packs of a whole register, unless the rule asks for single elements or takes nothing else.
template <class U, class V, class A>
inline constexpr bool runs_on = !requires { requires U::one_element_at_a_time; } && [] {
  using indices = std::make_index_sequence<state_count<U>>;
  using argument = hoisted_argument_t<U, A>;
  return is_updater_call<U, V, argument, indices>::value || is_transform_call<U, V, argument, indices>::value;
}();

}  // namespace detail

/// A rule for one element: reads the gradient `g`, changes the weight `w` and the rule's states in place.
/// Needs:  a static list `state_names` (see `states`), one name per state tensor, possibly empty;
///         template <class V> void operator()(S const& s, V& w, V g, V&... state) const noexcept, PUSHPULL_HOST_DEVICE;
///         trivially copyable, because it travels to the device by value.
/// `V` is a `pack`: one element on a GPU, a vector register on a CPU. `S` is what the rule's own `prepare(step<A>)`
/// returned, called once per step, or the `step<A>` itself where the rule has no `prepare`. What runs per element is
/// noexcept, for amid a pass nothing could be undone. `prepare` may throw on a CPU: then there was no such step. A
/// rule that branches on values says `static constexpr bool one_element_at_a_time = true`. A rule that has to tell
/// elements apart (random numbers) returns from `prepare` something with a member `at(std::int64_t number) const
/// noexcept`: `S` is then what that returns, number being that of the pack's first element among all elements of the
/// store, whatever the devices. States begin at 0. A rule that makes something else of them in a key's first update,
/// whatever the gradient, says so in `bool starts_states() const`: a lazy push of rows is then a standard one where it
/// is the key's first update.
/// A rule may also have `auto hoist(P const& prepared) const noexcept`, PUSHPULL_HOST_DEVICE, where P is what `prepare` returns:
/// for numbers that the operator would compute from hyperparameters for each pack. The pass calls it once for thousands of
/// elements on a CPU and once per thread on a GPU, and calls an operator whose `S` is the result, or what its `at` returns.
/// Wrappers, and phases before the pass, call the operator without it.
/// Models: all rules of update/, update::pipeline. See also GradientTransform.
template <class U>
concept Updater =
    std::is_trivially_copyable_v<U> && detail::HasStateNames<U> && detail::UpdatesWeightWith<U, pack<float>, float> &&
    !detail::LeavesWeightAlone<U, pack<float>, float> && !detail::LeavesAStateAlone<U, pack<float>, float> &&
    detail::IsNoexceptPerElement<U, pack<float>, float>;

/// Rewrites the gradient before the rule sees it; `transform | rule` is again an `Updater`, and one pass.
/// Needs:  a static list `state_names`, possibly empty;
///         template <class V> void operator()(S const& s, V const& w, V& g, V&... state) const noexcept,
///         PUSHPULL_HOST_DEVICE;
///         trivially copyable. `S` as for `Updater`.
/// Models: update::rescale, update::clip_value, update::clip_global_norm, update::weight_decay.
template <class T>
concept GradientTransform =
    std::is_trivially_copyable_v<T> && detail::HasStateNames<T> &&
    detail::TransformsGradientWith<T, pack<float>, float> && !detail::UpdatesWeightWith<T, pack<float>, float> &&
    !detail::LeavesAStateAlone<T, pack<float>, float> && detail::IsNoexceptPerElement<T, pack<float>, float>;

}  // namespace pushpull
