/// @file
/// Where an address of a kernel leads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "execution/grid.hpp"
#include "execution/memory.hpp"
#include "ptx/instruction.hpp"

namespace emulator {

/// Bytes that a thread may access. Without a shadow all of them are written, as parameters of a launch are.
struct place {
  std::uint8_t* bytes;
  std::uint8_t* shadow;

  bool is_written(std::size_t k) const { return shadow == nullptr || shadow[k] == device_memory::written; }
  void mark(std::size_t k, bool written) const {
    if (shadow != nullptr) shadow[k] = written ? device_memory::written : device_memory::unwritten;
  }
};

/// The `size` bytes that the instruction accesses; the access is noted for races.
/// @throws launch_failure where a GPU ends the kernel
place accessed_place(grid& g, thread& t, instruction const& i, std::size_t size, bool write);

}  // namespace emulator
