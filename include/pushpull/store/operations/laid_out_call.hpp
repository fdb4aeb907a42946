/// @file
/// One call on a store: its keys in order, its tensors where each owner reaches them, and the runs that they become.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include <pushpull/compress/none.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/store/exchange/call_exchange.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/call_tensors.hpp>
#include <pushpull/store/operations/effect.hpp>
#include <pushpull/store/operations/encoded_sources.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/operations/staged_operands.hpp>
#include <pushpull/store/reach.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Lays out the runs of a call whose keys and tensors have been taken and checked. Kept from call to call: in the steady
/// state nothing is allocated.
/// @tparam Table  The store's key_table.
/// @tparam G, M   Element types of sources and outputs.
/// @tparam C      What sources become on their way to the pass.
template <class Table, Device D, class G, class M, class C = compress::none>
class laid_out_call : public call_tensors<Table, D, G, M> {
  using base = call_tensors<Table, D, G, M>;
  using base::any_key, base::items_, base::outputs_, base::sort, base::sources_;
  using typename base::item;
  using encoded = typename C::template encoded_type<G>;
  static constexpr bool compressed = !std::is_same_v<encoded, G>;

 public:
  using typename base::record;

  explicit laid_out_call(Table const& table, C const& compressor = {})
      : staged_(table.staged()), encoded_(compressor) {}

  /// Steps may be skipped: residuals will then be what they were before their first micro-batch.
  /// @param of_each  The sources are those of whole steps, not of micro-batches.
  void remember_residuals([[maybe_unused]] bool always, [[maybe_unused]] bool of_each = false) {
    if constexpr (compressed) encoded_.remember_residuals(always, of_each);
  }

  /// Takes a gathered call over: see call_tensors.
  template <class E>
  void take(Table const& table, gathered_call<typename base::key_view, D, E> const& from) {
    clear();
    base::take(table, from);
  }
  /// In a store of several ranks, once the keys have been found: the sources are those of the ranks.
  void take_ranks([[maybe_unused]] Table const& table, [[maybe_unused]] sources_of which) {
    if constexpr (Table::collective)
      if (table.is_distributed()) exchange_.spread(table, items_, sources_, which);
  }
  /// The sources are sums: a mean over them has been taken.
  void expect_sums() { divisor_ = 1; }

  /// f(record, gradients) for each key that is chosen: its sources where device number 0 reads them.
  template <class F>
  void for_each_key_and_sources(Table const& table, F const& f) {
    any_key([&](std::span<item const> same) {
      record const& r = *same.front().key;
      own_.clear();
      for (item const& x : same)
        for (std::size_t k = x.source; k < x.source + x.sources; ++k)
          own_.push_back(staged_.readable(table.devices().front(), 0, sources_[k], 0, r.size()));
      f(r, std::span<G const* const>(own_));
      return false;
    });
  }

  void clear() {
    base::forget();
    staged_.clear();
    stage_ = stage::sources;
  }

  /// Before `lay_out`: forgets earlier ones. The keys that are chosen are those of which sources are encoded.
  /// @param may_fail  Whether `launch` may throw. Residuals then become what they were.
  void begin(Table const& table, effect what, [[maybe_unused]] bool may_fail = false) {
    staged_.forget_copies();
    stage_ = stage::sources;
    sort();
    if constexpr (compressed)
      if (what != effect::reads) reserve_codes(table, may_fail);
    if constexpr (Table::collective)
      if (what != effect::reads && table.is_distributed()) lay_out_exchange(table, sources_to::owners);
    order_after(table.devices(), sources_);
    order_after(table.devices(), outputs_);
  }

