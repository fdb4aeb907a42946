/// @file
/// Blocks of codes that threads of a GPU change together.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda/std/bit>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/pass/coded_states.hpp>
#include <pushpull/registers/block.hpp>
#include <pushpull/registers/state_codec.hpp>
#include <pushpull/registers/stochastic_rounding.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass::detail {

/// The share of a block of codes that a thread of a GPU has: `parts` blocks of elements, `stride` elements from one to the next. Up to 32
/// neighbours in a warp share a block of codes, and an access of theirs is of memory without gaps.
template <class Block, class S>
struct coded_share {
  static constexpr std::int64_t threads = S::block / Block::size < 32 ? S::block / Block::size : 32;
  static constexpr std::int64_t stride = threads * Block::size;
  static constexpr std::int64_t parts = S::block / stride;
  static constexpr std::int64_t elements = S::block / threads;
  static_assert(S::block % stride == 0);

  /// Of the thread's elements the first, by how many elements the threads before it have.
  PUSHPULL_DEVICE_INLINE static std::int64_t first(std::int64_t before) {
    std::int64_t const in_block = static_cast<std::int64_t>(static_cast<std::uint64_t>(before) % S::block);
    return before - in_block + in_block / elements * Block::size;
  }
};

/// The elements of a task, and the tasks of a run.
template <class Execution, class Block, class S, std::size_t States>
struct task_of {
  static constexpr std::int64_t elements = grain_of<Execution, Block>;
  static constexpr std::int64_t block = Block::size;  ///< Of what a task takes at once.
  static constexpr std::int64_t count(std::int64_t size) { return (size + elements - 1) / elements; }
};
/// Of threads that share blocks of codes. A run has whole ones.
template <class Execution, class Block, pushpull::detail::CodedStates S, std::size_t States>
  requires(States > 0 && Execution::grain == 0)
struct task_of<Execution, Block, S, States> {
  using share = coded_share<Block, S>;
  static constexpr std::int64_t elements = share::elements;
  static constexpr std::int64_t block = elements;
  static constexpr std::int64_t count(std::int64_t size) { return (size + S::block - 1) / S::block * share::threads; }
};

/// A thread's codes. Held in registers.
template <class Execution, class Block, class S, std::size_t States>
struct shared_codes {
  using share = coded_share<Block, S>;
  using codes = typename Block::access::template codes<Block::count>;
  static constexpr auto parts = static_cast<std::size_t>(share::parts);

  typename codes::words words[States][parts];
  float unit[States];

  /// Reads them. @param first  The number of the thread's first element in the run.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Run>
  PUSHPULL_DEVICE_INLINE void load(Run const& r, std::int64_t first) {
    static_for<States>([&](auto s) PUSHPULL_INLINE_LAMBDA {
      if constexpr (S::template encodes<s>) {
        auto const at = r.state[s] + first;
        unit[s] = in_block(first) == 0 ? *at.unit() : 0.0F;
        static_for<parts>([&](auto p) PUSHPULL_INLINE_LAMBDA {
          words[s][p] =
              codes::template load<typename S::template codec<s>>(at + static_cast<std::int64_t>(p) * share::stride);
        });
      }
    });
  }

  /// Gives all threads the unit that the first has read: it alone writes it, and nobody reads it later.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void share_units() {
    static_for<States>([&](auto s) PUSHPULL_INLINE_LAMBDA {
      if constexpr (S::template encodes<s>)
        unit[s] = Execution::template of_first<static_cast<int>(share::threads)>(unit[s]);
    });
  }

  /// A block of state number s, of part number p. After share_units.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t s, std::size_t p, class Run>
  PUSHPULL_DEVICE_INLINE void decode(Block& to, Run const& r, std::int64_t first) const {
    if constexpr (S::template encodes<s>) {
      codes::template decode<typename S::template codec<s>>(words[s][p], unit[s], to.x);
    } else {
      to.load(static_cast<float const*>((r.state[s] + first).elements()) + p * share::stride);
    }
  }

  /// Encodes and writes the states, with the units of the blocks. @param seed  Of random rounding; one for each block.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Run, std::size_t N>
  PUSHPULL_DEVICE_INLINE static void store(Run const& r, std::int64_t first, std::uint32_t seed,
                                           Block const (&state)[parts][N]) {
    float unit[States], factor[States];
    static_for<States>([&](auto s) PUSHPULL_INLINE_LAMBDA {
      if constexpr (S::template encodes<s>) {
        std::uint32_t greatest = 0;  // by bits: a NaN is greater than infinity
        static_for<parts * Block::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
          float const x = state[j / Block::count][s].x[j % Block::count].value;
          std::uint32_t const magnitude = cuda::std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFU;
          greatest = magnitude > greatest ? magnitude : greatest;
        });
        greatest = Execution::template greatest<static_cast<int>(share::threads)>(greatest);
        using codec = typename S::template codec<s>;
        unit[s] = pushpull::detail::block_unit<codec>(cuda::std::bit_cast<float>(greatest));
        if constexpr (pushpull::detail::has_signed_unit<codec>) {
          std::uint32_t is_positive = 0;
          static_for<parts * Block::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
            if (state[j / Block::count][s].x[j % Block::count].value >= unit[s]) is_positive = 1;
          });
          if (Execution::template greatest<static_cast<int>(share::threads)>(is_positive) == 0) unit[s] = -unit[s];
        }
        factor[s] = pushpull::detail::block_factor<codec>(unit[s]);
        if (in_block(first) == 0) *(r.state[s] + first).unit() = unit[s];
      }
    });
    typename codes::random_words random(seed, in_block(first));
    static_for<parts>([&](auto p) PUSHPULL_INLINE_LAMBDA {
      static_for<States>([&](auto s) PUSHPULL_INLINE_LAMBDA {
        auto const at = r.state[s] + (first + static_cast<std::int64_t>(p) * share::stride);
        if constexpr (S::template encodes<s>) {
          using codec = typename S::template codec<s>;
          typename codes::words encoded = codes::template encode<codec, s>(state[p][s].x, factor[s], random);
          if (!pushpull::detail::is_finite(unit[s])) encoded = {};  // no element has a code of its own
          codes::template store<codec>(encoded, at);
        } else {
          state[p][s].store(at.elements());
        }
      });
      random.advance(static_cast<std::uint32_t>(share::stride));
    });
  }

 private:
  /// The number of an element in its block of codes.
  PUSHPULL_DEVICE_INLINE static std::int64_t in_block(std::int64_t i) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(i) % S::block);
  }
};

}  // namespace pushpull::pass::detail
