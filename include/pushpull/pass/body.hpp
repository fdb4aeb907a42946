/// @file
/// The one pass over memory: reduce, transform, update, convert and mirror, for CPUs and GPUs alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/pass/run_table.hpp>
#include <pushpull/registers/block.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/registers/stochastic_rounding.hpp>

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
/// each source would keep their loads apart.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Reduction, memory Memory, class Block, class Run>
PUSHPULL_DEVICE_INLINE void reduce(Block& total, Run const& r, std::int64_t i, std::int64_t valid) {
  using element = typename Run::gradient_type;
  using source = typename Run::source_type;
  if constexpr (Memory != memory::arenas && Block::access::unrolled && !pushpull::detail::Encoded<element>)
    if (!Block::by_element(valid, r.aligned)) return reduce<Reduction, memory::arenas>(total, r, i, valid);
  auto const load = [&](Block& to, source from) PUSHPULL_INLINE_LAMBDA {
    if constexpr (pushpull::detail::Encoded<element>) {
      to.template load_encoded<element>(from, i, r.unit);
      if constexpr (pushpull::detail::Code<element>)  // elsewhere the gap is zero when decoded
        if (valid < Block::size) to.clear_from(valid);
    } else {
      if constexpr (Memory != memory::arenas)
        if (Block::by_element(valid, r.aligned)) return to.load_partial(from + i, valid);
      to.load(from + i);
    }
  };
  load(total, r.gradient[0]);
  add_sources<Block>(r, load, [&](Block const& next) PUSHPULL_INLINE_LAMBDA {
    static_for<Block::count>([&](auto j) PUSHPULL_INLINE_LAMBDA { total.x[j] = Reduction{}(total.x[j], next.x[j]); });
  });
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
    i += Execution::fetched_ahead;
    if (!r.distant || i + Block::size > r.size) return;
    auto const fetch = [&](auto const* from)
                           PUSHPULL_INLINE_LAMBDA { pushpull::detail::simd_fetch(from + i, Block::size); };
    if constexpr (Gradients && !pushpull::detail::Encoded<typename Run::gradient_type>) {
      fetch(r.gradient[0]);
      for_each_operand<false>(r.gradient, r.more_gradients, 1, r.gradients, fetch);
    }
    if constexpr (Weight) fetch(r.master);
    if constexpr (States) static_for<Run::states>([&](auto s) PUSHPULL_INLINE_LAMBDA { fetch(r.state[s]); });
  }
}

