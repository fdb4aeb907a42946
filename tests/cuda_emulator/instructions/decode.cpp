#include "instructions/decode.hpp"

#include "execution/grid.hpp"

namespace emulator {
namespace {

std::vector<std::string> split_at_dots(std::string const& s) {
  std::vector<std::string> parts;
  std::size_t at = 0;
  for (std::size_t end; (end = s.find('.', at)) != std::string::npos; at = end + 1)
    parts.push_back(s.substr(at, end - at));
  parts.push_back(s.substr(at));
  return parts;
}

}  // namespace

state_space instruction_text::space() const {
  if (has("global") || has("const")) return state_space::global;
  if (has("shared") || has("shared::cta")) return state_space::shared;
  if (has("local")) return state_space::local;
  if (has("param")) return state_space::param;
  return state_space::generic;
}

void not_implemented(grid& g, thread& t, instruction const& i) {
  g.fail(t, i, "an instruction that is not implemented");
}

void decode(instruction& i, std::string const& opcode, std::vector<operand> const& operands, function_body& body) {
  instruction_text const text{split_at_dots(opcode), operands, body};
  i.execute = not_implemented;
  if (text.has("ftz")) i.mode |= mode_ftz;
  if (text.has("sat")) i.mode |= mode_sat;
  if (text.has("rz") || text.has("rzi")) i.mode |= mode_rz;
  if (text.has("rm") || text.has("rmi")) i.mode |= mode_rm;
  if (text.has("rp") || text.has("rpi")) i.mode |= mode_rp;
  i.d = text.reg(0);
  i.a = text.reg(1);
  i.b = text.reg(2);
  i.c = text.reg(3);
  i.e = text.reg(4);
  for (auto const family : {decode_memory_access, decode_atomic, decode_move, decode_comparison, decode_bits,
                            decode_integer, decode_floating_point, decode_conversion, decode_control, decode_group})
    if (family(i, text)) return;
}

}  // namespace emulator
