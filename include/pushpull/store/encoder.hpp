/// @file
/// What a store keeps per key and source where gradients are compressed, and the work before a pass that uses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <pushpull/compress/encode.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/copy.hpp>

namespace pushpull::detail {

/// The residual of one source of one key, and its codes of the present push. On the source's device.
template <Device D>
struct compressed_source {
  D device;
  buffer<D> residual, codes;

  /// Zero residuals for `elements` elements, a multiple of the padding.
  template <class Compressor>
  compressed_source(D const& where, Compressor const&, std::int64_t elements)
      : device(where),
        residual(where, static_cast<std::size_t>(elements) * sizeof(float)),
        codes(where, static_cast<std::size_t>(elements) / Compressor::template encoded_type<float>::elements) {
    device.fill_zero(residual.data(), residual.bytes());
  }

  /// Follows a source that comes from another device than before.
  void move_to(D const& other) {
    if (device == other) return;
    buffer<D> moved(other, residual.bytes()), room(other, codes.bytes());
    copy_bytes(other, moved.data(), device, residual.data(), residual.bytes());
    residual = std::move(moved);
    codes = std::move(room);
    device = other;
  }

  /// Enqueues the encoding of `size` gradients, which the source's device can reach.
  template <class Compressor>
  void encode(Compressor const& compressor, float const* gradient, std::int64_t size) const {
    using body = compress::encode_body<Compressor, typename D::execution>;
    bool const aligned = reinterpret_cast<std::uintptr_t>(gradient) % 16 == 0;
    device.for_each(body::tasks(size), body{compressor, gradient, aligned, static_cast<float*>(residual.data()),
                                            static_cast<typename body::code*>(codes.data()), size});
  }
};

}  // namespace pushpull::detail
