/// @file
/// The one pass over memory: reduce, transform, update, convert and mirror, for CPUs and GPUs alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/block_operands.hpp>
#include <pushpull/pass/coded_states.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/pass/run_table.hpp>
#include <pushpull/pass/shared_codes.hpp>
#include <pushpull/registers/block.hpp>
#include <pushpull/registers/stochastic_rounding.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

namespace detail {

/// One pack through the rule; lane by lane where the rule cannot take a register.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Rule, class P, class V, std::size_t... S>
PUSHPULL_DEVICE_INLINE void apply(Rule const& rule, P const& hoisted, std::int64_t number, V& w, V const& g, V* state,
                                  std::index_sequence<S...>) {
  using A = typename V::element_type;
  if constexpr (V::size == 1 || pushpull::detail::runs_on<Rule, V, A>) {
    rule(pushpull::detail::argument(hoisted, number), w, g, state[S]...);
  } else {
    for (std::size_t lane = 0; lane < V::size; ++lane) {
      auto const at = [lane](auto& x) -> A& { return reinterpret_cast<A*>(&x)[lane]; };
      pack<A> one(at(w));
      pack<A> const h(reinterpret_cast<A const*>(&g)[lane]);
      pack<A> s[sizeof...(S) + 1] = {pack<A>(at(state[S]))..., pack<A>(A(0))};
      rule(pushpull::detail::argument(hoisted, number + static_cast<std::int64_t>(lane)), one, h, s[S]...);
      at(w) = one.value;
      ((at(state[S]) = s[S].value), ...);
    }
  }
}

}  // namespace detail

/// The pass as a function of a task's number: for each element i of a run
///   g = reduce(gradient_k[i]);  w, state... = rule(hoisted, w[i], g, state...[i]);  mirror_r[i] = w
/// Every operand is read once and written once, g lives in registers.
template <class Rule, class Reduction, class Types, class Execution, memory Memory,
          template <class> class Schedule = detail::one_run>
struct body {
  using A = typename Types::accumulation;
  using S = typename Types::state;
  static constexpr std::size_t states = pushpull::detail::state_count<Rule>;
  using run_type = run<Types, states>;
  using prepared_type = pushpull::detail::prepared_t<Rule, A>;
  using hoisted_type = pushpull::detail::hoisted_t<Rule, A>;
  using block_type = typename Execution::template block_type<A, typename Types::gradient, typename Types::master,
                                                             typename Types::state, typename Types::mirror>;
  using task_type = detail::task_of<Execution, block_type, S, states>;
  static constexpr std::int64_t grain = task_type::elements;
  /// Whether the master and the states are read before the gradients, on GPUs: they are in flight together. Three states
  /// would cost registers that are not there.
  static constexpr bool loads_early = block_type::access::unrolled && states <= 2;
  static constexpr bool is_coded = pushpull::detail::CodedStates<S> && states > 0;
  static constexpr bool shares_blocks = is_coded && Execution::grain == 0;
  static constexpr bool only_reduces = requires { requires Rule::leaves_reduced; };

