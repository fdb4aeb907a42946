/// @file
/// One step over any keys on all devices: at most one pass per device, with a phase before it where the rule wants one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/pass/plan.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::detail {

/// Later work of each device runs after what every other was given so far.
template <Device D>
void join(std::vector<D> const& devices) {
  for (D const& later : devices)
    for (D const& earlier : devices)
      if (!(later == earlier)) later.wait_for(earlier);
}

/// What the pass reads beside tensors on one device: the rule and a clock per key.
template <Device D, class Rule, class Types>
class control {
 public:
  using clock_type = pass::clock_of<Rule, Types>;

  control(D const& device, Rule const& rule) : rule_(device, HostDevice<D> ? 0 : sizeof(Rule)) { set(device, rule); }

  /// Where the pass finds a rule's hyperparameters: with the caller if it runs on the host; else on the device, whose
  /// stream sets them in order.
  Rule const* rule(Rule const& given) const {
    if constexpr (HostDevice<D>) return &given;
    return static_cast<Rule const*>(rule_.data());
  }
  clock_type* clocks() const { return static_cast<clock_type*>(clocks_.data()); }

  /// New hyperparameters, from the next step on.
  void set(D const& device, Rule const& rule) {
    if constexpr (!HostDevice<D>) device.for_each(1, pass::detail::set_value<Rule>{static_cast<Rule*>(rule_.data()), rule});
  }

  /// Whether there is room for `keys` clocks.
  bool has_room(std::size_t keys) const { return keys * sizeof(clock_type) <= clocks_.bytes(); }

  /// Room for `keys` clocks; new ones stand at 0. Nothing may be using the old ones.
  void reserve(D const& device, std::size_t keys) {
    std::size_t const bytes = keys * sizeof(clock_type);
    if (has_room(keys)) return;
    buffer<D> grown(device, 2 * bytes);
    device.fill_zero(grown.data(), grown.bytes());
    device.copy(grown.data(), clocks_.data(), clocks_.bytes());
    clocks_ = std::move(grown);
  }

 private:
  buffer<D> rule_;
  buffer<D> clocks_;
};

/// The plans of all devices for one step. Kept, it is launched again at no cost; reused, it allocates nothing.
template <Device D, class Rule, class Reduction, class Types, pass::memory Memory>
class fused_step {
 public:
  static constexpr std::size_t states = state_count<Rule>;
  static constexpr bool two_phases = PreReduction<Rule>;
  using A = typename Types::accumulation;
  using plan_type = pass::plan<D, Types, states>;
  using run_type = typename plan_type::run_type;
  using control_type = control<D, Rule, Types>;

  explicit fused_step(std::size_t devices) : plans_(devices), second_(two_phases ? devices : 0), sums_(second_.size()) {}

  void clear() {
    for (auto& plan : plans_) plan.clear();
    for (auto& plan : second_) plan.clear();
    slots_ = 0;
    reduced_ = false;
  }

  bool empty() const {
    for (auto const& plan : plans_)
      if (!plan.empty()) return false;
    return true;
  }

  /// Appends a run to the plan of device number `device`. Runs come in the order of their keys and of their elements,
  /// whatever device they are on.
  void add(std::size_t device, run_type r, std::span<typename Types::gradient const* const> gradients,
           std::span<typename Types::mirror* const> mirrors) {
    if constexpr (two_phases) {
      r.leaf = slots_;
      slots_ += (r.leaf_phase + r.size + pass::leaf_size - 1) / pass::leaf_size;
      if (r.reduced != nullptr) {
        reduced_ = true;
        A const* const gradient[] = {r.reduced};
        typename second_plan::run_type second{};
        second.size = r.size;
        second.clock = r.clock;
        second.master = r.master;
        for (std::size_t s = 0; s != states; ++s) second.state[s] = r.state[s];
        second_[device].add(second, gradient, mirrors);
      }
    }
    plans_[device].add(r, gradients, mirrors);
  }

  void add_clock(std::size_t device, std::int32_t clock, bool lead) { plans_[device].add_clock(clock, lead); }

