/// @file
/// The sums of a metric, in the memory of each device that it was given tensors of.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>

#include <cuda/std/array>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/copy_bytes.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::detail {

/// N sums.
template <std::size_t N>
using sums_of = cuda::std::array<double, N>;

/// totals[0] and totals[1] += the sum of the leaves, in order.
template <std::size_t N>
struct add_leaves {
  sums_of<N> const* leaves;
  std::int64_t count;
  sums_of<N>* totals;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t) const {
    sums_of<N> sum{};
    for (std::int64_t leaf = 0; leaf < count; ++leaf)
      for (std::size_t n = 0; n < N; ++n) sum[n] += leaves[leaf][n];
    for (std::size_t n = 0; n < N; ++n) {
      totals[0][n] += sum[n];
      totals[1][n] += sum[n];
    }
  }
};

/// N local and N global sums per device. Reading adds those of the devices, in the order of their first use.
template <Device D, std::size_t N>
class metric_sums {
 public:
  /// Enqueues: adds the sums of `count` leaves, f(leaf, t, T) as of Device::for_each_leaf. Allocates if a device is new or
  /// gets more leaves than before.
  template <class F>
  void add(D const& device, std::int64_t count, F const& f) {
    if (count == 0) return;
    part& p = part_of(device);
    std::size_t const bytes = static_cast<std::size_t>(count) * sizeof(sums_of<N>);
    if (p.leaves.bytes() < bytes) p.leaves = buffer<D>(device, bytes);
    auto* const leaves = static_cast<sums_of<N>*>(p.leaves.data());
    device.for_each_leaf(count, f, leaves);
    device.for_each(1, add_leaves<N>{leaves, count, static_cast<sums_of<N>*>(p.totals.data())});
  }

  /// Enqueues.
  void reset(bool global) {
    for (part& p : parts_) p.device.fill_zero(p.totals.data(), (global ? 2 : 1) * sizeof(sums_of<N>));
  }

  /// Waits for the devices.
  sums_of<N> read(bool global) const {
    sums_of<N> sum{};
    for (part const& p : parts_) {
      sums_of<N> own{};
      pushpull::detail::copy_bytes(cpu_device<>(), own.data(), p.device,
                                   static_cast<sums_of<N> const*>(p.totals.data()) + (global ? 1 : 0), sizeof(own));
      for (std::size_t n = 0; n < N; ++n) sum[n] += own[n];
    }
    return sum;
  }

 private:
  struct part {
    D device;
    buffer<D> totals, leaves;
  };

  part& part_of(D const& device) {
    auto const found = std::find_if(parts_.begin(), parts_.end(), [&](part const& p) { return p.device == device; });
    if (found != parts_.end()) return *found;
    part added{device, buffer<D>(device, 2 * sizeof(sums_of<N>)), {}};
    device.fill_zero(added.totals.data(), added.totals.bytes());
    parts_.push_back(std::move(added));
    return parts_.back();
  }

  std::deque<part> parts_;
};

}  // namespace pushpull::train::detail
