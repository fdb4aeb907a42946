/// @file
/// Policies for how the ranks of a store exchange slices.
#pragma once

#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::hierarchy {

/// Ranks of one node reach each other's mirrors and resident gradients by pointers, if their communicator shares memory:
/// the default. Between nodes of equally many ranks, rank c of each node exchanges slices with rank c of the others:
/// sums of the node's resident gradients in the store's element type, and new slices, which then reach the whole node.
/// A rank of several GPUs is like a node: device c of each rank exchanges sums with device c of the others.
struct nodes {
  using policy_kind = hierarchy_tag;
  static constexpr bool reaches_node = true;
};

/// All ranks exchange messages, of the gradients of each device.
struct flat {
  using policy_kind = hierarchy_tag;
  static constexpr bool reaches_node = false;
};

/// Same, but the communicator, one that models ReducesSlices, adds up resident gradients: an owner gets the sum over the
/// ranks, in the store's element type, in place of their gradients. The order of the sum, and so its last bits, are the
/// communicator's. For sums and means.
struct reduce_scatter {
  using policy_kind = hierarchy_tag;
  static constexpr bool reaches_node = false;
  static constexpr bool reduces = true;
};

}  // namespace pushpull::hierarchy
