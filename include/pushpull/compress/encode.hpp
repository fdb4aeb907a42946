/// @file
/// Encoders: gradients and residuals in, codes and new residuals out, on the source's device.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <cuda/std/limits>
#include <nv/target>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/registers/block.hpp>
#include <pushpull/registers/code.hpp>

namespace pushpull::inline PUSHPULL_ABI::compress {

/// Elements of whole blocks: residuals and codes are padded with zeros to so many.
inline std::int64_t padded(std::int64_t size) { return (size + pass::padding - 1) / pass::padding * pass::padding; }

/// A gradient, perhaps with a residual to be added to it, read block by block. Elements after the last are zero.
template <class T>
struct addends {
  T const* gradient;
  bool aligned;     ///< `gradient` is aligned to 16 bytes.
  float* residual;  ///< Padded, or null.
  std::int64_t size;

  addends(T const* gradient_, float* residual_, std::int64_t size_)
      : gradient(gradient_),
        aligned(reinterpret_cast<std::uintptr_t>(gradient_) % 16 == 0),
        residual(residual_),
        size(size_) {}

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Block>
  PUSHPULL_DEVICE_INLINE void load(Block& sum, std::int64_t i) const {
    std::int64_t const valid = size - i < Block::size ? size - i : Block::size;
    if (Block::by_element(valid, aligned)) {
      sum.load_partial(gradient + i, valid);
    } else {
      sum.load(gradient + i);
    }
    if (residual == nullptr) return;
    Block r;
    r.load(residual + i);
    pushpull::detail::static_for<Block::count>([&](auto j) PUSHPULL_INLINE_LAMBDA { sum.x[j] += r.x[j]; });
  }
  /// Element number i.
  PUSHPULL_HOST_DEVICE float operator[](std::int64_t i) const {
    float const g = convert<float>(gradient[i]);
    return residual == nullptr ? g : g + residual[i];
  }
};

/// Marks a source whose codes hide something that is not finite. Several threads may do so at a time.
PUSHPULL_HOST_DEVICE inline void mark_flaw(float* flaw) {
  constexpr float nan = cuda::std::numeric_limits<float>::quiet_NaN();
  NV_IF_ELSE_TARGET(NV_IS_DEVICE, (*static_cast<float volatile*>(flaw) = nan;),
                    (std::atomic_ref<float>(*flaw).store(nan, std::memory_order_relaxed);))
}

/// Encodes `size` gradients of any alignment. Residuals and codes are padded to whole blocks. 12 bytes per element and
/// the code. The gap after the last element is zero bits. An element that is not finite, and its residual, leave 0 in
/// the residual and NaN in `flaw`.
template <class Compressor, class Execution>
struct encode_body {
  using code = typename Compressor::template encoded_type<float>;
  using block_type = typename Execution::template block_type<float, float, code>;
  static constexpr std::int64_t grain = pass::grain_of<Execution, block_type>;
  static constexpr auto size_of_block = static_cast<std::size_t>(block_type::size);
  static_assert(size_of_block % code::elements == 0);

  static_assert(
      noexcept(std::declval<Compressor const&>().quantize(std::declval<typename block_type::pack_type&>())),
      "Compressor: quantize may throw amid an encoding, where nothing could be undone: write noexcept behind its "
      "const");

  Compressor compressor;
  addends<float> sum;
  code* codes;
  float* flaw;

  /// Number of tasks for `size` elements.
  static std::int64_t tasks(std::int64_t size) { return (size + grain - 1) / grain; }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    std::int64_t const first = task * grain;
    std::int64_t const last = first + grain < sum.size ? first + grain : sum.size;
    for (std::int64_t i = first; i < last; i += block_type::size) {
      block_type g, r;
      sum.load(r, i);
      bool finite = true;
      pushpull::detail::static_for<block_type::count>(
          [&](auto j) PUSHPULL_INLINE_LAMBDA { finite = finite && !any(!is_finite(r.x[j])); });
      if (!finite) {
        mark_flaw(flaw);
        pushpull::detail::static_for<block_type::count>(
            [&](auto j) PUSHPULL_INLINE_LAMBDA { r.x[j] = select(is_finite(r.x[j]), r.x[j], 0.0F); });
      }
      pushpull::detail::static_for<block_type::count>(
          [&](auto j) PUSHPULL_INLINE_LAMBDA { g.x[j] = compressor.quantize(r.x[j]); });
      if (sum.size - i < block_type::size) {
        r.clear_from(sum.size - i);
        g.clear_from(sum.size - i);
      }
      r.store(sum.residual + i);
      write(g, codes + i / static_cast<std::int64_t>(code::elements));
    }
  }

