/// @file
/// Initializers whose scale follows from the shape: xavier and msra.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/initializers/distributions.hpp>
#include <pushpull/train/initializers/initializer.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::initializers {

/// The distribution of an initializer.
enum class distribution { uniform, gaussian };

/// The fan that an initializer's scale is for: so many inputs or outputs of a unit.
enum class fan {
  in,      ///< inputs of a unit: extent 1 times those from 2 on
  out,     ///< outputs: extent 0 times those from 2 on
  average  ///< their mean
};

namespace detail {

/// @throws invalid_argument if the shape has rank 0 or 1, or the number is 0
inline double fan_of(char const* initializer, parameter_target const& target, fan chosen) {
  auto const of_target = [&] {
    return std::string(initializer) + ": parameter \"" + std::string(target.name) + "\" of shape " +
           to_string(target.shape);
  };
  expects<invalid_argument>(target.shape.rank() >= 2, [&] { return of_target() + ": a rank of at least 2 expected"; });
  double area = 1;
  for (std::size_t axis = 2; axis < target.shape.rank(); ++axis) area *= static_cast<double>(target.shape[axis]);
  double const in = area * static_cast<double>(target.shape[1]), out = area * static_cast<double>(target.shape[0]);
  double const factor = chosen == fan::in ? in : chosen == fan::out ? out : (in + out) / 2;
  expects<invalid_argument>(factor > 0, [&] { return of_target() + ": extents above 0 expected"; });
  return factor;
}

}  // namespace detail

/// scale = sqrt(magnitude / fan): uniform in (-scale, scale), or normal of standard deviation `scale` (Glorot & Bengio 2010).
/// The defaults are MXNet's; DJL has {gaussian, in, 2}.
/// @throws invalid_argument for shapes of rank 0 and 1, extents of 0, and negative magnitudes
struct xavier {
  initializers::distribution distribution = initializers::distribution::uniform;
  fan factor = fan::average;
  double magnitude = 3;

  void operator()(parameter_target const& target, std::span<float> values) const {
    detail::expect_scale("xavier", "a magnitude", magnitude);
    double const scale = std::sqrt(magnitude / detail::fan_of("xavier", target, factor));
    if (distribution == initializers::distribution::uniform)
      detail::fill_uniform(target, scale, values);
    else
      detail::fill_normal(target, scale, values);
  }
};

/// Normal of variance 2 / ((1 + slope^2) fan), for layers before a leaky ReLU of that slope (He et al. 2015).
/// @throws as xavier
struct msra {
  double slope = 0.25;
  fan factor = fan::average;

  void operator()(parameter_target const& target, std::span<float> values) const {
    xavier{distribution::gaussian, factor, 2 / (1 + slope * slope)}(target, values);
  }
};

static_assert(Initializer<xavier> && Initializer<msra>);

}  // namespace pushpull::train::initializers
