/// @file
/// Memory for parts of tensors on their way to an owner that does not reach them, or from it.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The bytes of all such memory on one device, over all operations of a store. Copies count together; operations may outlive
/// the store.
class staged_bytes {
 public:
  std::size_t total() const { return total_->load(std::memory_order_relaxed); }
  void add(std::size_t more) const { total_->fetch_add(more, std::memory_order_relaxed); }
  void subtract(std::size_t fewer) const noexcept { total_->fetch_sub(fewer, std::memory_order_relaxed); }

 private:
  std::shared_ptr<std::atomic<std::size_t>> total_ = std::make_shared<std::atomic<std::size_t>>();
};

/// Memory that grows and is kept, and is counted. What it held is lost when it grows.
template <Device D>
class staged_buffer {
 public:
  explicit staged_buffer(staged_bytes count) : count_(std::move(count)) {}
  staged_buffer(staged_buffer&&) noexcept = default;
  staged_buffer& operator=(staged_buffer&&) = delete;
  ~staged_buffer() {
    if (memory_.bytes() > 0) count_.subtract(memory_.bytes());
  }

  void* take(D const& device, std::size_t bytes) {
    if (memory_.bytes() < bytes) {
      buffer<D> grown(device, bytes);
      count_.add(bytes - memory_.bytes());
      memory_ = std::move(grown);
    }
    return memory_.data();
  }

 private:
  staged_bytes count_;
  buffer<D> memory_;
};

/// Memory on one owner for parts of tensors that it cannot reach. Kept from call to call.
template <Device D>
class staging {
 public:
  explicit staging(staged_bytes count) : count_(std::move(count)) {}

  void clear() { used_ = 0; }

  void* take(D const& owner, std::size_t bytes) {
    if (used_ == buffers_.size()) buffers_.emplace_back(count_);
    return buffers_[used_++].take(owner, bytes);
  }

 private:
  staged_bytes count_;
  std::vector<staged_buffer<D>> buffers_;
  std::size_t used_ = 0;
};

/// One for each device of a store.
template <Device D>
std::vector<staging<D>> make_staging(std::vector<staged_bytes> const& counts) {
  std::vector<staging<D>> result;
  for (staged_bytes const& count : counts) result.emplace_back(count);
  return result;
}

}  // namespace pushpull::detail
