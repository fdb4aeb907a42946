/// @file
/// How much of a step's data each rank brings.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/registers/pack.hpp>
#include <pushpull/schedule/backoff.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/update/checks.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The weights that all ranks bring to a step. Kept from call to call.
class rank_weights {
 public:
  /// Waits. All ranks call it.
  std::span<double const> gather(rank_group& ranks, double own) {
    if (messages_ == nullptr) messages_ = ranks.make_host_messages();
    weights_.assign(ranks.size(), 0);
    weights_[ranks.rank()] = own;
    messages_->clear();
    messages_->start_sum(weights_);  // exact: all others are zero
    wait_until_ready(*messages_);
    return weights_;
  }

 private:
  std::unique_ptr<messages> messages_;
  std::vector<double> weights_;
};

/// The factor of a rank's gradients, with which the reduction of all weighs them; none if no rank has data.
/// @tparam Reduction  One that divides by the number of sources, such as a mean, or one that does not.
/// @throws invalid_argument on a weight that is negative or not finite: every rank's
template <class Reduction>
std::optional<double> factor_of_rank(std::span<double const> weights, std::size_t rank) {
  for (std::size_t r = 0; r < weights.size(); ++r)
    expects<invalid_argument>(std::isfinite(weights[r]) && weights[r] >= 0, [&] {
      return "join: rank " + std::to_string(r) + " brings the weight " + update::detail::number_text(weights[r]) +
             ": a finite weight of at least 0 expected";
    });
  if (std::ranges::count(weights, 0.0) == std::ssize(weights)) return std::nullopt;
  bool const divides = !std::equal_to<>()(Reduction{}.finish(pack<float>(1.0F), 2).value, 1.0F);
  if (!divides) return weights[rank] > 0 ? 1 : 0;
  if (std::ranges::adjacent_find(weights, std::not_equal_to<>()) == weights.end()) return 1;
  double const all = std::accumulate(weights.begin(), weights.end(), 0.0);
  return weights[rank] * static_cast<double>(weights.size()) / all;
}

/// Multiplies elements of a tensor.
template <class T>
struct multiply_elements {
  static constexpr std::int64_t grain = std::int64_t{1} << 12;
  T* elements;
  std::int64_t size;
  double factor;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const noexcept {
    using A = std::conditional_t<std::is_integral_v<T>, double, accumulation_t<T>>;
    for (std::int64_t i = task * grain; i < (task + 1) * grain && i < size; ++i)
      elements[i] = convert<T>(convert<A>(elements[i]) * static_cast<A>(factor));
  }
};

/// Multiplies a gradient by the factor of its rank, in memory, because the pass treats all sources alike: steps of uneven data
/// read and write their gradients once more. One that counts nothing is not read.
template <class T, Device D>
void weigh(tensor_view<T, D> const& gradient, double factor) {
  if (std::equal_to<>()(factor, 1.0) || gradient.size() == 0) return;
  if (std::equal_to<>()(factor, 0.0)) return gradient.device().fill_zero(gradient.data(), gradient.size() * sizeof(T));
  multiply_elements<T> const all{gradient.data(), static_cast<std::int64_t>(gradient.size()), factor};
  gradient.device().for_each((all.size + all.grain - 1) / all.grain, all);
}

}  // namespace pushpull::detail
