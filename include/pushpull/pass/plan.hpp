/// @file
/// A plan: the runs of one device that one launch covers, ready to be launched any number of times.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/processor.hpp>
#include <pushpull/pass/body.hpp>
#include <pushpull/pass/device_table.hpp>
#include <pushpull/pass/may_fail.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/profile/tracing.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// The runs of one launch on one device. Reused for the next call it allocates nothing.
/// @tparam D       The device that runs the pass and owns the masters and states.
/// @tparam Types   The pass's `element_types`.
/// @tparam States  How many state arrays the rule has.
template <Device D, class Types, std::size_t States>
class plan {
 public:
  using run_type = run<Types, States>;
  using source_type = typename run_type::source_type;
  using mirror_type = typename Types::mirror;
  using execution = typename D::execution;

  void clear() {
    runs_.rows.clear();
    clocks_.rows.clear();
    segments_.rows.clear();
    gradients_.rows.clear();
    mirrors_.rows.clear();
    overflow_.clear();
    elements_ = sourced_ = mirrored_ = added_ = reduced_ = 0;
  }

  bool empty() const { return runs_.rows.empty(); }
  std::size_t size() const { return runs_.rows.size(); }
  /// Elements over all runs.
  std::int64_t elements() const { return elements_; }
  std::vector<run_type>& runs() { return runs_.rows; }

  /// The argument of a rule's `prepare`.
  template <class Rule>
  using steps_of = detail::steps_of<Rule, typename Types::accumulation>;

  /// Appends a run with its sources and outputs; `rest` brings the rest.
  void add(run_type const& rest, std::span<source_type const> gradients, std::span<mirror_type* const> mirrors) {
    run_type& r = runs_.rows.emplace_back(rest);  // copied once: many small keys notice
    r.gradients = static_cast<std::int32_t>(gradients.size());
    if (r.sources == 0) r.sources = r.gradients;  // sources may be sums of others
    r.mirrors = static_cast<std::int32_t>(mirrors.size());
    r.aligned = all_aligned(gradients, 16) && all_aligned(mirrors, 16);
    // What is short is often read again before the caches forget it, and its first and last cache lines are not whole.
    r.streaming = r.size >= streamed_size && all_aligned(mirrors, 16);
    std::size_t const inline_gradients = std::min<std::size_t>(gradients.size(), inline_operands);
    std::size_t const inline_mirrors = std::min<std::size_t>(mirrors.size(), inline_operands);
    std::copy_n(gradients.begin(), inline_gradients, r.gradient);
    std::copy_n(mirrors.begin(), inline_mirrors, r.mirror);
    overflow_.push_back({gradients_.rows.size(), mirrors_.rows.size()});
    gradients_.rows.insert(gradients_.rows.end(), gradients.begin() + static_cast<std::ptrdiff_t>(inline_gradients),
                           gradients.end());
    mirrors_.rows.insert(mirrors_.rows.end(), mirrors.begin() + static_cast<std::ptrdiff_t>(inline_mirrors),
                         mirrors.end());
    elements_ += r.size;
    sourced_ += r.size * r.gradients;
    mirrored_ += r.size * r.mirrors;
    if (r.accumulated) added_ += r.size;
    if (r.reduced != nullptr) reduced_ += r.size;
  }

  /// Names a clock that a step with this plan advances; `lead` if runs refer to it.
  /// @param segment  The number of the sums that its key is given, if the rule asks for sums of each tensor.
  void add_clock(std::int32_t clock, bool lead, std::int32_t segment = -1) {
    clocks_.rows.push_back(lead ? clock : ~clock);
    if (segment >= 0) segments_.rows.push_back(segment);
  }

  /// f(number) for every clock.
  template <class F>
  void for_each_clock(F const& f) const {
    for (std::int32_t const entry : clocks_.rows) f(entry < 0 ? ~entry : entry);
  }
  /// Enqueues to[i] = the steps that the clock has counted which for_each_clock names as number i.
  template <class Clock>
  void gather_steps(D const& device, Clock const* clocks, std::int64_t* to) const {
    device.for_each(static_cast<std::int64_t>(clocks_.rows.size()),
                    detail::gather_steps<Clock>{clocks, clock_list(), to});
  }
  std::vector<run_type> const& runs() const { return runs_.rows; }

  /// Leaves of the norm's tree in this plan.
  std::int64_t leaves() const {
    std::int64_t total = 0;
    for (run_type const& r : runs_.rows) total += leaves_of(r);
    return total;
  }

  /// Bytes that the pass of a rule moves.
  template <class Rule>
  std::int64_t bytes() const {
    return (reads_gradient<Rule> ? gradient_bytes() : 0) + stored_bytes<Rule, Types, States>(elements_) +
           mirrored_ * static_cast<std::int64_t>(sizeof(mirror_type));
  }
  /// Bytes of all sources.
  std::int64_t gradient_bytes() const {
    return pushpull::detail::encoded_bytes<typename Types::gradient>(sourced_) +
           added_ * static_cast<std::int64_t>(sizeof(typename Types::accumulation));
  }

