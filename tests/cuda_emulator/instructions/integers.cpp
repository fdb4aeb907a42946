// Integer arithmetic. What is floating point is left to the other file.
#include <algorithm>
#include <type_traits>

#include "instructions/decode.hpp"
#include "instructions/values.hpp"

namespace emulator {
namespace {

/// Twice as wide, for a product.
template <class T>
using wide = std::conditional_t<std::is_signed_v<T>, std::conditional_t<sizeof(T) == 2, s32, s64>,
                                std::conditional_t<sizeof(T) == 2, u32, u64>>;
template <class T>
using widest = std::conditional_t<std::is_signed_v<T>, s128, u128>;

template <class T>
T high_half(T a, T b) {
  return static_cast<T>((static_cast<widest<T>>(a) * static_cast<widest<T>>(b)) >> (8 * sizeof(T)));
}
template <class T>
T divided(T a, T b) {
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(a));
  return b == 0 ? static_cast<T>(-1) : static_cast<T>(a / b);
}
template <class T>
T remainder(T a, T b) {
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return T(0);
  return b == 0 ? a : static_cast<T>(a % b);
}
template <class T>
T magnitude(T a) {
  using U = std::make_unsigned_t<T>;
  if constexpr (std::is_signed_v<T>)
    if (a < 0) return static_cast<T>(static_cast<U>(0 - static_cast<U>(a)));
  return a;
}

// Arithmetic of several words: In and Out say whether the carry is read and written.
template <class T, bool In, bool Out>
void add_carry(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b);
  u128 const sum = static_cast<u128>(get<T>(a)) + get<T>(b) + (In ? t.carry : 0);
  if (Out) t.carry = static_cast<u32>(sum >> 8 * sizeof(T)) & 1;
  put<T>(at(t, i.d), static_cast<T>(sum), (undefined<T>(a) | undefined<T>(b)) != 0);
}
template <class T, bool In, bool Out>
void subtract_borrow(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b);
  u128 const difference = static_cast<u128>(get<T>(a)) - get<T>(b) - (In ? t.carry : 0);
  if (Out) t.carry = static_cast<u32>(difference >> 8 * sizeof(T)) & 1;
  put<T>(at(t, i.d), static_cast<T>(difference), (undefined<T>(a) | undefined<T>(b)) != 0);
}
template <class T, bool High, bool In, bool Out>
void multiply_add_carry(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b), c = at(t, i.c);
  u128 const product = static_cast<u128>(get<T>(a)) * get<T>(b);
  T const half = static_cast<T>(High ? product >> 8 * sizeof(T) : product);
  u128 const sum = static_cast<u128>(half) + get<T>(c) + (In ? t.carry : 0);
  if (Out) t.carry = static_cast<u32>(sum >> 8 * sizeof(T)) & 1;
  put<T>(at(t, i.d), static_cast<T>(sum), (undefined<T>(a) | undefined<T>(b) | undefined<T>(c)) != 0);
}

template <class U, bool In, bool Out>
handler carry_handler(instruction_text const& text, bool is_signed) {
  bool const high = text.has("hi");
  switch (text.name()[0]) {
    case 'a': return add_carry<U, In, Out>;
    case 's': return subtract_borrow<U, In, Out>;
    default:
      if (high && is_signed) return not_implemented;
      return high ? multiply_add_carry<U, true, In, Out> : multiply_add_carry<U, false, In, Out>;
  }
}

bool decode_carry(instruction& i, instruction_text const& text) {
  std::string const& name = text.name();
  bool const in = name == "addc" || name == "subc" || name == "madc", out = text.has("cc");
  if (!in && !out) return false;
  with_integer(text.type(), [&]<class T>(T) {
    using U = std::make_unsigned_t<T>;
    constexpr bool is_signed = std::is_signed_v<T>;
    if constexpr (sizeof(T) >= 4) {
      i.execute = in && out ? carry_handler<U, true, true>(text, is_signed)
                  : in      ? carry_handler<U, true, false>(text, is_signed)
                            : carry_handler<U, false, true>(text, is_signed);
    }
  });
  return true;
}

template <class T>
handler product_handler(instruction_text const& text) {
  using U = std::make_unsigned_t<T>;
  if (text.has("hi")) return binary<T, T, T, [](T a, T b) { return high_half(a, b); }>;
  if (!text.has("wide"))
    return binary<T, U, U, [](U a, U b) { return static_cast<T>(static_cast<U>(static_cast<u64>(a) * b)); }>;
  if constexpr (sizeof(T) < 8) {
    using W = wide<T>;
    return binary<W, T, T, [](T a, T b) { return static_cast<W>(static_cast<W>(a) * static_cast<W>(b)); }>;
  }
  return not_implemented;
}
template <class T>
handler product_sum_handler(instruction_text const& text) {
  using U = std::make_unsigned_t<T>;
  if (text.has("hi")) return ternary<T, T, T, [](T a, T b, T c) { return static_cast<T>(high_half(a, b) + c); }>;
  if (!text.has("wide"))
    return ternary<T, U, U, [](U a, U b, U c) { return static_cast<T>(static_cast<U>(static_cast<u64>(a) * b + c)); }>;
  if constexpr (sizeof(T) < 8) {
    using W = wide<T>;
    return ternary<W, T, W, [](T a, T b, W c) {
      auto const product = static_cast<u64>(static_cast<W>(a) * static_cast<W>(b));
      return static_cast<W>(product + static_cast<u64>(c));
    }>;
  }
  return not_implemented;
}

template <class T>
bool decode_arithmetic(instruction& i, instruction_text const& text) {
  using U = std::make_unsigned_t<T>;
  std::string const& name = text.name();
  if (name == "add" || name == "sub") {
    if ((i.mode & mode_sat) != 0) return true;
    i.execute = name == "add" ? binary<T, U, U, [](U a, U b) { return static_cast<T>(static_cast<U>(a + b)); }>
                              : binary<T, U, U, [](U a, U b) { return static_cast<T>(static_cast<U>(a - b)); }>;
  } else if (name == "mul") {
    i.execute = product_handler<T>(text);
  } else if (name == "mad") {
    i.execute = product_sum_handler<T>(text);
  } else if (name == "div") {
    i.execute = binary<T, T, T, [](T a, T b) { return divided(a, b); }>;
  } else if (name == "rem") {
    i.execute = binary<T, T, T, [](T a, T b) { return remainder(a, b); }>;
  } else if (name == "min") {
    i.execute = binary<T, T, T, [](T a, T b) { return std::min(a, b); }>;
  } else if (name == "max") {
    i.execute = binary<T, T, T, [](T a, T b) { return std::max(a, b); }>;
  } else if (name == "neg") {
    i.execute = unary<T, U, [](U a) { return static_cast<T>(static_cast<U>(0 - a)); }>;
  } else if (name == "abs") {
    i.execute = unary<T, T, [](T a) { return magnitude(a); }>;
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool decode_integer(instruction& i, instruction_text const& text) {
  if (decode_carry(i, text)) return true;
  bool found = false;
  with_integer(text.type(), [&]<class T>(T) { found = decode_arithmetic<T>(i, text); });
  return found;
}

}  // namespace emulator
