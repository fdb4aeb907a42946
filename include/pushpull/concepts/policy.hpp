/// @file
/// Tags that say which place among a store's policies a type takes.
#pragma once

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

struct reduction_tag {};     ///< How the gradients of several sources become one. Default reduce::sum.
struct compressor_tag {};    ///< How gradients travel. Default compress::none.
struct communicator_tag {};  ///< Who else holds slices. Default comm::single.
struct key_tag {};           ///< The kind of keys. Default string_keys.
struct accumulation_tag {};  ///< How many pushes make a step. Default: each is one.
struct state_codec_tag {};   ///< How a rule's states are stored. Default plain_states.
struct element_tag {};       ///< Element types that differ from the store's. Default element::uniform.
struct execution_tag {};     ///< When calls return. Default asynchronous.
struct placement_tag {};     ///< Which device owns what. Default placement::slices.
struct hierarchy_tag {};     ///< How the ranks of a store exchange slices. Default hierarchy::nodes.

}  // namespace pushpull
