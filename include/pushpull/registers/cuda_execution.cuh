/// @file
/// How GPUs execute the pass.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <cuda/std/bit>
#include <nv/target>
#include <pushpull/config.hpp>
#include <pushpull/registers/block.hpp>
#include <pushpull/registers/detail/float8.cuh>
#include <pushpull/registers/detail/state_codes.cuh>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// Blocks of 16-byte loads and stores, from memory that is aligned to 16 bytes; of 8 bytes where a block has no more.
struct vector_access {
  static constexpr bool unrolled = true;
  static constexpr bool any_alignment = false;

  /// `Width` elements of one access. It travels as a uint4 or uint2: the compiler splits some other stores.
  template <class T, std::size_t Width>
  struct alignas(Width * sizeof(T)) chunk {
    using word = std::conditional_t<Width * sizeof(T) == 16, uint4, uint2>;
    static constexpr std::size_t width = Width;
    T x[Width];
  };
  template <class T, std::size_t N>
  using chunk_of = chunk<T, std::min(N, 16 / sizeof(T))>;

  template <class T, class A, std::size_t N>
  __host__ __device__ __forceinline__ static void load(T const* from, pack<A> (&x)[N]) {
    using chunk = chunk_of<T, N>;
    detail::static_for<N / chunk::width>([&](auto c) {
      auto const elements = cuda::std::bit_cast<chunk>(reinterpret_cast<typename chunk::word const*>(from)[c]);
      if constexpr (in_pairs<T, A>) {
        detail::static_for<chunk::width / 2>([&](auto j) {
          float2 const two = pushpull::detail::float8_to_float2(elements.x[2 * j], elements.x[2 * j + 1]);
          x[c * chunk::width + 2 * j].value = two.x;
          x[c * chunk::width + 2 * j + 1].value = two.y;
        });
      } else {
        detail::static_for<chunk::width>([&](auto j) { x[c * chunk::width + j].value = convert<A>(elements.x[j]); });
      }
    });
  }
  template <pushpull::detail::Code T, class A, std::size_t N>
  __host__ __device__ __forceinline__ static void load_codes(T const* from, float unit, pack<A> (&x)[N]) {
    detail::static_for<N / T::elements>([&](auto c) {
      unsigned const bits = from[c].bits;
      detail::static_for<T::elements>(
          [&](auto j) { x[c * T::elements + j].value = convert<A>(T::value(bits, j) * unit); });
    });
  }
  template <class A, std::size_t N>
  __host__ __device__ __forceinline__ static void load_sparse(std::uint64_t mask, float const* values,
                                                              pack<A> (&x)[N]) {
    auto const bits = static_cast<unsigned>(mask);  // of at most 16 elements
    detail::static_for<N>([&](auto j) {
      constexpr auto bit = static_cast<unsigned>(decltype(j)::value);
      x[j].value = A(0);
      if ((bits >> bit & 1U) != 0) x[j].value = convert<A>(values[cuda::std::popcount(bits & ((1U << bit) - 1))]);
    });
  }
  template <class T, class A, std::size_t N>
  __host__ __device__ __forceinline__ static void store(T* to, pack<A> const (&x)[N], bool) {
    using chunk = chunk_of<T, N>;
    detail::static_for<N / chunk::width>([&](auto c) {
      chunk elements;
      if constexpr (in_pairs<T, A>) {
        detail::static_for<chunk::width / 2>([&](auto j) {
          pushpull::detail::float2_to_float8(x[c * chunk::width + 2 * j].value, x[c * chunk::width + 2 * j + 1].value,
                                             elements.x[2 * j], elements.x[2 * j + 1]);
        });
      } else {
        detail::static_for<chunk::width>([&](auto j) { elements.x[j] = convert<T>(x[c * chunk::width + j].value); });
      }
      using word = typename chunk::word;
      reinterpret_cast<word*>(to)[c] = cuda::std::bit_cast<word>(elements);
    });
  }
  /// Codes of states of a block of N elements.
  template <std::size_t N>
  struct codes {
    using words = pushpull::detail::state_words<N>;
    using random_words = pushpull::detail::random_words_of<N>;

