/// @file
/// The encoder: gradients and residuals in, codes and new residuals out, in one pass over the source's memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include <pushpull/compress/code.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/pass/block.hpp>

namespace pushpull::compress {

/// Encodes `size` gradients of any alignment. Residuals and codes are padded to whole blocks. 12 bytes per element and the
/// code. The gap behind the last element is zero bits.
template <class Compressor, class Execution>
struct encode_body {
  using code = typename Compressor::template encoded_type<float>;
  using block_type = typename Execution::template block_type<float, float, code>;
  static constexpr std::int64_t grain = pass::grain_of<Execution, block_type>;
  static constexpr auto size_of_block = static_cast<std::size_t>(block_type::size);
  static_assert(size_of_block % code::elements == 0);

  Compressor compressor;
  float const* gradient;
  bool aligned;  ///< `gradient` is aligned to 16 bytes.
  float* residual;
  code* codes;
  std::int64_t size;

  /// Number of tasks for `size` elements.
  static std::int64_t tasks(std::int64_t size) { return (size + grain - 1) / grain; }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    std::int64_t const first = task * grain;
    std::int64_t const last = first + grain < size ? first + grain : size;
    for (std::int64_t i = first; i < last; i += block_type::size) {
      std::int64_t const valid = size - i < block_type::size ? size - i : block_type::size;
      block_type g, r;
      if (block_type::by_element(valid, aligned)) {
        g.load_partial(gradient + i, valid);
      } else {
        g.load(gradient + i);
      }
      r.load(residual + i);
      pushpull::detail::static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
        r.x[j] += g.x[j];
        g.x[j] = compressor.quantize(r.x[j]);
      });
      if (valid < block_type::size) {
        r.clear_from(valid);
        g.clear_from(valid);
      }
      r.store(residual + i);
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
      pushpull::detail::static_for<size_of_block>([&](auto j) PUSHPULL_INLINE_LAMBDA { number[j] = numbers.x[j].value; });
    } else {
      numbers.store(static_cast<float*>(number));
    }
    pushpull::detail::static_for<size_of_block / code::elements>([&](auto c) PUSHPULL_INLINE_LAMBDA {
      float sum = 0;  // of distinct powers of two: exact
      pushpull::detail::static_for<code::elements>([&](auto j) PUSHPULL_INLINE_LAMBDA {
        sum += number[c * code::elements + j] * static_cast<float>(weight(j));
      });
      to[c].bits = static_cast<std::uint8_t>(static_cast<int>(sum));
    });
  }
};

}  // namespace pushpull::compress
