/// @file
/// Operands of a pass where its devices reach them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/staging.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Stands in for operands that a device does not reach: memory of the device, and copies before and behind the pass, and
/// before messages. Kept from call to call.
template <Device D>
class staged_operands {
 public:
  /// @param counts  Of each device.
  explicit staged_operands(std::vector<staged_bytes> const& counts) : memory_(make_staging<D>(counts)) {}

  void clear() {
    forget_copies();
    for (auto& memory : memory_) memory.clear();
  }
  void forget_copies_in() { copies_in_.clear(); }
  void forget_copies() {
    copies_in_.clear();
    copies_to_messages_.clear();
    copies_out_.clear();
  }

  /// Memory with `size` elements of the operand, from element `first` on, that device number n can read.
  template <class U>
  U* readable(D const& device, std::size_t n, operand<U, D> const& x, std::int64_t first, std::int64_t size) {
    if (reaches(device, x)) return x.data + (first - x.begin);
    std::size_t const bytes = static_cast<std::size_t>(size) * sizeof(U);
    void* const staged = memory_[n].take(device, bytes);
    copies_in_.push_back({n, staged, x.data + (first - x.begin), bytes});
    return static_cast<U*>(staged);
  }

  /// Same as `readable`, but memory that the device can write; staged elements are copied on after the pass.
  template <class U>
  U* writable(D const& device, std::size_t n, operand<U, D> const& x, std::int64_t first, std::int64_t size) {
    if (reaches(device, x)) return x.data + first;
    std::size_t const bytes = static_cast<std::size_t>(size) * sizeof(U);
    void* const staged = memory_[n].take(device, bytes);
    copies_out_.push_back({n, x.data + first, staged, bytes});
    return static_cast<U*>(staged);
  }

  /// Memory of device number n for the whole operand, copied before messages read it there.
  template <class U>
  U* copied(D const& device, std::size_t n, operand<U, D> const& x) {
    std::size_t const bytes = x.size * sizeof(U);
    void* const staged = memory_[n].take(device, bytes);
    copies_to_messages_.push_back({n, staged, x.data, bytes});
    return static_cast<U*>(staged);
  }

  /// Memory of device number n, for the call.
  staging<D>& memory(std::size_t n) { return memory_[n]; }
  std::vector<staged_copy> const& copies_to_messages() const { return copies_to_messages_; }
  std::vector<staged_copy> const& copies_in() const { return copies_in_; }
  std::vector<staged_copy>& copies_out() { return copies_out_; }

 private:
  std::vector<staging<D>> memory_;
  std::vector<staged_copy> copies_to_messages_, copies_in_, copies_out_;
};

}  // namespace pushpull::detail