  Rule const* rules;             ///< On the device, so that hyperparameters can change under a replayed graph.
  clock<Rule, A> const* clocks;  ///< On the device too: the values that depend on t.
  Schedule<run_type> schedule;

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    if constexpr (Memory == memory::rows) {
      parameters const given = hyperparameters(schedule.clock());
      schedule.template for_each_row<grain, task_type::block>(
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
    hoisted_type hoisted;
    bool skipped = false;
    std::int64_t t = 0;
  };

  PUSHPULL_DEVICE_INLINE parameters hyperparameters(std::int32_t entry) const {
    if constexpr (is_timeless<Rule>) {
      return {};
    } else {
      auto const& own_clock = clocks[entry];
      Rule const rule = rules[own_clock.parameter_group];
      parameters given{rule, pushpull::detail::hoist(rule, own_clock.prepared)};
      if constexpr (pushpull::detail::MaySkip<Rule>) given.skipped = own_clock.skipped;
      if constexpr (pushpull::detail::MayRefuse<prepared_type>)
        given.skipped = given.skipped || own_clock.prepared.is_refused();
      if constexpr (Types::stochastic || is_coded) given.t = own_clock.t;
      return given;
    }
  }

  /// Task `task` of a run. A GPU's is one block, whose operands are loaded before the hyperparameters.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void of_run(run_type const& r, std::int64_t task) const {
    std::int64_t const first = task * grain;
    if constexpr (shares_blocks) {
      shared_block(r, [&]() PUSHPULL_INLINE_LAMBDA { return hyperparameters(r.clock); }, first);
    } else if constexpr (grain == block_type::size) {
      element_block(r, [&]() PUSHPULL_INLINE_LAMBDA { return hyperparameters(r.clock); }, first, valid_from(r, first));
    } else {
      elements(r, hyperparameters(r.clock), first, first + grain < r.size ? first + grain : r.size);
    }
    Execution::end_task();
  }

  template <class Block = block_type>
  PUSHPULL_DEVICE_INLINE static std::int64_t valid_from(run_type const& r, std::int64_t i) {
    if constexpr (Memory == memory::arenas) return Block::size;
    return r.size - i < Block::size ? r.size - i : Block::size;
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void elements(run_type const& r, parameters const& given, std::int64_t first,
                                       std::int64_t last) const {
    if constexpr (shares_blocks) {
      shared_block(r, [&]() PUSHPULL_INLINE_LAMBDA -> parameters const& { return given; }, first);
    } else if constexpr (is_coded) {
      coded_elements(r, given, first, last);
    } else {
      for (std::int64_t i = first; i < last; i += block_type::size) {
        detail::fetch_ahead<Execution, block_type, reads_gradient<Rule>, reads_weight<Rule> && !only_reduces,
                            !only_reduces>(r, i);
        element_block(r, [&]() PUSHPULL_INLINE_LAMBDA -> parameters const& { return given; }, i, valid_from(r, i));
      }
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
      detail::load_state<Memory, S, s>(state[s], r.state[s] + i, r.aligned, valid);
    });
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void update_block(run_type const& r, parameters const& given, block_type& w,
                                           block_type const& g, block_type (&state)[states + 1], std::int64_t i,
                                           std::int64_t valid) const {
    apply_rule(r, given, w, g, state, i);
    if constexpr (writes_weight<Rule>) detail::store_stored<Memory>(w, r.master + i, r.aligned, valid);
    detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA {
      detail::store_stored<Memory>(state[s], r.state[s] + i, r.aligned, valid);
    });
    detail::mirror<Memory>(w, r, i, valid);
  }

