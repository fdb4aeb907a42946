/// @file
/// One call on a store: its keys in order, its tensors where each owner reaches them, and the runs that they become.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/compress/none.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/store/exchange/call_exchange.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/call_sources.hpp>
#include <pushpull/store/operations/effect.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/reach.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Lays out the runs of a call whose keys and tensors have been taken and checked. Kept from call to call: in the steady
/// state nothing is allocated.
/// @tparam Table  The store's key_table.
/// @tparam G, M   Element types of sources and outputs.
/// @tparam C      What sources become on their way to the pass.
template <class Table, Device D, class G, class M, class C = compress::none>
class laid_out_call : public call_sources<Table, D, G, M, C> {
  using base = call_sources<Table, D, G, M, C>;
  using base::any_key, base::outputs_, base::sort, base::sources_;
  using base::compressed, base::encoded_, base::exchange_, base::gradients_, base::staged_;
  using typename base::item, typename base::encoded;

 public:
  using typename base::record;

  explicit laid_out_call(Table const& table, C const& compressor = {}) : base(table, compressor) {}

  /// Takes a gathered call over: see call_tensors.
  template <class E>
  void take(Table const& table, gathered_call<typename base::key_view, D, E> const& from) {
    clear();
    base::take(table, from);
  }
  /// The call is captured in a graph, in the place of being run. @throws capture_error, before anything has changed, unless all
  /// of its tensors lie where streams are captured too
  void capture() {
    expect_captured(sources_, "gradient");
    expect_captured(outputs_, "output");
    captured_ = true;
  }
  /// The sources are sums: a mean over them has been taken.
  void expect_sums() { divisor_ = 1; }

  void clear() {
    base::forget();
    staged_.clear();
    stage_ = stage::sources;
    captured_ = false;
  }

  /// Before `lay_out`: forgets earlier ones. The keys that are chosen are those of which sources are encoded.
  /// @param may_fail  Whether `launch` may throw. Residuals then become what they were.
  void begin(Table const& table, effect what, [[maybe_unused]] bool may_fail = false) {
    staged_.forget_copies();
    stage_ = stage::sources;
    sort();
    if constexpr (compressed)
      if (what != effect::reads) this->reserve_codes(table, may_fail);
    if constexpr (Table::collective)
      if (what != effect::reads && table.is_distributed()) this->lay_out_exchange(table, sources_to::owners);
    if (!captured_) order_after_tensors(table);
  }

