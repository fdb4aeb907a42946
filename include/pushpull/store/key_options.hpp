/// @file
/// Options of a key's init.
#pragma once

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Options of a key, as the last argument of init: store.init("table", value, {.mirrored = false}).
struct key_options {
  /// Whether every rank of a store over ranks has a mirror of the whole key, which pulls of this rank read. Without one a
  /// rank has its owners' slices only, and pulls ask the owners: all ranks make them. For large tables. Stores of one
  /// process make no mirrors, with either value.
  bool mirrored = true;
};

}  // namespace pushpull
