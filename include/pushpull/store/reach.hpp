/// @file
/// Which devices of a store reach the memory of which, and the copies that stand in where one does not.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/profile/tracing.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Asks every pair of devices once. On GPUs that enables peer access, for all that the store will do.
class device_reach {
 public:
  template <Device D>
  explicit device_reach(std::vector<D> const& devices) : size_(devices.size()) {
    reached_.reserve(size_ * size_);
    for (D const& from : devices)
      for (D const& to : devices) {
        reached_.push_back(from.can_access(to));
        complete_ = complete_ && reached_.back();
      }
  }

  /// Whether work on device number n may read and write memory of device number m.
  bool operator()(std::size_t n, std::size_t m) const { return reached_[n * size_ + m]; }
  /// Whether all reach all.
  bool complete() const { return complete_; }

 private:
  std::size_t size_;
  std::vector<bool> reached_;
  bool complete_ = true;
};

/// Orders the next work of the store's devices after all work of `other` so far. Work on the host is finished.
template <Device D>
void order_after([[maybe_unused]] std::vector<D> const& devices, [[maybe_unused]] std::optional<D> const& other) {
  if constexpr (!HostDevice<D>)
    for (D const& device : devices)
      if (other && !(device == *other)) device.wait_for(*other);
}
/// Orders the next work of `other` after all work of the store's devices so far.
template <Device D>
void order_before([[maybe_unused]] std::vector<D> const& devices, [[maybe_unused]] std::optional<D> const& other) {
  if constexpr (!HostDevice<D>)
    for (D const& device : devices)
      if (other && !(device == *other)) other->wait_for(device);
}
/// Same, for the devices of several tensors.
template <Device D, class Operand>
void order_after([[maybe_unused]] std::vector<D> const& devices,
                 [[maybe_unused]] std::vector<Operand> const& operands) {
  if constexpr (!HostDevice<D>)
    for (auto const& x : operands) order_after(devices, x.device);
}
template <Device D, class Operand>
void order_before([[maybe_unused]] std::vector<D> const& devices,
                  [[maybe_unused]] std::vector<Operand> const& operands) {
  if constexpr (!HostDevice<D>)
    for (auto const& x : operands) order_before(devices, x.device);
}

/// A copy on device number `device`, before or behind a pass, of what the device does not reach.
struct staged_copy {
  std::size_t device;
  void* to;
  void const* from;
  std::size_t bytes;
};

/// Enqueues the copies.
template <Device D>
void copy_all(std::vector<D> const& devices, std::vector<staged_copy> const& copies) {
  for (auto const& [n, to, from, bytes] : copies) {
    profile::detail::copy_span const traced(devices[n].id(), bytes);
    devices[n].copy(to, from, bytes);
  }
}

/// Enqueues copies that read the results of earlier work of other devices.
template <Device D>
void copy_before(std::vector<D> const& devices, std::vector<staged_copy> const& copies) {
  if (copies.empty()) return;
  join(devices);
  copy_all(devices, copies);
}

/// Enqueues copies that devices read later, after a step for which all have waited.
template <Device D>
void copy_behind(std::vector<D> const& devices, std::vector<staged_copy> const& copies) {
  if (copies.empty()) return;
  copy_all(devices, copies);
  join(devices);
}

}  // namespace pushpull::detail