  /// Lays the keys that are chosen out in `step`, which `launch` runs: several steps share a launch. Takes all memory that
  /// they need, and changes nothing else.
  template <class Step>
  void lay_out(Table const& table, Step& step, effect what) {
    bool const exchanges = Table::collective && table.is_distributed() && what != effect::reads;
    step.clear(exchanges);
    bool const several = Step::always_reduced || any_key([&](std::span<item const> same) {
                           return same.size() > 1 || same.front().sources > 1 || adds_sum(table, *same.front().key);
                         });
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
      if (captured_) order_after_tensors(table);
      if constexpr (compressed)
        if (what != effect::reads) this->encode(table.devices());
      this->copy_to_messages(table.devices());
      stage_ = stage::received;
      if constexpr (Table::collective)
        if (exchanges) return this->start_exchange(table);
    }
    if (stage_ == stage::received) {
      this->copy_to_owners(table.devices(), exchanges);
      stage_ = stage::pass;
    }
    if (stage_ == stage::pass) {
      if (auto const sums = run_or_restore(run)) {
        if constexpr (Table::collective)
          if (exchanges) return this->start([&](messages& m) { m.start_sum(*sums); });
        return launch_part(table, what, run);
      }
      stage_ = stage::results;
      copy_behind(table.devices(), staged_.copies_out());
    }
    if constexpr (Table::collective)
      if (exchanges)
        if (awaited* const event = exchange_.mirrors().advance(table, exchange_.parts())) return event;
    stage_ = stage::sources;
    if constexpr (Table::collective)
      if (exchanges) exchange_.finish_outputs(table);
    this->order_before_sources(table.devices());
    order_before(table.devices(), outputs_);
    auto const for_each_key = [&](auto const& f) { this->for_each_distinct_key(f); };
    if (what == effect::updates) captured_ ? table.count_captured(for_each_key) : table.count(for_each_key);
    return nullptr;
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
      if constexpr (compressed) this->reserve_codes(table, true);
      if constexpr (Table::collective)
        if (table.is_distributed()) this->lay_out_exchange(table, sources_to::rank_0);
      this->order_after_sources(table.devices());
      if (!table.is_distributed() || table.owners().rank() == 0) lay_out_reduction(table, step, target);
      step.commit(table.devices());
      if constexpr (compressed) this->encode(table.devices());
      this->copy_to_messages(table.devices());
      stage_ = stage::received;
      if constexpr (Table::collective)
        if (table.is_distributed()) return this->start_exchange(table);
    }
    stage_ = stage::sources;
    this->copy_to_owners(table.devices(), table.is_distributed());
    step.run(table.devices());
    staged_.forget_copies();
    this->order_before_sources(table.devices());
    return nullptr;
  }

 private:
  void order_after_tensors(Table const& table) {
    if (!captured_) expect_uncaptured(table);
    this->order_after_sources(table.devices());
    order_after(table.devices(), outputs_);
  }
  template <class Operands>
  static void expect_captured([[maybe_unused]] Operands const& operands, [[maybe_unused]] char const* what) {
    if constexpr (CapturingDevice<D>)
      for (auto const& x : operands)
        expects<capture_error>(x.device && x.device->is_captured(), [&] {
          return std::string(what) +
                 (x.device ? " on device " + std::string(x.device->name()) : " in memory of the host") +
                 ": the call is being captured in a graph, its stream is not: it has to wait for the captured one "
                 "first";
        });
  }
  /// The store's devices are not being captured: a wait for a stream that is would make them.
  void expect_uncaptured([[maybe_unused]] Table const& table) const {
    if constexpr (CapturingDevice<D>) {
      auto const expect = [&](auto const& operands) {
        for (auto const& x : operands)
          if (x.device && std::find(table.devices().begin(), table.devices().end(), *x.device) == table.devices().end())
            expects<capture_error>(!x.device->is_captured(), [&] {
              return "a tensor on device " + std::string(x.device->name()) +
                     ", whose stream is being captured, those of the store's devices are not: one of them has to wait "
                     "for " +
                     "it first";
            });
      };
      expect(sources_);
      expect(outputs_);
    }
  }

  template <class Step, class Target>
  void lay_out_reduction(Table const& table, Step& step, Target const& target) {
    D const& device = table.devices().front();
    any_key([&](std::span<item const> same) {
      record& r = *same.front().key;
      if (r.size() == 0) return false;
      auto run = whole_key_run<typename Step::run_type>(r, target(r));
      if constexpr (compressed) encoded_.describe(run);
      gradients_.clear();
      for (item const& x : same) this->add_gradients(device, 0, x, 0, run.size);
      step.add(0, run, gradients_, {});
      return false;
    });
  }

  template <class Run>
  std::optional<std::span<double>> run_or_restore(Run const& run) {
    if constexpr (compressed) {
      try {
        return run();
      } catch (...) {
        this->put_residuals_back();
        throw;
      }
    } else {
      return run();
    }
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
      if (what != effect::reads) this->add_gradients(shard.device(), n, x, shard.offset(), shard.size());
      for (std::size_t k = x.output; what != effect::accumulates && k < x.output + x.outputs; ++k)
        mirrors_.push_back(staged_.writable(shard.device(), n, outputs_[k], shard.offset(), shard.size()));
    }
    if (what == effect::reads && mirrors_.empty()) return;  // a push of a micro-batch without outputs
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
                        factor_memory_of<typename Step::rule_type, typename Table::state_type>(shard.device(), r));
    step.add_clock(n, run.clock, true);
  }

  enum class stage { sources, received, pass, results };  // what `launch_part` does next
  stage stage_ = stage::sources;
  bool captured_ = false;
  std::vector<M*> mirrors_;
  std::int32_t divisor_ = 0;  // of a mean; 0: as many as there are sources
};

}  // namespace pushpull::detail
