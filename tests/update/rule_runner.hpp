/// @file
/// A rule in the pass without a store around it, which takes a store's compile time off tests of many rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <utility>
#include <vector>

namespace pushpull::test {

/// Elements of one parameter under `Rule`, in as many slices as there would be devices.
/// @tparam T       Gradients and mirrors.
/// @tparam Stored  Masters and states.
template <class T, class Stored, class Rule>
class rule_runner {
 public:
  using A = typename dtype_traits<T>::accumulation;
  using types = pass::element_types<T, A, Stored, Stored, T>;
  static constexpr std::size_t states = detail::state_count<Rule>;

  rule_runner(Rule const& rule, std::vector<double> const& weight, std::size_t slices)
      : rule_(rule), size_(weight.size()), slices_(slices), gradient_(size_), mirror_(size_) {
    if constexpr (requires { rule.validate(); }) rule.validate();
    auto const whole = static_cast<std::size_t>(detail::padded(size_));
    for (std::size_t s = 0; s < states + 1; ++s)
      stored_.emplace_back(cpu_device<serial_system>{}, whole * sizeof(Stored));
    for (auto& memory : stored_) cpu_device<serial_system>{}.fill_zero(memory.data(), memory.bytes());
    for (std::size_t i = 0; i < size_; ++i) array(0)[i] = convert<Stored>(weight[i]);
  }

  /// One update.
  void step(std::vector<double> const& gradient) {
    for (std::size_t i = 0; i < size_; ++i) gradient_[i] = convert<T>(gradient[i]);
    ++clock_.t;
    clock_.prepared = detail::prepare(rule_, step_of_clock(), sums_);
    if constexpr (PreReduction<Rule>) {
      clock_.sums = sums_;
      [&]<std::size_t... P>(std::index_sequence<P...>) {
        (sum_phase<P>(), ...);
      }(std::make_index_sequence<detail::phase_count<Rule>>());
      if constexpr (detail::Carries<Rule>) {
        sums_ = clock_.sums;
        detail::carry(rule_, sums_);
        [&]<std::size_t... P>(std::index_sequence<P...>) {
          (clear_sums<P>(), ...);
        }(std::make_index_sequence<detail::phase_count<Rule>>());
      }
    }
    std::vector<std::int64_t> loads(slices_);
    for (auto const& part : detail::lay_out_slices(std::vector{size_}, {true}, loads, 1).parts) {
      if (part.size() <= 0) continue;
      using body = pass::body<Rule, reduce::sum, types, pass::host_execution, pass::memory::foreign>;
      typename body::run_type run{};
      fill(run, part.begin, part.size());
      body const pass{&rule_, &clock_, {run}};
      for (std::int64_t task = 0; task * body::grain < run.size; ++task) pass(task);
    }
  }

  /// State number s - 1, or the weight for s = 0.
  std::vector<double> values(std::size_t s) const {
    std::vector<double> result(size_);
    for (std::size_t i = 0; i < size_; ++i) result[i] = convert<double>(array(s)[i]);
    return result;
  }
  void set_t(std::int64_t t) { clock_.t = t; }
  /// Other hyperparameters from the next step on.
  void set_hyperparameters(Rule const& rule) { rule_ = rule; }
  Rule const& updater() const { return rule_; }
  /// Updates so far.
  std::int64_t t() const { return clock_.t; }
  /// What the pass wrote to the mirror.
  std::vector<T> const& mirror() const { return mirror_; }

 private:
  template <class Run>
  void fill(Run& run, std::int64_t begin, std::int64_t size) {
    run.size = size;
    run.first_element = begin;
    run.gradients = run.mirrors = 1;
    run.gradient[0] = gradient_.data() + begin;
    run.mirror[0] = mirror_.data() + begin;
    run.master = array(0) + begin;
    for (std::size_t s = 0; s != states; ++s) run.state[s] = array(s + 1) + begin;
  }

  /// A phase before the pass, over the whole parameter.
  template <std::size_t Phase>
  void sum_phase() {
    using body = pass::pre_reduction_body<Rule, reduce::sum, types, pass::host_execution, pass::memory::foreign, Phase>;
    typename body::run_type run{};
    fill(run, 0, static_cast<std::int64_t>(size_));
    body const pass{&rule_, &clock_, {run}};
    constexpr std::size_t first = detail::first_sum<Rule, Phase>();
    for (std::size_t k = 0; k < detail::sums_in<Rule, Phase>; ++k) detail::sum(clock_.sums, first + k) = 0;
    for (std::int64_t leaf = 0; leaf * pass::leaf_size < run.size; ++leaf) {
      auto const sums = pass(leaf, 0, 1);
      for (std::size_t k = 0; k < detail::sums_in<Rule, Phase>; ++k) detail::sum(clock_.sums, first + k) += sums[k];
    }
    clock_.prepared = detail::prepare(rule_, step_of_clock(), clock_.sums);
  }

  pushpull::step<A> step_of_clock() const {
    return {clock_.t, detail::is_per_tensor<Rule> ? static_cast<std::int64_t>(size_) : 0};
  }
  /// No sums of a phase are left for the next step, whose carried values stay.
  template <std::size_t Phase>
  void clear_sums() {
    for (std::size_t k = 0; k < detail::sums_in<Rule, Phase>; ++k)
      detail::sum(sums_, detail::first_sum<Rule, Phase>() + k) = 0;
  }

  Stored* array(std::size_t s) const { return static_cast<Stored*>(stored_[s].data()); }

  Rule rule_;
  detail::sums_t<Rule> sums_ = detail::initial_sums(rule_);  ///< Before a step.
  std::size_t size_, slices_;
  std::vector<buffer<cpu_device<serial_system>>> stored_;
  std::vector<T> gradient_, mirror_;
  pass::clock<Rule, A> clock_{};
};

}  // namespace pushpull::test
