/// @file
/// The states of a key when its weights are assigned.
#pragma once

#include <cstddef>
#include <cstdint>

#include <pushpull/config.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/keys/shard.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The effect of `assign` on the states of a key.
enum class rule_states {
  keep,  ///< The rule's states, t, residuals of compressed gradients and the sum of micro-batches stay.
  reset  ///< All of these start again, as after init.
};

namespace detail {

/// The key's states, t, residuals and micro-batches as after init. Allocates nothing. Waits.
template <class Table, class Controls>
void reset_states(Table const& table, Controls const& controls, typename Table::record& r) {
  for_each_shard(table, r, [&](auto const& shard) {
    for (std::size_t s = 0; s != table.state_count(); ++s)
      Table::arena_type::clear_state(shard.device(), shard.state(s), s, shard.size());
    if (r.rare != nullptr && r.rare->factors.bytes() > 0)
      shard.device().fill_zero(r.rare->factors.data(), r.rare->factors.bytes());
  });
  if (r.rare != nullptr)
    for (auto const& source : r.rare->compressed)
      source.device.fill_zero(source.residual.data(), source.residual.bytes());
  r.micro_batches = 0;
  if (controls.empty()) {
    r.updates = 0;
  } else {
    write_steps(table, controls, r, 0);
  }
}

}  // namespace detail
}  // namespace pushpull
