/// @file
/// One step over any keys on all devices: at most one pass per device, with a phase before it where the rule wants one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/control.hpp>
#include <pushpull/pass/factored_plan.hpp>
#include <pushpull/pass/may_fail.hpp>
#include <pushpull/pass/partial_sums.hpp>
#include <pushpull/pass/plan.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/pass/step_memory.hpp>
#include <pushpull/pass/sum_tree.hpp>
#include <pushpull/profile/tracing.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The plans of all devices for one step. Kept, it is launched again at no cost; reused, it allocates nothing.
template <Device D, class Rule, class Reduction, class Types, pass::memory Memory>
class fused_step {
 public:
  using rule_type = Rule;
  static constexpr std::size_t states = state_count<Rule>;
  static constexpr bool two_phases = PreReduction<Rule>;
  /// Whether it changes no weight, but the sum of a key's micro-batches.
  static constexpr bool accumulates_only = requires { requires Rule::accumulates; };
  /// Whether sources may include such a sum.
  static constexpr bool reads_accumulated = Types::accumulates;
  /// Whether the sums of the phase before go by key: every run is of one key then.
  static constexpr bool per_tensor = two_phases && is_per_tensor<Rule>;
  /// Whether numbers of rows and columns are asked for: keys are not cut then.
  static constexpr bool is_factored = two_phases && factored_count<Rule> != 0;
  /// Whether the devices may skip the step.
  static constexpr bool may_skip = MaySkip<Rule>;
  using A = typename Types::accumulation;
  /// Whether these run on a reduced gradient even where there is one source.
  static constexpr bool always_reduced = is_factored && !std::is_same_v<typename Types::gradient, A>;
  using plan_type = pass::plan<D, Types, states>;
  using run_type = typename plan_type::run_type;
  using control_type = control<D, Rule, Types>;
  /// Whether `run` may throw what a rule's `prepare` throws. Then it has changed nothing.
  static constexpr bool may_fail = !pass::is_timeless<Rule> && pass::detail::may_fail<D, Rule, A>;

  explicit fused_step(std::size_t devices)
      : plans_(devices),
        second_(two_phases ? devices : 0),
        sums_(second_.size()),
        matrices_(is_factored ? devices : 0) {
    if constexpr (may_skip) skipped_.reserve(devices);
  }

  /// @param over_ranks  Ranks add up its partial sums, and refuse it together.
  void clear(bool over_ranks = false) {
    over_ranks_ = over_ranks;
    for (auto& plan : plans_) plan.clear();
    for (auto& plan : second_) plan.clear();
    if constexpr (is_factored)
      for (auto& plan : matrices_) plan.clear();
    segments_.clear();
    slots_ = 0;
    reduced_ = false;
    has_distant_ = false;
    distant_clocks_.clear();
    started_phases_ = 0;
    skipped_.clear();
  }

  /// Where device number n finds whether it leaves out the step that was run last; null if nothing was.
  bool const* skipped(std::size_t n) const
    requires may_skip
  {
    return skipped_.empty() ? nullptr : skipped_[n];
  }

  bool empty() const {
    for (auto const& plan : plans_)
      if (!plan.empty()) return false;
    return !has_distant_;
  }

  /// Appends a run to the plan of device number `device`. Runs come in the order of their keys and of their elements,
  /// whatever device they are on.
  void add(std::size_t device, run_type const& r, std::span<typename run_type::source_type const> gradients,
           std::span<typename Types::mirror* const> mirrors) {
    plans_[device].add(r, gradients, mirrors);
    if constexpr (two_phases) {
      std::int64_t const leaf = take_leaves(r.clock, r.leaf_phase, r.size);
      plans_[device].runs().back().leaf = leaf;
      if (r.reduced != nullptr) {
        reduced_ = true;
        A const* const gradient[] = {r.reduced};
        typename second_plan::run_type second{};
        second.size = r.size;
        second.first_element = r.first_element;
        second.clock = r.clock;
        second.leaf = leaf;
        second.leaf_phase = r.leaf_phase;
        second.master = r.master;
        for (std::size_t s = 0; s != states; ++s) second.state[s] = r.state[s];
        second_[device].add(second, gradient, mirrors);
      }
    }
  }

  /// In the place of `add` for a run that another process has: numbers its leaves.
  void add_distant([[maybe_unused]] std::int32_t clock, [[maybe_unused]] std::int64_t leaf_phase,
                   [[maybe_unused]] std::int64_t size) {
    if constexpr (two_phases) take_leaves(clock, leaf_phase, size);
    has_distant_ = true;
  }

