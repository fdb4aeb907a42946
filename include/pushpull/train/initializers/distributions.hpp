/// @file
/// Initializers whose values do not depend on the shape: constant, uniform, normal.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <pushpull/config.hpp>
#include <pushpull/device/tbb_system.hpp>
#include <pushpull/error.hpp>
#include <pushpull/registers/pack.hpp>
#include <pushpull/train/initializers/initializer.hpp>
#include <pushpull/update/random.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::initializers {

namespace detail {

using pushpull::detail::expects;

/// The finalizer of SplitMix64 (Steele et al. 2014): one bit of the input changes half of the output's.
constexpr std::uint64_t mixed_bits(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

/// The key of a parameter's random numbers: a hash of seed and name (FNV-1a).
constexpr std::uint64_t random_key(parameter_target const& target) noexcept {
  std::uint64_t hash = 0xCBF29CE484222325 ^ mixed_bits(target.seed + 0x9E3779B97F4A7C15);
  for (char const c : target.name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return mixed_bits(hash);
}

/// values[i] = f(i), in parallel.
template <class F>
void fill(std::span<float> values, F const& f) {
  constexpr std::size_t grain = 1 << 14;
  tbb_system::for_each(static_cast<std::int64_t>((values.size() + grain - 1) / grain), [&](std::int64_t task) {
    std::size_t const first = static_cast<std::size_t>(task) * grain;
    for (std::size_t i = first; i < std::min(first + grain, values.size()); ++i) values[i] = static_cast<float>(f(i));
  });
}

inline void expect_scale(char const* initializer, char const* name, double value) {
  expects<invalid_argument>(std::isfinite(value) && value >= 0, [&] {
    return std::string(initializer) + ": " + name + " of at least 0 expected, got " + std::to_string(value);
  });
}

/// Uniform numbers in (-scale, scale). 32 bits each.
inline void fill_uniform(parameter_target const& target, double scale, std::span<float> values) {
  fill(values, [key = random_key(target), scale](std::size_t i) {
    auto const bits =
        update::philox({static_cast<std::uint32_t>(i / 4), static_cast<std::uint32_t>(i / 4 >> 32), 0, 0}, key)[i % 4];
    return scale * ((static_cast<double>(bits) + 0.5) * 0x1p-31 - 1);
  });
}

/// Normal numbers of mean 0 and the given standard deviation.
inline void fill_normal(parameter_target const& target, double deviation, std::span<float> values) {
  fill(values, [key = random_key(target), deviation](std::size_t i) {
    return deviation * update::standard_normal<pack<double>>(key, 0, static_cast<std::int64_t>(i)).value;
  });
}

}  // namespace detail

/// Every element is `value`.
struct constant {
  double value = 0;
  void operator()(parameter_target const&, std::span<float> values) const {
    std::fill(values.begin(), values.end(), static_cast<float>(value));
  }
};

/// Uniform in (-scale, scale). @throws invalid_argument if the scale is negative or infinite
struct uniform {
  double scale = 0.01;
  void operator()(parameter_target const& target, std::span<float> values) const {
    detail::expect_scale("uniform", "a scale", scale);
    detail::fill_uniform(target, scale, values);
  }
};

/// Normal of mean 0 and standard deviation `sigma`. @throws invalid_argument if sigma is negative or infinite
struct normal {
  double sigma = 0.01;
  void operator()(parameter_target const& target, std::span<float> values) const {
    detail::expect_scale("normal", "a sigma", sigma);
    detail::fill_normal(target, sigma, values);
  }
};

static_assert(Initializer<constant> && Initializer<uniform> && Initializer<normal>);

}  // namespace pushpull::train::initializers