  /// A thread's share of a block of codes, whose unit it finds with its neighbours.
  /// @param before  How many elements of the run the threads before it have.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Given>
  PUSHPULL_DEVICE_INLINE void shared_block(run_type const& r, Given const& given, std::int64_t before) const {
    using shared_codes = detail::shared_codes<Execution, block_type, S, states>;
    using share = typename shared_codes::share;
    std::int64_t const first = Execution::hidden(share::first(before));
    block_type w[shared_codes::parts], g[shared_codes::parts], state[shared_codes::parts][states + 1];
    shared_codes codes;
    auto const for_each_part = [&](auto const& f) PUSHPULL_INLINE_LAMBDA {
      detail::static_for<shared_codes::parts>([&](auto p) PUSHPULL_INLINE_LAMBDA {
        std::int64_t const i = first + static_cast<std::int64_t>(p) * share::stride;
        f(p, i, valid_from(r, i));
      });
    };
    for_each_part([&](auto, std::int64_t i, std::int64_t)
                      PUSHPULL_INLINE_LAMBDA { detail::fetch_stored<block_type, reads_weight<Rule>>(r, i); });
    codes.load(r, first);
    if constexpr (reads_weight<Rule>)
      for_each_part([&](auto p, std::int64_t i, std::int64_t valid)
                        PUSHPULL_INLINE_LAMBDA { detail::load_stored<Memory>(w[p], r.master + i, r.aligned, valid); });
    auto const reduce = [&](auto alone) PUSHPULL_INLINE_LAMBDA {
      for_each_part([&](auto p, std::int64_t i, std::int64_t valid) PUSHPULL_INLINE_LAMBDA {
        if (reads_gradient<Rule> && valid > 0) {
          detail::reduce<Reduction, Memory, decltype(alone)::value>(g[p], r, i, valid);
          detail::add_accumulated<Types>(g[p], r, i);
        } else {
          detail::static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA { g[p].x[j] = 0; });
        }
      });
    };
    // Instructions that do nothing take time too, and this pass has little to spare.
    if (r.gradients == 1) {
      reduce(std::true_type{});
    } else {
      reduce(std::false_type{});
    }
    codes.share_units();
    parameters const& parameters_of_step = given();
    for_each_part([&](auto p, std::int64_t i, std::int64_t) PUSHPULL_INLINE_LAMBDA {
      detail::static_for<states>([&](auto s)
                                     PUSHPULL_INLINE_LAMBDA { codes.template decode<s, p>(state[p][s], r, first); });
      apply_rule(r, parameters_of_step, w[p], g[p], state[p], i);
    });
    for_each_part([&](auto p, std::int64_t i, std::int64_t valid) PUSHPULL_INLINE_LAMBDA {
      if constexpr (writes_weight<Rule>) detail::store_stored<Memory>(w[p], r.master + i, r.aligned, valid);
    });
    if (r.mirrors > 0)
      for_each_part([&](auto p, std::int64_t i, std::int64_t valid) PUSHPULL_INLINE_LAMBDA {
        if (valid > 0) detail::mirror<Memory>(w[p], r, i, valid);
      });
    codes.store(r, first, seed_of(r, parameters_of_step, before / S::block * S::block), state);
  }

  /// Of the random rounding in the block of codes that begins with element number `first` of the run.
  PUSHPULL_DEVICE_INLINE static std::uint32_t seed_of(run_type const& r, parameters const& given, std::int64_t first) {
    auto const number = static_cast<std::uint64_t>(r.first_element + first);
    std::uint32_t const of_step = detail::mix(static_cast<std::uint32_t>(given.t));
    return detail::mix(detail::mix(of_step + static_cast<std::uint32_t>(number >> 32)) ^
                       static_cast<std::uint32_t>(number));
  }

  using coded_buffer = detail::coded_buffer<typename block_type::pack_type, S, states>;
  using random_type = pushpull::detail::random_words<decltype(block_type::pack_type::value)>;
  using coded_memory = detail::coded_memory<typename block_type::pack_type, S, states>;
  using coded_rest = detail::coded_rest<typename block_type::pack_type, S, states>;

  /// Elements whose states are codes, from the first of a block of codes on.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void coded_elements(run_type const& r, parameters const& given, std::int64_t first,
                                             std::int64_t last) const {
    coded_buffer buffer[2] = {};
    std::uint8_t unused[S::block];
    coded_rest rest;
    rest.from = &buffer[1];
    rest.random = random_type(0U);
    detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA {
      rest.codes[s] = unused;
      rest.factor[s] = decltype(block_type::pack_type::value)(0.0F);
    });
    std::size_t current = 0;
    for (; first < last; first += S::block, current ^= 1)
      rest = coded_block(r, given, first, buffer[current], rest, unused);
    for (std::int64_t j = 0; j < S::block; j += block_type::size) rest.template encode<block_type::count>(j);
  }

  /// A block of codes. @param before  The block before it, which is encoded meanwhile: a processor does so while it waits for
  /// the rule's roots and quotients. @returns  The rest of its own work.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE coded_rest coded_block(run_type const& r, parameters const& all_given, std::int64_t first,
                                                coded_buffer& buffer, coded_rest before, std::uint8_t* unused) const {
    using V = typename block_type::pack_type;
    parameters const given = all_given;
    coded_memory const memory(r, first);
    auto* const master = r.master + first;
    pushpull::detail::greatest_magnitude<decltype(V::value)> greatest[states];
    for (std::int64_t j = 0; j < S::block; j += block_type::size) {
      std::int64_t const i = first + j;
      std::int64_t const valid = valid_from(r, i);
      using one = block<V, 1, typename block_type::access>;
      block_type w, g;
      detail::fetch_ahead<Execution, block_type, reads_gradient<Rule>, reads_weight<Rule>, true>(r, i);
      if (reads_gradient<Rule> && valid > 0) {
        detail::reduce<Reduction, Memory>(g, r, i, valid);
        detail::add_accumulated<Types>(g, r, i);
      } else {
        detail::static_for<block_type::count>([&](auto k) PUSHPULL_INLINE_LAMBDA { g.x[k] = 0; });
      }
      detail::static_for<block_type::count>([&](auto k) PUSHPULL_INLINE_LAMBDA {
        V lanes[states + 1];
        constexpr auto at = static_cast<std::int64_t>(decltype(k)::value * V::size);
        detail::static_for<states>([&](auto s)
                                       PUSHPULL_INLINE_LAMBDA { lanes[s].value = memory.template load<s>(j + at); });
        if constexpr (reads_weight<Rule>) {
          one stored;
          stored.load(master + (j + at));
          w.x[k] = stored.x[0];
        }
        apply_to_pack(r, given, w.x[k], g.x[k], lanes, i + at);
        detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA {
          if constexpr (S::template encodes<s>) {
            one{{lanes[s]}}.store(buffer.elements[s] + j + at);
            greatest[s].template add<typename S::template codec<s>>(lanes[s].value);
          } else {
            one{{lanes[s]}}.store(memory.elements[s] + j + at);
          }
        });
      });
      before.template encode<block_type::count>(j);
      if constexpr (writes_weight<Rule>) w.store(master + j);
      if (valid > 0) detail::mirror<Memory>(w, r, i, valid);
    }
    coded_rest rest;
    rest.from = &buffer;
    if constexpr (S::random) rest.random = random_type(seed_of(r, given, first));
    detail::static_for<states>(
        [&](auto s) PUSHPULL_INLINE_LAMBDA { rest.template finish<s>(r.state[s] + first, greatest[s], unused); });
    return rest;
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void apply_rule(run_type const& r, parameters const& given, block_type& w, block_type const& g,
                                         block_type (&state)[states + 1], std::int64_t i) const {
    using V = typename block_type::pack_type;
    detail::static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
      V lanes[states + 1];
      detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA { lanes[s] = state[s].x[j]; });
      apply_to_pack(r, given, w.x[j], g.x[j], lanes, i + static_cast<std::int64_t>(j * V::size));
      detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA { state[s].x[j] = lanes[s]; });
    });
  }

  /// The rule, for the pack whose first element is number i of the run.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE void apply_to_pack(run_type const& r, parameters const& given, V& w, V const& g,
                                            V (&state)[states + 1], std::int64_t i) const {
    std::int64_t const number = r.first_element + i;
    if constexpr (pushpull::detail::MayLeaveAlone<Rule, A>)
      if (given.skipped) return;
    detail::apply(given.rule, given.hoisted, number, w, g, state, std::make_index_sequence<states>{});
    if constexpr (Types::stochastic) {
      w = round_stochastically<typename Types::master>(w, given.t, 0, number);
      detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA {
        state[s] = round_stochastically<typename Types::state>(state[s], given.t, std::uint32_t{s} + 1, number);
      });
    }
  }
};

}  // namespace pushpull::pass