  /// After `add` of a run that is a whole key, where the rule asks for numbers of its rows and columns.
  /// @param kept  The states of rows, columns and matrices.
  void add_matrices(std::size_t device, run_type const& r, std::span<typename run_type::source_type const> gradients,
                    pushpull::shape const& shape, pass::factor_memory<typename Types::state> const& kept) {
    A const* gradient = r.reduced;
    if constexpr (!always_reduced)
      if (gradient == nullptr) gradient = gradients.front();
    matrices_[device].add(r, gradient, shape, kept);
  }

  /// After `add` of the run to which the clock belongs.
  void add_clock(std::size_t device, std::int32_t clock, bool lead) {
    if constexpr (per_tensor) {
      plans_[device].add_clock(clock, lead, static_cast<std::int32_t>(segments_.size()) - 1);
    } else {
      plans_[device].add_clock(clock, lead);
    }
  }

  /// Counts a step of a key that only other processes hold on device number 0. After its `add_distant`.
  void add_distant_clock(std::int32_t clock) {
    distant_clocks_.push_back({clock, per_tensor ? static_cast<std::int32_t>(segments_.size()) - 1 : -1});
  }

  /// After the last `add`, before `run`.
  void commit(std::vector<D> const& devices) {
    // Behind the clocks of runs: the matrices of a Factored rule go by those.
    for (auto const& [clock, segment] : distant_clocks_) plans_[0].add_clock(clock, false, segment);
    if constexpr (two_phases) trees_.over_all.build({}, slots_);
    if constexpr (per_tensor) trees_.by_tensor.build(segments_, slots_);
    for (std::size_t n = 0; n < devices.size(); ++n) {
      plans_[n].commit(devices[n]);
      if constexpr (is_factored) matrices_[n].commit(devices[n]);
      if constexpr (two_phases) {
        if (reduced_) second_[n].commit(devices[n]);
        sums_[n].begins.rows = trees_.by_tensor.begins;
        sums_[n].tree = sums_[n].begins.commit(devices[n]);
        std::size_t const nodes =
            static_cast<std::size_t>(slots_ + std::max(trees_.over_all.nodes(), trees_.by_tensor.nodes()));
        std::size_t const bytes = nodes * sum_count<sums_t<Rule>> * sizeof(double);
        for (buffer<D>* const memory : {&sums_[n].own, &sums_[n].all, &sums_[n].staged})
          if (memory->bytes() < bytes) *memory = buffer<D>(devices[n], bytes);
      }
    }
    if constexpr (may_fail) memory_.reserve(plans_);
  }

  /// After `commit`, before the call changes anything: takes the memory that a `transform` needs. @throws out_of_memory
  void make_room(std::vector<D> const& devices, std::vector<control_type> const& controls)
    requires is_factored
  {
    for (std::size_t n = 0; n < devices.size(); ++n) matrices_[n].make_room(devices[n], controls[n]);
  }

  /// Enqueues the step on all devices, ordered after what any of them was given and before what they will be given.
  /// A timeless rule needs nothing else.
  void run(std::vector<D> const& devices)
    requires pass::is_timeless<Rule>
  {
    if (empty()) return;
    join(devices);
    for (std::size_t n = 0; n < devices.size(); ++n)
      plans_[n].template launch<Rule, Reduction, Memory>(devices[n], nullptr, nullptr);
    join(devices);
  }
  /// @param rules  With the hyperparameters of this step; where the host runs the pass, they must outlive this call.
  void run(std::vector<D> const& devices, std::vector<control_type> const& controls, Rule const* rules) {
    while (advance(devices, controls, rules)) {
    }
  }

  /// Same as run, in parts: as far as the step goes without partial sums of other processes.
  /// @returns  Partial sums, to be added to those of the other processes before the next call, and whether there is a next
  ///           call. A step that throws is to be begun again.
  std::optional<std::span<double>> advance(std::vector<D> const& devices, std::vector<control_type> const& controls,
                                           Rule const* rules) {
    if (empty()) return std::nullopt;
    if constexpr (pass::is_timeless<Rule>) {
      run(devices);
    } else {
      if (started_phases_ == 0) {
        join(devices);
        if constexpr (may_fail) memory_.remember(plans_, controls);
      }
      if (auto const sums = begin_or_restore(devices, controls, rules)) return sums;
      started_phases_ = 0;
      for (std::size_t n = 0; n < devices.size(); ++n) launch(n, devices[n], controls[n], rules);
      join(devices);
      if constexpr (may_skip) {
        skipped_.clear();
        for (control_type const& control : controls) skipped_.push_back(&control.shared()->skipped);
      }
    }
    return std::nullopt;
  }

 private:
  using second_plan = pass::plan<D,
                                 pass::element_types<A, A, typename Types::master, typename Types::state,
                                                     typename Types::mirror, Types::stochastic>,
                                 states>;

