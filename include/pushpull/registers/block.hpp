/// @file
/// A block: the elements that one iteration of the pass holds in registers, and how they come from and go to memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <cuda/std/bit>
#include <pushpull/config.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/registers/detail/memory.hpp>
#include <pushpull/registers/pack.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// Whole arenas and slices are padded to this many elements, a multiple of every block's size. The padding is zero.
inline constexpr std::int64_t padding = 64;

namespace detail {

using pushpull::detail::static_for;

}  // namespace detail

/// Blocks of vector registers of a CPU.
struct simd_access {
  static constexpr bool unrolled = false;
  static constexpr bool any_alignment = true;

  template <class T, class A, std::size_t N>
  PUSHPULL_HOST_INLINE static void load(T const* from, pack<A, pushpull::detail::simd_register<A>> (&x)[N]) {
    using V = pack<A, pushpull::detail::simd_register<A>>;
    detail::static_for<N>([&](auto j) PUSHPULL_INLINE_LAMBDA {
      x[j].value = pushpull::detail::simd_load(from + j * V::size, std::type_identity<decltype(x[j].value)>{});
    });
  }
  template <pushpull::detail::Code T, class A, std::size_t N>
  static void load_codes(T const* from, float unit, pack<A, pushpull::detail::simd_register<A>> (&x)[N]) {
    constexpr std::size_t size = N * pack<A, pushpull::detail::simd_register<A>>::size;
    alignas(64) float buffer[size];
    for (std::size_t c = 0; c < size / T::elements; ++c)
      std::memcpy(buffer + c * T::elements, pushpull::detail::decoded<T>[from[c].bits].data(),
                  T::elements * sizeof(float));
    load(static_cast<float const*>(buffer), x);
    detail::static_for<N>([&](auto j) PUSHPULL_INLINE_LAMBDA { x[j] *= unit; });
  }
  template <class A, std::size_t N>
  static void load_sparse(std::uint64_t mask, float const* values,
                          pack<A, pushpull::detail::simd_register<A>> (&x)[N]) {
    constexpr std::size_t size = N * pack<A, pushpull::detail::simd_register<A>>::size;
    if (mask == 0) {
      detail::static_for<N>([&](auto j) PUSHPULL_INLINE_LAMBDA { x[j] = A(0); });
      return;
    }
    alignas(64) float buffer[size] = {};
    for (; mask != 0; mask &= mask - 1) buffer[cuda::std::countr_zero(mask)] = *values++;
    load(static_cast<float const*>(buffer), x);
  }
  template <class T, class A, std::size_t N>
  PUSHPULL_HOST_INLINE static void store(T* to, pack<A, pushpull::detail::simd_register<A>> const (&x)[N],
                                         bool streaming) {
    using V = pack<A, pushpull::detail::simd_register<A>>;
    if (streaming) {
      detail::static_for<N>(
          [&](auto j) PUSHPULL_INLINE_LAMBDA { pushpull::detail::simd_stream(to + j * V::size, x[j].value); });
    } else {
      detail::static_for<N>([&](auto j)
                                PUSHPULL_INLINE_LAMBDA { pushpull::detail::simd_store(to + j * V::size, x[j].value); });
    }
  }
};

/// Blocks of single elements: integers on CPUs.
struct element_access {
  static constexpr bool unrolled = false;
  static constexpr bool any_alignment = true;

  template <class T, class A, std::size_t N>
  PUSHPULL_HOST_INLINE static void load(T const* from, pack<A> (&x)[N]) {
    for (std::size_t j = 0; j < N; ++j) x[j].value = convert<A>(from[j]);
  }
  template <class T, class A, std::size_t N>
  PUSHPULL_HOST_INLINE static void store(T* to, pack<A> const (&x)[N], bool) {
    for (std::size_t j = 0; j < N; ++j) to[j] = convert<T>(x[j].value);
  }
};

/// `Count` packs `V` that travel together; `Access` says how they reach memory.
template <class V, std::size_t Count, class Access>
struct block {
  using pack_type = V;
  using access = Access;
  static constexpr std::size_t count = Count;
  static constexpr std::int64_t size = static_cast<std::int64_t>(Count * V::size);

  V x[Count];

  /// Whether memory with `valid` elements left must be taken element by element: tails, and what an access that needs
  /// alignment finds unaligned.
  PUSHPULL_DEVICE_INLINE static bool by_element(std::int64_t valid, bool aligned) {
    return valid < size || (!Access::any_alignment && !aligned);
  }

  /// Reads `size` elements.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class T>
  PUSHPULL_DEVICE_INLINE void load(T const* from) {
    Access::load(from, x);
  }

  /// Writes `size` elements; by non-temporal stores if `streaming`.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class T>
  PUSHPULL_DEVICE_INLINE void store(T* to, bool streaming = false) const {
    Access::store(to, x, streaming);
  }

