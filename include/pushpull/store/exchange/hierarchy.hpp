/// @file
/// Policies for how the ranks of a store exchange slices.
#pragma once

#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::hierarchy {

/// Ranks of one node reach each other's mirrors and resident gradients by pointers, if their communicator shares memory:
/// the default.
struct nodes {
  using policy_kind = hierarchy_tag;
  static constexpr bool reaches_node = true;
};

/// All ranks exchange messages.
struct flat {
  using policy_kind = hierarchy_tag;
  static constexpr bool reaches_node = false;
};

}  // namespace pushpull::hierarchy
