/// @file
/// All tensors of a task behind one another in arrays that are laid out as the stores lay them out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "compare/contender.hpp"
#include "support/operands.hpp"

namespace pushpull::bench::compare {

/// The operands of one tensor or of several joined ones, with the inputs of the task.
template <class T>
class filled_operands {
 public:
  filled_operands(cpu_device<> const& device, std::vector<std::int64_t> sizes, task const& t, std::size_t states)
      : sizes_(std::move(sizes)), o_(device, total(), t.gradients, t.mirrors, states) {
    std::int64_t first = 0;
    for (auto const size : sizes_) {
      for (std::size_t k = 0; k < t.gradients; ++k) fill_gradient(const_cast<T*>(o_.gradient[k]) + first, k, size);
      fill_weight(o_.weight + first, size);
      first += size;
    }
    for (float* const p : o_.state) std::fill_n(p, o_.size, 0.0F);
  }

  operands<T>& get() { return o_; }

  std::vector<float> result(std::size_t tensor) const {
    std::int64_t first = 0;
    for (std::size_t j = 0; j < tensor; ++j) first += sizes_[j];
    std::vector<float> values(static_cast<std::size_t>(sizes_[tensor]));
    for (std::size_t i = 0; i < values.size(); ++i) {
      auto const at = first + static_cast<std::int64_t>(i);
      values[i] = o_.mirror.empty() ? o_.weight[at] : convert<float>(o_.mirror.back()[at]);
    }
    return values;
  }

 private:
  std::int64_t total() const {
    std::int64_t sum = 0;
    for (auto const size : sizes_) sum += size;
    return detail::padded(static_cast<std::size_t>(sum));
  }

  std::vector<std::int64_t> sizes_;
  operands<T> o_;
};

}  // namespace pushpull::bench::compare