  /// Lays the keys that are chosen out in `step`, which `launch` runs: several steps share a launch. Takes all memory that
  /// they need, and changes nothing else.
  template <class Step>
  void lay_out(Table const& table, Step& step, effect what) {
    step.clear();
    bool const several = Step::always_reduced || any_key([&](std::span<item const> same) {
                           return same.size() > 1 || same.front().sources > 1 || adds_sum(table, *same.front().key);
                         });
    bool const exchanges = Table::collective && table.is_distributed() && what != effect::reads;
    any_key([&](std::span<item const> same) {
      bool is_local = false;
      record const& r = *same.front().key;
      for_each_owner(
          table, r,
          [&](auto const& shard) {
            add_run(table, step, same, shard, what, several);
            is_local = true;
          },
          [&](distant_part const& part) {
            if (exchanges) step.add_distant(r.index, leaf_phase_after(r.leaf_phase, part.offset), part.size);
          });
      if (exchanges && !is_local && r.size() > 0) step.add_distant_clock(r.index);
      return false;
    });
    if constexpr (Table::collective)
      if (exchanges && changes_mirrors(what)) {
        this->for_each_distinct_key([&](record const& r) { exchange_.mirrors().add(table, r, exchange_.parts()); });
        exchange_.mirrors().flush(table, exchange_.parts());
      }
    step.commit(table.devices());
  }

  /// Same, for outputs that whole tensors on device number 0 fill. @param from  from(record): the key's tensor.
  template <class Step, class From>
  void lay_out_copies(Table const& table, Step& step, From const& from) {
    step.clear();
    any_key([&](std::span<item const> same) {
      record const& r = *same.front().key;
      if (r.size() == 0) return false;
      mirrors_.clear();
      for (item const& x : same)
        for (std::size_t k = x.output; k < x.output + x.outputs; ++k)
          mirrors_.push_back(staged_.writable(table.devices().front(), 0, outputs_[k], 0, r.size()));
      if (mirrors_.empty()) return false;
      step.add(0, whole_key_run<typename Step::run_type>(r, from(r)), {}, mirrors_);
      return false;
    });
    step.commit(table.devices());
  }

  /// Runs what was laid out by `run()`. Updates are those of the keys that are chosen.
  template <class Run>
  void launch(Table const& table, effect what, Run const& run) {
    launch_part(table, what, [&]() -> std::optional<std::span<double>> {
      run();
      return std::nullopt;
    });
  }

  /// Same, but as far as it goes without other ranks: called again, it goes on.
  /// @param run  Returns partial sums that the ranks are to add up before it is called again, or none: see fused_step.
  /// @returns    The messages that it waits for; null if the call is finished.
  template <class Run>
  awaited* launch_part(Table const& table, effect what, Run const& run) {
    [[maybe_unused]] bool const exchanges = Table::collective && table.is_distributed() && what != effect::reads;
    if (stage_ == stage::sources) {
      if constexpr (compressed)
        if (what != effect::reads) encode(table.devices());
      copy_all(table.devices(), staged_.copies_in());
      stage_ = stage::pass;
      if constexpr (Table::collective)
        if (exchanges) return start([](messages& m) { m.start_exchange(); });
    }
    if (stage_ == stage::pass) {
      if (auto const sums = run_or_restore(run)) {
        if constexpr (Table::collective)
          if (exchanges) return start([&](messages& m) { m.start_sum(*sums); });
        return launch_part(table, what, run);
      }
      stage_ = stage::results;
    }
    if constexpr (Table::collective)
      if (exchanges)
        if (awaited* const event = exchange_.mirrors().advance(table, exchange_.parts())) return event;
    stage_ = stage::sources;
    if constexpr (Table::collective)
      if (exchanges) exchange_.finish_outputs(table);
    copy_behind(table.devices(), staged_.copies_out());
    order_before(table.devices(), sources_);
    order_before(table.devices(), outputs_);
    if (what == effect::updates) table.count([&](auto const& f) { this->for_each_distinct_key(f); });
    return nullptr;
  }

  /// After the run of a step of the keys that are chosen: if the devices skip it, residuals become what they were before
  /// its first micro-batch. The host does not wait to know.
  template <class Step>
  void return_residuals([[maybe_unused]] std::vector<D> const& devices, [[maybe_unused]] Step const& step) {
    if constexpr (compressed && Step::may_skip) {
      if (step.skipped(0) == nullptr) return;
      order_before(devices, encoded_.codes());
      any_key([&](std::span<item const> same) {
        std::size_t sources = 0;
        for (item const& x : same)
          for (std::size_t k = x.source; k < x.source + x.sources; ++k) sources += is_received(k) ? 0 : 1;
        encoded_.return_residuals(*same.front().key, sources, devices, step);
        return false;
      });
      order_after(devices, encoded_.codes());
    }
  }

