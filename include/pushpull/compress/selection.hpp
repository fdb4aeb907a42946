/// @file
/// The k elements of largest magnitude, exactly and on the device: a radix selection, no sort.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <cuda/std/bit>
#include <pushpull/compress/encode.hpp>
#include <pushpull/compress/primitives.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/registers/block.hpp>
#include <pushpull/registers/code.hpp>

namespace pushpull::inline PUSHPULL_ABI::compress::detail {

/// residual += gradient. 12 bytes per float element.
template <class T, class Execution>
struct accumulate_body {
  using block_type = typename Execution::template block_type<float, float, T>;
  static constexpr std::int64_t grain = pass::grain_of<Execution, block_type>;

  addends<T> sum;

  static std::int64_t tasks(std::int64_t size) { return (size + grain - 1) / grain; }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    std::int64_t const first = task * grain;
    std::int64_t const last = first + grain < sum.size ? first + grain : sum.size;
    for (std::int64_t i = first; i < last; i += block_type::size) {
      block_type x;
      sum.load(x, i);
      x.store(sum.residual + i);
    }
  }
};

/// The known part of the least magnitude that is sent.
struct selection_state {
  std::uint32_t prefix;     ///< Its upper bits; all of them in the end.
  std::uint32_t remaining;  ///< How many of the magnitudes with these bits are sent.
};

/// The next digit of a magnitude that begins with the prefix; else none.
struct next_digit {
  selection_state const* state;
  std::int32_t shift, width;

  /// With the prefix in a register.
  struct on_host_type {
    std::uint32_t prefix;
    std::int32_t shift, width;

    std::uint32_t operator()(float x) const { return digit(magnitude_bits(x), prefix, shift, width); }
  };
  on_host_type on_host() const { return {state->prefix, shift, width}; }
  PUSHPULL_HOST_DEVICE std::int32_t operator()(float x) const {
    return static_cast<std::int32_t>(digit(magnitude_bits(x), state->prefix, shift, width));
  }

 private:
  PUSHPULL_HOST_DEVICE static std::uint32_t digit(std::uint32_t bits, std::uint32_t prefix, std::int32_t shift,
                                                  std::int32_t width) {
    return bits >> (shift + width) == prefix ? (bits >> shift) & ((1U << width) - 1) : 0xFFFFU;
  }
};

/// Appends to the prefix the digit under which the last of the remaining magnitudes lies.
struct pick_digit {
  std::uint32_t const* counts;
  std::int32_t width;
  selection_state* state;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t) const {
    std::uint32_t remaining = state->remaining;
    std::uint32_t digit = (1U << width) - 1;
    for (; digit > 0 && counts[digit] < remaining; --digit) remaining -= counts[digit];
    *state = {state->prefix << width | digit, remaining};
  }
};

/// The outputs and the working memory of the selection.
struct selection {
  std::uint64_t* masks;
  std::uint32_t* offsets;
  float* values;
  selection_state* state;
  std::uint32_t* counts;
  std::uint64_t* sums;  ///< One more than blocks: magnitudes above the least one and equal to it, in 32 bits each.
  void* scratch;
};

/// Blocks of 64 per task.
template <class Execution>
inline constexpr std::int64_t block_grain = Execution::grain == 0 ? 1 : Execution::grain / sparse_code::block;

/// sums[b] = what block b holds. 4 bytes per element.
template <class Execution>
struct count_blocks {
  float const* from;
  std::int64_t blocks;
  selection to;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    std::uint32_t const least = to.state->prefix;
    std::int64_t const first = task * block_grain<Execution>;
    for (std::int64_t b = first; b < first + block_grain<Execution> && b < blocks; ++b) {
      std::uint32_t above = 0, equal = 0;
      for (std::int64_t j = 0; j < sparse_code::block; ++j) {
        std::uint32_t const magnitude = magnitude_bits(from[b * sparse_code::block + j]);
        above += magnitude > least ? 1 : 0;
        equal += magnitude == least ? 1 : 0;
      }
      to.sums[b] = std::uint64_t{above} << 32 | equal;
    }
  }
};

/// Takes what is sent from `from`. Reads 4 bytes per element of the blocks that send any, and writes as many values.
template <class Execution>
struct take_values {
  float* from;
  std::int64_t blocks;
  selection to;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    selection_state const state = *to.state;
    std::int64_t const first = task * block_grain<Execution>;
    for (std::int64_t b = first; b < first + block_grain<Execution> && b < blocks; ++b) take(state, b);
  }

 private:
  PUSHPULL_HOST_DEVICE void take(selection_state const& state, std::int64_t b) const {
    auto const at = [&](std::int64_t i) { return static_cast<std::uint32_t>(to.sums[i] >> 32); };
    auto const ties = [&](std::int64_t i) {
      auto const before = static_cast<std::uint32_t>(to.sums[i]);
      return before < state.remaining ? before : state.remaining;
    };
    std::uint32_t offset = at(b) + ties(b);
    to.offsets[b] = offset;
    std::uint64_t above = 0, equal = 0;
    if (at(b + 1) + ties(b + 1) > offset) {
      for (int j = 0; j < sparse_code::block; ++j) {
        std::uint32_t const magnitude = magnitude_bits(from[b * sparse_code::block + j]);
        above |= std::uint64_t{magnitude > state.prefix} << j;
        equal |= std::uint64_t{magnitude == state.prefix} << j;
      }
      for (std::uint32_t left = ties(b + 1) - ties(b); left > 0; --left) {
        above |= equal & (~equal + 1);
        equal &= equal - 1;
      }
    }
    to.masks[b] = above;
    for (; above != 0; above &= above - 1) {
      float& x = from[b * sparse_code::block + cuda::std::countr_zero(above)];
      to.values[offset++] = x;
      x = 0;
    }
  }
};

/// Bytes of scratch memory for `size` elements, a multiple of 64.
template <Device D>
std::size_t select_bytes(D const& device, std::int64_t size) {
  using primitives = compress::primitives<typename D::execution>;
  return std::max(primitives::template histogram_bytes<next_digit>(device, size),
                  primitives::exclusive_sum_bytes(device, size / sparse_code::block + 1));
}

/// Enqueues the selection of `k` > 0 of `size` elements, a multiple of 64 of which at least k are no padding.
/// About 24 bytes read per element on GPUs, 20 on CPUs.
template <Device D>
void select(D const& device, float* from, std::int64_t size, std::int64_t k, selection const& to) {
  using execution = typename D::execution;
  using primitives = compress::primitives<execution>;
  device.for_each(1, pass::set_value<selection_state>{to.state, {0, static_cast<std::uint32_t>(k)}});
  for (std::int32_t bits = 31; bits > 0;) {
    std::int32_t const width = std::min<std::int32_t>(bits, primitives::digit_bits);
    bits -= width;
    primitives::histogram(device, next_digit{to.state, bits, width}, from, size, to.scratch, to.counts);
    device.for_each(1, pick_digit{to.counts, width, to.state});
  }
  std::int64_t const blocks = size / sparse_code::block;
  std::int64_t const tasks = (blocks + block_grain<execution> - 1) / block_grain<execution>;
  device.for_each(tasks, count_blocks<execution>{from, blocks, to});
  primitives::exclusive_sum(device, to.sums, blocks + 1, to.scratch);
  device.for_each(tasks, take_values<execution>{from, blocks, to});
}

}  // namespace pushpull::compress::detail
