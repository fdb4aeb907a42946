/// @file
/// A table that kernels read.
#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

namespace detail {

/// A table that kernels read: in place where the device is the host, otherwise a copy that is renewed when it changed.
template <Device D, class T>
class table {
 public:
  std::vector<T> rows;

  /// Where the device finds the rows. Allocates when the table grows, copies when a row changed.
  T const* commit(D const& device) {
    if constexpr (HostDevice<D>) {
      return rows.data();
    } else {
      std::size_t const bytes = rows.size() * sizeof(T);
      if (memory_.bytes() < bytes) {
        device.synchronize();  // the old memory may still be read
        memory_ = buffer<D>(device, 2 * bytes);
        sent_.clear();
      }
      if (sent_.size() != rows.size() || std::memcmp(sent_.data(), rows.data(), bytes) != 0) {
        sent_ = rows;
        device.copy(memory_.data(), sent_.data(), bytes);
      }
      return static_cast<T const*>(memory_.data());
    }
  }

 private:
  buffer<D> memory_;
  std::vector<T> sent_;
};

}  // namespace detail

/// Entries that the host writes and a device reads: see detail::table.
template <Device D, class T>
using device_table = detail::table<D, T>;

}  // namespace pushpull::pass
