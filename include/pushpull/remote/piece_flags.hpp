/// @file
/// The flags of requests about pieces.
#pragma once

#include <cstdint>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// Of push_rows: rows that did not come see a zero gradient.
inline constexpr std::uint8_t standard_rows = 1;
/// Of push and pushpull: the payload is codes. See remote/compression.hpp.
inline constexpr std::uint8_t coded_gradient = 1;
/// Of assign: states and t start again.
inline constexpr std::uint8_t resets_states = 1;

}  // namespace pushpull::remote::detail
