#include "instructions/groups.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "instructions/decode.hpp"
#include "instructions/values.hpp"

namespace emulator {
namespace {

constexpr u64 low_32 = 0xFFFFFFFF;

/// What instruction::width says of an instruction of warps.
enum kind : u8 {
  sync,
  shuffle_up,
  shuffle_down,
  shuffle_xor,
  shuffle_index,
  vote_ballot,
  vote_all,
  vote_any,
  vote_uniform,
  match_any,
  match_all,
  reduce
};
/// What instruction::mode says of redux.
enum reduction : u32 { add, min, max, bit_and, bit_or, bit_xor };

struct result {
  u64 v = 0, u = 0, predicate = 0;
};

/// The lanes that take part.
struct group {
  std::span<thread> warp;
  u32 mask;
  instruction const& i;

  bool has(u32 lane) const {
    return lane < warp.size() && (mask >> lane & 1) != 0 && warp[lane].status == thread_status::at_warp;
  }
  reg value(u32 lane, std::int32_t r) const { return at(warp[lane], r); }
  template <class F>
  void for_each(F f) const {
    for (u32 lane = 0; lane < warp_size; ++lane)
      if (has(lane)) f(lane);
  }
};

/// a: the value; b: the lane; c: the clamp, and above it the mask of segments.
result shuffled(group const& g, u32 lane) {
  u32 const b = get<u32>(g.value(lane, g.i.b)) & 31, c = get<u32>(g.value(lane, g.i.c));
  u32 const clamp = c & 31, segment = c >> 8 & 31;
  auto const last = static_cast<s32>((lane & segment) | (clamp & ~segment)), self = static_cast<s32>(lane);
  s32 from = 0;
  switch (g.i.width) {
    case shuffle_up: from = self - static_cast<s32>(b); break;
    case shuffle_down: from = self + static_cast<s32>(b); break;
    case shuffle_xor: from = static_cast<s32>(lane ^ b); break;
    default: from = static_cast<s32>((lane & segment) | (b & ~segment));
  }
  bool const inside = g.i.width == shuffle_up ? from >= last : from <= last;
  auto const source = static_cast<u32>(inside ? from : self);
  result x{.v = 0, .u = low_32, .predicate = inside};  // of a lane that takes no part: anything
  if (g.has(source)) {
    reg const a = g.value(source, g.i.a);
    x.v = a.v & low_32;
    x.u = a.u & low_32;
  }
  if ((g.value(lane, g.i.b).u & 31) != 0) x.u = low_32;
  return x;
}

result voted(group const& g) {
  u64 ballot = 0, u = 0, lanes = 0;
  g.for_each([&](u32 k) {
    reg const a = g.value(k, g.i.a);
    ++lanes;
    ballot |= u64{((a.v & 1) != 0) != g.i.sign} << k;
    u |= (a.u & 1) << k;
  });
  auto const yes = static_cast<u64>(std::popcount(ballot));
  switch (g.i.width) {
    case vote_ballot: return {.v = ballot, .u = u};
    case vote_all: return {.v = yes == lanes, .u = u != 0};
    case vote_any: return {.v = yes > 0, .u = u != 0};
    default: return {.v = yes == 0 || yes == lanes, .u = u != 0};
  }
}

result matched(group const& g, u32 lane) {
  u64 const bits = g.i.offset == 8 ? all_bits : low_32;
  result x{.predicate = 1};
  g.for_each([&](u32 k) {
    reg const a = g.value(k, g.i.a);
    if ((a.v & bits) == (g.value(lane, g.i.a).v & bits)) {
      x.v |= u64{1} << k;
    } else {
      x.predicate = 0;
    }
    if ((a.u & bits) != 0) x.u = all_bits;
  });
  if (g.i.width == match_all && x.predicate == 0) x.v = 0;
  return x;
}

u32 reduced_pair(u32 x, u32 y, instruction const& i) {
  auto const signed_x = static_cast<s32>(x), signed_y = static_cast<s32>(y);
  switch (i.mode) {
    case add: return x + y;
    case min: return i.sign ? static_cast<u32>(std::min(signed_x, signed_y)) : std::min(x, y);
    case max: return i.sign ? static_cast<u32>(std::max(signed_x, signed_y)) : std::max(x, y);
    case bit_and: return x & y;
    case bit_or: return x | y;
    default: return x ^ y;
  }
}
result reduced(group const& g) {
  result x;
  bool first = true;
  g.for_each([&](u32 k) {
    reg const a = g.value(k, g.i.a);
    x.v = first ? get<u32>(a) : reduced_pair(static_cast<u32>(x.v), get<u32>(a), g.i);
    x.u |= a.u & low_32;
    first = false;
  });
  return x;
}

result result_of(group const& g, u32 lane) {
  switch (g.i.width) {
    case shuffle_up:
    case shuffle_down:
    case shuffle_xor:
    case shuffle_index: return shuffled(g, lane);
    case match_any:
    case match_all: return matched(g, lane);
    case reduce: return reduced(g);
    default: return voted(g);
  }
}

void wait_for_warp(grid&, thread& t, instruction const& i) {
  t.status = thread_status::at_warp;
  t.waiting = &i;
}
/// Threads run one by one: nobody else is active.
void active_mask(grid&, thread& t, instruction const& i) { at(t, i.d) = {u64{1} << t.index % warp_size, 0}; }

void decode_with_mask(instruction& i, instruction_text const& text) {
  std::string const& name = text.name();
  i.execute = wait_for_warp;
  i.d2 = text.operands.at(0).second;
  if (name == "shfl") {
    i.width = text.has("up")     ? shuffle_up
              : text.has("down") ? shuffle_down
              : text.has("bfly") ? shuffle_xor
                                 : shuffle_index;
  } else if (name == "vote") {
    i.width = text.has("ballot") ? vote_ballot : text.has("all") ? vote_all : text.has("any") ? vote_any : vote_uniform;
    i.sign = i.a <= -3;  // the predicate is negated
    if (i.sign) i.a = -3 - i.a;
  } else if (name == "match") {
    i.width = text.has("any") ? match_any : match_all;
    i.offset = text.type() == "b64" ? 8 : 4;
  } else {
    i.width = reduce;
    i.mode = text.has("add")   ? add
             : text.has("min") ? min
             : text.has("max") ? max
             : text.has("and") ? bit_and
             : text.has("or")  ? bit_or
                               : bit_xor;
    i.sign = text.type() == "s32";
  }
}

}  // namespace

std::int32_t mask_register(instruction const& i) {
  if (i.width == sync) return i.a;
  return i.width <= shuffle_index ? i.e : i.b;
}

void complete_warp(std::span<thread> warp, u32 mask, instruction const& i) {
  group const g{warp, mask, i};
  if (i.width == sync) {
    g.for_each([&](u32 lane) { ++warp[lane].warp_epoch; });
    return;
  }
  std::array<result, warp_size> results;
  g.for_each([&](u32 lane) { results[lane] = result_of(g, lane); });
  g.for_each([&](u32 lane) {
    if (i.d >= 0) at(warp[lane], i.d) = {results[lane].v & low_32, results[lane].u};
    if (i.d2 >= 0) at(warp[lane], i.d2) = {results[lane].predicate, 0};
  });
}

void complete_barrier(std::vector<thread>& threads, instruction const& i) {
  if (i.width == 0) return;
  u64 yes = 0, all = 0, u = 0;
  for (auto const& t : threads) {
    if (t.status != thread_status::at_barrier) continue;
    reg const predicate = t.r[static_cast<std::size_t>(i.c)];
    ++all;
    yes += ((predicate.v & 1) != 0) != i.sign;
    u |= predicate.u & 1;
  }
  u64 const v = i.width == 3 ? yes : i.width == 1 ? yes == all : yes > 0;
  for (auto& t : threads)
    if (t.status == thread_status::at_barrier) at(t, i.d) = {v, u};
}

bool decode_group(instruction& i, instruction_text const& text) {
  std::string const& name = text.name();
  if (name == "activemask") {
    i.execute = active_mask;
  } else if ((name == "bar" || name == "barrier") && text.has("warp")) {
    i.width = sync;
    i.mode = 0;
    i.a = text.reg(0);
    i.execute = wait_for_warp;
  } else if (name == "shfl" || name == "vote" || name == "match" || name == "redux") {
    if (text.has("sync")) decode_with_mask(i, text);
  } else {
    return false;
  }
  return true;
}

}  // namespace emulator
