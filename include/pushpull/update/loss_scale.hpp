/// @file
/// Stages that skip steps whose gradients are not finite, and the loss scale that adapts to them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <cuda/std/array>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/pipeline.hpp>
#include <pushpull/update/rule_name.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

namespace detail {

/// 0 for a finite gradient, 1 for infinity and NaN, under any flags of the compiler.
PUSHPULL_EXEC_CHECK_DISABLE
template <class V>
PUSHPULL_DEVICE_INLINE V not_finite(V const& g) {
  return select(is_finite(g), V(0), V(1));
}

/// A value that persists across steps, as a count: a checkpoint may bring a NaN or less than 0, which are none.
PUSHPULL_HOST_DEVICE constexpr double count(double carried) noexcept {
  return !pushpull::detail::is_nan(carried) && carried > 0 ? carried : 0;
}

}  // namespace detail

/// Leaves a step out if any gradient of any of its keys is infinite or NaN: weights, states and t stay as they were.
/// After `max_consecutive` skipped steps in a row the next is made all the same, as optax.apply_if_finite does.
/// First in a pipe it looks at the gradients as they come. Decided on the devices; nothing waits for the host.
/// Cost: the phase before the pass in which a PreReduction reads the gradients. Steps of a store follow one another.
struct apply_if_finite {
  std::int64_t max_consecutive = 5;

  static constexpr auto state_names = states();
  /// Elements that are not finite in this step; steps skipped in a row, and in total.
  using sums_type = cuda::std::array<double, 3>;
  static constexpr std::size_t carried = 2;

  /// @throws invalid_argument on a negative limit.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.not_negative("apply_if_finite: max_consecutive", static_cast<double>(max_consecutive));
  }

  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(step<A> const&, sums_type const&) const noexcept {
    return {};
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(S const&, V const&, V const& g) const noexcept {
    return detail::not_finite(g);
  }

  PUSHPULL_HOST_DEVICE sums_type initial_sums() const { return {}; }
  PUSHPULL_HOST_DEVICE bool skips(sums_type const& sums) const noexcept {
    return sums[0] > 0 && detail::count(sums[1]) + 1 <= static_cast<double>(max_consecutive);
  }
  PUSHPULL_HOST_DEVICE void carry(sums_type& sums) const noexcept {
    bool const finite = !(sums[0] > 0);
    sums[1] = finite ? 0 : detail::count(sums[1]) + 1;
    if (!finite) sums[2] = detail::count(sums[2]) + 1;
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V const&, V&) const noexcept {}
};

/// Gradients of a loss that was multiplied by a scale, which keeps small ones from vanishing in half precision
/// (Micikevicius et al. 2018): g = g / scale. If any gradient of the step is infinite or NaN the step is skipped:
/// weights, states and t stay, and the scale is multiplied by `backoff`, but goes no lower than `minimum`; after
/// `interval` good steps in a row it is multiplied by `growth`, up to `maximum`. Scale and 1 / scale are normal floats
/// throughout. Defaults and rules are those of PyTorch's GradScaler, and the minimum that of DeepSpeed and Paddle:
/// PyTorch's scale goes to 0 while gradients stay bad, and is lost then. A scale below the minimum, which a checkpoint
/// may bring, stays in use until a good interval has passed. Stands first in a pipe:
/// `dynamic_loss_scale{} | clip_global_norm(1) | adamw{}`. kv_store::loss_scale(n) is where a device finds the scale.
/// A step is what one call updates: a list of keys, or a plan.
/// Cost: the phase before the pass in which a PreReduction reads the gradients. Steps of a store follow one another.
struct dynamic_loss_scale {
  double initial = 65536, growth = 2, backoff = 0.5;
  std::int64_t interval = 2000;
  double minimum = 1;
  double maximum = 0x1p126;

  static constexpr auto state_names = states();
  /// Elements that are not finite in this step; the scale; good steps in a row.
  using sums_type = cuda::std::array<double, 3>;
  static constexpr std::size_t carried = 2;

  /// The scales whose inverse has all digits of a float, as they have: 2^-126 and 2^126.
  static constexpr double least = 0x1p-126, most = 0x1p126;

