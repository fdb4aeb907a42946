/// @file
/// The small work around a pass: count the step, let the rule prepare, sum what a PreReduction asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <cuda/std/array>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/pass/body.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/registers/sums.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// Elements per leaf of the fixed tree that sums norms. Slices begin at multiples of it, so that no leaf is cut and a
/// norm is the same for any number of devices.
inline constexpr std::int64_t leaf_size = 1024;

/// Partial sums that one node of the tree adds, in order.
inline constexpr std::int64_t tree_width = 64;

namespace detail {

/// Which clocks a launch advances. The clocks of one run agree, and only the first of them, its lead, is prepared:
/// entries are clock numbers, those of the others complemented.
struct clock_list {
  std::int32_t only;
  std::int32_t const* table;  ///< Null where `only` is all there is.

  PUSHPULL_HOST_DEVICE std::int32_t at(std::int64_t i) const { return table == nullptr ? only : table[i]; }
};

/// The argument of `prepare` of a rule for clock number i of a list.
template <class Rule, class A>
struct steps_of {
  PUSHPULL_HOST_DEVICE step<A> at(std::int64_t, clock<Rule, A> const& c) const { return {c.t, c.elements}; }
};
template <class Rule, class A>
  requires(pushpull::detail::factored_count<Rule> > 0)
struct steps_of<Rule, A> {
  matrix<A> const* matrices = nullptr;  ///< Those of every clock's tensor.

  PUSHPULL_HOST_DEVICE factored_step<A> at(std::int64_t i, clock<Rule, A> const& c) const {
    return {{c.t, c.elements}, matrices + i * static_cast<std::int64_t>(pushpull::detail::factored_count<Rule>)};
  }
};

/// Counts one step for clock number i of the list.
template <class Rule, class A>
struct begin_step {
  Rule const* rules;
  clock<Rule, A>* clocks;
  clock_list list;
  shared_sums<Rule> const* shared = nullptr;  ///< Of a rule that carries numbers.
  [[no_unique_address]] steps_of<Rule, A> steps = {};

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int32_t const entry = list.at(i);
    auto& c = clocks[entry < 0 ? ~entry : entry];
    ++c.t;
    if (entry < 0) return;
    Rule const& rule = rules[c.parameter_group];
    if constexpr (PreReduction<Rule>) {
      if constexpr (pushpull::detail::Carries<Rule>) {
        c.sums = shared->sums;
      } else {
        c.sums = {};
      }
      c.prepared = pushpull::detail::prepare(rule, steps.at(i, c), c.sums);
    } else {
      c.prepared = pushpull::detail::prepare(rule, step<A>{c.t}, 0.0);
    }
  }
};

/// to[i] = the steps of clock number i of the list.
template <class Clock>
struct gather_steps {
  Clock const* clocks;
  clock_list list;
  std::int64_t* to;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int32_t const entry = list.at(i);
    to[i] = clocks[entry < 0 ? ~entry : entry].t;
  }
};

/// The sums of one phase.
template <class Rule, std::size_t Phase>
using phase_sums = cuda::std::array<double, pushpull::detail::sums_in<Rule, Phase>>;

/// Whether a rule needs anything of `shared_sums`.
template <class Rule>
inline constexpr bool has_shared_sums = pushpull::detail::Carries<Rule> || pushpull::detail::MaySkip<Rule>;

/// Takes the sums of a phase over all keys; after the last phase decides whether to skip the step, and carries values
/// on.
template <class Rule, std::size_t Phase>
struct settle_phase {
  Rule const* rules;
  shared_sums<Rule>* shared;
  phase_sums<Rule, Phase> const* sums;

  static constexpr bool over_keys = !pushpull::detail::sums_per_tensor<Rule, Phase>();
  template <std::size_t P>
  static constexpr std::size_t first = pushpull::detail::first_sum<Rule, P>();

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t) const {
    if constexpr (over_keys && pushpull::detail::sums_in<Rule, Phase> != 0)
      for (std::size_t k = 0; k < pushpull::detail::sums_in<Rule, Phase>; ++k)
        pushpull::detail::sum(shared->sums, first<Phase> + k) = (*sums)[k];
    if constexpr (Phase + 1 == pushpull::detail::phase_count<Rule>) {
      if constexpr (pushpull::detail::MaySkip<Rule>) shared->skipped = pushpull::detail::skips(*rules, shared->sums);
      if constexpr (pushpull::detail::Carries<Rule>) pushpull::detail::carry(*rules, shared->sums);
      [&]<std::size_t... P>(std::index_sequence<P...>) { (clear<P>(), ...); }(std::make_index_sequence<Phase + 1>());
    }
  }

 private:
  template <std::size_t P>
  PUSHPULL_HOST_DEVICE void clear() const {
    if constexpr (pushpull::detail::sums_in<Rule, P> != 0)
      for (std::size_t k = 0; k < pushpull::detail::sums_in<Rule, P>; ++k)
        pushpull::detail::sum(shared->sums, first<P> + k) = 0;
  }
};