 private:
  PUSHPULL_HOST_DEVICE static constexpr unsigned weight(std::size_t i) {
    return 1U << ((8 / code::elements) * (code::elements - 1 - i));
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE static void write(block_type const& numbers, code* to) {
    alignas(64) float number[size_of_block];
    if constexpr (block_type::pack_type::size == 1) {
      pushpull::detail::static_for<size_of_block>([&](auto j)
                                                      PUSHPULL_INLINE_LAMBDA { number[j] = numbers.x[j].value; });
    } else {
      numbers.store(static_cast<float*>(number));
    }
    pushpull::detail::static_for<size_of_block / code::elements>([&](auto c) PUSHPULL_INLINE_LAMBDA {
      float total = 0;  // of distinct powers of two: exact
      pushpull::detail::static_for<code::elements>([&](auto j) PUSHPULL_INLINE_LAMBDA {
        total += number[c * code::elements + j] * static_cast<float>(weight(j));
      });
      to[c].bits = static_cast<std::uint8_t>(static_cast<int>(total));
    });
  }
};

/// Encodes the gradients `T` of one source of one key on device `D` for a compressor `C`. Specialised per compressor;
/// this is the one for codes.
/// residual_bytes, code_bytes: the memory that the encoder needs for `size` elements; all of it zero at first;
/// encode: enqueues the encoding;
/// wire_bytes: so many of the codes' first bytes are all that a reader in another process needs;
/// source: the operand of a pass over the `count` elements from number `first`, a multiple of 64, on. Calls
///         readable(p, bytes) for each piece of memory, which returns where the pass can read it.
template <class C, class T, Device D>
struct encoder {
  using code = typename C::template encoded_type<T>;
  static constexpr auto per_byte = static_cast<std::int64_t>(code::elements);

  static std::size_t residual_bytes(C const&, std::int64_t size) {
    return static_cast<std::size_t>(padded(size)) * sizeof(float);
  }
  static std::size_t code_bytes(D const&, C const&, std::int64_t size) {
    return static_cast<std::size_t>(padded(size) / per_byte + flaw_bytes);
  }
  static std::size_t wire_bytes(C const&, std::int64_t size) {
    return static_cast<std::size_t>(padded(size) / per_byte) + sizeof(float);
  }
  static void encode(D const& device, C const& compressor, T const* gradient, std::int64_t size, void* residual,
                     void* codes) {
    using body = encode_body<C, typename D::execution>;
    float* const flaw = flaw_of(codes, size);
    device.fill_zero(flaw, sizeof(float));
    device.for_each(body::tasks(size),
                    body{compressor, {gradient, static_cast<float*>(residual), size}, static_cast<code*>(codes), flaw});
  }
  template <class F>
  static pushpull::detail::source_of<code> source(C const&, void const* codes, std::int64_t size, std::int64_t first,
                                                  std::int64_t count, F const& readable) {
    return {static_cast<code const*>(readable(static_cast<code const*>(codes) + first / per_byte,
                                              static_cast<std::size_t>(padded(count) / per_byte))),
            static_cast<float const*>(readable(flaw_of(const_cast<void*>(codes), size), sizeof(float)))};
  }

 private:
  static constexpr std::int64_t flaw_bytes = 64;  // a line of its own behind the codes

  static float* flaw_of(void* codes, std::int64_t size) {
    return reinterpret_cast<float*>(static_cast<char*>(codes) + padded(size) / per_byte);
  }
};

}  // namespace pushpull::compress