  /// Lays the call out in `step`, and runs it by `run()`.
  template <class Step, class Run>
  void execute(Table const& table, Step& step, effect what, Run const& run) {
    begin(table, what, Step::may_fail);
    lay_out(table, step, what);
    launch(table, what, run);
  }

  /// Reduces the sources of each key into memory on device number 0, which `target(record)` gives; touches no key. In a
  /// store of several ranks rank 0 reduces those of all. What encoding takes from residuals `put_residuals_back` returns.
  /// @returns  As launch_part.
  template <class Step, class Target>
  awaited* reduce_part(Table const& table, Step& step, Target const& target) {
    if (stage_ == stage::sources) {
      step.clear();
      sort();
      if constexpr (compressed) reserve_codes(table, true);
      if constexpr (Table::collective)
        if (table.is_distributed()) lay_out_exchange(table, sources_to::rank_0);
      order_after(table.devices(), sources_);
      if (!table.is_distributed() || table.owners().rank() == 0) lay_out_reduction(table, step, target);
      step.commit(table.devices());
      if constexpr (compressed) encode(table.devices());
      copy_all(table.devices(), staged_.copies_in());
      stage_ = stage::pass;
      if constexpr (Table::collective)
        if (table.is_distributed()) return start([](messages& m) { m.start_exchange(); });
    }
    stage_ = stage::sources;
    step.run(table.devices());
    staged_.forget_copies();
    order_before(table.devices(), sources_);
    return nullptr;
  }

  /// Residuals become what they were before the present push, if they were kept.
  void put_residuals_back() {
    if constexpr (compressed) encoded_.put_residuals_back();
  }

 private:
  template <class Step, class Target>
  void lay_out_reduction(Table const& table, Step& step, Target const& target) {
    D const& device = table.devices().front();
    any_key([&](std::span<item const> same) {
      record& r = *same.front().key;
      if (r.size() == 0) return false;
      auto run = whole_key_run<typename Step::run_type>(r, target(r));
      if constexpr (compressed) encoded_.describe(run);
      gradients_.clear();
      for (item const& x : same) add_gradients(device, 0, x, 0, run.size);
      step.add(0, run, gradients_, {});
      return false;
    });
  }

  /// Takes memory for the residuals and codes of all sources, and for gradients that their encoder cannot reach.
  /// @param keeps  Residuals are kept as they are until the push has not failed.
  void reserve_codes(Table const& table, bool keeps) {
    encoded_.begin(sources_.size(), keeps);
    any_key([&](std::span<item const> same) {
      std::size_t number = 0;
      for (item const& x : same)
        for (std::size_t k = x.source; k < x.source + x.sources; ++k)
          if (is_received(k)) {
            encoded_.add_received(*x.key, k, table.devices().front(), staged_.memory(0));
          } else {
            encoded_.add(*x.key, number++, k, sources_[k], table.devices().front(), staged_.memory(0));
          }
      return false;
    });
  }

  /// Whether source number k comes from another rank.
  bool is_received([[maybe_unused]] std::size_t k) const {
    if constexpr (Table::collective) return exchange_.is_received(k);
    return false;
  }

  /// The slices of sources that go to other ranks and come from them.
  void lay_out_exchange(Table const& table, sources_to readers) {
    exchange_.clear(readers);
    any_key([&](std::span<item const> same) {
      for (item const& x : same) {
        for (std::size_t k = x.source; k < x.source + x.sources; ++k)
          if constexpr (compressed) {
            exchange_.add_codes(table, *x.key, k, [&](std::int64_t first, std::int64_t size, auto const& f) {
              encoded_.source(k, x.key->size(), first, size, [&](void const* p, std::size_t bytes) {
                f(p, bytes);
                return p;
              });
            });
          } else {
            exchange_.add_source(table, *x.key, k, sources_[k], staged_.memory(0));
          }
        if constexpr (std::is_same_v<M, typename Table::T>)
          for (std::size_t k = x.output; k < x.output + x.outputs; ++k)
            exchange_.add_output(table, *x.key, outputs_[k]);
      }
      return false;
    });
  }
  template <class F>
  awaited* start(F const& f) {
    f(exchange_.parts());
    return &exchange_.parts();
  }

