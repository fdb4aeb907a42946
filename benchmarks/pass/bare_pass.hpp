/// @file
/// The pass without a store around it.
#pragma once

#include <cstdint>
#include <span>

#include <pushpull/pushpull.hpp>

#include "support/operands.hpp"

namespace pushpull::bench {

/// One step of `Rule` over arrays of float masters with gradients and mirrors of `T`, ready to be launched again.
template <class T, class Rule>
class bare_pass {
  using types = pass::element_types<T, float, float, float, T>;
  using clock = pass::clock_of<Rule, types>;

 public:
  bare_pass(cpu_device<> const& device, operands<T> const& o, Rule const& rule) : device_(device), rule_(rule) {
    pass::run<types, detail::state_count<Rule>> run{};
    run.size = o.size;
    run.master = o.weight;
    for (std::size_t s = 0; s < o.state.size(); ++s) run.state[s] = o.state[s];
    plan_.add_clock(0, true);
    plan_.add(run, o.gradient, o.mirror);
    plan_.commit(device_);
  }

  void operator()() {
    plan_.begin_step(device_, &rule_, &clock_);
    plan_.template launch<Rule, reduce::sum, pass::memory::arenas>(device_, &rule_, &clock_);
  }

 private:
  cpu_device<> device_;
  Rule rule_;
  clock clock_{};
  pass::plan<cpu_device<>, types, detail::state_count<Rule>> plan_;
};

}  // namespace pushpull::bench