  /// Decodes `size` elements of kind `T` from element `i` on. Codes are in units of `unit`.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <pushpull::detail::Encoded T>
  PUSHPULL_DEVICE_INLINE void load_encoded(pushpull::detail::source_of<T> const& from, std::int64_t i, float unit) {
    if constexpr (pushpull::detail::Code<T>) {
      Access::load_codes(from.codes + i / static_cast<std::int64_t>(T::elements), unit + *from.flaw, x);
    } else if constexpr (requires { from.masks; }) {
      std::int64_t const number = i / T::block;
      auto const skipped = static_cast<int>(i % T::block);
      std::uint64_t const mask = from.masks[number];
      auto const before = static_cast<unsigned>(cuda::std::popcount(mask & ((std::uint64_t{1} << skipped) - 1)));
      std::uint64_t own = mask >> skipped;
      if constexpr (size < T::block) own &= (std::uint64_t{1} << size) - 1;
      Access::load_sparse(own, from.values + from.offsets[number] + before, x);
    } else {
      Access::load(from.elements + i, x);
      float const scale = *from.scale;
      detail::static_for<Count>([&](auto j) PUSHPULL_INLINE_LAMBDA { x[j] *= scale; });
    }
  }

  /// Zero in all elements from number `valid` on.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void clear_from(std::int64_t valid) {
    using A = typename V::element_type;
    if constexpr (V::size == 1) {
      each_element([&](auto j) PUSHPULL_INLINE_LAMBDA {
        if (static_cast<std::int64_t>(j) >= valid) x[j].value = A(0);
      });
    } else {
      alignas(64) A buffer[static_cast<std::size_t>(size)];
      store(static_cast<A*>(buffer));
      load_partial(static_cast<A const*>(buffer), valid);
    }
  }

  /// Reads `valid` elements one by one, from memory of any alignment; the others become zero. What an element becomes
  /// must not depend on where its tensor ends, so the tail goes through the same packs as the rest.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class T>
  PUSHPULL_DEVICE_INLINE void load_partial(T const* from, std::int64_t valid) {
    using A = typename V::element_type;
    if constexpr (V::size == 1) {  // no copy on the way: a GPU's wide accesses reach global memory alone
      each_element([&](auto j) PUSHPULL_INLINE_LAMBDA {
        if (static_cast<std::int64_t>(j) < valid) {
          x[j].value = convert<A>(from[j]);
        } else {
          x[j].value = A(0);
        }
      });
    } else {
      alignas(64) T buffer[static_cast<std::size_t>(size)];
      for (std::int64_t j = 0; j < size; ++j) {
        if (j < valid) {
          buffer[j] = from[j];
        } else {
          buffer[j] = convert<T>(0.0F);
        }
      }
      load(static_cast<T const*>(buffer));
    }
  }

  /// Writes the first `valid` elements one by one, to memory of any alignment.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class T>
  PUSHPULL_DEVICE_INLINE void store_partial(T* to, std::int64_t valid) const {
    if constexpr (V::size == 1) {
      each_element([&](auto j) PUSHPULL_INLINE_LAMBDA {
        if (static_cast<std::int64_t>(j) < valid) to[j] = convert<T>(x[j].value);
      });
    } else {
      alignas(64) T buffer[static_cast<std::size_t>(size)];
      store(static_cast<T*>(buffer));
      for (std::int64_t j = 0; j < size; ++j)
        if (j < valid) to[j] = buffer[j];
    }
  }

 private:
  /// f(j) for each element's number; constants where a run-time index would put `x` into local memory.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class F>
  PUSHPULL_DEVICE_INLINE static void each_element(F const& f) {
    if constexpr (Access::unrolled) {
      detail::static_for<static_cast<std::size_t>(size)>(f);
    } else {
      for (std::size_t j = 0; j < static_cast<std::size_t>(size); ++j) f(j);
    }
  }
};

/// How CPUs execute the pass: tasks of 2^15 elements, four vector registers at a time.
struct host_execution {
  static constexpr std::int64_t grain = std::int64_t{1} << 15;
  template <class A, class... Operands>
  using block_type = std::conditional_t<std::is_floating_point_v<A>,
                                        block<pack<A, pushpull::detail::simd_register<A>>, 4, simd_access>,
                                        block<pack<A>, 16, element_access>>;

  /// How many elements ahead of their use operands in memory are asked for. A core looks ahead by itself only as far as
  /// the instructions that it holds: without this a rule's arithmetic would add to the time of memory instead of hiding
  /// in it. By measurement; a few dozen elements more or less already cost some rules bandwidth.
  static constexpr std::int64_t fetched_ahead = 160;
  /// The same of a pass whose states are codes: four codes have the bytes of a float, and arithmetic takes longer.
  static constexpr std::int64_t fetched_ahead_of_codes = 768;

  /// Orders a task's streaming stores before what follows it.
  static void end_task() { pushpull::detail::simd_fence(); }
};

/// Elements per task of an execution whose block is `Block`.
template <class Execution, class Block>
inline constexpr std::int64_t grain_of = Execution::grain == 0 ? Block::size : Execution::grain;

}  // namespace pushpull::pass
