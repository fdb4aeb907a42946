/// @file
/// Values of PTX types in registers, and handlers that apply a function to them.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "execution/grid.hpp"
#include "ptx/instruction.hpp"

namespace emulator {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
__extension__ using u128 = unsigned __int128;
__extension__ using s128 = __int128;

inline constexpr u64 all_bits = ~u64{0};
template <class T>
inline constexpr u64 bits_of = sizeof(T) == 8 ? all_bits : (u64{1} << 8 * (sizeof(T) % 8)) - 1;

template <class T>
T get(reg const& r) {
  T x;
  std::memcpy(&x, &r.v, sizeof x);
  return x;
}

/// Which bits of a value nobody has written.
template <class T>
u64 undefined(reg const& r) {
  return r.u & bits_of<T>;
}

/// Signed integers are extended.
template <class T>
void put(reg& r, T x, bool is_undefined) {
  if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
    r.v = static_cast<u64>(static_cast<s64>(x));
  } else {
    r.v = 0;
    std::memcpy(&r.v, &x, sizeof x);
  }
  r.u = is_undefined ? all_bits : 0;
}

inline reg& at(thread& t, std::int32_t r) { return t.r[static_cast<std::size_t>(r)]; }

template <class R, class A, auto Op>
void unary(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  put<R>(at(t, i.d), static_cast<R>(Op(get<A>(a))), undefined<A>(a) != 0);
}

template <class R, class A, class B, auto Op>
void binary(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b);
  put<R>(at(t, i.d), static_cast<R>(Op(get<A>(a), get<B>(b))), (undefined<A>(a) | undefined<B>(b)) != 0);
}

template <class R, class A, class C, auto Op>
void ternary(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b), c = at(t, i.c);
  put<R>(at(t, i.d), static_cast<R>(Op(get<A>(a), get<A>(b), get<C>(c))),
         (undefined<A>(a) | undefined<A>(b) | undefined<C>(c)) != 0);
}

/// f(T{}) for the type of that name; false if there is none. Untyped bits are unsigned.
template <class F>
bool with_integer(std::string const& type, F f) {
  if (type == "u8" || type == "b8") return f(u8{}), true;
  if (type == "s8") return f(s8{}), true;
  if (type == "u16" || type == "b16") return f(u16{}), true;
  if (type == "s16") return f(s16{}), true;
  if (type == "u32" || type == "b32") return f(u32{}), true;
  if (type == "s32") return f(s32{}), true;
  if (type == "u64" || type == "b64") return f(u64{}), true;
  if (type == "s64") return f(s64{}), true;
  return false;
}
template <class F>
bool with_float(std::string const& type, F f) {
  if (type == "f32") return f(float{}), true;
  if (type == "f64") return f(double{}), true;
  return false;
}
template <class F>
bool with_type(std::string const& type, F f) {
  return with_integer(type, f) || with_float(type, f);
}

}  // namespace emulator
