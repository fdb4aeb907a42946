/// @file
/// Gradients of two bits or one bit per element, with error feedback: a later push sends the rest of a code.
#pragma once

#include <concepts>

#include <pushpull/concepts/compressor.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/registers/pack.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::compress {

/// r += g; where r >= threshold the element is sent as +threshold, where r <= -threshold as -threshold, else as 0, and
/// what was sent is taken from r (MXNet's "2bit"). At most one threshold goes per push; the rest stays in r for the
/// next ones. A gradient that is not finite makes all that its source sends of the key NaN, and leaves its element 0
/// in r. Float gradients only. 2 bits per element on the way, 4 bytes of residual per element and source.
struct two_bit {
  using policy_kind = compressor_tag;
  template <class T>
  static constexpr bool takes = std::same_as<T, float>;  ///< As in MXNet.
  template <class T>
  using encoded_type = two_bit_code;

  float threshold = 0.5F;

  /// @throws invalid_argument unless threshold is positive and finite.
  void validate() const { update::detail::expects_positive("two_bit: threshold", threshold); }

  /// What a unit stands for.
  float unit() const { return threshold; }

  /// The codes of residuals that the gradient was added to; `r` keeps what they leave out.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V quantize(V& r) const noexcept {
    auto const up = r >= threshold, down = r <= -threshold;
    r -= select(up, V(threshold), select(down, V(-threshold), V(0)));
    return select(up, V(3), select(down, V(2), V(0)));
  }
};

/// r += g; where r > threshold the element is sent as +1 and 1 is taken from r, else as -1 and 1 is added to r (MXNet's
/// "1bit", whose threshold is 0.5 if none is given, as in by_name). What is not finite goes as two_bit's. Float gradients only. 1 bit per element on the way, 4 bytes of
/// residual per element and source.
struct one_bit {
  using policy_kind = compressor_tag;
  template <class T>
  static constexpr bool takes = std::same_as<T, float>;  ///< As in MXNet.
  template <class T>
  using encoded_type = one_bit_code;

  float threshold = 0;

  /// @throws invalid_argument unless threshold is finite.
  void validate() const { update::detail::expects_finite("one_bit: threshold", threshold); }

  /// What a unit stands for.
  float unit() const { return 1; }

  /// As two_bit's.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V quantize(V& r) const noexcept {
    auto const up = r > threshold;
    r -= select(up, V(1), V(-1));
    return select(up, V(1), V(0));
  }
};

static_assert(Compressor<two_bit> && Compressor<one_bit>);

}  // namespace pushpull::compress
