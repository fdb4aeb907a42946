/// @file
/// Memory of one device, by name, that executors share.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/bytes.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// Blocks by name for inputs, labels, gradients of inputs and scratch memory: of all executors on one device, of which one
/// runs at a time. Parameters have their own memory. Bind the largest shapes first: later binds then allocate nothing.
template <Device D>
class buffer_pool {
 public:
  explicit buffer_pool(D const& device) : device_(device) {}

  /// The head of the block of that name. A new block is zero; one that was used before has what it had. A block that is too
  /// small is replaced by a new one, and those who have the old one keep it for the life of the pool.
  /// @throws dtype_mismatch if the block has elements of another type; out_of_memory
  template <ElementType T>
  tensor_view<T, D> acquire(std::string_view name, shape const& extents) {
    auto found = blocks_.find(name);
    if (found != blocks_.end())
      pushpull::detail::expects<dtype_mismatch>(found->second.dtype == dtype_traits<T>::name, [&] {
        return "buffer_pool: block \"" + std::string(name) + "\" has elements " + std::string(found->second.dtype) +
               ", " + std::string(dtype_traits<T>::name) + " was asked for";
      });
    if (found == blocks_.end() || found->second.elements < extents.size()) {
      buffer<D> memory(device_, pushpull::detail::bytes_of<out_of_memory, T>("buffer_pool", extents));
      device_.fill_zero(memory.data(), memory.bytes());
      if (found == blocks_.end()) {
        found = blocks_.emplace(std::string(name), block{}).first;
      } else {
        replaced_.push_back(std::move(found->second.memory));
      }
      found->second = {std::move(memory), extents.size(), dtype_traits<T>::name};
    }
    return {static_cast<T*>(found->second.memory.data()), extents, device_};
  }

  /// Blocks that were too small and whose memory stays for those who have it.
  std::size_t replaced() const { return replaced_.size(); }
  /// The bytes of all blocks, with those that were replaced.
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (auto const& [name, b] : blocks_) sum += b.memory.bytes();
    for (auto const& memory : replaced_) sum += memory.bytes();
    return sum;
  }

 private:
  struct block {
    buffer<D> memory{};
    std::size_t elements = 0;
    std::string_view dtype{};
  };

  D device_;
  std::map<std::string, block, std::less<>> blocks_;
  std::vector<buffer<D>> replaced_;
};

}  // namespace pushpull::train
