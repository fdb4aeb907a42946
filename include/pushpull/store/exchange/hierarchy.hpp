/// @file
/// Policies for how the ranks of a store exchange slices.
#pragma once

#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::hierarchy {

/// Ranks of one node reach each other's mirrors and resident gradients by pointers, if their communicator shares memory:
/// the default. Between nodes of equally many ranks, rank c of each node exchanges slices with rank c of the others:
/// sums of the node's resident gradients in the store's element type, and new slices, which then reach the whole node.
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
