/// @file
/// parameter_store as a contender.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compare/contender.hpp"

namespace pushpull::bench::compare {

/// parameter_store over one device per source: the weights of one are the masters, the others are its mirrors.
/// @tparam Policies  Of the store, in addition to its rule.
template <class Rule, class... Policies>
class parameter_store_step final : public contender {
 public:
  parameter_store_step(task const& t, Rule const& rule, Policies const&... policies)
      : store_(cpu_devices(static_cast<int>(t.gradients)), rule, policies...), parameters_(store_) {
    for (std::size_t j = 0; j < t.sizes.size(); ++j) {
      std::vector<float> initial(static_cast<std::size_t>(t.sizes[j]));
      fill_weight(initial.data(), t.sizes[j]);
      shape const whole = t.columns.empty() ? shape{t.sizes[j]} : shape{t.sizes[j] / t.columns[j], t.columns[j]};
      parameters_.add(std::to_string(j), tensor_view<float const>(initial.data(), whole));
    }
    for (std::size_t j = 0; j < t.sizes.size(); ++j)
      for (std::size_t k = 0; k < t.gradients; ++k)
        fill_gradient(parameters_.grad(std::to_string(j), k).data(), k, t.sizes[j]);
    last_ = t.gradients - 1;
  }

  void step() override { parameters_.update_all(); }

  std::vector<float> result(std::size_t j) override {
    auto const view = parameters_.value(std::to_string(j), last_);
    return {view.data(), view.data() + view.size()};
  }

 private:
  using store = kv_store<float, cpu_device<>, Rule, Policies...>;

  store store_;
  parameter_store<store> parameters_;
  std::size_t last_ = 0;
};

/// Muon over the matrices of a task. @throws unsupported without a BLAS
std::unique_ptr<contender> our_muon(task const& t);

}  // namespace pushpull::bench::compare
