/// @file
/// How the pass reads and writes the operands of a block.
#pragma once

#include <cstddef>
#include <cstdint>

#include <pushpull/config.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/pass/coded_states.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/registers/block.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/registers/state_codec.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// The layout of the operands of a launch.
enum class memory {
  arenas,   ///< All aligned, all whole blocks.
  foreign,  ///< Gradients and mirrors belong to the caller: any length, any alignment.
  rows      ///< Masters and states too: runs are rows of a tensor, and blocks also hold other rows.
};

namespace detail {

/// f(operand) for operands first to count - 1. On GPUs guarded constants index the near ones: a run-time index would
/// put the array of pointers into local memory.
PUSHPULL_EXEC_CHECK_DISABLE
template <bool Unrolled, class Pointer, class F>
PUSHPULL_DEVICE_INLINE void for_each_operand(Pointer const (&near)[inline_operands], Pointer const* far,
                                             std::int32_t first, std::int32_t count, F const& f) {
  if constexpr (Unrolled) {
    static_for<inline_operands>([&](auto k) PUSHPULL_INLINE_LAMBDA {
      constexpr auto index = static_cast<std::int32_t>(decltype(k)::value);
      if (index >= first && index < count) f(near[index]);
    });
    PUSHPULL_NO_UNROLL
    for (std::int32_t k = inline_operands; k < count; ++k) f(far[k - inline_operands]);
  } else {
    for (std::int32_t k = first; k < count; ++k) f(k < inline_operands ? near[k] : far[k - inline_operands]);
  }
}

/// Operand number k: a chain of selections, where `near[k]` would put the array of pointers into local memory.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Pointer>
PUSHPULL_DEVICE_INLINE Pointer selected_operand(Pointer const (&near)[inline_operands], Pointer const* far,
                                                std::int32_t k) {
  if (k >= inline_operands) return far[k - inline_operands];
  Pointer selected = near[0];
  static_for<inline_operands - 1>([&](auto j) PUSHPULL_INLINE_LAMBDA {
    constexpr auto index = static_cast<std::int32_t>(decltype(j)::value) + 1;
    selected = k == index ? near[index] : selected;
  });
  return selected;
}

/// The elements of sources on GPUs, one by one, in source order: `valid` of a block at its tail, or what is not aligned. There is one
/// copy of this code for all sources, since it is many instructions for each.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Reduction, class Block, class Run>
PUSHPULL_DEVICE_INLINE void reduce_by_element(Block& total, Run const& r, std::int64_t i, std::int64_t valid) {
  static_for<Block::count>([&](auto j) PUSHPULL_INLINE_LAMBDA { total.x[j] = 0; });
  PUSHPULL_NO_UNROLL
  for (std::int32_t k = 0; k < r.gradients; ++k) {
    Block next;
    next.load_partial(selected_operand(r.gradient, r.more_gradients, k) + i, valid);
    static_for<Block::count>(
        [&](auto j) PUSHPULL_INLINE_LAMBDA { total.x[j] = k == 0 ? next.x[j] : Reduction{}(total.x[j], next.x[j]); });
  }
}

/// Sources whose loads a GPU has in flight together: more cost registers, fewer leave memory waiting.
inline constexpr std::size_t grouped_loads = 4;

/// add(block) for each source behind the first, which `load(block, source)` reads; in source order.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Block, class Run, class Load, class Add>
PUSHPULL_DEVICE_INLINE void add_sources(Run const& r, Load const& load, Add const& add) {
  auto const one = [&](typename Run::source_type from) PUSHPULL_INLINE_LAMBDA {
    Block next;
    load(next, from);
    add(next);
  };
  if constexpr (Block::access::unrolled) {
    static_for<inline_operands / grouped_loads>([&](auto group) PUSHPULL_INLINE_LAMBDA {
      constexpr auto base = static_cast<std::int32_t>(group * grouped_loads);
      if (base != 0 && base >= r.gradients) return;
      Block next[grouped_loads];
      static_for<grouped_loads>([&](auto k) PUSHPULL_INLINE_LAMBDA {
        constexpr auto index = base + static_cast<std::int32_t>(k);
        if (index != 0 && index < r.gradients) load(next[k], r.gradient[index]);
      });
      static_for<grouped_loads>([&](auto k) PUSHPULL_INLINE_LAMBDA {
        constexpr auto index = base + static_cast<std::int32_t>(k);
        if (index != 0 && index < r.gradients) add(next[k]);
      });
    });
    for_each_operand<true>(r.gradient, r.more_gradients, inline_operands, r.gradients, one);
  } else {
    for_each_operand<false>(r.gradient, r.more_gradients, 1, r.gradients, one);
  }
}

/// The reduction of a block over all sources, in source order. A GPU asks once whether the block is whole: a branch at
/// each source would keep their loads apart. @tparam Alone  There is one source.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Reduction, memory Memory, bool Alone = false, class Block, class Run>
PUSHPULL_DEVICE_INLINE void reduce(Block& total, Run const& r, std::int64_t i, std::int64_t valid) {
  using element = typename Run::gradient_type;
  using source = typename Run::source_type;
  constexpr bool asks_once = Memory != memory::arenas && Block::access::unrolled && !pushpull::detail::Encoded<element>;
  auto const load = [&](Block& to, source from) PUSHPULL_INLINE_LAMBDA {
    if constexpr (pushpull::detail::Encoded<element>) {
      to.template load_encoded<element>(from, i, r.unit);
      if constexpr (pushpull::detail::Code<element>)  // elsewhere the gap is zero when decoded
        if (valid < Block::size) to.clear_from(valid);
    } else {
      if constexpr (Memory != memory::arenas && !asks_once)
        if (Block::by_element(valid, r.aligned)) return to.load_partial(from + i, valid);
      to.load(from + i);
    }
  };
  bool by_element = false;
  if constexpr (asks_once) by_element = Block::by_element(valid, r.aligned);
  if (by_element) {
    if constexpr (asks_once) reduce_by_element<Reduction>(total, r, i, valid);
  } else {
    load(total, r.gradient[0]);
    if constexpr (!Alone)
      add_sources<Block>(r, load, [&](Block const& next) PUSHPULL_INLINE_LAMBDA {
        static_for<Block::count>([&](auto j)
                                     PUSHPULL_INLINE_LAMBDA { total.x[j] = Reduction{}(total.x[j], next.x[j]); });
      });
  }
  static_for<Block::count>([&](auto j)
                               PUSHPULL_INLINE_LAMBDA { total.x[j] = Reduction{}.finish(total.x[j], r.sources); });
}

/// Adds what earlier micro-batches left.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Types, class Block, class Run>
PUSHPULL_DEVICE_INLINE void add_accumulated(Block& total, Run const& r, std::int64_t i) {
  if constexpr (Types::accumulates) {
    if (!r.accumulated) return;
    Block earlier;
    earlier.load(static_cast<typename Types::accumulation const*>(r.reduced) + i);
    static_for<Block::count>([&](auto j) PUSHPULL_INLINE_LAMBDA { total.x[j] += earlier.x[j]; });
  }
}

/// Prefetches the operands of a later block if they are in memory rather than in caches.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Execution, class Block, bool Gradients, bool Weight, bool States, class Run>
PUSHPULL_DEVICE_INLINE void fetch_ahead(Run const& r, std::int64_t i) {
  if constexpr (requires { Execution::fetched_ahead; }) {
    i += pushpull::detail::CodedStates<typename Run::state_type> ? Execution::fetched_ahead_of_codes
                                                                 : Execution::fetched_ahead;
    if (!r.distant || i + Block::size > r.size) return;
    auto const fetch = [&](auto const* from)
                           PUSHPULL_INLINE_LAMBDA { pushpull::detail::simd_fetch(from + i, Block::size); };
    if constexpr (Gradients && !pushpull::detail::Encoded<typename Run::gradient_type>) {
      fetch(r.gradient[0]);
      for_each_operand<false>(r.gradient, r.more_gradients, 1, r.gradients, fetch);
    }
    if constexpr (Weight) fetch(r.master);
    if constexpr (States)
      static_for<Run::states>(
          [&](auto s) PUSHPULL_INLINE_LAMBDA { fetch_state<typename Run::state_type, s>(r, i, Block::size); });
  }
}

/// Prefetches the master and the states of the own block, which are read after the gradients: ptxas moves a load to its
/// first use, so the thread would wait for memory twice. A block of several accesses has enough of them in flight.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Block, bool Weight, class Run>
PUSHPULL_DEVICE_INLINE void fetch_stored(Run const& r, std::int64_t i) {
  if constexpr (requires { Block::access::fetch(r.master); } && sizeof(Block) <= 16) {
    if constexpr (Weight) Block::access::fetch(r.master + i);
    static_for<Run::states>([&](auto s) PUSHPULL_INLINE_LAMBDA {
      auto const at = r.state[s] + i;
      if constexpr (!pushpull::detail::CodedStates<typename Run::state_type>) {
        Block::access::fetch(at);
      } else if constexpr (Run::state_type::template encodes<s>) {
        Block::access::fetch(at.codes(pushpull::detail::code_bits<typename Run::state_type::template codec<s>>));
      } else {
        Block::access::fetch(at.elements());
      }
    });
  }
}

/// Reads and writes masters and states: whole blocks, except where other rows share them.
PUSHPULL_EXEC_CHECK_DISABLE
template <memory Memory, class Block, class T>
PUSHPULL_DEVICE_INLINE void load_stored(Block& to, T const* from, bool aligned, std::int64_t valid) {
  if constexpr (Memory == memory::rows) {
    if (Block::by_element(valid, aligned)) return to.load_partial(from, valid);
  }
  to.load(from);
}
PUSHPULL_EXEC_CHECK_DISABLE
template <memory Memory, class Block, class T>
PUSHPULL_DEVICE_INLINE void store_stored(Block const& from, T* to, bool aligned, std::int64_t valid) {
  if constexpr (Memory == memory::rows) {
    if (Block::by_element(valid, aligned)) return from.store_partial(to, valid);
  }
  from.store(to);
}

/// Reads a block of state number s.
PUSHPULL_EXEC_CHECK_DISABLE
template <memory Memory, class S, std::size_t s, class Block>
PUSHPULL_DEVICE_INLINE void load_state(Block& to, pushpull::detail::state_pointer<S> from,
                                       [[maybe_unused]] bool aligned, [[maybe_unused]] std::int64_t valid) {
  if constexpr (pushpull::detail::CodedStates<S>) {
    load_coded<typename S::template codec<s>>(to, from);
  } else {
    load_stored<Memory>(to, static_cast<S const*>(from), aligned, valid);
  }
}

/// Writes a block to every mirror.
PUSHPULL_EXEC_CHECK_DISABLE
template <memory Memory, class Block, class Run>
PUSHPULL_DEVICE_INLINE void mirror(Block const& w, Run const& r, std::int64_t i, std::int64_t valid) {
  constexpr bool asks_once = Memory != memory::arenas && Block::access::unrolled;
  if constexpr (asks_once)
    if (Block::by_element(valid, r.aligned)) {  // one copy of this code for all mirrors, as in reduce_by_element
      PUSHPULL_NO_UNROLL
      for (std::int32_t k = 0; k < r.mirrors; ++k)
        w.store_partial(selected_operand(r.mirror, r.more_mirrors, k) + i, valid);
      return;
    }
  for_each_operand<Block::access::unrolled>(r.mirror, r.more_mirrors, 0, r.mirrors,
                                            [&](typename Run::mirror_type* to) PUSHPULL_INLINE_LAMBDA {
                                              if constexpr (Memory != memory::arenas && !asks_once) {
                                                if (Block::by_element(valid, r.aligned))
                                                  return w.store_partial(to + i, valid);
                                              }
                                              w.store(to + i, r.streaming);
                                            });
}

}  // namespace detail
}  // namespace pushpull::pass
