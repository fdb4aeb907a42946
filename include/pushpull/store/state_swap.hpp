/// @file
/// The exchange of stored weights with a state of the rule.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/reach.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// What a swap does: the weight becomes the state and the state the weight.
struct exchange {
  static constexpr auto state_names = states("exchanged");
  static constexpr bool timeless = true;
  static constexpr bool reads_gradient = false;

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const&, V& state) const {
    V const weight = w;
    w = state;
    state = weight;
  }
};

/// @throws duplicate_key if a key stands twice in a call that takes each once
template <class Record>
void expect_different(char const* call, std::vector<Record*> keys) {
  std::sort(keys.begin(), keys.end(), [](auto const* a, auto const* b) { return a->index < b->index; });
  auto const twice = std::adjacent_find(keys.begin(), keys.end());
  expects<duplicate_key>(twice == keys.end(), [&] {
    return std::string(call) + ": " + key_text((*twice)->key) + " stands twice in one call";
  });
}

/// Exchanges masters and state number `s` of the keys for which `has_state(record)` holds, and writes resident mirrors: one
/// pass per device, enqueued.
/// @tparam Types  The element types of the store's pass.
template <class Types, class Table, class Record, class F>
void swap_state(Table const& table, std::span<Record* const> keys, std::size_t s, F const& has_state) {
  static_assert(std::is_same_v<typename Types::master, typename Types::state>,
                "swap: masters and states have different element types, so that one of the two would be rounded");
  using mirror_type = typename Types::mirror;
  using device_type = typename std::remove_cvref_t<decltype(table.devices())>::value_type;
  fused_step<device_type, exchange, reduce::sum, Types, pass::memory::foreign> step(table.devices().size());
  std::vector<mirror_type*> mirrors;
  std::vector<staged_copy> copies;
  for (Record const* const r : keys) {
    if (!has_state(*r)) continue;
    for_each_shard(table, *r, [&](auto const& shard) {
      mirrors.clear();
      if (shard.resident()) {
        table.add_mirrors(mirrors, shard);
        table.add_mirror_copies(copies, shard);
      }
      step.add(shard.device_number(), shard.template swap_run<typename decltype(step)::run_type>(s), {}, mirrors);
    });
  }
  step.commit(table.devices());
  step.run(table.devices());
  copy_behind(table.devices(), copies);
}

}  // namespace pushpull::detail
