/// @file
/// How GPUs execute the pass.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <cuda/std/bit>
#include <nv/target>
#include <pushpull/config.hpp>
#include <pushpull/pass/block.hpp>

namespace pushpull::pass {

/// Blocks of 16-byte loads and stores, from memory that is aligned to 16 bytes.
struct vector_access {
  static constexpr bool unrolled = true;
  static constexpr bool any_alignment = false;

  /// The elements of one access. It travels as a uint4 by an intrinsic: the compiler splits some other stores.
  template <class T>
  struct alignas(16) chunk {
    T x[16 / sizeof(T)];
  };

  template <class T, class A, std::size_t N>
  __host__ __device__ __forceinline__ static void load(T const* from, pack<A> (&x)[N]) {
    constexpr std::size_t width = 16 / sizeof(T);
    detail::static_for<N / width>([&](auto c) {
      auto const elements = cuda::std::bit_cast<chunk<T>>(reinterpret_cast<uint4 const*>(from)[c]);
      detail::static_for<width>([&](auto j) { x[c * width + j].value = convert<A>(elements.x[j]); });
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
  template <class T, class A, std::size_t N>
  __host__ __device__ __forceinline__ static void store(T* to, pack<A> const (&x)[N], bool) {
    constexpr std::size_t width = 16 / sizeof(T);
    detail::static_for<N / width>([&](auto c) {
      chunk<T> elements;
      detail::static_for<width>([&](auto j) { elements.x[j] = convert<T>(x[c * width + j].value); });
      [[maybe_unused]] uint4 const bits = cuda::std::bit_cast<uint4>(elements);
      NV_IF_TARGET(NV_IS_DEVICE, (__stwb(reinterpret_cast<uint4*>(to) + c, bits);), (elements.x[0] = T{};))
    });
  }
};

/// A thread holds as many elements as the narrowest operand has in 16 bytes.
struct cuda_execution {
  static constexpr std::int64_t grain = 0;  // one block

  template <class A, class... Operands>
  using block_type = block<pack<A>, 16 / std::min({pushpull::detail::block_bytes<Operands>...}), vector_access>;

  __host__ __device__ static void end_task() {}
};

}  // namespace pushpull::pass
