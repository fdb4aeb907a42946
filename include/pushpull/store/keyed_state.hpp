/// @file
/// The keys of a store and the order of its operations: the same class for all rules.
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <shared_mutex>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/capture.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/keys/topology.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The keys of a store, and what orders its operations. Operations that need no rule know no more of a store, so that they
/// are compiled once for all rules.
/// @tparam Table  A key_table.
template <class Table>
struct keyed_state {
  using device_type = typename Table::device_type;

  Table keys;
  variable steps;                   ///< The order of steps that share sums, or values that persist.
  variable* collectives = nullptr;  ///< The order of operations that all ranks take part in, if there are several.
  guarded_mutex<std::shared_mutex> mutex;  ///< Keys and groups against calls that change them.
  captured_calls captured;                 ///< That graphs launch.

  /// The parameters of key_table.
  keyed_state(std::vector<device_type> const& devices, topology const& owners, rank_group* ranks,
              std::shared_ptr<typename Table::directory_type> directory, std::size_t number,
              placement_rule const& placement, std::size_t states, bool may_skip)
      : keys(devices, owners, std::move(directory), number, placement, states, may_skip, ranks) {}

  std::vector<device_type> const& devices() const { return keys.devices(); }

  /// Names the order of the ranks' operations for one that all of them take part in.
  void write_collectives(operation& op) {
    if (keys.is_distributed()) op.writes(*collectives);
  }
  /// @throws comm_error if ranks may hold different weights, because an earlier call to them has failed
  void expect_in_step([[maybe_unused]] char const* caller) const {
    if constexpr (Table::collective)
      if (keys.is_distributed()) keys.ranks().expect_in_step(caller);
  }
  /// f(), a part of an operation that all ranks take part in: the other ranks are told of errors that they do not meet.
  template <class F>
  decltype(auto) in_step(F const& f, [[maybe_unused]] bool alike = true) const {
    if constexpr (Table::collective) {
      if (!keys.is_distributed()) return f();
      try {
        return f();
      } catch (...) {
        keys.ranks().note(std::current_exception(), alike);
        throw;
      }
    } else {
      return f();
    }
  }
  /// Same, of the user's code in a step: its errors end the steps of all ranks, which do not meet them.
  template <class F>
  decltype(auto) in_own_step(F const& f) const {
    return in_step(f, false);
  }
};

}  // namespace pushpull::detail
