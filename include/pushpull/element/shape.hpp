/// @file
/// The extents of a dense tensor.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Up to 8 extents, outermost first. Rank 0 is a scalar of one element; a zero extent makes the tensor empty.
class shape {
 public:
  static constexpr std::size_t max_rank = 8;

  constexpr shape() = default;

  /// @throws invalid_argument on more than 8 extents, a negative extent, or a product beyond 63 bits.
  shape(std::initializer_list<std::int64_t> extents) {
    if (extents.size() == 1 && *extents.begin() >= 0) {  // made for every vector of every call
      rank_ = 1;
      size_ = extents_[0] = *extents.begin();
    } else {
      *this = shape(std::span<std::int64_t const>(extents.begin(), extents.size()));
    }
  }

  /// Same as the constructor from a list, but from a range of extents.
  explicit shape(std::span<std::int64_t const> extents) {
    detail::expects<invalid_argument>(extents.size() <= max_rank, [&] {
      return "shape: at most 8 extents expected, got " + std::to_string(extents.size());
    });
    bool const empty = std::find(extents.begin(), extents.end(), 0) != extents.end();
    std::int64_t size = 1;
    for (std::int64_t const extent : extents) {
      detail::expects<invalid_argument>(
          extent >= 0, [&] { return "shape: extents of at least 0 expected, got " + std::to_string(extent); });
      detail::expects<invalid_argument>(empty || extent <= std::numeric_limits<std::int64_t>::max() / size,
                                        [] { return std::string("shape: more than 2^63 - 1 elements"); });
      size = empty ? 0 : size * extent;
      extents_[rank_++] = extent;
    }
    size_ = size;
  }

  constexpr std::size_t rank() const noexcept { return rank_; }
  constexpr std::int64_t operator[](std::size_t axis) const noexcept { return extents_[axis]; }
  /// Number of elements.
  constexpr std::size_t size() const noexcept { return static_cast<std::size_t>(size_); }
  constexpr std::int64_t const* begin() const noexcept { return extents_.data(); }
  constexpr std::int64_t const* end() const noexcept { return extents_.data() + rank_; }

  friend constexpr bool operator==(shape const& a, shape const& b) noexcept {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }

 private:
  std::array<std::int64_t, max_rank> extents_{};
  std::size_t rank_ = 0;
  std::int64_t size_ = 1;
};

/// "(2, 3)": for messages.
inline std::string to_string(shape const& s) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < s.rank(); ++axis) text += (axis ? ", " : "") + std::to_string(s[axis]);
  return text + ")";
}

}  // namespace pushpull