  /// Numbers the leaves of the next run. @returns  The first one's number.
  std::int64_t take_leaves(std::int32_t clock, std::int64_t leaf_phase, std::int64_t size) {
    if (per_tensor && (segments_.empty() || clock != last_clock_)) segments_.push_back(slots_);
    last_clock_ = clock;
    return std::exchange(slots_, slots_ + (leaf_phase + size + pass::leaf_size - 1) / pass::leaf_size);
  }

  std::optional<std::span<double>> begin_or_restore(std::vector<D> const& devices,
                                                    std::vector<control_type> const& controls, Rule const* rules) {
    try {
      return begin(devices, controls, rules);
    } catch (...) {
      started_phases_ = 0;
      if constexpr (may_fail) memory_.put_back(plans_, controls);
      throw;
    }
  }

  /// All that comes before the pass: the rule prepares, and sees the sums that it asks for. In parts: see `advance`.
  std::optional<std::span<double>> begin(std::vector<D> const& devices, std::vector<control_type> const& controls,
                                         Rule const* rules) {
    if (started_phases_ == 0) {
      failed_ = false;
      for (std::size_t n = 0; n < devices.size(); ++n)
        plans_[n].begin_step(devices[n], controls[n].rules(rules), controls[n].clocks(), controls[n].shared(),
                             steps(n));
      if constexpr (is_factored)
        for (std::size_t n = 0; reduced_ && n < devices.size(); ++n)
          plans_[n].template launch<pass::leave_reduced<states>, Reduction, Memory>(devices[n], nullptr, nullptr);
      if constexpr (keeps_matrices<Rule>)  // which may wait: devices have work
        for (std::size_t n = 0; n < devices.size(); ++n) controls[n].count_steps(devices[n], plans_[n]);
    }
    if constexpr (two_phases) return pre_reduce(devices, controls, rules);
    return std::nullopt;
  }

  void launch(std::size_t n, D const& device, control_type const& control, Rule const* rules) {
    if constexpr (two_phases) {
      if (reduced_)
        return second_[n].template launch<Rule, reduce::sum, Memory>(device, control.rules(rules), control.clocks());
    }
    plans_[n].template launch<Rule, Reduction, Memory>(device, control.rules(rules), control.clocks());
  }

  /// The argument of the rule's `prepare` on device number n.
  typename plan_type::template steps_of<Rule> steps([[maybe_unused]] std::size_t n) const {
    if constexpr (is_factored) {
      return {matrices_[n].matrices()};
    } else {
      return {};
    }
  }

  /// The phases before the pass, each of which knows the sums of those before: from the one that was started last to the
  /// next whose partial sums are to be added up.
  std::optional<std::span<double>> pre_reduce(std::vector<D> const& devices, std::vector<control_type> const& controls,
                                              Rule const* rules) {
    std::optional<std::span<double>> sums;
    [&]<std::size_t... P>(std::index_sequence<P...>) {
      (void)(... || (sums = pre_reduce_phase<P>(devices, controls, rules)).has_value());
    }(std::make_index_sequence<phase_count<Rule>>());
    if constexpr (is_factored && (MayLeaveAlone<Rule, A> || may_fail))
      if (!sums) pass::keep_statistics<Rule>(devices, matrices_, controls, failed_);
    return sums;
  }
  template <std::size_t Phase>
  std::optional<std::span<double>> pre_reduce_phase(std::vector<D> const& devices,
                                                    std::vector<control_type> const& controls, Rule const* rules) {
    if (started_phases_ > Phase + 1) return std::nullopt;
    bool const starts = std::exchange(started_phases_, Phase + 1) == Phase;
    if constexpr (detail::is_factored<Rule, Phase>()) {
      factored_phase<Phase>(devices, controls, rules);
    } else if (starts) {
      return start_phase<Phase>(devices, controls, rules);
    } else {
      finish_phase<Phase>(devices, controls, rules);
    }
    return std::nullopt;
  }

  /// A phase whose terms are summed by rows and columns, on each key's owner.
  template <std::size_t Phase>
  void factored_phase(std::vector<D> const& devices, std::vector<control_type> const& controls, Rule const* rules) {
    for (std::size_t n = 0; n < devices.size(); ++n) {
      auto const* const r = controls[n].rules(rules);
      {
        profile::detail::pass_span const traced("pre_reduce", devices[n].id(), plans_[n].gradient_bytes());
        matrices_[n].template sum<Phase>(devices[n], controls[n], rules);
      }
      if constexpr (pass::detail::has_shared_sums<Rule> && Phase + 1 == phase_count<Rule>) {
        auto* const shared = controls[n].shared();
        devices[n].for_each(1, pass::detail::settle_phase<Rule, Phase>{r, shared, nullptr});
        plans_[n].template finish_pre_reduction<Phase>(devices[n], r, controls[n].clocks(), nullptr, shared, steps(n));
      }
    }
  }

