/// @file
/// The executors of a group, one per device that has rows, and what all of them do at once.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/executor.hpp>
#include <pushpull/train/group/batch_layout.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// f(k) for 0 <= k < count: at the same time on host devices, in order on others, which only enqueue. All calls are made and
/// end before the first error is rethrown.
template <Device D, class F>
void for_each_replica(std::vector<D> const& devices, F const& f) {
  std::vector<std::exception_ptr> errors(devices.size());
  auto const guarded = [&](std::int64_t k) {
    try {
      f(static_cast<std::size_t>(k));
    } catch (...) {
      errors[static_cast<std::size_t>(k)] = std::current_exception();
    }
  };
  auto const count = static_cast<std::int64_t>(devices.size());
  if constexpr (HostDevice<D>) {
    devices.front().for_each(count, guarded);
  } else {
    for (std::int64_t k = 0; k < count; ++k) guarded(k);
  }
  for (auto const& error : errors)
    if (error != nullptr) std::rethrow_exception(error);
}

/// Counts, for each gradient, the replicas that have not computed it yet, and calls a function after the last.
class ready_counter {
 public:
  void begin(std::size_t gradients, int replicas) {
    if (size_ != gradients) left_ = std::make_unique<std::atomic<int>[]>(size_ = gradients);
    for (std::size_t i = 0; i < gradients; ++i) left_[i].store(replicas, std::memory_order_relaxed);
  }
  bool is_last(std::size_t gradient) { return left_[gradient].fetch_sub(1, std::memory_order_acq_rel) == 1; }

 private:
  std::size_t size_ = 0;
  std::unique_ptr<std::atomic<int>[]> left_;
};

/// The values of old executors' states go to new ones, if their shapes are the same.
template <class E>
void move_states(E& from, E& to) {
  if constexpr (train::StatefulExecutor<E>) {
    auto&& old_states = from.states();
    auto&& new_states = to.states();
    for (std::size_t i = 0; i < std::ranges::size(old_states) && i < std::ranges::size(new_states); ++i)
      if (old_states[i].shape() == new_states[i].shape()) {
        auto target = view_of(new_states[i]);
        pushpull::copy(old_states[i], target);
      }
  }
}

}  // namespace pushpull::detail
