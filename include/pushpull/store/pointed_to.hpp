/// @file
/// A range of the objects behind a list of pointers.
#pragma once

#include <cstddef>
#include <span>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The objects that a list of pointers points to, as a range. A view of the standard library does not compile with clang
/// 14.
template <class X>
class pointed_to {
 public:
  class iterator {
   public:
    using value_type = X;
    using difference_type = std::ptrdiff_t;
    iterator() = default;
    explicit iterator(X* const* position) : position_(position) {}
    X& operator*() const { return **position_; }
    iterator& operator++() {
      ++position_;
      return *this;
    }
    iterator operator++(int) { return iterator(position_++); }
    bool operator==(iterator const&) const = default;

   private:
    X* const* position_ = nullptr;
  };

  explicit pointed_to(std::span<X* const> pointers) : pointers_(pointers) {}
  iterator begin() const { return iterator(pointers_.data()); }
  iterator end() const { return iterator(pointers_.data() + pointers_.size()); }

 private:
  std::span<X* const> pointers_;
};

}  // namespace pushpull::detail
