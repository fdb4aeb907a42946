// Logic, shifts and bit fields. They know which bits of a result depend on undefined ones.
#include <algorithm>
#include <bit>
#include <type_traits>

#include "instructions/decode.hpp"
#include "instructions/values.hpp"

namespace emulator {
namespace {

constexpr u64 low_32 = 0xFFFFFFFF;

void bitwise_and(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b);
  u64 const decided = (~a.v & ~a.u) | (~b.v & ~b.u);
  at(t, i.d) = {a.v & b.v, (a.u | b.u) & ~decided};
}
void bitwise_or(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b);
  u64 const decided = (a.v & ~a.u) | (b.v & ~b.u);
  at(t, i.d) = {a.v | b.v, (a.u | b.u) & ~decided};
}
void bitwise_xor(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b);
  at(t, i.d) = {a.v ^ b.v, a.u | b.u};
}
template <class T>
void bitwise_not(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  at(t, i.d) = {~a.v & bits_of<T>, a.u & bits_of<T>};
}
void not_predicate(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  at(t, i.d) = {(a.v & 1) ^ 1, a.u & 1};
}

/// Any function of three bits, from its table of truth.
void logic_of_three(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b), c = at(t, i.c);
  u64 const table = at(t, i.e).v;
  u64 x = 0;
  for (unsigned k = 0; k < 8; ++k)
    if ((table >> k & 1) != 0)
      x |= ((k & 4) != 0 ? a.v : ~a.v) & ((k & 2) != 0 ? b.v : ~b.v) & ((k & 1) != 0 ? c.v : ~c.v);
  at(t, i.d) = {x & low_32, (a.u | b.u | c.u) & low_32};
}

template <class T>
void shift_left(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b);
  u32 const n = get<u32>(b);
  bool const out = n >= 8 * sizeof(T);
  u64 const u = undefined<u32>(b) != 0 ? all_bits : out ? 0 : (a.u << n) & bits_of<T>;
  at(t, i.d) = {out ? 0 : (a.v << n) & bits_of<T>, u};
}
template <class T>
void shift_right(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b);
  constexpr u32 width = 8 * sizeof(T);
  u32 const n = get<u32>(b);
  if constexpr (std::is_signed_v<T>) {
    u32 const most = std::min(n, width - 1);
    put<T>(at(t, i.d), static_cast<T>(get<T>(a) >> most), false);
    auto const u = static_cast<s64>(static_cast<T>(a.u & bits_of<T>));
    at(t, i.d).u = undefined<u32>(b) != 0 ? all_bits : static_cast<u64>(u >> most);
  } else {
    bool const out = n >= width;
    u64 const u = undefined<u32>(b) != 0 ? all_bits : out ? 0 : (a.u & bits_of<T>) >> n;
    at(t, i.d) = {out ? 0 : (a.v & bits_of<T>) >> n, u};
  }
}
/// 32 bits of two registers side by side.
template <bool Left, bool Wrap>
void funnel_shift(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b), c = at(t, i.c);
  u32 const n = Wrap ? get<u32>(c) & 31 : std::min(get<u32>(c), 32U);
  auto const shifted = [&](u64 low, u64 high) {
    u64 const x = (low & low_32) | high << 32;
    return (Left ? (x << n) >> 32 : x >> n) & low_32;
  };
  at(t, i.d) = {shifted(a.v, b.v), undefined<u32>(c) != 0 ? all_bits : shifted(a.u, b.u)};
}

/// Each byte is one of eight, or copies of its highest bit.
void permute_bytes(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b), c = at(t, i.c);
  auto const permuted = [&](u64 x) {
    u64 result = 0;
    for (unsigned k = 0; k < 4; ++k) {
      u64 const selector = c.v >> 4 * k & 15, byte = x >> 8 * (selector & 7) & 0xFF;
      result |= ((selector & 8) == 0 ? byte : (byte & 0x80) != 0 ? 0xFF : 0) << 8 * k;
    }
    return result;
  };
  u64 const u = undefined<u32>(c) != 0 ? low_32 : permuted((a.u & low_32) | b.u << 32);
  at(t, i.d) = {permuted((a.v & low_32) | b.v << 32), u};
}

