/// @file
/// The small work around a pass: count the step, let the rule prepare, sum what a PreReduction asked for.
#pragma once

#include <cstdint>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/body.hpp>
#include <pushpull/pass/operands.hpp>

namespace pushpull::pass {

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

/// Counts one step for clock number i of the list.
template <class Rule, class A>
struct begin_step {
  Rule const* rule;
  clock<pushpull::detail::prepared_t<Rule, A>>* clocks;
  clock_list list;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int32_t const entry = list.at(i);
    auto& c = clocks[entry < 0 ? ~entry : entry];
    ++c.t;
    if (entry >= 0) c.prepared = pushpull::detail::prepare(*rule, step<A>{c.t}, 0.0);
  }
};

/// Gives the rule the sum it asked for.
template <class Rule, class A>
struct finish_pre_reduction {
  Rule const* rule;
  clock<pushpull::detail::prepared_t<Rule, A>>* clocks;
  clock_list list;
  double const* sum;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int32_t const entry = list.at(i);
    if (entry < 0) return;
    auto& c = clocks[entry];
    c.prepared = pushpull::detail::prepare(*rule, step<A>{c.t}, *sum);
  }
};

/// One level of the tree: to[i] = from[64 i] + ... + from[64 i + 63].
struct sum_level {
  double const* from;
  double* to;
  std::int64_t size;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int64_t const first = i * tree_width;
    std::int64_t const last = first + tree_width < size ? first + tree_width : size;
    double total = 0;
    for (std::int64_t j = first; j < last; ++j) total += from[j];
    to[i] = total;
  }
};

/// to[i] += from[i]: gathers partial sums of several devices, of which each slot is zero on all but one.
struct gather {
  double const* from;
  double* to;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const { to[i] += from[i]; }
};

/// Sets one value on a device without a copy from the host.
template <class T>
struct set_value {
  T* to;
  T value;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t) const { *to = value; }
};

}  // namespace detail

/// The phase before the pass: terms of the gradients, summed leaf by leaf, and the reduced gradient where a run has
/// more than one source. `operator()(leaf, t, n)` is thread t's share of n in a leaf.
template <class Rule, class Reduction, class Types, class Execution, memory Memory,
          template <class> class Schedule = detail::one_run>
struct pre_reduction_body {
  using A = typename Types::accumulation;
  static constexpr std::size_t states = pushpull::detail::state_count<Rule>;
  using run_type = run<Types, states>;
  using prepared_type = pushpull::detail::prepared_t<Rule, A>;
  using block_type = typename Execution::template block_type<A, typename Types::gradient, typename Types::master, A>;

  Rule const* rule;
  clock<prepared_type> const* clocks;
  Schedule<run_type> schedule;

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE double operator()(std::int64_t leaf, std::int32_t thread, std::int32_t threads) const {
    run_type const& r = schedule.find(leaf);
    Rule const local_rule = *rule;
    prepared_type const prepared = clocks[r.clock].prepared;
    double sum = 0;
    for (std::int64_t b = thread; b < leaf_size / block_type::size; b += threads) {
      std::int64_t const i = leaf * leaf_size - r.leaf_phase + b * block_type::size;
      if (i < 0 || i >= r.size) continue;
      sum += block_sum(r, local_rule, prepared, i);
    }
    return sum;
  }

  /// Where the leaf's sum goes: numbered over all devices, so that the tree does not depend on how many there are.
  PUSHPULL_HOST_DEVICE std::int64_t slot(std::int64_t leaf) const {
    std::int64_t const first = schedule.find(leaf).leaf;
    return first + leaf;
  }

 private:
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE double block_sum(run_type const& r, Rule const& local_rule, prepared_type const& prepared,
                                          std::int64_t i) const {
    using V = typename block_type::pack_type;
    std::int64_t valid = block_type::size;
    if constexpr (Memory == memory::foreign) valid = r.size - i < valid ? r.size - i : valid;
    block_type g, w;
    detail::reduce<Reduction, Memory>(g, r, i, valid);
    if (r.reduced != nullptr) g.store(r.reduced + i);
    w.load(r.master + i);
    V total(0);
    detail::static_for<block_type::count>(
        [&](auto j) PUSHPULL_INLINE_LAMBDA { total += local_rule.pre_reduce(prepared, w.x[j], g.x[j]); });
    double sum = 0;
    for (std::size_t lane = 0; lane < V::size; ++lane) sum += static_cast<double>(reinterpret_cast<A const*>(&total)[lane]);
    return sum;
  }
};

}  // namespace pushpull::pass
