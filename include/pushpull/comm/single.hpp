/// @file
/// The communicator of one process.
#pragma once

#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// This process alone: the default.
struct single {
  using policy_kind = communicator_tag;
  int rank() const noexcept { return 0; }
  int size() const noexcept { return 1; }
  void barrier() const noexcept {}
};

static_assert(Communicator<single>);

}  // namespace pushpull::comm