/// Gives the rule the sums of a phase and of the earlier phases.
template <class Rule, class A, std::size_t Phase>
struct finish_pre_reduction {
  Rule const* rules;
  clock<Rule, A>* clocks;
  clock_list list;
  clock_list segments;  ///< Which sums each clock is given, where they go by tensor.
  phase_sums<Rule, Phase> const* sums;
  shared_sums<Rule> const* shared = nullptr;  ///< Settled, of a rule that may skip.
  [[no_unique_address]] steps_of<Rule, A> steps = {};

  static constexpr bool by_tensor = pushpull::detail::sums_per_tensor<Rule, Phase>();
  static constexpr std::size_t first = pushpull::detail::first_sum<Rule, Phase>();

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int32_t const entry = list.at(i);
    if constexpr (pushpull::detail::MaySkip<Rule> && Phase + 1 == pushpull::detail::phase_count<Rule>) {
      auto& any = clocks[entry < 0 ? ~entry : entry];
      any.skipped = shared->skipped;
      if (entry < 0 && any.skipped) --any.t;
    }
    if (entry < 0) return;
    auto& c = clocks[entry];
    if constexpr (pushpull::detail::sums_in<Rule, Phase> != 0) {
      auto const& own = sums[by_tensor ? segments.at(i) : 0];
      for (std::size_t k = 0; k < pushpull::detail::sums_in<Rule, Phase>; ++k)
        pushpull::detail::sum(c.sums, first + k) = own[k];
    }
    c.prepared = pushpull::detail::prepare(rules[c.parameter_group], steps.at(i, c), c.sums);
    if constexpr (pushpull::detail::MaySkip<Rule> && Phase + 1 == pushpull::detail::phase_count<Rule>)
      if (c.skipped) --c.t;
  }
};

/// One level of the tree: to[i] = from[begins[i]] + ... + from[begins[i + 1] - 1]; without a table nodes have 64
/// children.
template <class Sums>
struct sum_level {
  Sums const* from;
  Sums* to;
  std::int64_t size;
  std::int64_t const* begins;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int64_t const first = begins != nullptr ? begins[i] : i * tree_width;
    std::int64_t const end = begins != nullptr ? begins[i + 1] : first + tree_width;
    Sums total{};
    for (std::int64_t j = first; j < end && j < size; ++j) pushpull::detail::add(total, from[j]);
    to[i] = total;
  }
};

/// to[i] += from[i]: gathers partial sums of several devices, of which each slot is zero on all but one.
struct gather {
  double const* from;
  double* to;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const { to[i] += from[i]; }
};

}  // namespace detail

using detail::begin_step;
using detail::has_shared_sums;

/// Sets one value on a device without a copy from the host.
template <class T>
struct set_value {
  T* to;
  T value;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t) const { *to = value; }
};

/// The phase before the pass: terms of the gradients, summed leaf by leaf, and the reduced gradient where a run has
/// more than one source. `operator()(leaf, t, n)` is thread t's share of n in a leaf.
/// A share in which squares of floats overflow is summed once more, with terms computed in double: rare enough to cost
/// nothing, and floats that are finite have finite norms.
template <class Rule, class Reduction, class Types, class Execution, memory Memory, std::size_t Phase,
          template <class> class Schedule = detail::one_run>
struct pre_reduction_body {
  using A = typename Types::accumulation;
  static constexpr std::size_t states = pushpull::detail::state_count<Rule>;
  using run_type = run<Types, states>;
  using prepared_type = pushpull::detail::prepared_t<Rule, A>;
  using block_type = typename Execution::template block_type<A, typename Types::gradient, typename Types::master,
                                                             typename Types::state, A>;
  using sums_type = detail::phase_sums<Rule, Phase>;

  Rule const* rules;
  clock<Rule, A> const* clocks;
  Schedule<run_type> schedule;

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE sums_type operator()(std::int64_t leaf, std::int32_t thread, std::int32_t threads) const {
    run_type const& r = schedule.find(leaf);
    auto const& own_clock = clocks[r.clock];
    Rule const local_rule = rules[own_clock.parameter_group];
    prepared_type const prepared = own_clock.prepared;
    sums_type total = share<false>(r, local_rule, prepared, leaf, thread, threads);
    if constexpr (sizeof(A) < sizeof(double)) {
      bool finite = true;
      for (std::size_t k = 0; k < count; ++k) finite = finite && pushpull::detail::is_finite(total[k]);
      if (!finite) total = share<true>(r, local_rule, prepared, leaf, thread, threads);
    }
    return total;
  }

  /// Where the leaf's sum goes: numbered over all devices, so that the tree does not depend on how many there are.
  PUSHPULL_HOST_DEVICE std::int64_t slot(std::int64_t leaf) const {
    std::int64_t const first = schedule.find(leaf).leaf;
    return first + leaf;
  }

 private:
  static constexpr std::size_t count = pushpull::detail::sums_in<Rule, Phase>;
  static constexpr std::size_t lanes = block_type::pack_type::size;

  /// Lane by lane: adding across lanes is left to the end of the leaf.
  struct lane_sums {
    double of[count][lanes];
  };

