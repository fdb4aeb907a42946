// mov, cvta, isspacep, selp.
#include <cstdlib>

#include "instructions/decode.hpp"
#include "instructions/values.hpp"

namespace emulator {
namespace {

template <class T>
void move(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  at(t, i.d) = {a.v & bits_of<T>, a.u & bits_of<T>};
}
void move_predicate(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  at(t, i.d) = {a.v & 1, a.u & 1};
}

u64 low_bits(unsigned n) { return n >= 64 ? all_bits : (u64{1} << n) - 1; }

/// d, {list}
void pack(grid&, thread& t, instruction const& i) {
  reg packed{0, 0};
  unsigned const width = 8U * i.width;
  for (std::size_t k = 0; k < i.list.size(); ++k) {
    reg const a = at(t, i.list[k]);
    packed.v |= (a.v & low_bits(width)) << k * width;
    packed.u |= (a.u & low_bits(width)) << k * width;
  }
  at(t, i.d) = packed;
}

/// {list}, a
void unpack(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  unsigned const width = 8U * i.width;
  for (std::size_t k = 0; k < i.list.size(); ++k)
    if (i.list[k] >= 0) at(t, i.list[k]) = {a.v >> k * width & low_bits(width), a.u >> k * width & low_bits(width)};
}

template <class T>
void select(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), b = at(t, i.b), p = at(t, i.c);
  reg const x = (p.v & 1) != 0 ? a : b;
  u64 const u = (p.u & 1) != 0 ? (a.v ^ b.v) | a.u | b.u : x.u;
  at(t, i.d) = {x.v & bits_of<T>, u & bits_of<T>};
}

void add_window(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), window = at(t, i.b);
  at(t, i.d) = {a.v | window.v, a.u};
}
void remove_window(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), window = at(t, i.b);
  at(t, i.d) = {a.v & ~(window.v != 0 ? window_mask : 0), a.u};
}
void is_in_window(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a), window = at(t, i.b);
  at(t, i.d) = {(a.v & window_mask) == window.v, a.u != 0};
}

u64 window_of(state_space space) {
  switch (space) {
    case state_space::shared: return shared_window;
    case state_space::local: return local_window;
    case state_space::param: return param_window;
    default: return 0;
  }
}

void decode_mov(instruction& i, instruction_text const& text) {
  auto const bytes = static_cast<std::size_t>(std::atoi(text.type().c_str() + 1)) / 8;
  auto const element_bytes = [&] { return static_cast<u8>(bytes / i.list.size()); };
  if (!text.operands.at(0).list.empty()) {
    i.list = text.operands[0].list;
    i.width = element_bytes();
    i.execute = unpack;
  } else if (!text.operands.at(1).list.empty()) {
    i.list = text.operands[1].list;
    i.width = element_bytes();
    i.execute = pack;
  } else if (text.type() == "pred") {
    i.execute = move_predicate;
  } else {
    with_type(text.type(), [&]<class T>(T) { i.execute = move<T>; });
  }
}

}  // namespace

bool decode_move(instruction& i, instruction_text const& text) {
  if (text.name() == "mov") {
    decode_mov(i, text);
  } else if (text.name() == "cvta") {
    i.b = text.body.constant(window_of(text.space()));
    i.execute = text.has("to") ? remove_window : add_window;
  } else if (text.name() == "isspacep") {
    i.b = text.body.constant(window_of(text.space()));
    i.execute = is_in_window;
  } else if (text.name() == "selp") {
    bool const is_16 = text.type() == "f16" || text.type() == "bf16";
    with_type(is_16 ? "b16" : text.type(), [&]<class T>(T) { i.execute = select<T>; });
  } else {
    return false;
  }
  return true;
}

}  // namespace emulator
