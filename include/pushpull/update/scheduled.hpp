/// @file
/// Hyperparameters that change with the number of updates: `adam{} | learning_rate(cosine{...})`.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/learning_rate_schedule.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/error.hpp>
#include <pushpull/update/checks.hpp>
#include <pushpull/update/pipeline.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

namespace detail {

/// The hyperparameter `learning_rate` of whatever has one.
struct learning_rate_member {
  template <class Stage>
  static constexpr bool of = requires(Stage& stage) {
    { stage.learning_rate } -> std::convertible_to<double>;
  };
  template <class Stage>
  PUSHPULL_DEVICE_INLINE static auto& in(Stage& stage) {
    return stage.learning_rate;
  }
};

/// The hyperparameter that a pointer to a member names.
template <auto Member>
struct member {
  template <class Stage>
  static constexpr bool of = requires(Stage& stage) {
    { stage.*Member } -> std::convertible_to<double>;
  };
  template <class Stage>
  PUSHPULL_DEVICE_INLINE static auto& in(Stage& stage) {
    return stage.*Member;
  }
};

/// Which part of a stage has the hyperparameter: the stage itself, the rule inside a wrapper or under another schedule, or
/// the last stage of a pipe inside one of these.
template <class Hyperparameter, class Stage>
inline constexpr bool has_hyperparameter = Hyperparameter::template of<Stage>;
template <class Hyperparameter, pushpull::detail::Wrapping Stage>
inline constexpr bool has_hyperparameter<Hyperparameter, Stage> =
    Hyperparameter::template of<Stage> || has_hyperparameter<Hyperparameter, typename Stage::wraps>;
template <class Hyperparameter, class First, class Rest>
inline constexpr bool has_hyperparameter<Hyperparameter, pipeline<First, Rest>> =
    has_hyperparameter<Hyperparameter, Rest>;

template <class Hyperparameter, class Stage>
PUSHPULL_DEVICE_INLINE auto& holder_of(Stage& stage) {
  if constexpr (Hyperparameter::template of<Stage>) {
    return stage;
  } else if constexpr (requires { stage.rule; }) {
    return holder_of<Hyperparameter>(stage.rule);
  } else if constexpr (requires { stage.stage; }) {
    return holder_of<Hyperparameter>(stage.stage);
  } else {
    return holder_of<Hyperparameter>(stage.rest);
  }
}

}  // namespace detail

/// A rule or transform, one of whose hyperparameters has the value `schedule(t)` in the t-th update of a key, whatever
/// is written in `stage`; t is the key's own, as in `step`. The schedule is evaluated in double in `prepare`, once per
/// step and key and where the key lives, so that a captured step needs no work on the host; the pass costs no more than
/// `stage`'s. The result is that of a `stage` whose hyperparameter is set before every step, bit for bit.
/// A value that the stage refuses, for instance NaN, a negative rate or a beta of 1, leaves a key's weights and states as
/// they are in this update, on CPUs and GPUs; t counts on, so that the next update asks for the next value. In the first
/// update of all it is refused where a store takes the rule. Made by `learning_rate` and `hyperparameter`.
template <class Stage, class Hyperparameter, class Schedule>
struct scheduled {
  static_assert(Updater<Stage> || GradientTransform<Stage>, "scheduled: an Updater or a GradientTransform expected");
  static_assert(std::is_trivially_copyable_v<Schedule>,
                "LearningRateSchedule: the schedule is not trivially copyable, so it cannot travel to a device");
  static_assert(LearningRateSchedule<Schedule>,
                "LearningRateSchedule: the schedule cannot be called as schedule(t) with a std::int64_t, or does not "
                "return double");
  static_assert(detail::has_hyperparameter<Hyperparameter, Stage>,
                "scheduled: the stage on the left has no such hyperparameter: learning_rate needs a member of that "
                "name, hyperparameter<&rule::member> a stage of type `rule`");

  Stage stage;
  Schedule schedule;
  double factor = 1;  ///< What the schedule's value is multiplied by.

