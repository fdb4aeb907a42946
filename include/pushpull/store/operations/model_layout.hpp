/// @file
/// How a step over resident keys becomes runs of passes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/store/exchange/rank_gradients.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/operations/laid_out_step.hpp>
#include <pushpull/store/reach.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Lays out steps over resident keys. @tparam Types  A kv_store_types. @tparam Step  That of an update.
template <class Types, class Step>
struct model_layout {
  using D = typename Types::device_type;
  using Table = typename Types::table_type;
  using record = typename Types::record;

  /// Lays a step out. @param separate  Neighbours share no run, and no clock.
  template <class Built>
  static void build(Table const& table, laid_out<Types, Built>& built, std::vector<record*> const& keys, bool with_sums,
                    bool separate = false) {
    built.clear(Types::collective && table.is_distributed());  // until all is laid out it is laid out for none
    built.with_sums = with_sums;
    bool const brings_sums = with_sums && table.is_distributed();
    built.joined.assign(keys.size(), false);
    if constexpr (Types::collective)
      if (table.is_distributed() && !built.ranks.exchanges()) built.ranks.exchanged = table.ranks().make_messages();
    for (std::size_t first = 0; first < keys.size();) {
      std::size_t last = first + 1;
      for (; last < keys.size() && !separate && !sums_by_key(table) && continues(*keys[last - 1], *keys[last]); ++last)
        built.joined[last] = true;
      auto const same = std::span(keys).subspan(first, last - first);
      add_run(table, built, same, brings_sums);
      if constexpr (Types::collective && !Built::accumulates_only)
        if (built.ranks.exchanges())
          for (record const* const r : same) built.ranks.mirrors.add(table, *r, *built.ranks.exchanged);
      first = last;
    }
    if constexpr (Types::collective)
      if (built.ranks.exchanges()) {
        built.ranks.mirrors.flush(table, *built.ranks.exchanged);
        built.ranks.sums.commit(table.devices());
      }
    built.step.commit(table.devices());
    built.keys = keys;
  }

  /// Whether every key has a run of its own: where it has sums of its own, or leaves of its own and they matter.
  static bool sums_by_key(Table const& table) {
    return Step::per_tensor || (Step::two_phases && table.placement().begins_leaves_with_keys());
  }

  /// Whether one clock can stand for both: as many updates, by the same rule.
  static bool share_clock(record const& a, record const& b) {
    return a.updates == b.updates && a.history == b.history && a.captures == b.captures &&
           a.parameter_group == b.parameter_group;
  }

  /// Whether one run can go on from key a into key b.
  static bool continues(record const& a, record const& b) {
    return follows_in_memory(a, b) && share_clock(a, b) && (!Step::two_phases || continues_leaves(a, b));
  }

  template <class Built>
  static void add_run(Table const& table, laid_out<Types, Built>& built, std::span<record* const> keys,
                      bool brings_sums) {
    rank_gradients<Table, D> const gradients = gradients_of(table, built, keys, brings_sums);
    record const& first = *keys.front();
    element_numbers const numbers = numbers_of(first);
    slice const range{first.offset, keys.back()->padded_range().end};
    for_each_owner(
        table, *first.arena, range, numbers, [&](auto const& shard) { add_run(table, built, keys, gradients, shard); },
        [&](distant_part const& part) {
          built.step.add_distant(first.index, leaf_phase_after(numbers.leaf_phase, part.offset), part.size);
        });
    if constexpr (Table::collective)
      if (built.ranks.exchanges())
        for (record const* const r : keys)
          if (r->size() > 0 && !is_local(table, *r)) built.step.add_distant_clock(r->index);
  }
  template <class Built, class Shard>
  static void add_run(Table const& table, laid_out<Types, Built>& built, std::span<record* const> keys,
                      rank_gradients<Table, D> const& of_ranks, Shard const& shard) {
    using run_type = typename Built::run_type;
    Built& step = built.step;
    std::size_t const n = shard.device_number();
    std::vector<typename Table::T const*> gradients;
    std::vector<typename Table::T*> mirrors;
    of_ranks.append(gradients, *keys.front(), n, shard.offset(), [&](std::size_t m, typename Table::T const* memory) {
      return readable(table, built, n, m, memory, shard.size());
    });
    run_type run;
    if constexpr (Built::accumulates_only) {
      run = shard.template sum_run<run_type>();
    } else {
      run = shard.template run<run_type>();
      table.add_mirrors(mirrors, shard);
      table.add_mirror_copies(built.copies_out, shard);
      run.accumulated = built.with_sums && !table.is_distributed();
      bool const is_sum = gradients.size() > 1 || of_ranks.sources() > 1;  // one source may be a sum of several
      if (run.accumulated || Built::always_reduced || (Built::two_phases && is_sum)) run.reduced = shard.reduced();
    }
    auto const owned = [&](record const* r) { return shard.has_elements_of(*r); };
    record const* const lead = *std::find_if(keys.begin(), keys.end(), owned);
    run.clock = lead->index;
    run.sources = of_ranks.sources();
    step.add(n, run, gradients, mirrors);
    if constexpr (Built::is_factored)
      step.add_matrices(
          n, run, gradients, keys.front()->shape,
          factor_memory_of<typename Built::rule_type, typename Table::state_type>(shard.device(), *keys.front()));
    for (record const* const r : keys)
      if (owned(r)) step.add_clock(n, r->index, r == lead);
  }

  template <class Built>
  static rank_gradients<Table, D> gradients_of(Table const& table, Built& built, std::span<record* const> keys,
                                               [[maybe_unused]] bool brings_sums) {
    if constexpr (Types::collective)
      if (built.ranks.exchanges())
        return {table, keys, *built.ranks.exchanged, built.ranks.sums, built.staged, brings_sums};
    return rank_gradients<Table, D>(table.devices().size());
  }
  /// Whether this process holds elements of the key.
  static bool is_local(Table const& table, record const& r) {
    bool any = false;
    for_each_shard(table, r, [&](auto const&) { any = true; });
    return any;
  }

  /// A part of a gradient in memory of device number m where device number n reads it.
  template <class Built>
  static typename Table::T const* readable(Table const& table, laid_out<Types, Built>& built, std::size_t n,
                                           std::size_t m, typename Table::T const* gradient, std::int64_t size) {
    if (table.reach()(n, m)) return gradient;
    std::size_t const bytes = static_cast<std::size_t>(size) * sizeof(*gradient);
    void* const staged = built.staged[n].take(table.devices()[n], bytes);
    built.copies_in.push_back({n, staged, gradient, bytes});
    return static_cast<typename Table::T const*>(staged);
  }
};

}  // namespace pushpull::detail