  /// @throws invalid_argument unless 2^-126 <= minimum <= initial <= maximum <= 2^126, growth > 1, 0 < backoff < 1,
  /// interval > 0.
  void validate() const { detail::validate(*this); }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Checks>
  PUSHPULL_HOST_DEVICE void check(Checks& c) const {
    c.in("dynamic_loss_scale: minimum", minimum, {.low = least, .high = most});
    c.in("dynamic_loss_scale: maximum", maximum, {.low = minimum, .high = most});
    c.in("dynamic_loss_scale: initial", initial, {.low = minimum, .high = maximum});
    c.in("dynamic_loss_scale: growth", growth, {.low = 1, .without_low = true});
    c.in("dynamic_loss_scale: backoff", backoff, {.high = 1, .without_low = true, .without_high = true});
    c.at_least("dynamic_loss_scale: interval", static_cast<double>(interval), 1);
  }

  /// 1 / scale.
  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(step<A> const&, sums_type const& sums) const noexcept {
    return static_cast<A>(1 / bounded(sums[1], least, most));
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE V pre_reduce(S const&, V const&, V const& g) const noexcept {
    return detail::not_finite(g);
  }

  PUSHPULL_HOST_DEVICE sums_type initial_sums() const { return {0, initial, 0}; }
  PUSHPULL_HOST_DEVICE bool skips(sums_type const& sums) const noexcept { return sums[0] > 0; }
  PUSHPULL_HOST_DEVICE void carry(sums_type& sums) const noexcept {
    if (skips(sums)) {
      double const backed_off = sums[1] * backoff;
      if (sums[1] > minimum) sums[1] = backed_off > minimum ? backed_off : minimum;
      sums[2] = 0;
    } else if (sums[2] = detail::count(sums[2]) + 1; sums[2] >= static_cast<double>(interval)) {
      sums[1] = bounded(sums[1] * growth, minimum, maximum);
      sums[2] = 0;
    }
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const& inverse, V const&, V& g) const noexcept {
    g *= inverse;
  }

 private:
  /// NaN becomes the lowest.
  PUSHPULL_HOST_DEVICE static constexpr double bounded(double x, double lowest, double highest) noexcept {
    return pushpull::detail::is_nan(x) || x < lowest ? lowest : x > highest ? highest : x;
  }
};

static_assert(PreReduction<apply_if_finite> && PreReduction<dynamic_loss_scale>);

namespace detail {

/// The number of the first of a stage's sums among those of a rule that holds it, through pipes and scheduled stages.
template <class Stage, class Rule>
constexpr std::size_t first_sum_of() {
  if constexpr (std::same_as<Stage, Rule>) {
    return 0;
  } else if constexpr (requires {
                         &Rule::first;
                         &Rule::rest;
                       }) {
    using first_type = decltype(Rule::first);
    if constexpr (std::same_as<Stage, first_type> || has_stage<Stage, first_type>) {
      return first_sum_of<Stage, first_type>();
    } else {
      return Rule::behind + first_sum_of<Stage, decltype(Rule::rest)>();
    }
  } else if constexpr (requires { &Rule::stage; }) {
    return first_sum_of<Stage, decltype(Rule::stage)>();
  } else {
    return first_sum_of<Stage, decltype(Rule::rule)>();
  }
}

/// The sums of one stage of `Rule`.
template <class Stage, class Rule>
pushpull::detail::sums_t<Stage> sums_of_stage(pushpull::detail::sums_t<Rule> const& sums) {
  pushpull::detail::sums_t<Stage> result{};
  for (std::size_t k = 0; k < pushpull::detail::sum_count<pushpull::detail::sums_t<Stage>>; ++k)
    pushpull::detail::sum(result, k) = pushpull::detail::sum(sums, first_sum_of<Stage, Rule>() + k);
  return result;
}

}  // namespace detail

template <>
inline constexpr std::string_view rule_name<apply_if_finite> = "apply_if_finite";
template <>
inline constexpr std::string_view rule_name<dynamic_loss_scale> = "dynamic_loss_scale";

}  // namespace pushpull::update
