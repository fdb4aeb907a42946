/// @file
/// Scalar formulas that rules evaluate once per step, in double, on the host and in kernels.
#pragma once

#include <cstdint>
#include <string>

#include <cuda/std/cmath>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::update {

/// 1 - beta^t, without the cancellation that the plain form suffers for beta close to 1 (Kingma & Ba 2015, section 3).
PUSHPULL_HOST_DEVICE inline double bias_correction(double beta, std::int64_t t) {
  return -cuda::std::expm1(static_cast<double>(t) * cuda::std::log(beta));
}

namespace detail {

/// @throws invalid_argument unless lowest <= value < bound; NaN is refused.
inline void expects_in_range(char const* name, double value, double lowest, double bound) {
  pushpull::detail::expects<invalid_argument>(value >= lowest && value < bound, [&] {
    return std::string(name) + ": a value in [" + std::to_string(lowest) + ", " + std::to_string(bound) +
           ") expected, got " + std::to_string(value);
  });
}

/// @throws invalid_argument unless value is finite and at least 0.
inline void expects_not_negative(char const* name, double value) {
  pushpull::detail::expects<invalid_argument>(value >= 0 && value <= 1.7976931348623157e308, [&] {
    return std::string(name) + ": a finite value of at least 0 expected, got " + std::to_string(value);
  });
}

}  // namespace detail
}  // namespace pushpull::update
