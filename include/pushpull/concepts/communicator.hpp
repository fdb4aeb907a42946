/// @file
/// The processes that share a store.
#pragma once

#include <concepts>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Needs:     rank() -> int in [0, size()); size() -> int; barrier(), which returns when every rank has called it;
///            policy_kind = communicator_tag. All are const; copies refer to the same processes.
/// May have:  ranks_are_independent() -> bool: true if every rank trains a store of its own. A store of several ranks
///            that do not say so is refused, because no communicator can exchange slices yet. Each collective will be a
///            concept of its own that refines this one.
/// Models:    comm::single, comm::any_communicator.
template <class C>
concept Communicator = requires(C const& c) {
  typename C::policy_kind;
  { c.rank() } -> std::convertible_to<int>;
  { c.size() } -> std::convertible_to<int>;
  c.barrier();
} && std::copy_constructible<C>;

namespace detail {

/// Whether the communicator says that its ranks exchange nothing.
template <Communicator C>
bool has_independent_ranks(C const& communicator) {
  if constexpr (requires {
                  { communicator.ranks_are_independent() } -> std::convertible_to<bool>;
                }) {
    return communicator.ranks_are_independent();
  } else {
    return false;
  }
}

}  // namespace detail
}  // namespace pushpull