  /// Makes the plan visible to the device. Once after the last `add`, before any launch.
  void commit(D const& device) {
    source_type const* const gradients = gradients_.commit(device);
    mirror_type* const* const mirrors = mirrors_.commit(device);
    using block_type = typename body<hold, void, Types, execution, memory::arenas>::block_type;
    using task_type = detail::task_of<execution, block_type, typename Types::state, States>;
    bool const distant = elements_ >= distant_size && pushpull::detail::prefetching_pays();
    std::int64_t tasks = 0, leaves = 0;
    task_ends_.rows.clear();
    leaf_ends_.rows.clear();
    for (std::size_t i = 0; i < runs_.rows.size(); ++i) {
      run_type& r = runs_.rows[i];
      r.more_gradients = gradients + overflow_[i].gradients;
      r.more_mirrors = mirrors + overflow_[i].mirrors;
      r.distant = distant;
      task_ends_.rows.push_back(tasks += task_type::count(r.size));
      leaf_ends_.rows.push_back(leaves += leaves_of(r));
    }
    bool const tabled = always_tabled || runs_.rows.size() > 1;
    committed_.runs = tabled ? runs_.commit(device) : nullptr;
    committed_.task_ends = tabled ? task_ends_.commit(device) : nullptr;
    committed_.leaf_ends = tabled ? leaf_ends_.commit(device) : nullptr;
    committed_.clocks = clocks_.rows.size() > 1 ? clocks_.commit(device) : nullptr;
    committed_.segments = segments_.rows.size() > 1 ? segments_.commit(device) : nullptr;
  }

  /// Counts a step on every clock of the plan: one small launch.
  template <class Rule>
  void begin_step(D const& device, Rule const* rules, clock_of<Rule, Types>* clocks,
                  shared_sums<Rule> const* shared = nullptr, steps_of<Rule> const& steps = {}) const {
    detail::for_each_step<detail::may_fail<D, Rule, typename Types::accumulation>>(
        device, static_cast<std::int64_t>(clocks_.rows.size()),
        detail::begin_step<Rule, typename Types::accumulation>{rules, clocks, clock_list(), shared, steps});
  }

  /// Gives the rule's `prepare` the sums of a phase: one small launch.
  template <std::size_t Phase, class Rule>
  void finish_pre_reduction(D const& device, Rule const* rules, clock_of<Rule, Types>* clocks,
                            detail::phase_sums<Rule, Phase> const* sums, shared_sums<Rule>* shared,
                            steps_of<Rule> const& steps = {}) const {
    detail::clock_list const segments{segments_.rows.empty() ? 0 : segments_.rows.front(), committed_.segments};
    detail::for_each_step<detail::may_fail<D, Rule, typename Types::accumulation>>(
        device, static_cast<std::int64_t>(clocks_.rows.size()),
        detail::finish_pre_reduction<Rule, typename Types::accumulation, Phase>{rules, clocks, clock_list(), segments,
                                                                                sums, shared, steps});
  }

  /// A phase before the pass: partials[l] for each leaf l of the plan. One launch.
  template <class Rule, class Reduction, memory Memory, std::size_t Phase>
  void pre_reduce(D const& device, Rule const* rules, clock_of<Rule, Types> const* clocks,
                  detail::phase_sums<Rule, Phase>* partials) const {
    if (empty()) return;
    profile::detail::pass_span const traced(
        "pre_reduce", device.id(),
        gradient_bytes() + reduced_ * static_cast<std::int64_t>(sizeof(typename Types::accumulation)));
    if constexpr (!always_tabled)
      if (size() == 1)
        return device.for_each_leaf(
            leaves(),
            pre_reduction_body<Rule, Reduction, Types, execution, Memory, Phase>{rules, clocks, {runs_.rows[0]}},
            partials);
    device.for_each_leaf(leaves(),
                         pre_reduction_body<Rule, Reduction, Types, execution, Memory, Phase, detail::run_table>{
                             rules, clocks, {committed_.runs, committed_.leaf_ends, run_count()}},
                         partials);
  }

  /// The pass: one launch.
  template <class Rule, class Reduction, memory Memory>
  void launch(D const& device, Rule const* rules, clock_of<Rule, Types> const* clocks) const {
    if (empty()) return;
    profile::detail::pass_span const traced("pass", device.id(), bytes<Rule>());
    std::int64_t const tasks = task_ends_.rows.back();
    if constexpr (!always_tabled)
      if (size() == 1)
        return device.for_each(tasks, body<Rule, Reduction, Types, execution, Memory>{rules, clocks, {runs_.rows[0]}});
    device.for_each(tasks, body<Rule, Reduction, Types, execution, Memory, detail::run_table>{
                               rules, clocks, {committed_.runs, committed_.task_ends, run_count()}});
  }

 private:
  /// Whether a launch finds its only run in a table too. A host does so at no cost, and compiles the pass once.
  static constexpr bool always_tabled = HostDevice<D>;

  struct overflow {
    std::size_t gradients, mirrors;
  };
  struct committed {
    run_type const* runs = nullptr;
    std::int64_t const* task_ends = nullptr;
    std::int64_t const* leaf_ends = nullptr;
    std::int32_t const* clocks = nullptr;
    std::int32_t const* segments = nullptr;
  };

  static std::int64_t leaves_of(run_type const& r) { return (r.leaf_phase + r.size + leaf_size - 1) / leaf_size; }
  std::int32_t run_count() const { return static_cast<std::int32_t>(runs_.rows.size()); }
  detail::clock_list clock_list() const { return {clocks_.rows.empty() ? 0 : clocks_.rows.front(), committed_.clocks}; }

  detail::table<D, run_type> runs_;
  detail::table<D, std::int64_t> task_ends_, leaf_ends_;
  detail::table<D, std::int32_t> clocks_;
  detail::table<D, std::int32_t> segments_;  // of each clock, or empty: all are 0
  detail::table<D, source_type> gradients_;
  detail::table<D, mirror_type*> mirrors_;
  std::vector<overflow> overflow_;
  committed committed_;
  std::int64_t elements_ = 0;
  // Elements of all sources, of all outputs, of sums that are sources, and of reduced gradients that a phase writes.
  std::int64_t sourced_ = 0, mirrored_ = 0, added_ = 0, reduced_ = 0;
};

}  // namespace pushpull::pass
