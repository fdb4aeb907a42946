/// @file
/// Random numbers that are functions of a counter: the same for any device and in any order.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda/std/array>
#include <pushpull/config.hpp>
#include <pushpull/registers/pack.hpp>
#include <pushpull/registers/pack_math.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// 128 random bits for each counter and key: Philox-4x32-10 (Salmon et al. 2011).
PUSHPULL_HOST_DEVICE inline cuda::std::array<std::uint32_t, 4> philox(cuda::std::array<std::uint32_t, 4> counter,
                                                                      std::uint64_t key) {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    std::uint64_t const a = std::uint64_t{0xD2511F53} * counter[0], b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(a)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return counter;
}

/// Independent numbers of the standard normal distribution for elements first, first + 1, ... of step t, one per
/// element of the pack. Four elements share 128 bits, two of them the radius and the angle of Box & Muller 1958.
/// Uniform numbers have 32 bits, so no result is beyond 6.8.
PUSHPULL_EXEC_CHECK_DISABLE
template <class V>
PUSHPULL_DEVICE_INLINE V standard_normal(std::uint64_t seed, std::int64_t t, std::int64_t first) {
  using A = typename V::element_type;
  constexpr A unit = static_cast<A>(0x1p-32);
  auto const step = static_cast<std::uint64_t>(t);
  cuda::std::array<std::uint32_t, 4> bits{};
  V radius, half_turns;
  for (std::size_t lane = 0; lane < V::size; ++lane) {
    auto const element = static_cast<std::uint64_t>(first) + lane, counter = element / 4;
    if (lane == 0 || element % 4 == 0)
      bits = philox({static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
                     static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32)},
                    seed);
    bool const second_pair = element % 4 >= 2;
    A const u = (static_cast<A>(second_pair ? bits[2] : bits[0]) + A(0.5)) * unit;
    // The sine is the cosine a quarter turn before.
    A const v = static_cast<A>(second_pair ? bits[3] : bits[1]) * (2 * unit) - (element % 2 == 0 ? A(0) : A(0.5));
    if constexpr (V::size == 1) {
      radius = u;
      half_turns = v;
    } else {
      reinterpret_cast<A*>(&radius)[lane] = u;
      reinterpret_cast<A*>(&half_turns)[lane] = v;
    }
  }
  return sqrt(-2 * log(min(radius, 1))) * cospi(half_turns);
}

namespace detail {

/// The prepared values of a stage with noise: those that depend on t alone, and, by `at`, the number of an element.
template <class A>
struct noise_scalars {
  A deviation;
  std::int64_t t;

  struct numbered {
    A deviation;
    std::int64_t t, element;
  };
  PUSHPULL_DEVICE_INLINE numbered at(std::int64_t number) const noexcept { return {deviation, t, number}; }
};

}  // namespace detail

}  // namespace pushpull::update
