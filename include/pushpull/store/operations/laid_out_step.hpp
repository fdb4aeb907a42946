/// @file
/// A step that is kept for the keys that it was laid out for, with the copies and messages around it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/store/exchange/mirror_exchange.hpp>
#include <pushpull/store/exchange/rank_gradients.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/exchange/rank_sums.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/accumulating_push.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/staging.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The part of a step that other ranks have to do with: each call returns the messages that it waits for, null if there are
/// none. Nothing in stores of one process.
template <class Types>
struct rank_parts {
  using table_type = typename Types::table_type;
  explicit rank_parts(std::size_t) {}
  static constexpr bool exchanges() { return false; }
  static awaited* start_arrival(table_type const&) { return nullptr; }
  static awaited* start_exchange(table_type const&) { return nullptr; }
  static awaited* start_sum(std::span<double>) { return nullptr; }
  static awaited* advance_mirrors(table_type const&) { return nullptr; }
  static void clear() {}
};
template <class Types>
  requires(Types::collective)
struct rank_parts<Types> {
  using table_type = typename Types::table_type;
  std::unique_ptr<messages> exchanged;  ///< Where there are several ranks.
  mirror_exchange<table_type> mirrors;
  node_sums<Types> sums;  ///< Before the exchange, where slices travel between nodes.

  explicit rank_parts(std::size_t devices) : sums(devices) {}
  bool exchanges() const { return exchanged != nullptr; }
  /// Before gradients of other ranks are added up.
  awaited* start_arrival(table_type const& table) {
    if (!exchanges() || !table.ranks().has_levels()) return nullptr;
    exchanged->start_arrival();
    return exchanged.get();
  }
  awaited* start_exchange(table_type const& table) {
    if (!exchanges()) return nullptr;
    sums.run(table.devices());
    exchanged->start_exchange();
    return exchanged.get();
  }
  awaited* start_sum(std::span<double> numbers) {
    exchanged->start_sum(numbers);
    return exchanged.get();
  }
  /// Again and again, until it returns null.
  awaited* advance_mirrors(table_type const& table) {
    return exchanges() ? mirrors.advance(table, *exchanged) : nullptr;
  }
  void clear() {
    if (exchanges()) exchanged->clear();
    mirrors.clear();
    sums.clear();
  }
};

/// A step that is laid out for some of a plan's keys.
template <class Types, class Step>
struct laid_out {
  using D = typename Types::device_type;
  using record = typename Types::record;

  Step step;
  std::vector<staged_copy> copies_in, copies_out;  ///< Before and behind it, where devices do not reach each other.
  std::vector<staging<D>> staged;                  ///< Gradients that they cannot read where they are.
  std::vector<record*> keys;
  std::vector<bool> joined;  ///< Key i continues the run of key i - 1.
  bool with_sums = false;    ///< The step reads the sums of micro-batches.
  [[no_unique_address]] rank_parts<Types> ranks;

  explicit laid_out(typename Types::table_type const& table)
      : step(table.devices().size()), staged(make_staging<D>(table.staged())), ranks(table.devices().size()) {}

  /// @param over_ranks  The next step is one of several ranks.
  void clear(bool over_ranks) {
    keys.clear();
    step.clear(over_ranks);
    ranks.clear();
    copies_in.clear();
    copies_out.clear();
    for (auto& memory : staged) memory.clear();
  }
  /// `run(step)`, with the copies.
  template <class Run>
  void run(std::vector<D> const& devices, Run const& run_step) {
    copy_before(devices, copies_in);
    run_step(step);
    copy_behind(devices, copies_out);
  }
};

/// The steps that add to sums of micro-batches, each laid out for the keys that it last took.
template <class Types>
struct laid_out_accumulation {
  using steps = accumulating_steps<Types, pass::memory::arenas>;
  using record = typename Types::record;
  laid_out<Types, decltype(steps::first)> first;
  laid_out<Types, decltype(steps::more)> more;
  std::vector<record*> due, waiting;  ///< The keys of a call that make a step, and the others.
  bool begins = false;                ///< None of the others has a sum.
  struct no_ranks {
    explicit no_ranks(typename Types::table_type const&) {}
  };
  // Not [[no_unique_address]]: inside of a member that is, nvcc 13 fails with an internal error.
  std::conditional_t<Types::collective, rank_sums<Types, pass::memory::arenas>, no_ranks>
      of_rank;  ///< In the place of the steps, where there are several ranks.

  explicit laid_out_accumulation(typename Types::table_type const& table) : first(table), more(table), of_rank(table) {}
};

}  // namespace pushpull::detail