  /// @returns  The partial sums of all leaves, on the first device; those of other processes are zero.
  template <std::size_t Phase>
  std::span<double> start_phase(std::vector<D> const& devices, std::vector<control_type> const& controls,
                                Rule const* rules) {
    using sums_type = pass::detail::phase_sums<Rule, Phase>;
    std::size_t const bytes = static_cast<std::size_t>(slots_) * sizeof(sums_type);
    constexpr auto numbers = static_cast<std::int64_t>(sizeof(sums_type) / sizeof(double));
    for (std::size_t n = 0; n < devices.size(); ++n) {
      auto* const own = static_cast<sums_type*>(sums_[n].own.data());
      devices[n].fill_zero(own, bytes);
      auto const* const r = controls[n].rules(rules);
      if ((Phase > 0 || is_factored) && reduced_) {  // the first phase has left the reduced gradient
        second_[n].template pre_reduce<Rule, reduce::sum, Memory, Phase>(devices[n], r, controls[n].clocks(), own);
      } else {
        plans_[n].template pre_reduce<Rule, Reduction, Memory, Phase>(devices[n], r, controls[n].clocks(), own);
      }
    }
    join(devices);
    pass::gather_sums(devices, sums_, slots_ * numbers);
    return {static_cast<double*>(sums_[0].all.data()), static_cast<std::size_t>(slots_ * numbers)};
  }

  /// Sums the leaves along the tree, and gives the sums to the rule.
  template <std::size_t Phase>
  void finish_phase(std::vector<D> const& devices, std::vector<control_type> const& controls, Rule const* rules) {
    using sums_type = pass::detail::phase_sums<Rule, Phase>;
    constexpr bool by_tensor = sums_per_tensor<Rule, Phase>();
    if constexpr (may_fail && keeps_matrices<Rule>)  // see matrix_states
      if (over_ranks_ && sums_[0].have_nan(slots_ * static_cast<std::int64_t>(sums_in<Rule, Phase>))) failed_ = true;
    if (has_distant_) join(devices);  // the sums over the ranks are those of the first device
    for (std::size_t n = 0; n < devices.size(); ++n) {
      D const& device = devices[n];
      auto* from = static_cast<sums_type*>(sums_[n].all.data());
      if (has_distant_ && n > 0)
        device.copy(from, sums_[0].all.data(), static_cast<std::size_t>(slots_) * sizeof(sums_type));
      std::int64_t size = slots_;
      pass::sum_tree const& tree = by_tensor ? trees_.by_tensor : trees_.over_all;
      for (pass::sum_tree::level const& level : tree.levels) {
        std::int64_t const* const begins = by_tensor ? sums_[n].tree + level.first : nullptr;
        device.for_each(level.nodes, pass::detail::sum_level<sums_type>{from, from + size, size, begins});
        from += size;
        size = level.nodes;
      }
      auto* const shared = controls[n].shared();
      if constexpr (pass::detail::has_shared_sums<Rule>)
        device.for_each(1, pass::detail::settle_phase<Rule, Phase>{controls[n].rules(rules), shared, from});
      plans_[n].template finish_pre_reduction<Phase>(device, controls[n].rules(rules), controls[n].clocks(), from,
                                                     shared, steps(n));
    }
    join(devices);
  }

  struct nothing {};

  std::vector<plan_type> plans_;
  std::vector<second_plan> second_;
  std::vector<pass::partial_sums<D>> sums_;
  std::vector<std::conditional_t<is_factored, pass::matrix_plan<D, Rule, Types>, nothing>> matrices_;
  std::int64_t slots_ = 0;
  bool has_distant_ = false;                                           // other processes have runs of the step
  bool over_ranks_ = false;                                            // they add up the step's partial sums
  bool failed_ = false;                                                // one of the ranks cannot make it
  std::vector<std::pair<std::int32_t, std::int32_t>> distant_clocks_;  // and their segments
  std::size_t started_phases_ = 0;                                     // of a step that is under way
  std::vector<bool const*> skipped_;
  std::vector<std::int64_t> segments_;  // the first slot of each key, where sums go by key
  std::int32_t last_clock_ = 0;
  struct {
    pass::sum_tree over_all, by_tensor;
  } trees_;
  bool reduced_ = false;
  [[no_unique_address]] std::conditional_t<may_fail, step_memory<Rule, Types>, nothing> memory_;
};

}  // namespace pushpull::detail