/// Prefetches the master and the states of the own block, which are read after the gradients: ptxas moves a load to its
/// first use, so the thread would wait for memory twice. A block of several accesses has enough of them in flight.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Block, bool Weight, class Run>
PUSHPULL_DEVICE_INLINE void fetch_stored(Run const& r, std::int64_t i) {
  if constexpr (requires { Block::access::fetch(r.master); } && sizeof(Block) <= 16) {
    if constexpr (Weight) Block::access::fetch(r.master + i);
    static_for<Run::states>([&](auto s) PUSHPULL_INLINE_LAMBDA { Block::access::fetch(r.state[s] + i); });
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

/// Writes a block to every mirror.
PUSHPULL_EXEC_CHECK_DISABLE
template <memory Memory, class Block, class Run>
PUSHPULL_DEVICE_INLINE void mirror(Block const& w, Run const& r, std::int64_t i, std::int64_t valid) {
  if constexpr (Memory != memory::arenas && Block::access::unrolled)
    if (!Block::by_element(valid, r.aligned)) return mirror<memory::arenas>(w, r, i, valid);
  for_each_operand<Block::access::unrolled>(r.mirror, r.more_mirrors, 0, r.mirrors,
                                            [&](typename Run::mirror_type* to) PUSHPULL_INLINE_LAMBDA {
                                              if constexpr (Memory != memory::arenas) {
                                                if (Block::by_element(valid, r.aligned))
                                                  return w.store_partial(to + i, valid);
                                              }
                                              w.store(to + i, r.streaming);
                                            });
}

/// One pack through the rule; lane by lane where the rule cannot take a register.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Rule, class P, class V, std::size_t... S>
PUSHPULL_DEVICE_INLINE void apply(Rule const& rule, P const& prepared, std::int64_t number, V& w, V const& g, V* state,
                                  std::index_sequence<S...>) {
  using A = typename V::element_type;
  if constexpr (V::size == 1 || pushpull::detail::runs_on<Rule, V, A>) {
    rule(pushpull::detail::argument(prepared, number), w, g, state[S]...);
  } else {
    for (std::size_t lane = 0; lane < V::size; ++lane) {
      auto const at = [lane](auto& x) -> A& { return reinterpret_cast<A*>(&x)[lane]; };
      pack<A> one(at(w));
      pack<A> const h(reinterpret_cast<A const*>(&g)[lane]);
      pack<A> s[sizeof...(S) + 1] = {pack<A>(at(state[S]))..., pack<A>(A(0))};
      rule(pushpull::detail::argument(prepared, number + static_cast<std::int64_t>(lane)), one, h, s[S]...);
      at(w) = one.value;
      ((at(state[S]) = s[S].value), ...);
    }
  }
}

}  // namespace detail

/// The pass as a function of a task's number: for each element i of a run
///   g = reduce(gradient_k[i]);  w, state... = rule(prepared, w[i], g, state...[i]);  mirror_r[i] = w
/// Every operand is read once and written once, g lives in registers.
template <class Rule, class Reduction, class Types, class Execution, memory Memory,
          template <class> class Schedule = detail::one_run>
struct body {
  using A = typename Types::accumulation;
  static constexpr std::size_t states = pushpull::detail::state_count<Rule>;
  using run_type = run<Types, states>;
  using prepared_type = pushpull::detail::prepared_t<Rule, A>;
  using block_type = typename Execution::template block_type<A, typename Types::gradient, typename Types::master,
                                                             typename Types::state, typename Types::mirror>;
  static constexpr std::int64_t grain = grain_of<Execution, block_type>;
  /// Whether the master and the states are read before the gradients, on GPUs: they are in flight together. Three states
  /// would cost registers that are not there.
  static constexpr bool loads_early = block_type::access::unrolled && states <= 2;
  static constexpr bool only_reduces = requires { requires Rule::leaves_reduced; };

  Rule const* rules;             ///< On the device, so that hyperparameters can change under a replayed graph.
  clock<Rule, A> const* clocks;  ///< On the device too: the values that depend on t.
  Schedule<run_type> schedule;

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    if constexpr (Memory == memory::rows) {
      parameters const given = hyperparameters(schedule.clock());
      schedule.template for_each_row<grain, block_type::size>(
          task, [&](run_type const& r, std::int64_t first, std::int64_t last)
                    PUSHPULL_INLINE_LAMBDA { elements(r, given, first, last); });
      Execution::end_task();
    } else {
      run_type const& r = schedule.find(task);
      of_run(r, task);
    }
  }

  /// The runs of a launch that has several. A device may search those of many tasks together.
  PUSHPULL_HOST_DEVICE Schedule<run_type> const& searched_runs() const
    requires(Memory != memory::rows) && requires(Schedule<run_type> const& runs) { runs.ends; }
  {
    return schedule;
  }
  /// A task whose run is known to be in `range`.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task, detail::run_range range) const {
    run_type const& r = schedule.find(task, range);
    of_run(r, task);
  }

 private:
  struct parameters {
    Rule rule;
    prepared_type prepared;
    bool skipped = false;
    std::int64_t t = 0;
  };

  PUSHPULL_DEVICE_INLINE parameters hyperparameters(std::int32_t entry) const {
    if constexpr (is_timeless<Rule>) {
      return {};
    } else {
      auto const& own_clock = clocks[entry];
      parameters given{rules[own_clock.parameter_group], own_clock.prepared};
      if constexpr (pushpull::detail::MaySkip<Rule>) given.skipped = own_clock.skipped;
      if constexpr (pushpull::detail::MayRefuse<prepared_type>)
        given.skipped = given.skipped || given.prepared.is_refused();
      if constexpr (Types::stochastic) given.t = own_clock.t;
      return given;
    }
  }

  /// Task `task` of a run. A GPU's is one block, whose operands are loaded before the hyperparameters.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void of_run(run_type const& r, std::int64_t task) const {
    std::int64_t const first = task * grain;
    if constexpr (grain == block_type::size) {
      element_block(r, [&]() PUSHPULL_INLINE_LAMBDA { return hyperparameters(r.clock); }, first, valid_from(r, first));
    } else {
      elements(r, hyperparameters(r.clock), first, first + grain < r.size ? first + grain : r.size);
    }
    Execution::end_task();
  }

  PUSHPULL_DEVICE_INLINE static std::int64_t valid_from(run_type const& r, std::int64_t i) {
    if constexpr (Memory == memory::arenas) return block_type::size;
    return r.size - i < block_type::size ? r.size - i : block_type::size;
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void elements(run_type const& r, parameters const& given, std::int64_t first,
                                       std::int64_t last) const {
    for (std::int64_t i = first; i < last; i += block_type::size) {
      detail::fetch_ahead<Execution, block_type, reads_gradient<Rule>, reads_weight<Rule> && !only_reduces,
                          !only_reduces>(r, i);
      element_block(r, [&]() PUSHPULL_INLINE_LAMBDA -> parameters const& { return given; }, i, valid_from(r, i));
    }
  }

  /// @param given  Returns the hyperparameters.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Given>
  PUSHPULL_DEVICE_INLINE void element_block(run_type const& r, Given const& given, std::int64_t i,
                                            std::int64_t valid) const {
    block_type w;
    block_type state[states + 1];
    if constexpr (!only_reduces) detail::fetch_stored<block_type, reads_weight<Rule>>(r, i);
    if constexpr (loads_early && !only_reduces) load_stored(w, state, r, i, valid);
    block_type g;
    if constexpr (reads_gradient<Rule>) {
      detail::reduce<Reduction, Memory>(g, r, i, valid);
      detail::add_accumulated<Types>(g, r, i);
    } else {
      detail::static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA { g.x[j] = 0; });
    }
    if constexpr (only_reduces) {
      g.store(r.reduced + i);
    } else {
      if constexpr (!loads_early) load_stored(w, state, r, i, valid);
      update_block(r, given(), w, g, state, i, valid);
    }
  }

  /// Reads the master and the states.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE static void load_stored(block_type& w, block_type (&state)[states + 1], run_type const& r,
                                                 std::int64_t i, std::int64_t valid) {
    if constexpr (reads_weight<Rule>) detail::load_stored<Memory>(w, r.master + i, r.aligned, valid);
    detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA {
      detail::load_stored<Memory>(state[s], r.state[s] + i, r.aligned, valid);
    });
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void update_block(run_type const& r, parameters const& given, block_type& w,
                                           block_type const& g, block_type (&state)[states + 1], std::int64_t i,
                                           std::int64_t valid) const {
    using V = typename block_type::pack_type;
    detail::static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
      V lanes[states + 1];
      detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA { lanes[s] = state[s].x[j]; });
      std::int64_t const number = r.first_element + i + static_cast<std::int64_t>(j * V::size);
      if constexpr (pushpull::detail::MayLeaveAlone<Rule, A>)
        if (given.skipped) return;
      detail::apply(given.rule, given.prepared, number, w.x[j], g.x[j], lanes, std::make_index_sequence<states>{});
      if constexpr (Types::stochastic) {
        w.x[j] = round_stochastically<typename Types::master>(w.x[j], given.t, 0, number);
        detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA {
          lanes[s] = round_stochastically<typename Types::state>(lanes[s], given.t, std::uint32_t{s} + 1, number);
        });
      }
      detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA { state[s].x[j] = lanes[s]; });
    });
    if constexpr (writes_weight<Rule>) detail::store_stored<Memory>(w, r.master + i, r.aligned, valid);
    detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA {
      detail::store_stored<Memory>(state[s], r.state[s] + i, r.aligned, valid);
    });
    detail::mirror<Memory>(w, r, i, valid);
  }
};

}  // namespace pushpull::pass