template <class T>
void extract_field(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b), c = at(t, i.c);
  constexpr unsigned width = 8 * sizeof(T);
  unsigned const first = get<u32>(b) & 0xFF, n = get<u32>(c) & 0xFF;
  T const x = get<T>(a);
  auto const bit = [&](unsigned k) {
    if (k < width) return static_cast<u64>(x) >> k & 1;
    return std::is_signed_v<T> ? static_cast<u64>(x) >> (width - 1) & 1 : u64{0};
  };
  u64 const sign = std::is_signed_v<T> && n > 0 ? bit(std::min(first + n - 1, width - 1)) : 0;
  u64 field = 0;
  for (unsigned k = 0; k < width; ++k) field |= (k < n ? bit(first + k) : sign) << k;
  at(t, i.d) = {field & bits_of<T>, (undefined<T>(a) | undefined<u32>(b) | undefined<u32>(c)) != 0 ? all_bits : 0};
}
/// a into b.
template <class T>
void insert_field(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b), c = at(t, i.c), e = at(t, i.e);
  constexpr unsigned width = 8 * sizeof(T);
  unsigned const first = get<u32>(c) & 0xFF, n = get<u32>(e) & 0xFF;
  u64 mask = 0;
  for (unsigned k = 0; k < n && first + k < width; ++k) mask |= u64{1} << (first + k);
  auto const inserted = [&](u64 from, u64 to) {
    return first < 64 ? ((to & ~mask) | (from << first & mask)) & bits_of<T> : to & bits_of<T>;
  };
  at(t, i.d) = {inserted(a.v, b.v), (undefined<u32>(c) | undefined<u32>(e)) != 0 ? all_bits : inserted(a.u, b.u)};
}

template <class U>
U reversed(U x) {
  U y = 0;
  for (unsigned k = 0; k < 8 * sizeof(U); ++k)
    if ((x >> k & 1) != 0) y |= static_cast<U>(U{1} << (8 * sizeof(U) - 1 - k));
  return y;
}
template <class U>
u32 highest_bit(U x) {
  return x == 0 ? ~u32{0} : static_cast<u32>(std::bit_width(x) - 1);
}

template <class T>
handler shift_right_of(std::string const& type) {
  return type[0] == 'b' ? shift_right<std::make_unsigned_t<T>> : shift_right<T>;
}

template <class T>
void decode_integer_bits(instruction& i, instruction_text const& text) {
  using U = std::make_unsigned_t<T>;
  std::string const& name = text.name();
  if (name == "not") i.execute = bitwise_not<T>;
  if (name == "shl") i.execute = shift_left<U>;
  if (name == "shr") i.execute = shift_right_of<T>(text.type());
  if (name == "bfe") i.execute = extract_field<T>;
  if (name == "bfi") i.execute = insert_field<U>;
  if (name == "popc") i.execute = unary<u32, U, [](U x) { return std::popcount(x); }>;
  if (name == "clz") i.execute = unary<u32, U, [](U x) { return std::countl_zero(x); }>;
  if (name == "brev") i.execute = unary<U, U, [](U x) { return reversed(x); }>;
  if (name == "bfind" && !text.has("shiftamt") && !std::is_signed_v<T>)
    i.execute = unary<u32, U, [](U x) { return highest_bit(x); }>;
}

void decode_funnel_shift(instruction& i, instruction_text const& text) {
  bool const wrap = text.has("wrap");
  if (text.has("l")) {
    i.execute = wrap ? funnel_shift<true, true> : funnel_shift<true, false>;
  } else {
    i.execute = wrap ? funnel_shift<false, true> : funnel_shift<false, false>;
  }
}

}  // namespace

bool decode_bits(instruction& i, instruction_text const& text) {
  std::string const& name = text.name();
  auto const is = [&](auto... names) { return ((name == names) || ...); };
  if (is("and")) {
    i.execute = bitwise_and;
  } else if (is("or")) {
    i.execute = bitwise_or;
  } else if (is("xor")) {
    i.execute = bitwise_xor;
  } else if (is("not") && text.type() == "pred") {
    i.execute = not_predicate;
  } else if (is("lop3")) {
    if (text.parts.size() == 2) i.execute = logic_of_three;
  } else if (is("shf")) {
    decode_funnel_shift(i, text);
  } else if (is("prmt")) {
    if (text.parts.size() == 2) i.execute = permute_bytes;
  } else if (is("not", "shl", "shr", "bfe", "bfi", "popc", "clz", "brev", "bfind")) {
    with_integer(text.type(), [&]<class T>(T) { decode_integer_bits<T>(i, text); });
  } else {
    return false;
  }
  return true;
}

}  // namespace emulator
