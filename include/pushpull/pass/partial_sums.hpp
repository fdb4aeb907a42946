/// @file
/// The partial sums of a phase on one device.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/pass/device_table.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// Partial sums: a device's own, those of all devices with the levels of the tree behind them, and room for those of
/// a device whose memory this one cannot reach. And the tree, where the device reads it.
template <Device D>
struct partial_sums {
  buffer<D> own, all, staged;
  detail::table<D, std::int64_t> begins;
  std::int64_t const* tree = nullptr;

  /// Whether there is a NaN among the first `count` numbers of all devices.
  bool have_nan(std::int64_t count) const
    requires HostDevice<D>
  {
    auto const* const first = static_cast<double const*>(all.data());
    return std::any_of(first, first + count, [](double x) { return pushpull::detail::is_nan(x); });
  }
};

/// Adds up the first `count` partial sums of all devices, on each of them.
template <Device D>
void gather_sums(std::vector<D> const& devices, std::vector<partial_sums<D>> const& sums, std::int64_t count) {
  std::size_t const bytes = static_cast<std::size_t>(count) * sizeof(double);
  for (std::size_t n = 0; n < devices.size(); ++n) {
    D const& device = devices[n];
    auto* const all = static_cast<double*>(sums[n].all.data());
    device.copy(all, sums[0].own.data(), bytes);
    for (std::size_t m = 1; m < devices.size(); ++m) {
      auto const* from = static_cast<double const*>(sums[m].own.data());
      if (!device.can_access(devices[m])) {
        device.copy(sums[n].staged.data(), from, bytes);
        from = static_cast<double const*>(sums[n].staged.data());
      }
      device.for_each(count, detail::gather{from, all});
    }
  }
}

}  // namespace pushpull::pass
