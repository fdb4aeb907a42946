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

/// The only run of a launch, in the launch's arguments: its pointers cost a GPU no load.
template <class Run>
struct one_run {
  using run_type = Run;
  Run run;

  PUSHPULL_DEVICE_INLINE Run const& find(std::int64_t&) const { return run; }
};

/// The run of `task`, which becomes the task's number within it. @param ends  ends[r]: number of tasks in runs 0..r.
PUSHPULL_DEVICE_INLINE std::int32_t find_run(std::int64_t& task, std::int64_t const* ends, std::int32_t size) {
  std::int32_t low = 0;
  for (std::int32_t high = size - 1; low < high;) {
    std::int32_t const middle = (low + high) / 2;
    if (ends[middle] > task) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  if (low > 0) task -= ends[low - 1];
  return low;
}

/// The runs of a launch in a table where the device reads it. (A kernel that took a run from either place would hold
/// the run's pointers in registers or in local memory: 128 registers instead of 64 for Adam.)
template <class Run>
struct run_table {
  using run_type = Run;
  Run const* rows;
  std::int64_t const* ends;  ///< ends[r]: number of tasks in runs 0..r.
  std::int32_t size;

  /// The run of `task`, which becomes the task's number within it.
  PUSHPULL_DEVICE_INLINE Run const& find(std::int64_t& task) const {
#if !defined(__CUDA_ARCH__)
    // Many small runs of one task each: a search whose branches no processor foresees would take as long as their pass.
    if (ends[size - 1] == size) {
      Run const& only = rows[task];
      task = 0;
      return only;
    }
#endif
    return rows[find_run(task, ends, size)];
  }
};

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

/// The reduction of a block over all sources, in source order.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Reduction, memory Memory, class Block, class Run>
PUSHPULL_DEVICE_INLINE void reduce(Block& total, Run const& r, std::int64_t i, std::int64_t valid) {
  using element = typename Run::gradient_type;
  using source = typename Run::source_type;
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
  for_each_operand<Block::access::unrolled>(
      r.gradient, r.more_gradients, 1, r.gradients, [&](source from) PUSHPULL_INLINE_LAMBDA {
        Block next;
        load(next, from);
        static_for<Block::count>([&](auto j)
                                     PUSHPULL_INLINE_LAMBDA { total.x[j] = Reduction{}(total.x[j], next.x[j]); });
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
    } else {
      run_type const& r = schedule.find(task);
      parameters const given = hyperparameters(r.clock);
      std::int64_t const first = task * grain;
      elements(r, given, first, first + grain < r.size ? first + grain : r.size);
    }
    Execution::end_task();
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

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void elements(run_type const& r, parameters const& given, std::int64_t first,
                                       std::int64_t last) const {
    for (std::int64_t i = first; i < last; i += block_type::size) {
      std::int64_t valid = block_type::size;
      if constexpr (Memory != memory::arenas) valid = r.size - i < valid ? r.size - i : valid;
      detail::fetch_ahead<Execution, block_type, reads_gradient<Rule>, reads_weight<Rule> && !only_reduces,
                          !only_reduces>(r, i);
      element_block(r, given, i, valid);
    }
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void element_block(run_type const& r, parameters const& given, std::int64_t i,
                                            std::int64_t valid) const {
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
      update_block(r, given, g, i, valid);
    }
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void update_block(run_type const& r, parameters const& given, block_type const& g,
                                           std::int64_t i, std::int64_t valid) const {
    using V = typename block_type::pack_type;
    block_type w;
    if constexpr (reads_weight<Rule>) detail::load_stored<Memory>(w, r.master + i, r.aligned, valid);
    block_type state[states + 1];
    detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA {
      detail::load_stored<Memory>(state[s], r.state[s] + i, r.aligned, valid);
    });
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
