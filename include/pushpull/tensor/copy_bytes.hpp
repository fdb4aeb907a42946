/// @file
/// Copies of bytes between any two devices.
#pragma once

#include <concepts>
#include <cstddef>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Bytes between any two devices, ordered after what both were given. Returns when done if one is the host and the
/// other not.
template <Device To, Device From>
void copy_bytes(To const& to_device, void* to, From const& from_device, void const* from, std::size_t bytes) {
  if constexpr (std::same_as<To, From>) {
    to_device.wait_for(from_device);
    to_device.copy(to, from, bytes);
    from_device.wait_for(to_device);
  } else if constexpr (HostDevice<To> && HostDevice<From>) {
    to_device.copy(to, from, bytes);
  } else if constexpr (HostDevice<From>) {
    to_device.copy(to, from, bytes);
    to_device.synchronize();
  } else {
    static_assert(HostDevice<To>, "copy: one of two devices of different kinds must be the host");
    from_device.copy(to, from, bytes);
    from_device.synchronize();
  }
}

}  // namespace pushpull::detail
