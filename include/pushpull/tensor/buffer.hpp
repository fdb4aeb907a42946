/// @file
/// Owned bytes on a device.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// `bytes` bytes on one device, freed with the buffer. Move-only.
template <Device D>
class buffer {
 public:
  /// Empty, on no device.
  buffer() = default;

  /// Uninitialised memory. @throws out_of_memory
  buffer(D const& device, std::size_t bytes) : device_(device), data_(device.allocate(bytes)), bytes_(bytes) {}

  buffer(buffer&& other) noexcept
      : device_(std::move(other.device_)),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  buffer& operator=(buffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~buffer() {
    if (data_ != nullptr) device_->deallocate(data_, bytes_);
  }

  void* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  std::optional<D> device_;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace pushpull
