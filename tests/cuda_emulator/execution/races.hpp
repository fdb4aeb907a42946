/// @file
/// Who accessed a byte last, and which accesses nothing orders.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

struct grid;
struct thread;
struct instruction;

/// `operation` is 0 for nobody. In shared memory it is 1 + the thread's barriers of its warp.
struct access {
  std::uint32_t operation = 0, thread = 0, epoch = 0;
  bool operator==(access const&) const = default;
};
/// The last write, and two reads of which neither comes after the other: whoever writes clashes with one of them.
struct byte_record {
  access write, reads[2];
  bool operator==(byte_record const&) const = default;
};

/// An access of a kernel's thread to device memory: noted, and reported if something unordered with it touched a byte.
void note_device_access(grid& g, thread const& t, instruction const& i, std::uint64_t address, std::size_t bytes,
                        bool write, bool strong);
/// The same of a copy, a fill, an allocation or a release.
void note_host_access(std::uint32_t operation, std::uint64_t address, std::size_t bytes, bool write);
/// The same in shared memory, where only barriers order.
void note_shared_access(grid& g, thread const& t, instruction const& i, byte_record* records, std::size_t bytes,
                        bool write);

}  // namespace emulator