  /// A thread's share of a leaf. @tparam Again  In double; what this phase leaves in memory is there already.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <bool Again>
  PUSHPULL_HOST_DEVICE sums_type share(run_type const& r, Rule const& local_rule, prepared_type const& prepared,
                                       std::int64_t leaf, std::int32_t thread, std::int32_t threads) const {
    lane_sums sum{};
    PUSHPULL_NO_UNROLL
    for (std::int64_t b = thread; b < leaf_size / block_type::size; b += threads) {
      std::int64_t const i = leaf * leaf_size - r.leaf_phase + b * block_type::size;
      if (i < 0 || i >= r.size) continue;
      add_block<Again>(sum, r, local_rule, prepared, i);
    }
    sums_type total{};
    for (std::size_t k = 0; k < count; ++k) {
      for (std::size_t half = lanes / 2; half > 0; half /= 2)
        for (std::size_t lane = 0; lane < half; ++lane) sum.of[k][lane] += sum.of[k][lane + half];
      total[k] = sum.of[k][0];
    }
    return total;
  }

  /// The terms of elements `x`, from number `number` on.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V, std::size_t... I>
  PUSHPULL_DEVICE_INLINE static auto terms(Rule const& local_rule, prepared_type const& prepared, std::int64_t number,
                                           V const& w, V const& g, V const* state, std::index_sequence<I...>) {
    auto const& given = pushpull::detail::argument(prepared, number);
    if constexpr (pushpull::detail::has_terms_of_states<Rule, Phase>) {
      return pushpull::detail::terms<Phase>(local_rule, given, w, g, state[I]...);
    } else {
      return pushpull::detail::terms<Phase>(local_rule, given, w, g);
    }
  }
  /// Term number k of one or several.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V, class Terms>
  PUSHPULL_DEVICE_INLINE static V const& term(Terms const& all, std::size_t k) {
    if constexpr (std::same_as<Terms, V>) {
      return all;
    } else {
      return all[k];
    }
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  template <bool Again>
  PUSHPULL_DEVICE_INLINE void add_block(lane_sums& sum, run_type const& r, Rule const& local_rule,
                                        prepared_type const& prepared, std::int64_t i) const {
    using V = typename block_type::pack_type;
    constexpr bool of_states = pushpull::detail::has_terms_of_states<Rule, Phase>;
    std::int64_t valid = block_type::size;
    if constexpr (Memory == memory::foreign) valid = r.size - i < valid ? r.size - i : valid;
    detail::fetch_ahead<Execution, block_type, true, of_states, of_states>(r, i);
    block_type g, w;
    if (Again && r.reduced != nullptr) {
      g.load(static_cast<A const*>(r.reduced) + i);
    } else {
      detail::reduce<Reduction, Memory>(g, r, i, valid);
      detail::add_accumulated<Types>(g, r, i);
      if (r.reduced != nullptr) g.store(r.reduced + i);
    }
    w.load(r.master + i);
    block_type state[states + 1];
    if constexpr (of_states)
      detail::static_for<states>([&](auto s) PUSHPULL_INLINE_LAMBDA {
        detail::load_state<memory::arenas, typename Types::state, s>(state[s], r.state[s] + i, true, block_type::size);
      });
    V total[count];
    for (std::size_t k = 0; k < count; ++k) total[k] = V(0);
    detail::static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
      std::int64_t const number = r.first_element + i + static_cast<std::int64_t>(j * V::size);
      V lanes_of[states + 1];
      detail::static_for<of_states ? states : 0>([&](auto s) PUSHPULL_INLINE_LAMBDA { lanes_of[s] = state[s].x[j]; });
      if constexpr (Again) {
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          using one = pack<double>;
          auto const at = [lane](V const& x)
                              PUSHPULL_INLINE_LAMBDA { return one(reinterpret_cast<A const*>(&x)[lane]); };
          one of_lane[states + 1];
          detail::static_for<of_states ? states : 0>([&](auto s)
                                                         PUSHPULL_INLINE_LAMBDA { of_lane[s] = at(lanes_of[s]); });
          auto const all = terms(local_rule, prepared, number + static_cast<std::int64_t>(lane), at(w.x[j]), at(g.x[j]),
                                 static_cast<one const*>(of_lane), std::make_index_sequence<states>{});
          for (std::size_t k = 0; k < count; ++k) sum.of[k][lane] += term<one>(all, k).value;
        }
      } else {
        auto const all = terms(local_rule, prepared, number, w.x[j], g.x[j], static_cast<V const*>(lanes_of),
                               std::make_index_sequence<states>{});
        for (std::size_t k = 0; k < count; ++k) total[k] += term<V>(all, k);
      }
    });
    if constexpr (!Again)
      for (std::size_t k = 0; k < count; ++k)
        for (std::size_t lane = 0; lane < lanes; ++lane)
          sum.of[k][lane] += static_cast<double>(reinterpret_cast<A const*>(&total[k])[lane]);
  }
};

}  // namespace pushpull::pass
