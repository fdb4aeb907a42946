/// @file
/// States that are codes, between memory and the blocks of the pass.
#pragma once

#include <cstddef>
#include <cstdint>

#include <pushpull/config.hpp>
#include <pushpull/registers/block.hpp>
#include <pushpull/registers/detail/memory.hpp>
#include <pushpull/registers/detail/state_codes.hpp>
#include <pushpull/registers/state_codec.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass::detail {

/// Prefetches `size` elements of state number s, from element i on.
PUSHPULL_EXEC_CHECK_DISABLE
template <class S, std::size_t s, class Run>
PUSHPULL_DEVICE_INLINE void fetch_state(Run const& r, std::int64_t i, std::int64_t size) {
  if constexpr (pushpull::detail::CodedStates<S>) {
    auto const at = r.state[s] + i;
    if constexpr (S::template encodes<s>) {
      constexpr int bits = S::bits[s];
      pushpull::detail::simd_fetch(static_cast<std::uint8_t const*>(at.codes(bits)), size * bits / 8);
    } else {
      pushpull::detail::simd_fetch(static_cast<float const*>(at.elements()), size);
    }
  } else {
    pushpull::detail::simd_fetch(static_cast<S const*>(r.state[s] + i), size);
  }
}

/// Reads a block's states, which lie in one block of codes.
PUSHPULL_EXEC_CHECK_DISABLE
template <class Codec, class Block, std::int64_t Coded>
PUSHPULL_DEVICE_INLINE void load_coded(Block& to, pushpull::detail::coded_pointer<Coded> const& from) {
  if constexpr (pushpull::detail::StateCodec<Codec>) {
    using V = typename Block::pack_type;
    using R = decltype(V::value);
    static_assert(Coded % Block::size == 0);
    if constexpr (requires { typename Block::access::template codes<Block::count>; }) {
      using codes = typename Block::access::template codes<Block::count>;
      codes::template decode<Codec>(codes::template load<Codec>(from), *from.unit(), to.x);
    } else {
      R const unit(*from.unit());
      static_for<Block::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
        to.x[j].value = pushpull::detail::decode_states<Codec>(
            (from + static_cast<std::int64_t>(j * V::size)).codes(pushpull::detail::code_bits<Codec>), unit);
      });
    }
  } else {
    to.load(static_cast<float const*>(from.elements()));
  }
}

/// The states of a block of codes while the rule changes them, and afterwards, until all of the next block are changed: their
/// unit is known when the last one is.
template <class V, class S, std::size_t States>
struct coded_buffer {
  alignas(64) float elements[States][S::block];
};

/// The states of a block of codes in memory. Held in registers.
template <class V, class S, std::size_t States>
struct coded_memory {
  using R = decltype(V::value);

  std::uint8_t const* codes[States];
  float* elements[States];
  R unit[States];

  /// @param first  The number of the block's first element in the run.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class Run>
  PUSHPULL_DEVICE_INLINE coded_memory(Run const& r, std::int64_t first) {
    static_for<States>([&](auto s) PUSHPULL_INLINE_LAMBDA {
      auto const at = r.state[s] + first;
      if constexpr (S::template encodes<s>) {
        codes[s] = at.codes(pushpull::detail::code_bits<typename S::template codec<s>>);
        unit[s] = R(*at.unit());
      } else {
        elements[s] = at.elements();
      }
    });
  }

  /// The pack of state number s that begins with element j.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t s>
  PUSHPULL_DEVICE_INLINE R load(std::int64_t j) const {
    if constexpr (S::template encodes<s>) {
      using codec = typename S::template codec<s>;
      return pushpull::detail::decode_states<codec>(codes[s] + j * pushpull::detail::code_bits<codec> / 8, unit[s]);
    } else {
      block<V, 1, simd_access> x;
      x.load(static_cast<float const*>(elements[s]) + j);
      return x.x[0].value;
    }
  }
};

/// The rest of the work on a block of codes. Held in registers.
template <class V, class S, std::size_t States>
struct coded_rest {
  using R = decltype(V::value);

  coded_buffer<V, S, States>* from;
  std::uint8_t* codes[States];
  R factor[States];
  pushpull::detail::random_words<R> random{};  // zeros if no codec rounds at random

  /// Encodes the N packs that begin with element j, of all states. Packs come in order.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t N>
  PUSHPULL_DEVICE_INLINE void encode(std::int64_t j) {
    using words = decltype(random.lower());
    words lower[N] = {}, upper[N] = {};
    if constexpr (S::random)
      static_for<N>([&](auto k) PUSHPULL_INLINE_LAMBDA {
        lower[k] = random.lower();
        upper[k] = random.upper();
        random.advance();
      });
    static_for<States>([&](auto s) PUSHPULL_INLINE_LAMBDA {
      if constexpr (S::template encodes<s>) {
        block<V, N, simd_access> packs;
        packs.load(static_cast<float const*>(from->elements[s]) + j);
        R x[N];
        static_for<N>([&](auto k) PUSHPULL_INLINE_LAMBDA { x[k] = packs.x[k].value; });
        // Two states of one element are rounded independently; a third as the first.
        using codec = typename S::template codec<s>;
        std::uint8_t* const to = codes[s] + j * pushpull::detail::code_bits<codec> / 8;
        if constexpr (s % 2 == 1) {
          pushpull::detail::encode_states<codec>(to, x, factor[s], upper);
        } else if constexpr (pushpull::detail::FloatBitsCodec<codec>) {
          words rounding[N];
          static_for<N>([&](auto k) PUSHPULL_INLINE_LAMBDA { rounding[k] = lower[k] & 0xFFFFF; });
          pushpull::detail::encode_states<codec>(to, x, factor[s], rounding);
        } else {
          pushpull::detail::encode_states<codec>(to, x, factor[s], lower);
        }
      }
    });
  }

  /// Sets the unit of a block of state number s, which `to` begins.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::size_t s>
  PUSHPULL_DEVICE_INLINE void finish(pushpull::detail::coded_pointer<S::block> const& to,
                                     pushpull::detail::greatest_magnitude<R> const& greatest, std::uint8_t* unused) {
    if constexpr (S::template encodes<s>) {
      using codec = typename S::template codec<s>;
      constexpr int bits = pushpull::detail::code_bits<codec>;
      float const magnitude = greatest.template of_block<codec, S::block>(static_cast<float*>(from->elements[s]));
      float const unit = pushpull::detail::signed_unit<codec, S::block>(pushpull::detail::block_unit<codec>(magnitude),
                                                                        from->elements[s]);
      *to.unit() = unit;
      codes[s] = to.codes(bits);
      factor[s] = R(pushpull::detail::block_factor<codec>(unit));
      if (!pushpull::detail::is_finite(magnitude)) {  // no element has a code of its own
        for (std::int64_t j = 0; j < S::block * bits / 8; ++j) codes[s][j] = 0;
        codes[s] = unused;
      }
    }
  }
};

}  // namespace pushpull::pass::detail
