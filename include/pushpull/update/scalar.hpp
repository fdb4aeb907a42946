/// @file
/// Scalar formulas that rules evaluate once per step, in double, on the host and in kernels.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include <cuda/std/cmath>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// 1 - beta^t, without the cancellation that the plain form suffers for beta close to 1 (Kingma & Ba 2015, section 3).
PUSHPULL_HOST_DEVICE inline double bias_correction(double beta, std::int64_t t) {
  return -cuda::std::expm1(static_cast<double>(t) * cuda::std::log(beta));
}

namespace detail {

/// Shortest text that shows what a number is: 1e-09, not 0.000000.
inline std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

/// @throws invalid_argument unless value is finite.
inline void expects_finite(char const* name, double value) {
  pushpull::detail::expects<invalid_argument>(cuda::std::abs(value) <= 1.7976931348623157e308, [&] {
    return std::string(name) + ": a finite value expected, got " + number_text(value);
  });
}

/// @throws invalid_argument unless lowest <= value < bound; NaN is refused.
inline void expects_in_range(char const* name, double value, double lowest, double bound) {
  pushpull::detail::expects<invalid_argument>(value >= lowest && value < bound, [&] {
    return std::string(name) + ": a value in [" + number_text(lowest) + ", " + number_text(bound) +
           ") expected, got " + number_text(value);
  });
}

/// @throws invalid_argument unless value is finite and at least 0.
inline void expects_not_negative(char const* name, double value) {
  pushpull::detail::expects<invalid_argument>(value >= 0 && value <= 1.7976931348623157e308, [&] {
    return std::string(name) + ": a finite value of at least 0 expected, got " + number_text(value);
  });
}

/// @throws invalid_argument unless value is finite and above 0.
inline void expects_positive(char const* name, double value) {
  pushpull::detail::expects<invalid_argument>(value > 0 && value <= 1.7976931348623157e308, [&] {
    return std::string(name) + ": a finite value above 0 expected, got " + number_text(value);
  });
}

/// @throws invalid_argument unless value is at least 0; infinity is no limit at all.
inline void expects_limit(char const* name, double value) {
  pushpull::detail::expects<invalid_argument>(value >= 0, [&] {
    return std::string(name) + ": a value of at least 0 expected, got " + number_text(value);
  });
}

/// @throws invalid_argument on a negative rate or epsilon of the rule, or a beta outside [0, 1).
inline void expects_adaptive(char const* rule, double learning_rate, double beta1, double beta2, double epsilon) {
  std::string const prefix = std::string(rule) + ": ";
  expects_not_negative((prefix + "learning_rate").c_str(), learning_rate);
  expects_not_negative((prefix + "epsilon").c_str(), epsilon);
  expects_in_range((prefix + "beta1").c_str(), beta1, 0, 1);
  expects_in_range((prefix + "beta2").c_str(), beta2, 0, 1);
}

}  // namespace detail
}  // namespace pushpull::update
