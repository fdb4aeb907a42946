/// @file
/// What a store keeps per key and source where gradients are compressed.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include <pushpull/compress/encode.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/copy.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The residual of one source of one key, and its codes of the present push. On the source's device.
template <Device D>
struct compressed_source {
  D device;
  buffer<D> residual, codes;
  buffer<D> kept = {};  ///< The residual before a push that may fail.

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

  /// Follows a source that comes from another device than before.
  void move_to(D const& other) {
    if (device == other) return;
    buffer<D> moved(other, residual.bytes()), room(other, codes.bytes());
    copy_bytes(other, moved.data(), device, residual.data(), residual.bytes());
    other.fill_zero(room.data(), room.bytes());
    residual = std::move(moved);
    codes = std::move(room);
    kept = {};
    device = other;
  }
};

}  // namespace pushpull::detail
