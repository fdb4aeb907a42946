/// @file
/// The effects that a pass can have on the keys of a call.
#pragma once

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The effect of a pass on the keys of a call.
enum class effect {
  reads,        ///< Outputs are written.
  updates,      ///< Weights change: an update is counted, and resident mirrors follow.
  assigns,      ///< Weights change without an update, and resident mirrors follow.
  accumulates,  ///< The sum of a key's micro-batches changes, and nothing else.
};

constexpr bool changes_mirrors(effect what) { return what == effect::updates || what == effect::assigns; }

}  // namespace pushpull::detail