    __host__ __device__ __forceinline__ static void settle(pack<float> (&x)[N]) { pushpull::detail::settle(x); }
    template <class Codec, class Pointer>
    __host__ __device__ __forceinline__ static words load(Pointer const& from) {
      constexpr int bits = pushpull::detail::code_bits<Codec>;
      return words::template load<bits>(from.codes(bits));
    }
    template <class Codec, class Pointer>
    __host__ __device__ __forceinline__ static void store(words const& from, Pointer const& to) {
      constexpr int bits = pushpull::detail::code_bits<Codec>;
      from.template store<bits>(to.codes(bits));
    }
    template <class Codec>
    __host__ __device__ __forceinline__ static void decode(words const& from, float unit, pack<float> (&x)[N]) {
      pushpull::detail::decode_states<Codec>(from, unit, x);
    }
    template <class Codec, std::size_t S>
    __host__ __device__ __forceinline__ static words encode(pack<float> const (&x)[N], float factor,
                                                            random_words const& random) {
      return pushpull::detail::encode_states<Codec, S>(x, factor, random);
    }
  };
  /// Prefetches the 32 bytes around `from` into the L2 cache.
  template <class T>
  __host__ __device__ __forceinline__ static void fetch([[maybe_unused]] T const* from) {
    NV_IF_TARGET(NV_IS_DEVICE, (asm volatile("prefetch.global.L2 [%0];" ::"l"(from));))
  }

 private:
  /// Whether a GPU converts two elements by one instruction.
  template <class T, class A>
  static constexpr bool in_pairs = std::is_same_v<A, float> && pushpull::detail::Float8<T>;
};

/// A thread holds as many elements as the narrowest operand has in 16 bytes, eight of 8-bit floats.
struct cuda_execution {
  static constexpr std::int64_t grain = 0;  // one block

  template <class A, class... Operands>
  using block_type = block<pack<A>, 16 / std::min({pushpull::detail::block_bytes<Operands>...}), vector_access>;

  __host__ __device__ static void end_task() {}

  /// The greatest word of `Lanes` neighbours in a warp, who all ask at once. `Lanes` is a power of two.
  template <int Lanes>
  __host__ __device__ __forceinline__ static std::uint32_t greatest([[maybe_unused]] std::uint32_t word) {
    NV_IF_ELSE_TARGET(NV_IS_DEVICE, (return greatest_of(neighbours<Lanes>(), word, Lanes);), (return word;))
  }
  /// The same number, of which the compiler knows nothing.
  __host__ __device__ __forceinline__ static std::int64_t hidden(std::int64_t i) {
    NV_IF_TARGET(NV_IS_DEVICE, (asm volatile("" : "+l"(i));))
    return i;
  }
  /// What the first of them has.
  template <int Lanes>
  __host__ __device__ __forceinline__ static float of_first(float x) {
    NV_IF_ELSE_TARGET(NV_IS_DEVICE, (return __shfl_sync(neighbours<Lanes>(), x, 0, Lanes);), (return x;))
  }

 private:
  __device__ __forceinline__ static std::uint32_t greatest_of(unsigned mask, std::uint32_t word,
                                                              [[maybe_unused]] int lanes) {
    NV_IF_ELSE_TARGET(NV_PROVIDES_SM_80, (return __reduce_max_sync(mask, word);), ({
                        for (int distance = lanes / 2; distance > 0; distance /= 2) {
                          std::uint32_t const other = __shfl_xor_sync(mask, word, distance);
                          word = word > other ? word : other;
                        }
                        return word;
                      }))
  }
  /// The lanes that share with this one.
  template <int Lanes>
  __device__ __forceinline__ static unsigned neighbours() {
    if constexpr (Lanes == 32) return 0xFFFFFFFFU;
    return ((1U << Lanes % 32) - 1) << (threadIdx.x % 32 / Lanes * Lanes);
  }
};

}  // namespace pushpull::pass
