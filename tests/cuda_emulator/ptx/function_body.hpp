/// @file
/// A function while its text is read: names of registers, symbols and labels, and the operands that use them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ptx/instruction.hpp"

namespace emulator {

struct operand {
  enum kinds { scalar, vector, address } kind = scalar;
  std::int32_t reg = -1, second = -1;  // -1: none or _; -2: see name
  bool negated = false;                // then reg is -3 - the register
  std::int64_t offset = 0;
  std::vector<std::int32_t> list;
  std::string name;  // of a label or a function
};

class function_body {
 public:
  function_body(function& f, ptx_module const& m) : f_(f), module_(m), scopes_(1) {}

  void open_scope() { scopes_.emplace_back(); }
  void close_scope() { scopes_.pop_back(); }

  void declare_register(std::string const& name) { scopes_.back().registers[name] = fresh(); }
  /// %r<n>: the registers %r0 to %r(n-1).
  void declare_registers(std::string const& prefix, int n);
  /// An address in the symbol's own space.
  void declare_symbol(std::string const& name, std::uint64_t where) { scopes_.back().symbols[name] = where; }

  std::int32_t find_register(std::string const& name) const;
  bool find_symbol(std::string const& name, std::uint64_t& value) const;
  /// The register that holds `value`.
  std::int32_t constant(std::uint64_t value);
  /// A register that nobody has declared.
  std::int32_t fresh(bool defined = false, std::uint64_t value = 0);

  /// Reads the operand that starts at `words[i]`; `i` is behind it then.
  operand read_operand(std::vector<std::string> const& words, std::size_t& i);

 private:
  struct scope {
    struct run {
      std::string prefix;
      std::int32_t first;
      int count;
    };
    std::unordered_map<std::string, std::int32_t> registers;
    std::vector<run> runs;
    std::unordered_map<std::string, std::uint64_t> symbols;
  };

  /// One register, special register, constant or address of a variable; -2 for another name.
  std::int32_t read_value(std::vector<std::string> const& words, std::size_t& i, operand& o);

  function& f_;
  ptx_module const& module_;
  std::vector<scope> scopes_;
  std::map<std::uint64_t, std::int32_t> constants_;
  std::map<std::string, std::int32_t> specials_;
};

}  // namespace emulator
