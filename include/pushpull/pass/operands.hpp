/// @file
/// The operands of the pass: the memory from which it reads, and to which it writes, each element of a slice.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/registers/block.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/registers/state_codec.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// The element types of one pass: gradients, accumulation, master weight, states, mirrors; and whether masters and
/// states that are narrower than the accumulation are rounded stochastically, and runs may have gradients of earlier
/// micro-batches.
template <class Gradient, class Accumulation, class Master, class State, class Mirror, bool Stochastic = false,
          bool Accumulates = false>
struct element_types {
  static constexpr bool stochastic = Stochastic;
  static constexpr bool accumulates = Accumulates;
  using gradient = Gradient;
  using accumulation = Accumulation;
  using master = Master;
  using state = State;
  using mirror = Mirror;
};

/// Gradients and mirrors beyond this count are found through a table in memory.
inline constexpr int inline_operands = 8;

/// From this many elements on a CPU writes a run's mirrors by non-temporal stores: caches would lose them before a
/// read.
inline constexpr std::int64_t streamed_size = std::int64_t{1} << 16;
/// From this many elements over all runs on, operands are in memory, not in caches, and the pass prefetches them where
/// that pays.
inline constexpr std::int64_t distant_size = std::int64_t{1} << 18;

/// Whether all pointers among operands are aligned to so many bytes.
bool all_aligned(auto const& operands, std::uintptr_t bytes) {
  return std::all_of(operands.begin(), operands.end(), [bytes]<class X>(X const& x) {
    if constexpr (std::is_pointer_v<X>) return reinterpret_cast<std::uintptr_t>(x) % bytes == 0;
    return true;  // what an encoder wrote
  });
}

/// A run: elements that are consecutive in every operand and share their hyperparameters. All pointers are to the
/// run's first element.
template <class Types, std::size_t States>
struct run {
  static constexpr std::size_t states = States;
  using gradient_type = typename Types::gradient;
  using source_type = pushpull::detail::source_of<gradient_type>;
  using mirror_type = typename Types::mirror;
  using state_type = typename Types::state;

  std::int64_t size;           ///< Elements. In arenas a multiple of `padding`.
  std::int64_t first_element;  ///< The number of the run's first element among all elements of the store.
  std::int64_t leaf_phase;     ///< Elements since the last boundary of a norm's leaf: a multiple of padding.
  std::int64_t leaf;           ///< The slot of this run's first leaf among the partial sums of the step.
  bool aligned;                ///< All gradients and mirrors are aligned to 16 bytes; in a row also master and states.
  std::int32_t clock;          ///< The entry of the clock table that the run's keys share.
  std::int32_t gradients;      ///< K: gradients to reduce.
  std::int32_t sources;        ///< The divisor of a mean: K, unless a source has several or no gradients for a row.
  std::int32_t mirrors;        ///< R: outputs in addition to the master.
  float unit;                  ///< The value of one unit of a coded gradient.
  bool distant;                ///< The pass prefetches operands: they are in memory, and it pays.
  bool streaming;              ///< Non-temporal stores to mirrors: all aligned, and too large to be read again soon.
  source_type gradient[inline_operands];
  mirror_type* mirror[inline_operands];
  source_type const* more_gradients;  ///< Sources 8, 9, ...: a table where the pass runs.
  mirror_type* const* more_mirrors;   ///< Outputs 8, 9, ...
  bool accumulated;                   ///< `reduced` holds the sum of earlier micro-batches, a source beside the others.
  typename Types::accumulation* reduced;  ///< Where a phase before the pass leaves the reduced gradient, or null.
  typename Types::master* master;
  pushpull::detail::state_pointer<state_type> state[States == 0 ? 1 : States];
};

