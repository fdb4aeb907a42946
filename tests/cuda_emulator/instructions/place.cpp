#include "instructions/place.hpp"

#include <cstdio>
#include <string>
#include <vector>

#include "execution/memory.hpp"
#include "runtime/peers.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

char const* name_of_window(std::uint64_t address) {
  switch (address & window_mask) {
    case shared_window: return "shared";
    case local_window: return "local";
    case param_window: return "parameter";
    default: return "global";
  }
}

state_space space_of_window(std::uint64_t address) {
  switch (address & window_mask) {
    case shared_window: return state_space::shared;
    case local_window: return state_space::local;
    case param_window: return state_space::param;
    default: return state_space::global;
  }
}

std::uint64_t address_of(grid const& g, thread const& t, instruction const& i) {
  reg const& r = t.r[static_cast<std::size_t>(i.a)];
  if (setting().undefined && r.u != 0) g.report(i, "an address depends on uninitialised memory");
  return r.v + static_cast<std::uint64_t>(i.offset);
}

void check_alignment(grid const& g, thread const& t, instruction const& i, std::uint64_t address, std::size_t size) {
  if (address % size == 0) return;
  char text[64];
  std::snprintf(text, sizeof text, "misaligned address 0x%lx for %zu bytes", address, size);
  g.fail(t, i, text);
}

void check_bounds(grid const& g, thread const& t, instruction const& i, std::uint64_t address, std::size_t size,
                  std::size_t bytes, char const* what) {
  if (address <= bytes && size <= bytes - address) return;
  g.fail(t, i, what + (" of " + std::to_string(bytes)) + " bytes accessed at " + std::to_string(address));
}

void check_device_address(grid const& g, thread const& t, instruction const& i, std::uint64_t address,
                          std::size_t size) {
  device_memory const& m = memory();
  if (!m.holds(address, size)) {
    char const* const space = name_of_window(address);
    std::string const of_another =
        std::string("an access to global memory with the generic address of ") + space + " memory";
    g.fail(t, i, (address & window_mask) != 0 ? of_another : "not memory of the device: " + m.describe(address));
  }
  if (std::size_t const k = m.first_of_nobody(address, size); k < size)
    g.fail(t, i,
           std::to_string(size) + " bytes accessed at " + m.describe(address) + ", of which byte " + std::to_string(k) +
               " is nobody's");
  std::uint8_t const owner = m.owner[(address - m.base) / 256];
  if (owner != 0 && address < m.windows && !reaches(g.device, owner))
    g.fail(t, i,
           "memory of device " + std::to_string(device_of(owner)) + " accessed by device " + std::to_string(g.device) +
               " without peer access: " + m.describe(address));
}

/// The instruction's space, and of a generic address the one of its window.
state_space resolve_space(grid const& g, instruction const& i, std::uint64_t address) {
  bool const other_window = (address & window_mask) != 0;
  if (i.space == state_space::global && other_window && setting().lenient) {
    g.report(i, std::string("an access to global memory with the generic address of ") + name_of_window(address) +
                    " memory");
    return space_of_window(address);
  }
  return i.space == state_space::generic ? space_of_window(address) : i.space;
}

}  // namespace

place accessed_place(grid& g, thread& t, instruction const& i, std::size_t size, bool write) {
  std::uint64_t address = address_of(g, t, i);
  state_space const space = resolve_space(g, i, address);
  if (space != i.space && space != state_space::global) address &= ~window_mask;
  check_alignment(g, t, i, address, size);
  switch (space) {
    case state_space::shared:
      check_bounds(g, t, i, address, size, g.shared.size(), "shared memory");
      if (setting().races) note_shared_access(g, t, i, g.shared_records.data() + address, size, write);
      return {g.shared.data() + address, g.shared_shadow.data() + address};
    case state_space::local:
      check_bounds(g, t, i, address, size, t.local.size(), "local memory");
      return {t.local.data() + address, t.local_shadow.data() + address};
    case state_space::param:
      check_bounds(g, t, i, address, size, (t.param.empty() ? g.param : t.param).size(), "parameters");
      if (t.param.empty()) return {g.param.data() + address, nullptr};
      return {t.param.data() + address, t.param_shadow.data() + address};
    default: break;
  }
  check_device_address(g, t, i, address, size);
  if (setting().races) note_device_access(g, t, i, address, size, write, i.strong);
  device_memory& m = memory();
  return {m.bytes + (address - m.base), m.shadow + (address - m.base)};
}

}  // namespace emulator
