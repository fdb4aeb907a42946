/// @file
/// The weights and gradients of all recorded trajectories.
#pragma once

#include <cstdint>

namespace pytorch_reference {

/// The source of all weights and gradients; the arithmetic on integers wraps around at 2^32.
constexpr float formula(std::uint32_t i, std::uint32_t s) {
  return static_cast<float>((i * 2654435761U + s * 3266489917U + 12345U) / 4294967296.0 * 2.0 - 1.0);
}

/// What element i of the weights starts at.
constexpr float initial_weight(std::uint32_t i) { return formula(i, 0); }

/// The gradient of element i in a step, counted from 1, before any clipping.
constexpr float gradient(std::uint32_t i, std::uint32_t step) {
  return formula(i, step) * (step % 3 == 0 ? 0.125F : 1.0F);
}

}  // namespace pytorch_reference