  /// After the last `add`, before `run`.
  void commit(std::vector<D> const& devices) {
    for (std::size_t n = 0; n < devices.size(); ++n) {
      plans_[n].commit(devices[n]);
      if constexpr (two_phases) {
        if (reduced_) second_[n].commit(devices[n]);
        std::size_t const bytes = static_cast<std::size_t>(scratch_slots()) * sizeof(double);
        if (sums_[n].own.bytes() < bytes) {
          sums_[n].own = buffer<D>(devices[n], bytes);
          sums_[n].all = buffer<D>(devices[n], bytes);
          sums_[n].staged = buffer<D>(devices[n], bytes);
        }
      }
    }
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
  /// @param rule  With the hyperparameters of this step; where the host runs the pass, it must outlive this call.
  void run(std::vector<D> const& devices, std::vector<control_type> const& controls, Rule const& rule) {
    if (empty()) return;
    if constexpr (pass::is_timeless<Rule>) {
      run(devices);
    } else {
      join(devices);
      for (std::size_t n = 0; n < devices.size(); ++n)
        plans_[n].begin_step(devices[n], controls[n].rule(rule), controls[n].clocks());
      if constexpr (two_phases) pre_reduce(devices, controls, rule);
      for (std::size_t n = 0; n < devices.size(); ++n) launch(n, devices[n], controls[n], rule);
      join(devices);
    }
  }

 private:
  using second_plan = pass::plan<
      D, pass::element_types<A, A, typename Types::master, typename Types::state, typename Types::mirror>, states>;

  void launch(std::size_t n, D const& device, control_type const& control, Rule const& rule) {
    if constexpr (two_phases) {
      if (reduced_)
        return second_[n].template launch<Rule, reduce::sum, Memory>(device, control.rule(rule), control.clocks());
    }
    plans_[n].template launch<Rule, Reduction, Memory>(device, control.rule(rule), control.clocks());
  }

  /// Partial sums: a device's own, those of all devices with the levels of the tree behind them, and room for those of
  /// a device whose memory this one cannot reach.
  struct partial_sums {
    buffer<D> own, all, staged;
  };

  std::int64_t scratch_slots() const {
    std::int64_t total = slots_;
    for (std::int64_t size = slots_; size > 1;) total += size = (size + pass::tree_width - 1) / pass::tree_width;
    return total;
  }

  void pre_reduce(std::vector<D> const& devices, std::vector<control_type> const& controls, Rule const& rule) {
    auto const at = [](buffer<D> const& b) { return static_cast<double*>(b.data()); };
    std::size_t const bytes = static_cast<std::size_t>(slots_) * sizeof(double);
    for (std::size_t n = 0; n < devices.size(); ++n) {
      devices[n].fill_zero(at(sums_[n].own), bytes);
      plans_[n].template pre_reduce<Rule, Reduction, Memory>(devices[n], controls[n].rule(rule), controls[n].clocks(),
                                                              at(sums_[n].own));
    }
    join(devices);
    for (std::size_t n = 0; n < devices.size(); ++n) {
      D const& device = devices[n];
      double* const all = at(sums_[n].all);
      device.copy(all, at(sums_[0].own), bytes);
      for (std::size_t m = 1; m < devices.size(); ++m) {
        double const* from = at(sums_[m].own);
        if (!device.can_access(devices[m])) {
          device.copy(at(sums_[n].staged), from, bytes);
          from = at(sums_[n].staged);
        }
        device.for_each(slots_, pass::detail::gather{from, all});
      }
      double* level = all;
      for (std::int64_t size = slots_; size > 1;) {
        std::int64_t const next = (size + pass::tree_width - 1) / pass::tree_width;
        device.for_each(next, pass::detail::sum_level{level, level + size, size});
        level += size;
        size = next;
      }
      plans_[n].finish_pre_reduction(device, controls[n].rule(rule), controls[n].clocks(), level);
    }
    join(devices);
  }

  std::vector<plan_type> plans_;
  std::vector<second_plan> second_;
  std::vector<partial_sums> sums_;
  std::int64_t slots_ = 0;
  bool reduced_ = false;
};

}  // namespace pushpull::detail
