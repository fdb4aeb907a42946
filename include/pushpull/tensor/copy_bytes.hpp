/// @file
/// Copies of bytes between any two devices.
#pragma once

#include <concepts>
#include <cstddef>
#include <string>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// @throws capture_error if the device is being captured: a copy to the host, or from it, is waited for
template <Device D>
void expect_uncaptured_copy([[maybe_unused]] D const& device) {
  if constexpr (CapturingDevice<D>)
    expects<capture_error>(!device.is_captured(), [&] {
      return "copy: the stream of device " + std::string(device.name()) +
             " is being captured, and a copy between it and the host is waited for: do so before the capture, or after "
             "it";
    });
}

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
    expect_uncaptured_copy(to_device);
    to_device.copy(to, from, bytes);
    to_device.synchronize();
  } else {
    static_assert(HostDevice<To>, "copy: one of two devices of different kinds must be the host");
    expect_uncaptured_copy(from_device);
    from_device.copy(to, from, bytes);
    from_device.synchronize();
  }
}

}  // namespace pushpull::detail
