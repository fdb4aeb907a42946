/// @file
/// Only the largest gradients travel; the others wait in a residual until they are among them.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include <pushpull/compress/selection.hpp>
#include <pushpull/concepts/compressor.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/update/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::compress {

/// r += g; the k elements of r of largest magnitude are sent as they are and become zero in r, the rest stays for later
/// pushes (Stich et al. 2018, "Sparsified SGD with Memory"). Of equal magnitudes the one of lower index goes first. NaN
/// is the largest, infinity next, so both are sent before anything else. Gradients are float, half or bfloat16; keys
/// hold at most 2^32 - 64 elements.
/// On the way 3/16 byte per element and 4 per value: 0.23 bytes per element for a ratio of 1%. 4 bytes of residual per
/// element and source.
struct top_k {
  using policy_kind = compressor_tag;
  template <class T>
  static constexpr bool takes = FloatingElement<T> && std::same_as<accumulation_t<T>, float>;
  template <class T>
  using encoded_type = sparse_code;

  double ratio = 0.01;     ///< k is this share of the key's elements, to the nearest, and at least 1,
  std::int64_t count = 0;  ///< or this number, if it is not 0. Keys with fewer elements send all.

  /// @throws invalid_argument unless 0 < ratio <= 1 and count >= 0.
  void validate() const {
    pushpull::detail::expects<invalid_argument>(ratio > 0 && ratio <= 1, [&] {
      return "top_k: ratio: a value above 0 and up to 1 expected, got " + update::detail::number_text(ratio);
    });
    pushpull::detail::expects<invalid_argument>(
        count >= 0, [&] { return "top_k: count: at least 0 expected, got " + std::to_string(count); });
  }

  /// Elements that a key of `size` elements sends.
  std::int64_t values(std::int64_t size) const {
    if (count > 0) return std::min(count, size);
    auto const share = static_cast<std::int64_t>(std::llround(ratio * static_cast<double>(size)));
    return std::min(std::max<std::int64_t>(share, 1), size);
  }
};

/// Codes are masks, offsets and values; the working memory of the selection follows them.
template <class T, Device D>
struct encoder<top_k, T, D> {
  using primitives = compress::primitives<typename D::execution>;

  static std::size_t residual_bytes(top_k const&, std::int64_t size) {
    return static_cast<std::size_t>(padded(size)) * sizeof(float);
  }
  /// @throws invalid_argument if offsets cannot count the elements.
  static std::size_t code_bytes(D const& device, top_k const& compressor, std::int64_t size) {
    pushpull::detail::expects<invalid_argument>(padded(size) <= std::numeric_limits<std::uint32_t>::max(), [&] {
      return "top_k: a key of at most 2^32 - 64 elements expected, got " + std::to_string(size);
    });
    return layout(compressor, size).scratch + detail::select_bytes(device, padded(size));
  }
  static std::size_t wire_bytes(top_k const& compressor, std::int64_t size) {
    return layout(compressor, size).values + static_cast<std::size_t>(compressor.values(size)) * sizeof(float);
  }
  static void encode(D const& device, top_k const& compressor, T const* gradient, std::int64_t size, void* residual,
                     void* codes) {
    if (size == 0) return;
    layout const at(compressor, size);
    auto* const r = static_cast<float*>(residual);
    using body = detail::accumulate_body<T, typename D::execution>;
    device.for_each(body::tasks(size), body{{gradient, r, size}});
    detail::selection const to{part<std::uint64_t>(codes, 0),         part<std::uint32_t>(codes, at.offsets),
                               part<float>(codes, at.values),         part<detail::selection_state>(codes, at.state),
                               part<std::uint32_t>(codes, at.counts), part<std::uint64_t>(codes, at.sums),
                               part<char>(codes, at.scratch)};
    detail::select(device, r, padded(size), compressor.values(size), to);
  }
  template <class F>
  static sparse_code::source_type source(top_k const& compressor, void const* codes, std::int64_t size,
                                         std::int64_t first, std::int64_t count, F const& readable) {
    layout const at(compressor, size);
    auto* const all = const_cast<void*>(codes);
    auto const blocks = static_cast<std::size_t>(padded(count) / sparse_code::block);
    auto const* const masks = part<std::uint64_t>(all, 0) + first / sparse_code::block;
    auto const* const offsets = part<std::uint32_t>(all, at.offsets) + first / sparse_code::block;
    auto const values = static_cast<std::size_t>(compressor.values(size)) * sizeof(float);  // of the slice: who knows
    return {static_cast<std::uint64_t const*>(readable(masks, blocks * sizeof(std::uint64_t))),
            static_cast<std::uint32_t const*>(readable(offsets, blocks * sizeof(std::uint32_t))),
            static_cast<float const*>(readable(part<float>(all, at.values), values))};
  }

 private:
  /// Where the arrays begin, in bytes.
  struct layout {
    std::size_t offsets, values, state, counts, sums, scratch;

    layout(top_k const& compressor, std::int64_t size) {
      auto const blocks = static_cast<std::size_t>(padded(size) / sparse_code::block);
      offsets = end(blocks * sizeof(std::uint64_t));
      values = end(offsets + blocks * sizeof(std::uint32_t));
      state = end(values + static_cast<std::size_t>(compressor.values(size)) * sizeof(float));
      counts = end(state + sizeof(detail::selection_state));
      sums = end(counts + (sizeof(std::uint32_t) << primitives::digit_bits));
      scratch = end(sums + (blocks + 1) * sizeof(std::uint64_t));
    }
    static std::size_t end(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
  };
  template <class U>
  static U* part(void* codes, std::size_t offset) {
    return reinterpret_cast<U*>(static_cast<char*>(codes) + offset);
  }
};

static_assert(Compressor<top_k>);

}  // namespace pushpull::compress
