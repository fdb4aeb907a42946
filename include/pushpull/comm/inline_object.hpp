/// @file
/// An object of any type behind an interface, without an allocation if it is small.
#pragma once

#include <cstddef>
#include <functional>
#include <new>
#include <type_traits>
#include <utility>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Owns an object of a class that derives from `Base`, or none. Objects of up to `Size` bytes lie in it, others on the heap.
/// @tparam Base  Has a virtual destructor and `Base* move_to(void* memory) noexcept`, which constructs the object there from
///               itself.
template <class Base, std::size_t Size>
class inline_object {
  template <class T>
  static constexpr bool fits =
      sizeof(T) <= Size && alignof(T) <= alignof(std::max_align_t) && std::is_nothrow_move_constructible_v<T>;

 public:
  inline_object() = default;
  template <class T, class... Arguments>
  explicit inline_object(std::in_place_type_t<T>, Arguments&&... arguments) {
    if constexpr (fits<T>) {
      object_ = ::new (static_cast<void*>(memory_)) T(std::forward<Arguments>(arguments)...);
    } else {
      object_ = new T(std::forward<Arguments>(arguments)...);
    }
  }
  inline_object(inline_object&& other) noexcept { take(other); }
  inline_object& operator=(inline_object&& other) noexcept {
    if (this == &other) return *this;
    reset();
    take(other);
    return *this;
  }
  ~inline_object() { reset(); }

  Base* get() const { return object_; }

 private:
  bool lies_inside() const {
    void const* const place = object_;
    std::less<> const before;
    return !before(place, memory_) && before(place, memory_ + Size);
  }
  void take(inline_object& other) noexcept {
    if (other.object_ == nullptr) return;
    if (other.lies_inside()) {
      object_ = other.object_->move_to(memory_);
      other.reset();
    } else {
      object_ = std::exchange(other.object_, nullptr);
    }
  }
  void reset() noexcept {
    if (object_ == nullptr) return;
    if (lies_inside()) {
      object_->~Base();
    } else {
      delete object_;
    }
    object_ = nullptr;
  }

  alignas(std::max_align_t) std::byte memory_[Size];
  Base* object_ = nullptr;
};

/// For `move_to`.
template <class T>
T* moved_to([[maybe_unused]] void* memory, [[maybe_unused]] T& from) noexcept {
  if constexpr (std::is_nothrow_move_constructible_v<T>) return ::new (memory) T(std::move(from));
  return nullptr;  // it lies on the heap, and stays there
}

}  // namespace pushpull::detail
