/// @file
/// One launch: a grid of blocks, of which one at a time has threads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "execution/races.hpp"
#include "ptx/instruction.hpp"

namespace emulator {

inline constexpr std::uint32_t warp_size = 32;

/// Where the windows of other spaces lie in the generic address space.
inline constexpr std::uint64_t shared_window = 0x1000'0000'0000'0000, local_window = 0x2000'0000'0000'0000,
                               param_window = 0x3000'0000'0000'0000, window_mask = 0xF000'0000'0000'0000;

/// What a thread waits for.
enum class thread_status : std::uint8_t { running, at_barrier, at_warp, exited };

/// The factors of a register's value, which a compiler may fuse with a sum.
struct product {
  std::uint64_t a = 0, b = 0, value = 0;
  bool valid = false;
};

struct thread {
  std::vector<reg> r;
  std::uint32_t pc = 0;
  thread_status status = thread_status::running;
  std::uint32_t index = 0;       // in the block
  std::uint32_t epoch = 0;       // barriers passed
  std::uint32_t warp_epoch = 0;  // barriers of the warp passed
  std::uint32_t carry = 0;
  instruction const* waiting = nullptr;
  std::vector<std::uint8_t> local, local_shadow;
  std::vector<std::uint8_t> param;  // of its own, where arguments of calls are written; else it reads the grid's
  std::vector<std::uint8_t> param_shadow;
  std::vector<product> products;
};

struct grid {
  function const* kernel = nullptr;
  std::array<unsigned, 3> blocks{}, threads_per_block{}, block_index{};
  std::vector<std::uint8_t> param, shared, shared_shadow;
  std::vector<byte_record> shared_records;
  std::vector<thread> threads;
  std::uint32_t operation = 0;  // the launch's number among all operations of all streams
  std::uint64_t steps = 0;      // instructions so far
  std::uint32_t block_number = 0;
  int device = 0;

  /// @throws launch_failure
  void run();

  void report(instruction const& i, std::string const& what) const;
  [[noreturn]] void fail(thread const& t, instruction const& i, std::string const& what) const;

 private:
  void start_block(std::size_t number);
  void start_thread(thread& t, std::size_t number);
  std::uint64_t special_register(std::string const& name, std::size_t thread_number) const;
};

/// Whether a guarded instruction is executed.
bool is_taken(grid const& g, thread const& t, instruction const& i);
/// Runs the threads of the current block to their end.
void run_block(grid& g);

}  // namespace emulator
