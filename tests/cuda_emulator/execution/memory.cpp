#include "execution/memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>

namespace emulator {
namespace {

constexpr std::uint64_t page = 4096, owner_block = 256;

struct allocation {
  std::size_t bytes;
  std::string what;
  bool live;
};

std::map<std::uint64_t, allocation>& allocations() {
  static auto& never_ends = *new std::map<std::uint64_t, allocation>;  // programs release memory at exit
  return never_ends;
}

template <class T>
T* reserve(std::size_t count, int protection) {
  void* const p = mmap(nullptr, count * sizeof(T), protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    std::perror("== emulator: mmap");
    std::abort();
  }
  return static_cast<T*>(p);
}

/// Gives whole pages back to the system; they are zeros when they are touched again.
void drop(void* p, std::size_t bytes) {
  auto const first = (reinterpret_cast<std::uintptr_t>(p) + page - 1) / page * page;
  auto const end = (reinterpret_cast<std::uintptr_t>(p) + bytes) / page * page;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

/// Bytes from offset `at` on become an allocation.
std::uint64_t take(std::size_t at, std::size_t bytes, std::string const& what, std::uint8_t owner) {
  device_memory& m = memory();
  std::memset(m.shadow + at, device_memory::unwritten, bytes);
  std::memset(m.bytes + at, 0xA5, bytes);
  std::memset(m.owner + at / owner_block, owner, bytes / owner_block + 1);
  allocations()[m.base + at] = {bytes, what, true};
  return m.base + at;
}

}  // namespace

device_memory& memory() {
  static device_memory m = [] {
    device_memory x;
    std::uint64_t const ordinary = std::uint64_t{16} << 30;
    x.size = ordinary + device_memory::lanes * device_memory::lane;
    x.base = reinterpret_cast<std::uint64_t>(reserve<std::uint8_t>(x.size, PROT_NONE));
    x.windows = x.base + ordinary;
    x.bytes = reserve<std::uint8_t>(x.size, PROT_READ | PROT_WRITE);
    x.shadow = reserve<std::uint8_t>(x.size, PROT_READ | PROT_WRITE);
    x.records = reserve<byte_record>(x.size, PROT_READ | PROT_WRITE);
    x.owner = reserve<std::uint8_t>(x.size / owner_block, PROT_READ | PROT_WRITE);
    return x;
  }();
  return m;
}

std::size_t device_memory::first_of_nobody(std::uint64_t address, std::size_t n) const {
  void const* const found = std::memchr(shadow + (address - base), nobodys, n);
  return found != nullptr
             ? static_cast<std::size_t>(static_cast<std::uint8_t const*>(found) - (shadow + (address - base)))
             : n;
}

std::string device_memory::describe(std::uint64_t address) const {
  char text[32];
  std::snprintf(text, sizeof text, "0x%lx", address);
  auto const behind = allocations().upper_bound(address);
  if (behind == allocations().begin()) return text;
  auto const& [start, a] = *std::prev(behind);
  return text + (", " + std::to_string(address - start)) + " bytes behind the start of " + (a.live ? "" : "freed ") +
         a.what + " of " + std::to_string(a.bytes) + " bytes";
}

std::uint64_t allocate(std::size_t bytes, std::size_t alignment, std::string const& what, std::uint8_t owner) {
  device_memory& m = memory();
  alignment = std::max<std::size_t>(alignment, owner_block);
  std::size_t const at = (m.used + alignment - 1) / alignment * alignment, end = m.windows - m.base;
  if (bytes > end || at + bytes + page > end) return 0;
  m.used = at + bytes + page;  // the gap is nobody's
  return take(at, bytes, what, owner);
}

std::uint64_t allocate_window(std::size_t bytes, std::size_t lane, std::uint8_t owner) {
  device_memory& m = memory();
  if (lane >= device_memory::lanes || bytes > device_memory::lane) return 0;
  std::size_t const first = (m.used_of_lane[lane] + page - 1) / page * page;
  if (first + bytes + page > device_memory::lane) return 0;
  m.used_of_lane[lane] = first + bytes + page;
  return take(m.windows - m.base + lane * device_memory::lane + first, bytes, "window", owner);
}

void level_lanes() {
  auto& used = memory().used_of_lane;
  std::fill(std::begin(used), std::end(used), *std::max_element(std::begin(used), std::end(used)));
}

std::uint64_t allocate_variable(std::size_t bytes, std::size_t alignment, std::string const& name,
                                void const* initial) {
  std::uint64_t const address = allocate(std::max<std::size_t>(bytes, 1), alignment, "variable " + name, 0);
  if (address == 0 || bytes == 0) return address;
  device_memory& m = memory();
  std::memcpy(m.bytes + (address - m.base), initial, bytes);
  std::memset(m.shadow + (address - m.base), device_memory::written, bytes);
  return address;
}

bool release(std::uint64_t address) {
  auto const found = allocations().find(address);
  if (found == allocations().end() || !found->second.live) return false;
  device_memory& m = memory();
  std::uint64_t const at = address - m.base;
  std::size_t const bytes = found->second.bytes;
  found->second.live = false;
  std::memset(m.shadow + at, device_memory::nobodys, bytes);
  drop(m.bytes + at, bytes);
  drop(m.shadow + at, bytes);
  drop(m.records + at, bytes * sizeof(byte_record));
  return true;
}

std::size_t allocated_bytes(std::uint64_t address) {
  auto const found = allocations().find(address);
  return found != allocations().end() && found->second.live ? found->second.bytes : 0;
}

std::size_t live_allocations() {
  return static_cast<std::size_t>(std::count_if(allocations().begin(), allocations().end(), [](auto const& entry) {
    return entry.second.live && !entry.second.what.starts_with("variable");
  }));
}

}  // namespace emulator
