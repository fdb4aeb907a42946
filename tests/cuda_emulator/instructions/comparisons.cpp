// setp, set, testp.
#include <cmath>
#include <map>
#include <string>

#include "instructions/decode.hpp"
#include "instructions/floats.hpp"
#include "instructions/values.hpp"

namespace emulator {
namespace {

enum class relation { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };
using enum relation;

template <relation R, class T>
bool ordered_holds(T a, T b) {
  switch (R) {
    case eq:
    case equ: return a == b;
    case ne:
    case neu: return a != b;
    case lt:
    case ltu: return a < b;
    case le:
    case leu: return a <= b;
    case gt:
    case gtu: return a > b;
    case ge:
    case geu: return a >= b;
    case num: return true;
    default: return false;
  }
}

template <relation R, class T>
bool holds(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    if (std::isnan(a) || std::isnan(b)) return R >= equ && R != num;  // unordered
  return ordered_holds<R>(a, b);
}

/// Of setp, how the comparison is combined with a third predicate: instruction::width.
enum combination : u8 { alone, with_and, with_or, with_xor };

bool combined(u8 how, bool x, bool p) { return how == with_and ? x && p : how == with_or ? x || p : x != p; }

template <class T, relation R>
void set_predicate(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b);
  bool const ftz = (i.mode & mode_ftz) != 0;
  bool x = holds<R>(flushed(get<T>(a), ftz), flushed(get<T>(b), ftz)), opposite = !x;
  u64 u = (undefined<T>(a) | undefined<T>(b)) != 0;
  // A defined bit that differs decides equality, whatever the others are.
  if constexpr (!std::is_floating_point_v<T> && (R == eq || R == ne)) {
    if (u != 0 && ((a.v ^ b.v) & ~a.u & ~b.u & bits_of<T>) != 0) {
      u = 0;
      x = R == ne;
      opposite = !x;
    }
  }
  if (i.width != alone) {
    reg const c = at(t, i.c);
    bool const p = ((c.v & 1) != 0) != i.sign;
    x = combined(i.width, x, p);
    opposite = combined(i.width, opposite, p);
    bool const decides = (c.u & 1) == 0 && ((i.width == with_and && !p) || (i.width == with_or && p));
    u = decides ? 0 : u | (c.u & 1);
  }
  if (i.d >= 0) at(t, i.d) = {x, u};
  if (i.d2 >= 0) at(t, i.d2) = {opposite, u};
}

template <class T, relation R, class Result>
void set_value(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b);
  bool const ftz = (i.mode & mode_ftz) != 0;
  bool const x = holds<R>(flushed(get<T>(a), ftz), flushed(get<T>(b), ftz));
  Result const yes = std::is_floating_point_v<Result> ? Result(1) : static_cast<Result>(all_bits);
  put<Result>(at(t, i.d), x ? yes : Result(0), (undefined<T>(a) | undefined<T>(b)) != 0);
}

/// f.operator()<R>() for the relation of that name.
template <class F>
void with_relation(relation r, F f) {
  switch (r) {
    case eq: return f.template operator()<eq>();
    case ne: return f.template operator()<ne>();
    case lt: return f.template operator()<lt>();
    case le: return f.template operator()<le>();
    case gt: return f.template operator()<gt>();
    case ge: return f.template operator()<ge>();
    case equ: return f.template operator()<equ>();
    case neu: return f.template operator()<neu>();
    case ltu: return f.template operator()<ltu>();
    case leu: return f.template operator()<leu>();
    case gtu: return f.template operator()<gtu>();
    case geu: return f.template operator()<geu>();
    case num: return f.template operator()<num>();
    case nan: return f.template operator()<nan>();
  }
}

void decode_set(instruction& i, instruction_text const& text) {
  static std::map<std::string, relation> const names{
      {"eq", eq},   {"ne", ne},   {"lt", lt},   {"le", le},   {"gt", gt},   {"ge", ge},
      {"lo", lt},   {"ls", le},   {"hi", gt},   {"hs", ge},   {"equ", equ}, {"neu", neu},
      {"ltu", ltu}, {"leu", leu}, {"gtu", gtu}, {"geu", geu}, {"num", num}, {"nan", nan}};
  auto const found = names.find(text.parts.at(1));
  if (found == names.end()) return;
  i.d2 = text.operands.at(0).second;
  i.width = text.has("and") ? with_and : text.has("or") ? with_or : text.has("xor") ? with_xor : alone;
  i.sign = i.c <= -3;  // the third predicate is negated
  if (i.sign) i.c = -3 - i.c;
  with_type(text.type(), [&]<class T>(T) {
    with_relation(found->second, [&]<relation R>() {
      if (text.name() == "setp") {
        i.execute = set_predicate<T, R>;
      } else if (i.width == alone) {
        with_type(text.parts[text.parts.size() - 2],
                  [&]<class Result>(Result) { i.execute = set_value<T, R, Result>; });
      }
    });
  });
}

template <class T>
void decode_testp(instruction& i, instruction_text const& text) {
  if (text.has("finite")) i.execute = unary<bool, T, [](T x) { return std::isfinite(x); }>;
  if (text.has("infinite")) i.execute = unary<bool, T, [](T x) { return std::isinf(x); }>;
  if (text.has("notanumber")) i.execute = unary<bool, T, [](T x) { return std::isnan(x); }>;
}

}  // namespace

bool decode_comparison(instruction& i, instruction_text const& text) {
  if (text.name() == "setp" || text.name() == "set") {
    decode_set(i, text);
  } else if (text.name() == "testp") {
    with_float(text.type(), [&]<class T>(T) { decode_testp<T>(i, text); });
  } else {
    return false;
  }
  return true;
}

}  // namespace emulator
