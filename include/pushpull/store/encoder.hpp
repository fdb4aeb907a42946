/// @file
/// The residual that a store keeps per key and source if it compresses gradients.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include <pushpull/compress/encode.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/copy_bytes.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Restores the residual of a skipped step. Reads a byte per 64 elements of a step that is not skipped.
struct return_residual {
  static constexpr std::int64_t grain = 64;

  bool const* left_out;
  std::uint32_t const* from;
  std::uint32_t* to;
  std::int64_t size;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const noexcept {
    if (!*left_out) return;
    for (std::int64_t i = task * grain; i < (task + 1) * grain && i < size; ++i) to[i] = from[i];
  }
};

/// The residual of one source of one key, and its codes of the present push. On the source's device.
template <Device D>
struct compressed_source {
  D device;
  buffer<D> residual, codes;
  buffer<D> kept = {};    ///< The residual before a push that may fail.
  buffer<D> before = {};  ///< The residual before a step that may be left out, and room for the device's word on that.

  /// For `size` elements, as a compress::encoder asks. Zero: residuals, and codes where no element is.
  template <class Encoder, class Compressor>
  compressed_source(std::type_identity<Encoder>, D const& where, Compressor const& compressor, std::int64_t size)
      : device(where),
        residual(where, Encoder::residual_bytes(compressor, size)),
        codes(where, Encoder::code_bytes(where, compressor, size)) {
    device.fill_zero(residual.data(), residual.bytes());
    device.fill_zero(codes.data(), codes.bytes());
  }

  /// Memory for `keep`.
  void reserve_kept() {
    if (kept.bytes() < residual.bytes()) kept = buffer<D>(device, residual.bytes());
  }
  /// What the residual is, for `put_back`.
  void keep() const { device.copy(kept.data(), residual.data(), residual.bytes()); }
  void put_back() const { device.copy(residual.data(), kept.data(), residual.bytes()); }

  /// Memory for `remember`.
  void reserve_before() {
    if (residual.bytes() != 0 && before.bytes() == 0) before = buffer<D>(device, residual.bytes() + 64);
  }
  /// What the residual is, for `return_if`.
  void remember() const { device.copy(before.data(), residual.data(), residual.bytes()); }
  /// Enqueues: if `*left_out`, on device `other`, the residual becomes what it was.
  void return_if(bool const* left_out, D const& other) const {
    if (before.bytes() == 0) return;
    if (!(device == other) && !device.can_access(other)) {
      auto* const own = reinterpret_cast<bool*>(static_cast<char*>(before.data()) + residual.bytes());
      device.copy(own, left_out, sizeof(bool));
      left_out = own;
    }
    auto const words = static_cast<std::int64_t>(residual.bytes() / sizeof(std::uint32_t));
    device.for_each((words + return_residual::grain - 1) / return_residual::grain,
                    return_residual{left_out, static_cast<std::uint32_t const*>(before.data()),
                                    static_cast<std::uint32_t*>(residual.data()), words});
  }

  /// Follows a source that comes from another device than before.
  void move_to(D const& other) {
    if (device == other) return;
    buffer<D> moved(other, residual.bytes()), room(other, codes.bytes());
    copy_bytes(other, moved.data(), device, residual.data(), residual.bytes());
    other.fill_zero(room.data(), room.bytes());
    if (before.bytes() != 0) {
      buffer<D> earlier(other, before.bytes());
      copy_bytes(other, earlier.data(), device, before.data(), before.bytes());
      before = std::move(earlier);
    }
    residual = std::move(moved);
    codes = std::move(room);
    kept = {};
    device = other;
  }
};

}  // namespace pushpull::detail
