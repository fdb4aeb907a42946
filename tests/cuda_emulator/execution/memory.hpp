/// @file
/// The devices' memory. Beside each byte stands who owns it, whether anybody has written it, and who accessed it last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "execution/races.hpp"

namespace emulator {

/// Kernels and copies see addresses from `base` on, which the host cannot touch; the bytes of them are at `bytes`.
struct device_memory {
  enum shadow_byte : std::uint8_t { nobodys = 0, unwritten = 1, written = 2 };

  static constexpr std::uint64_t lane = std::uint64_t{4} << 30;
  static constexpr std::size_t lanes = 4;

  std::uint64_t base = 0, size = 0, used = 0;
  std::uint64_t windows = 0;  // from this address on lanes, which all devices reach: see allocate_window
  std::uint64_t used_of_lane[lanes] = {};
  std::uint8_t* bytes = nullptr;
  std::uint8_t* shadow = nullptr;
  byte_record* records = nullptr;
  std::uint8_t* owner = nullptr;  // of 256 bytes each: see owner_of

  bool holds(std::uint64_t address) const { return address - base < size; }
  bool holds(std::uint64_t address, std::size_t n) const { return holds(address) && n <= base + size - address; }
  /// The first of `n` bytes that are not allocated; `n` if there is none.
  std::size_t first_of_nobody(std::uint64_t address, std::size_t n) const;
  /// The address, and where in which allocation it is.
  std::string describe(std::uint64_t address) const;
};
device_memory& memory();

/// Who owns memory: a device, of which pools are opened to peers and other memory by the context; 0 is everybody.
constexpr std::uint8_t owner_of(int device, bool pool) {
  return static_cast<std::uint8_t>((1 + device) | (pool ? 0x80 : 0));
}
constexpr int device_of(std::uint8_t owner) { return (owner & 0x7F) - 1; }
constexpr bool of_pool(std::uint8_t owner) { return (owner & 0x80) != 0; }

/// Addresses are used once, so that later accesses are seen; 0 if there are none left.
std::uint64_t allocate(std::size_t bytes, std::size_t alignment, std::string const& what, std::uint8_t owner);
/// Memory of a device that all devices reach, as windows of NCCL are. Calls of each lane in the same order and of the same sizes
/// get addresses that differ by the lanes' distance, from the last level_lanes on. 0 if there are none left.
std::uint64_t allocate_window(std::size_t bytes, std::size_t lane, std::uint8_t owner);
void level_lanes();
/// For a variable of a module.
std::uint64_t allocate_variable(std::size_t bytes, std::size_t alignment, std::string const& name, void const* initial);
/// False if no live allocation starts at `address`.
bool release(std::uint64_t address);
/// The bytes of the live allocation that starts there; 0 if none does.
std::size_t allocated_bytes(std::uint64_t address);
std::size_t live_allocations();

}  // namespace emulator
