/// @file
/// A PTX module as the emulator executes it: functions of decoded instructions over numbered registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace emulator {

/// A register: its bits, and which of them nobody has written.
struct reg {
  std::uint64_t v = 0;
  std::uint64_t u = ~std::uint64_t{0};
};

struct grid;
struct thread;
struct instruction;
using handler = void (*)(grid&, thread&, instruction const&);

enum class state_space : std::uint8_t { generic, global, shared, local, param };

/// The handler says what each field means to it. Registers are indices into a thread's; -1 is none.
struct instruction {
  handler execute = nullptr;
  std::int32_t guard = -1;  // a predicate
  bool guard_negated = false;
  state_space space = state_space::generic;
  std::uint8_t width = 0;  // bytes of one element of an access
  std::uint8_t count = 1;  // elements of an access
  bool sign = false;       // a loaded element is extended by its sign
  bool strong = false;     // volatile, relaxed, acquire, release or atomic
  std::int32_t d = -1, d2 = -1, a = -1, b = -1, c = -1, e = -1;
  std::int64_t offset = 0;  // of an address; target of a branch
  std::vector<std::int32_t> list;
  std::uint32_t mode = 0;
  int line = 0;
  std::string text;
};

struct parameter {
  std::string name;
  std::size_t offset, size;
};

struct function {
  std::string name;
  bool entry = false;
  std::vector<parameter> parameters;
  bool calls = false;  // has variables of arguments, behind its parameters
  std::size_t parameter_bytes = 0, local_bytes = 0, shared_bytes = 0;
  std::vector<instruction> code;
  std::vector<reg> initial;                                   // registers, then constants
  std::vector<std::pair<std::int32_t, std::string>> special;  // registers that hold %tid.x and others
  int max_threads = 1024;
};

struct ptx_module {
  struct variable {
    std::uint64_t address;
    std::size_t bytes;
  };
  std::unordered_map<std::string, std::unique_ptr<function>> functions;
  std::unordered_map<std::string, variable> globals;
};

}  // namespace emulator