/// Per key and owner: updates so far, the number of the key's parameter group, and what that computed from their
/// number, in `A`.
template <class Rule, class A>
struct clock {
  std::int64_t t;
  std::int32_t parameter_group;
  pushpull::detail::prepared_t<Rule, A> prepared;
};
/// In addition the sums of the phases before the pass so far.
template <PreReduction Rule, class A>
struct clock<Rule, A> {
  std::int64_t t;
  std::int32_t parameter_group;
  bool skipped;           ///< The step is skipped.
  std::int64_t elements;  ///< Of the key's tensor, where sums are those of each tensor; else 0.
  pushpull::detail::prepared_t<Rule, A> prepared;
  pushpull::detail::sums_t<Rule> sums;
};

/// Sums over all keys of a step, and the persistent values of a PreReduction.
template <class Rule>
struct shared_sums {
  pushpull::detail::sums_t<Rule> sums;
  bool skipped;
};

/// The clock of rule `Rule` in a pass over `Types`.
template <class Rule, class Types>
using clock_of = clock<Rule, typename Types::accumulation>;

/// Whether the pass reads gradients. Rules that read no gradient, no weight, or write none say so; the pass then leaves that
/// memory alone.
template <class Rule>
inline constexpr bool reads_gradient = !requires { requires !Rule::reads_gradient; };
/// Whether it reads the weight.
template <class Rule>
inline constexpr bool reads_weight = !requires { requires !Rule::reads_weight; };
/// Whether it writes the weight.
template <class Rule>
inline constexpr bool writes_weight = !requires { requires !Rule::writes_weight; };

/// Bytes of master and states that a pass of the rule over so many elements reads and writes.
template <class Rule, class Types, std::size_t States>
constexpr std::int64_t stored_bytes(std::int64_t elements) {
  using S = typename Types::state;
  if constexpr (requires { requires Rule::leaves_reduced; }) {
    return elements * static_cast<std::int64_t>(sizeof(typename Types::accumulation));
  } else {
    constexpr auto moved = (reads_weight<Rule> + writes_weight<Rule>)*sizeof(typename Types::master);
    std::int64_t bytes = elements * static_cast<std::int64_t>(moved);
    for (std::size_t s = 0; s != States; ++s) bytes += 2 * pushpull::detail::state_bytes<S>(s, elements);
    return bytes;
  }
}

/// The operations below depend on no step and have no members: a launch of theirs needs neither rule nor clocks.
template <class Rule>
inline constexpr bool is_timeless = requires { requires Rule::timeless; };

/// The rule of a push in a store without an updater: stored = reduced gradients.
struct assign {
  static constexpr auto state_names = states();
  static constexpr bool timeless = true;
  static constexpr bool reads_weight = false;

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g) const noexcept {
    w = g;
  }
};

/// The rule of the first micro-batch of a step: accumulated = reduced gradients.
struct accumulate_first : assign {
  static constexpr bool accumulates = true;
};

/// The rule of a further micro-batch: accumulated += reduced gradients.
struct accumulate_more {
  static constexpr auto state_names = states();
  static constexpr bool timeless = true;
  static constexpr bool accumulates = true;

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g) const noexcept {
    w += g;
  }
};

/// The rule of the pass before the phases of a Factored rule with `States` states: writes the reduced gradients to
/// memory and changes nothing else.
template <std::size_t States>
struct leave_reduced {
  static constexpr std::array<std::string_view, States> state_names{};
  static constexpr bool timeless = true;
  static constexpr bool leaves_reduced = true;
};

/// The rule of a copy: mirrors = gradient, with the conversion between their types; there is no stored value.
struct forward {
  static constexpr auto state_names = states();
  static constexpr bool timeless = true;
  static constexpr bool reads_weight = false;
  static constexpr bool writes_weight = false;

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const& g) const noexcept {
    w = g;
  }
};

/// The rule of a pull: mirrors = stored value.
struct hold {
  static constexpr auto state_names = states();
  static constexpr bool timeless = true;
  static constexpr bool reads_gradient = false;
  static constexpr bool writes_weight = false;

  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V&, V const&) const noexcept {}
};

}  // namespace pushpull::pass