  template <class Run>
  std::optional<std::span<double>> run_or_restore(Run const& run) {
    if constexpr (compressed) {
      try {
        return run();
      } catch (...) {
        put_residuals_back();
        throw;
      }
    } else {
      return run();
    }
  }

  /// Turns sources into codes. The store's devices run after it.
  void encode(std::vector<D> const& devices) {
    encoded_.encode();
    order_after(devices, encoded_.codes());
  }

  /// Whether a pass reads a sum of micro-batches in addition to sources. Sums of several ranks are sources.
  static bool adds_sum(Table const& table, record const& r) { return !table.is_distributed() && r.accumulated(); }

  /// What an owner holds of a key. Resident mirrors follow every change of their key.
  template <class Step, class Shard>
  void add_run(Table const& table, Step& step, std::span<item const> same, Shard const& shard, effect what,
               bool several) {
    using run_type = typename Step::run_type;
    record& r = *same.front().key;
    std::size_t const n = shard.device_number();
    gradients_.clear();
    mirrors_.clear();
    for (item const& x : same) {
      if (what != effect::reads) add_gradients(shard.device(), n, x, shard.offset(), shard.size());
      for (std::size_t k = x.output; what != effect::accumulates && k < x.output + x.outputs; ++k)
        mirrors_.push_back(staged_.writable(shard.device(), n, outputs_[k], shard.offset(), shard.size()));
    }
    if constexpr (std::is_same_v<M, typename Table::T>)
      if (changes_mirrors(what) && shard.resident()) {
        table.add_mirrors(mirrors_, shard);
        table.add_mirror_copies(staged_.copies_out(), shard);
      }
    run_type run;
    if constexpr (Step::accumulates_only) {
      run = shard.template sum_run<run_type>();
    } else {
      run = shard.template run<run_type>();
    }
    if constexpr (compressed) encoded_.describe(run);
    if constexpr (Step::two_phases || Step::reads_accumulated)
      if (Step::two_phases ? several : adds_sum(table, r)) run.reduced = shard.reduced();
    run.accumulated = adds_sum(table, r);
    run.sources = divisor_;
    std::span<typename run_type::source_type const> sources;
    if constexpr (std::is_same_v<typename run_type::source_type, source_of<encoded>>) sources = gradients_;
    step.add(n, run, sources, mirrors_);
    if constexpr (Step::is_factored)
      step.add_matrices(n, run, sources, r.shape,
                        factor_states<typename Step::rule_type, typename Table::state_type>(shard.device(), r));
    step.add_clock(n, run.clock, true);
  }

  /// What device number n reads of an item's sources: `size` elements from number `first` on.
  void add_gradients(D const& device, std::size_t n, item const& x, std::int64_t first, std::int64_t size) {
    for (std::size_t k = x.source; k < x.source + x.sources; ++k) {
      if constexpr (compressed) {
        auto const at_owner = [&](void const* p, std::size_t bytes) -> void const* {
          operand<char const, D> const piece{static_cast<char const*>(p), encoded_.codes()[k].device, bytes};
          return staged_.readable(device, n, piece, 0, static_cast<std::int64_t>(bytes));
        };
        gradients_.push_back(encoded_.source(k, x.key->size(), first, size, at_owner));
      } else {
        gradients_.push_back(staged_.readable(device, n, sources_[k], first, size));
      }
    }
  }

  staged_operands<D> staged_;
  struct nothing {
    explicit nothing(C const&) {}
  };
  [[no_unique_address]] std::conditional_t<compressed, encoded_sources<record, D, G, C>, nothing> encoded_;
  struct no_exchange {};
  [[no_unique_address]] std::conditional_t<Table::collective, call_exchange<Table, D, G>, no_exchange> exchange_;
  enum class stage { sources, pass, results };  // what `launch_part` does next
  stage stage_ = stage::sources;
  std::vector<source_of<encoded>> gradients_;
  std::vector<M*> mirrors_;
  std::vector<G const*> own_;
  std::int32_t divisor_ = 0;  // of a mean; 0: as many as there are sources
};

}  // namespace pushpull::detail
