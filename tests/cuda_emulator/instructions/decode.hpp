/// @file
/// From the text of an instruction to the handler that executes it. Each family of instructions has a file here.
/// Written from NVIDIA's PTX ISA document, version 9.0.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ptx/function_body.hpp"
#include "ptx/instruction.hpp"

namespace emulator {

/// Fills in the handler and what it needs; an instruction that is not implemented gets `not_implemented`.
void decode(instruction& i, std::string const& opcode, std::vector<operand> const& operands, function_body& body);

/// Ends the launch with a report.
void not_implemented(grid& g, thread& t, instruction const& i);

/// Arguments and results are places in the caller's parameter space.
struct call_arguments {
  ptx_module const* module = nullptr;
  std::string callee;
  std::vector<std::uint64_t> results, arguments;
};
void decode_call(instruction& i, call_arguments call);

/// An instruction as it is written: mad.lo.s32 has the parts mad, lo and s32.
struct instruction_text {
  std::vector<std::string> parts;
  std::vector<operand> const& operands;
  function_body& body;

  std::string const& name() const { return parts.front(); }
  std::string const& type() const { return parts.back(); }
  bool has(char const* modifier) const { return std::find(parts.begin() + 1, parts.end(), modifier) != parts.end(); }
  std::int32_t reg(std::size_t k) const { return k < operands.size() ? operands[k].reg : -1; }
  /// What a load, store or atomic operation names; generic if it names none.
  state_space space() const;
};

/// Bits of instruction::mode that all families read the same way.
enum mode_bit : std::uint32_t { mode_ftz = 1, mode_sat = 2, mode_rz = 4, mode_rm = 8, mode_rp = 16 };

// Each is true for an instruction of its family, which keeps its handler if it is of a form that is not implemented.
bool decode_memory_access(instruction& i, instruction_text const& text);
bool decode_atomic(instruction& i, instruction_text const& text);
bool decode_move(instruction& i, instruction_text const& text);
bool decode_comparison(instruction& i, instruction_text const& text);
bool decode_bits(instruction& i, instruction_text const& text);
bool decode_integer(instruction& i, instruction_text const& text);
bool decode_floating_point(instruction& i, instruction_text const& text);
bool decode_conversion(instruction& i, instruction_text const& text);
bool decode_control(instruction& i, instruction_text const& text);
bool decode_group(instruction& i, instruction_text const& text);

}  // namespace emulator
