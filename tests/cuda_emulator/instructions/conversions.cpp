// cvt.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "instructions/decode.hpp"
#include "instructions/floats.hpp"
#include "instructions/values.hpp"

namespace emulator {
namespace {

__extension__ using float16 = _Float16;

double half_to_double(u16 x) { return static_cast<double>(std::bit_cast<float16>(x)); }
u16 double_to_half(double x) { return std::isnan(x) ? u16{0x7FFF} : std::bit_cast<u16>(static_cast<float16>(x)); }

/// A format of sign, exponent and mantissa; what is beyond `largest` becomes `infinity`, or `largest` if it saturates.
struct format {
  int mantissa_bits, bias;
  u64 largest, infinity, nan;
  bool saturates;
  int sign_bit;
};
constexpr format bfloat16_format{7, 127, 0x7F7F, 0x7F80, 0x7FFF, false, 15};
constexpr format e4m3_format{3, 7, 0x7E, 0x7F, 0x7F, true, 7};
constexpr format e5m2_format{2, 15, 0x7B, 0x7C, 0x7F, true, 7};

/// To nearest, of two the even one.
u64 narrowed(double x, format const& f) {
  if (std::isnan(x)) return f.nan;
  u64 const sign = std::signbit(x) ? u64{1} << f.sign_bit : 0;
  double const a = std::fabs(x);
  if (a == 0) return sign;
  if (std::isinf(a)) return sign | (f.saturates ? f.largest : f.infinity);
  int const exponent = std::max(std::ilogb(a), 1 - f.bias);
  auto const units = static_cast<u64>(std::nearbyint(std::ldexp(a, f.mantissa_bits - exponent)));
  u64 const code = units + (static_cast<u64>(exponent + f.bias - 1) << f.mantissa_bits);
  return sign | (code <= f.largest ? code : f.saturates ? f.largest : f.infinity);
}
u16 double_to_bfloat16(double x) { return static_cast<u16>(narrowed(x, bfloat16_format)); }
u8 double_to_e4m3(double x) { return static_cast<u8>(narrowed(x, e4m3_format)); }
u8 double_to_e5m2(double x) { return static_cast<u8>(narrowed(x, e5m2_format)); }

float bfloat16_to_float(u16 x) { return std::bit_cast<float>(u32{x} << 16); }
double e5m2_to_double(u8 x) { return half_to_double(static_cast<u16>(x << 8)); }
double e4m3_to_double(u8 x) {
  int const exponent = x >> 3 & 15, fraction = x & 7;
  double v = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  if (exponent == 15 && fraction == 7) v = std::numeric_limits<double>::quiet_NaN();
  return (x & 0x80) != 0 ? -v : v;
}

template <class To, class From>
void integer_to_integer(grid&, thread& t, instruction const& i) {
  using limits = std::numeric_limits<To>;
  reg const a = at(t, i.a);
  From const x = get<From>(a);
  s128 const saturated = std::clamp<s128>(x, limits::min(), limits::max());
  put<To>(at(t, i.d), (i.mode & mode_sat) != 0 ? static_cast<To>(saturated) : static_cast<To>(x), false);
  u64 u = undefined<From>(a);
  if constexpr (sizeof(To) > sizeof(From) && std::is_signed_v<From>)
    u = static_cast<u64>(static_cast<s64>(static_cast<From>(u)));
  at(t, i.d).u = u;
}
template <class To, class From>
void integer_to_float(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  From volatile const x = get<From>(a);
  put<To>(at(t, i.d), rounded<To>(i.mode, [&] { return static_cast<To>(From(x)); }), undefined<From>(a) != 0);
}

template <class T>
T to_integral(T x, u32 mode) {
  return (mode & mode_rz) != 0   ? std::trunc(x)
         : (mode & mode_rm) != 0 ? std::floor(x)
         : (mode & mode_rp) != 0 ? std::ceil(x)
                                 : std::nearbyint(x);
}
/// Saturates; a NaN becomes 0, or the sign bit alone in 64 bits.
template <class To, class From>
void float_to_integer(grid&, thread& t, instruction const& i) {
  using limits = std::numeric_limits<To>;
  reg const a = at(t, i.a);
  auto const x = static_cast<long double>(to_integral(flushed(get<From>(a), (i.mode & mode_ftz) != 0), i.mode));
  To y = 0;
  if (std::isnan(x)) {
    y = sizeof(To) == 8 ? static_cast<To>(u64{1} << 63) : To(0);
  } else if (x <= static_cast<long double>(limits::min())) {
    y = limits::min();
  } else if (x >= static_cast<long double>(limits::max())) {
    y = limits::max();
  } else {
    y = static_cast<To>(x);
  }
  put<To>(at(t, i.d), y, undefined<From>(a) != 0);
}
template <class To, class From>
void float_to_float(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  From volatile const x = flushed(get<From>(a), (i.mode & mode_ftz) != 0);
  To const y = rounded<To>(i.mode, [&] { return static_cast<To>(From(x)); });
  put<To>(at(t, i.d), finished(y, i.mode), undefined<From>(a) != 0);
}
/// cvt.rni.f32.f32 and the like.
template <class T>
void float_to_integral_float(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  T const x = to_integral(flushed(get<T>(a), (i.mode & mode_ftz) != 0), i.mode);
  put<T>(at(t, i.d), finished(x, i.mode), undefined<T>(a) != 0);
}

template <auto Op, class From>
void to_16_bits(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  put<u16>(at(t, i.d), Op(static_cast<double>(get<From>(a))), undefined<From>(a) != 0);
}
template <class To>
void from_half(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  put<To>(at(t, i.d), static_cast<To>(half_to_double(get<u16>(a))), undefined<u16>(a) != 0);
}
void from_bfloat16(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  put<float>(at(t, i.d), bfloat16_to_float(get<u16>(a)), undefined<u16>(a) != 0);
}
/// d, high, low
template <auto Op, int Bits>
void pair_of_floats_to(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b);
  u64 const mask = (u64{1} << Bits) - 1;
  at(t, i.d) = {u64{Op(get<float>(a))} << Bits | Op(get<float>(b)),
                (undefined<float>(a) != 0 ? mask << Bits : 0) | (undefined<float>(b) != 0 ? mask : 0)};
}
template <auto Op>
void pair_of_8_bits_to_half(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  u16 const x = get<u16>(a);
  at(t, i.d) = {u64{double_to_half(Op(static_cast<u8>(x >> 8)))} << 16 | double_to_half(Op(static_cast<u8>(x))),
                ((a.u & 0xFF00) != 0 ? u64{0xFFFF0000} : 0) | ((a.u & 0xFF) != 0 ? u64{0xFFFF} : 0)};
}

/// Types of 8 and 16 bits, alone and in pairs; false for others.
bool decode_narrow(instruction& i, instruction_text const& text, std::string const& to, std::string const& from) {
  bool const nearest = text.has("rn");
  if (from == "f32" && to == "e4m3x2") {
    i.execute = pair_of_floats_to<double_to_e4m3, 8>;
  } else if (from == "f32" && to == "e5m2x2") {
    i.execute = pair_of_floats_to<double_to_e5m2, 8>;
  } else if (from == "f32" && to == "bf16x2") {
    if (nearest) i.execute = pair_of_floats_to<double_to_bfloat16, 16>;
  } else if (from == "f32" && to == "f16x2") {
    if (nearest) i.execute = pair_of_floats_to<double_to_half, 16>;
  } else if (from == "e4m3x2" && to == "f16x2") {
    i.execute = pair_of_8_bits_to_half<e4m3_to_double>;
  } else if (from == "e5m2x2" && to == "f16x2") {
    i.execute = pair_of_8_bits_to_half<e5m2_to_double>;
  } else if (to == "f16") {
    if (nearest) with_type(from, [&]<class From>(From) { i.execute = to_16_bits<double_to_half, From>; });
  } else if (to == "bf16") {
    if (nearest) with_type(from, [&]<class From>(From) { i.execute = to_16_bits<double_to_bfloat16, From>; });
  } else if (from == "f16") {
    with_float(to, [&]<class To>(To) { i.execute = from_half<To>; });
  } else if (from == "bf16") {
    if (to == "f32") i.execute = from_bfloat16;
  } else {
    return false;
  }
  return true;
}

template <class To, class From>
handler conversion(bool to_integral_value) {
  if constexpr (std::is_integral_v<To> && std::is_integral_v<From>) {
    return integer_to_integer<To, From>;
  } else if constexpr (std::is_integral_v<To>) {
    return float_to_integer<To, From>;
  } else if constexpr (std::is_integral_v<From>) {
    return integer_to_float<To, From>;
  } else if constexpr (std::is_same_v<To, From>) {
    return to_integral_value ? float_to_integral_float<To> : float_to_float<To, From>;
  } else {
    return float_to_float<To, From>;
  }
}

}  // namespace

bool decode_conversion(instruction& i, instruction_text const& text) {
  if (text.name() != "cvt") return false;
  std::string const &to = text.parts.at(text.parts.size() - 2), &from = text.type();
  if (decode_narrow(i, text, to, from)) return true;
  bool const to_integral_value = text.has("rni") || text.has("rzi") || text.has("rmi") || text.has("rpi");
  with_type(to, [&]<class To>(To) {
    with_type(from, [&]<class From>(From) { i.execute = conversion<To, From>(to_integral_value); });
  });
  return true;
}

}  // namespace emulator
