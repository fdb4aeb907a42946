// ld, st, atom, red.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>

#include "instructions/decode.hpp"
#include "instructions/place.hpp"
#include "instructions/values.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

void load(grid& g, thread& t, instruction const& i) {
  std::size_t const n = i.width;
  place const p = accessed_place(g, t, i, n * i.count, false);
  for (std::size_t k = 0; k < i.count; ++k) {
    reg x{0, 0};
    std::memcpy(&x.v, p.bytes + k * n, n);
    for (std::size_t b = 0; b < n; ++b)
      if (!p.is_written(k * n + b)) x.u |= u64{0xFF} << 8 * b;
    if (i.sign && n < 8) {
      std::size_t const unused = 64 - 8 * n;
      x = {static_cast<u64>(static_cast<s64>(x.v << unused) >> unused),
           static_cast<u64>(static_cast<s64>(x.u << unused) >> unused)};
    }
    std::int32_t const d = i.list.empty() ? i.d : i.list[k];
    if (d >= 0) at(t, d) = x;
  }
}

void store(grid& g, thread& t, instruction const& i) {
  std::size_t const n = i.width;
  place const p = accessed_place(g, t, i, n * i.count, true);
  for (std::size_t k = 0; k < i.count; ++k) {
    reg const& x = at(t, i.list.empty() ? i.b : i.list[k]);
    std::memcpy(p.bytes + k * n, &x.v, n);
    for (std::size_t b = 0; b < n; ++b) p.mark(k * n + b, (x.u >> 8 * b & 0xFF) == 0);
  }
}

unsigned bytes_of(std::string const& type) {
  return static_cast<unsigned>(std::atoi(type.c_str() + (type.starts_with("bf") ? 2 : 1))) / 8;
}

enum class update { add, min, max, exchange, compare_and_swap, bit_and, bit_or, bit_xor, increment, decrement };
using enum update;

template <class T, update Op>
T updated(T old, T b, T c) {
  switch (Op) {
    case add:
      if constexpr (std::is_floating_point_v<T>)
        return old + b;
      else
        return static_cast<T>(static_cast<u64>(old) + static_cast<u64>(b));
    case min: return std::min(old, b);
    case max: return std::max(old, b);
    case exchange: return b;
    case compare_and_swap: return old == b ? c : old;
    default: break;
  }
  if constexpr (std::is_integral_v<T>) {
    switch (Op) {
      case bit_and: return old & b;
      case bit_or: return old | b;
      case bit_xor: return old ^ b;
      case increment: return old >= b ? T(0) : static_cast<T>(old + 1);
      default: return old == 0 || old > b ? b : static_cast<T>(old - 1);
    }
  }
  return old;
}

template <class T, update Op>
void atomic(grid& g, thread& t, instruction const& i) {
  place const p = accessed_place(g, t, i, sizeof(T), true);
  T old;
  std::memcpy(&old, p.bytes, sizeof old);
  bool is_undefined = false;
  for (std::size_t k = 0; k < sizeof(T); ++k) is_undefined |= !p.is_written(k);
  if (is_undefined && setting().undefined && Op != exchange) g.report(i, "an atomic operation on uninitialised memory");
  reg const b = at(t, i.b);
  T const x = updated<T, Op>(old, get<T>(b), Op == compare_and_swap ? get<T>(at(t, i.c)) : T{});
  std::memcpy(p.bytes, &x, sizeof x);
  for (std::size_t k = 0; k < sizeof(T); ++k) p.mark(k, undefined<T>(b) == 0);
  if (i.d >= 0) put<T>(at(t, i.d), old, is_undefined);
}

template <class T>
handler atomic_handler(instruction_text const& text) {
  if (text.has("add")) return atomic<T, add>;
  if (text.has("exch")) return atomic<T, exchange>;
  if constexpr (std::is_integral_v<T>) {
    if (text.has("min")) return atomic<T, min>;
    if (text.has("max")) return atomic<T, max>;
    if (text.has("cas")) return atomic<T, compare_and_swap>;
    if (text.has("and")) return atomic<T, bit_and>;
    if (text.has("or")) return atomic<T, bit_or>;
    if (text.has("xor")) return atomic<T, bit_xor>;
    if (text.has("inc")) return atomic<T, increment>;
    if (text.has("dec")) return atomic<T, decrement>;
  }
  return not_implemented;
}

}  // namespace

bool decode_memory_access(instruction& i, instruction_text const& text) {
  bool const is_load = text.name() == "ld" || text.name() == "ldu";
  if (!is_load && text.name() != "st") return false;
  operand const &address = text.operands.at(is_load ? 1 : 0), &data = text.operands.at(is_load ? 0 : 1);
  i.space = text.space();
  i.strong = text.has("volatile") || text.has("relaxed") || text.has("acquire") || text.has("release");
  i.width = static_cast<u8>(bytes_of(text.type()));
  i.count = text.has("v2") ? 2 : text.has("v4") ? 4 : text.has("v8") ? 8 : 1;
  i.sign = text.type()[0] == 's';
  i.a = address.reg;
  i.offset = address.offset;
  i.list = data.list;
  (is_load ? i.d : i.b) = data.reg;
  i.execute = is_load ? load : store;
  return true;
}

bool decode_atomic(instruction& i, instruction_text const& text) {
  bool const reduction = text.name() == "red";  // without a result
  if (!reduction && text.name() != "atom") return false;
  std::size_t const first = reduction ? 0 : 1;
  i.d = reduction ? -1 : text.reg(0);
  i.a = text.operands.at(first).reg;
  i.offset = text.operands[first].offset;
  i.b = text.reg(first + 1);
  i.c = text.reg(first + 2);
  i.strong = true;
  i.space = text.space();
  with_type(text.type(), [&]<class T>(T) { i.execute = atomic_handler<T>(text); });
  return true;
}

}  // namespace emulator
