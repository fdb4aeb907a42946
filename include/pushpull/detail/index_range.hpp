/// @file
/// A part of a list, by numbers.
#pragma once

#include <cstdint>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Entries number `first` to `last`.
struct index_range {
  std::int32_t first, last;
};

}  // namespace pushpull::detail
