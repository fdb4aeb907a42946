/// @file
/// The processes that share a store.
#pragma once

#include <concepts>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Needs:  rank() -> int in [0, size()); size() -> int; policy_kind = communicator_tag. Each collective is a concept of
///         its own that refines this one.
/// Model:  comm::single.
template <class C>
concept Communicator = requires(C const& c) {
  typename C::policy_kind;
  { c.rank() } -> std::convertible_to<int>;
  { c.size() } -> std::convertible_to<int>;
};

}  // namespace pushpull
