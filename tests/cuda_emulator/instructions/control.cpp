// Branches, calls, barriers, and what has no effect here.
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "execution/memory.hpp"
#include "instructions/decode.hpp"
#include "instructions/values.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

void branch(grid&, thread& t, instruction const& i) { t.pc = static_cast<u32>(i.offset); }
void branch_through_table(grid& g, thread& t, instruction const& i) {
  if (setting().undefined && undefined<u32>(at(t, i.a)) != 0) g.report(i, "a branch depends on uninitialised memory");
  u32 const k = get<u32>(at(t, i.a));
  if (k >= i.list.size()) g.fail(t, i, "brx.idx behind its table");
  t.pc = static_cast<u32>(i.list[k]);
}
void end_thread(grid&, thread& t, instruction const&) { t.status = thread_status::exited; }
void trap(grid& g, thread& t, instruction const& i) { g.fail(t, i, "trap"); }
void do_nothing(grid&, thread&, instruction const&) {}

void wait_at_barrier(grid&, thread& t, instruction const& i) {
  t.status = thread_status::at_barrier;
  t.waiting = &i;
}

std::vector<call_arguments>& calls() {
  static std::vector<call_arguments> all;
  return all;
}

/// With what of it is written.
void copy_parameter(thread& to, std::size_t at, thread const& from, std::size_t place, std::size_t bytes) {
  std::memcpy(to.param.data() + at, from.param.data() + place, bytes);
  std::memcpy(to.param_shadow.data() + at, from.param_shadow.data() + place, bytes);
}

/// Functions that are called are leaves without barriers: each runs to its end at once, on registers of its own.
void call(grid& g, thread& t, instruction const& i) {
  call_arguments const& c = calls()[i.mode];
  auto const found = c.module->functions.find(c.callee);
  if (found == c.module->functions.end()) g.fail(t, i, "a call of what is not there: " + c.callee);
  function const& f = *found->second;
  thread callee;
  callee.r = f.initial;
  callee.index = t.index;
  callee.epoch = t.epoch;
  callee.warp_epoch = t.warp_epoch;
  callee.local.resize(f.local_bytes);
  callee.local_shadow.assign(f.local_bytes, device_memory::unwritten);
  callee.param.resize(f.parameter_bytes);
  callee.param_shadow.assign(f.parameter_bytes, device_memory::unwritten);
  std::size_t const results = c.results.size();
  for (std::size_t k = 0; k < c.arguments.size(); ++k) {
    parameter const& p = f.parameters.at(results + k);
    copy_parameter(callee, p.offset, t, c.arguments[k], p.size);
  }
  while (callee.status == thread_status::running) {
    instruction const& x = f.code[callee.pc++];
    ++g.steps;
    if (x.guard < 0 || is_taken(g, callee, x)) x.execute(g, callee, x);
  }
  if (callee.status != thread_status::exited) g.fail(t, i, "a call of a function with barriers: " + c.callee);
  for (std::size_t k = 0; k < results; ++k)
    copy_parameter(t, c.results[k], callee, f.parameters[k].offset, f.parameters[k].size);
}

void decode_barrier(instruction& i, instruction_text const& text) {
  if (text.has("arrive")) return;
  if (text.has("red")) {  // d, barrier [, threads], predicate
    i.width = text.has("popc") ? 3 : text.has("and") ? 1 : 2;
    i.c = text.reg(text.operands.size() == 4 ? 3 : 2);
    i.sign = i.c <= -3;  // the predicate is negated
    if (i.sign) i.c = -3 - i.c;
  }
  i.execute = wait_at_barrier;
}

bool has_no_effect(std::string const& name) {
  for (char const* const n : {"nanosleep", "membar", "fence", "prefetch", "prefetchu", "pmevent", "griddepcontrol",
                              "discard", "applypriority"})
    if (name == n) return true;
  return false;
}

}  // namespace

void decode_call(instruction& i, call_arguments arguments) {
  i.mode = static_cast<u32>(calls().size());
  calls().push_back(std::move(arguments));
  i.execute = call;
}

bool decode_control(instruction& i, instruction_text const& text) {
  std::string const& name = text.name();
  if (name == "bra") {
    i.execute = branch;
  } else if (name == "brx") {
    i.a = text.reg(0);
    i.execute = branch_through_table;
  } else if (name == "ret" || name == "exit") {
    i.execute = end_thread;
  } else if (name == "trap") {
    i.execute = trap;
  } else if (has_no_effect(name)) {
    i.execute = do_nothing;
  } else if ((name == "bar" || name == "barrier") && !text.has("warp")) {
    decode_barrier(i, text);
  } else {
    return false;
  }
  return true;
}

}  // namespace emulator
