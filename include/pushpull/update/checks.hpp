/// @file
/// Which values hyperparameters may have: said once by each rule, in `check`, refused by name on the host and noticed
/// in kernels, where schedules set them.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstdio>
#include <string>

#include <cuda/std/limits>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::update::detail {

/// Shortest text that shows what a number is: 1e-09, not 0.000000.
inline std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

/// The largest hyperparameter, but for limits, which may be infinite: the largest float. What is larger would be
/// infinite where a rule is computed in float.
inline constexpr double largest_hyperparameter = 3.4028234663852886e38;

/// The numbers from `low` to `high`, of which the ends count unless they are open.
struct interval {
  double low = 0;
  double high = largest_hyperparameter;
  bool without_low = false;
  bool without_high = false;

  /// NaN is in none, under any flags of the compiler.
  PUSHPULL_HOST_DEVICE constexpr bool has(double x) const {
    if (pushpull::detail::is_nan(x)) return false;
    return (without_low ? x > low : x >= low) && (without_high ? x < high : x <= high);
  }
};

inline std::string to_text(interval const& i) {
  return (i.without_low ? "(" : "[") + number_text(i.low) + ", " + number_text(i.high) + (i.without_high ? ")" : "]");
}

/// @throws invalid_argument unless the interval has the value.
inline void expects_in(char const* rule, char const* name, double value, interval const& range) {
  pushpull::detail::expects<invalid_argument>(range.has(value), [&] {
    return std::string(rule) + name + ": a value in " + to_text(range) + " expected, got " + number_text(value);
  });
}
/// @throws invalid_argument unless lowest <= value < bound
inline void expects_in_range(char const* name, double value, double lowest, double bound) {
  expects_in("", name, value, {.low = lowest, .high = bound, .without_high = true});
}
/// @throws invalid_argument unless the value is finite in float
inline void expects_finite(char const* name, double value) {
  expects_in("", name, value, {.low = -largest_hyperparameter});
}
/// @throws invalid_argument unless the value is finite in float and at least 0
inline void expects_not_negative(char const* name, double value) { expects_in("", name, value, {}); }
/// @throws invalid_argument unless the value is finite in float and above 0
inline void expects_positive(char const* name, double value) { expects_in("", name, value, {.without_low = true}); }

/// The argument of `check` of a rule: `in` of `Self` takes each hyperparameter, by its name, and its interval.
template <class Self>
struct checks {
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void in(char const* name, double value, interval const& range) {
    self().in("", name, value, range);
  }
  PUSHPULL_HOST_DEVICE void in_range(char const* name, double value, double lowest, double bound) {
    in(name, value, {.low = lowest, .high = bound, .without_high = true});
  }
  PUSHPULL_HOST_DEVICE void finite(char const* name, double value) {
    in(name, value, {.low = -largest_hyperparameter});
  }
  PUSHPULL_HOST_DEVICE void not_negative(char const* name, double value) { in(name, value, {}); }
  PUSHPULL_HOST_DEVICE void positive(char const* name, double value) { in(name, value, {.without_low = true}); }
  PUSHPULL_HOST_DEVICE void at_least(char const* name, double value, double lowest) {
    in(name, value, {.low = lowest});
  }
  /// At least 0; infinity is no limit at all.
  PUSHPULL_HOST_DEVICE void limit(char const* name, double value) {
    in(name, value, {.high = cuda::std::numeric_limits<double>::infinity()});
  }
  /// Any value will do: a flag, a seed.
  template <class T>
  PUSHPULL_HOST_DEVICE void any(char const*, T) {}
  /// The hyperparameters that all kin of adam share.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void adaptive(char const* rule, double learning_rate, double beta1, double beta2,
                                     double epsilon) {
    interval const share{.high = 1, .without_high = true};
    self().in(rule, ": learning_rate", learning_rate, {});
    self().in(rule, ": epsilon", epsilon, {});
    self().in(rule, ": beta1", beta1, share);
    self().in(rule, ": beta2", beta2, share);
  }
  /// Bounds of a norm.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void bounds(char const* rule, double lower, double upper) {
    self().in(rule, ": lower_bound", lower, {});
    self().in(rule, ": upper_bound", upper, {.low = lower, .high = cuda::std::numeric_limits<double>::infinity()});
  }

 private:
  PUSHPULL_HOST_DEVICE Self& self() { return static_cast<Self&>(*this); }
};

/// Refuses what is out of range.
struct refuses : checks<refuses> {
  using checks<refuses>::in;

  /// @throws invalid_argument with the names of the rule and its hyperparameter, the interval and the value.
  void in(char const* rule, char const* name, double value, interval const& range) {
    expects_in(rule, name, value, range);
  }
  /// A stage inside. @throws as its `validate`
  template <class Stage>
  void stage(Stage const& stage) {
    if constexpr (requires { stage.validate(); }) stage.validate();
  }
};

/// Notices what is out of range.
struct accepts : checks<accepts> {
  bool all = true;

  using checks<accepts>::in;

  PUSHPULL_HOST_DEVICE void in(char const*, char const*, double value, interval const& range) {
    all = all && range.has(value);
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Stage>
  PUSHPULL_HOST_DEVICE void stage(Stage const& stage) {
    if constexpr (requires { stage.check(*this); }) stage.check(*this);
  }
};

/// @throws invalid_argument on a hyperparameter of the stage that is out of range.
template <class Stage>
void validate(Stage const& stage) {
  refuses all;
  stage.check(all);
}

/// Whether every hyperparameter that a stage checks is in range.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Stage>
PUSHPULL_HOST_DEVICE bool is_valid(Stage const& stage) {
  accepts all;
  all.stage(stage);
  return all.all;
}

}  // namespace pushpull::update::detail