  static constexpr auto state_names = Stage::state_names;
  static constexpr bool one_element_at_a_time = requires { requires Stage::one_element_at_a_time; };

  using wraps = Stage;

  template <class P>
  struct scalars {
    double value;
    P stage;
    bool refused;

    /// See MayRefuse.
    PUSHPULL_HOST_DEVICE bool is_refused() const noexcept { return refused || pushpull::detail::is_refused(stage); }

    /// For a stage that tells elements apart.
    PUSHPULL_DEVICE_INLINE auto at(std::int64_t number) const noexcept
      requires pushpull::detail::Numbered<P>
    {
      using stage_type = std::remove_cvref_t<decltype(pushpull::detail::argument(stage, number))>;
      return scalars<stage_type>{value, pushpull::detail::argument(stage, number), refused};
    }
  };

  /// The stage as it is in the t-th update.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE Stage at(std::int64_t t) const { return with(factor * schedule(t)); }

  /// @throws invalid_argument as the stage's and the schedule's, and if the stage refuses the value of the first update.
  void validate() const {
    if constexpr (requires { stage.validate(); }) stage.validate();
    if constexpr (requires { schedule.validate(); }) schedule.validate();
    double const value = factor * schedule(1);
    try {
      detail::refuses all;
      all.stage(with(value));
      if (!takes(value)) all.finite("schedule", value);
    } catch (invalid_argument const& error) {
      std::string const text = error.what();
      std::string const source = " from a schedule in update 1";
      throw invalid_argument(text.ends_with(source) ? text : text + source);  // stages inside may have schedules too
    }
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.stage(stage);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S>
  PUSHPULL_HOST_DEVICE auto prepare(S const& s, pushpull::detail::sums_t<Stage> const& sums) const
      noexcept(noexcept(schedule(s.t)) && pushpull::detail::prepares_noexcept<Stage, typename S::value_type>) {
    using A = typename S::value_type;
    double const given = factor * schedule(s.t);
    bool const taken = takes(given);
    double const value = taken ? given : own();  // of a step that is none norms over all keys still see finite numbers
    return scalars<pushpull::detail::prepared_t<Stage, A>>{value, pushpull::detail::prepare(with(value), s, sums),
                                                           !taken};
  }

  /// Of the stage, with the schedule's value: see Updater.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class P>
    requires pushpull::detail::Hoists<Stage, P>
  PUSHPULL_DEVICE_INLINE auto hoist(scalars<P> const& s) const noexcept {
    static_assert(
        pushpull::detail::takes_hoisted<Stage, pack<float>, float>(),
        "scheduled: the stage has a hoist, and no operator takes its result, or that operator takes a weight, "
        "gradient or state by value, or one of the two may throw: write noexcept behind the const of both");
    Stage const scheduled_stage = with(s.value);
    return scalars<decltype(scheduled_stage.hoist(s.stage))>{s.value, scheduled_stage.hoist(s.stage), s.refused};
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t N, class P, class V, class... State>
    requires(N < pushpull::detail::phase_count<Stage> && pushpull::detail::TermsWith<Stage, N, P, V, State...>)
  PUSHPULL_DEVICE_INLINE auto pre_reduce(phase<N>, scalars<P> const& s, V const& w, V const& g,
                                         State const&... state) const noexcept {
    return pushpull::detail::terms<N>(with(s.value), s.stage, w, g, state...);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V, class... State>
    requires(Updater<Stage> && requires(Stage const& rule, S const& s, V& w, V const& g,
                                        State&... state) { rule(s.stage, w, g, state...); })
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V& w, V const& g, State&... state) const noexcept {
    with(s.value)(s.stage, w, g, state...);
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V, class... State>
    requires(GradientTransform<Stage> && requires(Stage const& transform, S const& s, V const& w, V& g,
                                                  State&... state) { transform(s.stage, w, g, state...); })
  PUSHPULL_DEVICE_INLINE void operator()(S const& s, V const& w, V& g, State&... state) const noexcept {
    with(s.value)(s.stage, w, g, state...);
  }

 private:
  PUSHPULL_DEVICE_INLINE Stage with(double value) const {
    Stage result = stage;
    auto& hyperparameter = Hyperparameter::in(detail::holder_of<Hyperparameter>(result));
    using type = std::remove_reference_t<decltype(hyperparameter)>;
    if constexpr (std::integral<type> && !std::same_as<type, bool>) {
      hyperparameter = pushpull::detail::to_integer<type>(value);
    } else {
      hyperparameter = static_cast<type>(value);
    }
    return result;
  }
  /// The hyperparameter as it is written in the stage.
  PUSHPULL_HOST_DEVICE double own() const {
    Stage copy = stage;
    return static_cast<double>(Hyperparameter::in(detail::holder_of<Hyperparameter>(copy)));
  }
  /// A stage that checks nothing takes finite numbers.
  PUSHPULL_HOST_DEVICE bool takes(double value) const {
    if constexpr (requires(Stage const& s, detail::accepts& all) { s.check(all); }) {
      return !pushpull::detail::is_nan(value) && detail::is_valid(with(value));
    } else {
      return pushpull::detail::is_finite(value);
    }
  }
};

/// A schedule that waits for the stage it belongs to: what `learning_rate` and `hyperparameter` give.
template <class Hyperparameter, class Schedule>
struct hyperparameter_schedule {
  Schedule schedule;
};

/// For the right of a pipe: `adam{} | learning_rate(s)` has the rate s(t) in the t-th update of a key; so has the last
/// stage of a longer pipe. s is a LearningRateSchedule, for instance lr_schedule::cosine.
template <class Schedule>
constexpr hyperparameter_schedule<detail::learning_rate_member, Schedule> learning_rate(Schedule const& schedule) {
  return {schedule};
}

/// The same for any hyperparameter of the stage on the left: `adamw{} | hyperparameter<&adamw::weight_decay>(s)`,
/// `clip_value(1) | hyperparameter<&clip_value::limit>(s) | adam{}`.
template <auto Member, class Schedule>
constexpr hyperparameter_schedule<detail::member<Member>, Schedule> hyperparameter(Schedule const& schedule) {
  return {schedule};
}

template <class Stage, class Hyperparameter, class Schedule>
  requires(Updater<Stage> || GradientTransform<Stage>)
constexpr scheduled<Stage, Hyperparameter, Schedule> operator|(
    Stage const& stage, hyperparameter_schedule<Hyperparameter, Schedule> const& right) {
  return {stage, right.schedule};
}
template <class First, class Rest, class Hyperparameter, class Schedule>
constexpr auto operator|(pipeline<First, Rest> const& pipe,
                         hyperparameter_schedule<Hyperparameter, Schedule> const& right) {
  auto const rest = pipe.rest | right;
  return pipeline<First, std::remove_const_t<decltype(rest)>>{pipe.first, rest};
}

namespace detail {

template <class Stage, class S, class Hyperparameter, class Schedule>
inline constexpr bool has_stage<Stage, scheduled<S, Hyperparameter, Schedule>> =
    has_stage<Stage, S> || std::same_as<Stage, Schedule> || std::same_as<Stage, scheduled<S, Hyperparameter, Schedule>>;

}  // namespace detail

/// The rule, transform or schedule of type `Stage` in a scheduled stage.
template <class Stage, class S, class Hyperparameter, class Schedule>
constexpr Stage& get(scheduled<S, Hyperparameter, Schedule>& from) {
  static_assert(detail::has_stage<Stage, scheduled<S, Hyperparameter, Schedule>>, "get: the pipe has no such stage");
  if constexpr (std::same_as<Stage, Schedule>) {
    return from.schedule;
  } else if constexpr (std::same_as<Stage, S>) {
    return from.stage;
  } else {
    return get<Stage>(from.stage);
  }
}
template <class Stage, class S, class Hyperparameter, class Schedule>
constexpr Stage const& get(scheduled<S, Hyperparameter, Schedule> const& from) {
  return get<Stage>(const_cast<scheduled<S, Hyperparameter, Schedule>&>(from));
}

}  // namespace pushpull::update
