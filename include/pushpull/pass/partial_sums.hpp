/// @file
/// The partial sums of a phase on one device.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/pass/device_table.hpp>
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

}  // namespace pushpull::pass
