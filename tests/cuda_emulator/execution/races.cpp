#include "execution/races.hpp"

#include <string>

#include "execution/grid.hpp"
#include "execution/memory.hpp"
#include "report.hpp"
#include "runtime/operations.hpp"

namespace emulator {
namespace {

constexpr std::uint32_t strong_bit = 0x8000'0000;

/// Who accesses: the thread, instruction and grid are null for what the host asked for.
struct accessor {
  access mine;
  bool strong;
  grid* in;
  thread const* by;
  instruction const* with;

  std::uint32_t threads_per_block() const { return in ? static_cast<std::uint32_t>(in->threads.size()) : 1; }

  bool clashes_with(access const& a) const {
    if (a.operation == 0) return false;
    if (a.operation != mine.operation) return !is_ordered(a.operation, mine.operation);
    if (a.thread == mine.thread || (strong && (a.epoch & strong_bit) != 0)) return false;
    if (a.thread / threads_per_block() != mine.thread / threads_per_block()) return true;
    return (a.epoch & ~strong_bit) == (mine.epoch & ~strong_bit);
  }

  void tell(access const& a, char const* did, bool write, std::uint64_t address) const {
    std::string what = std::string("race: ") + (write ? "written" : "read");
    if (a.operation == mine.operation) {
      what += " while thread " + std::to_string(a.thread % threads_per_block()) + " of block " +
              std::to_string(a.thread / threads_per_block()) + " of the same launch " + did + " it";
    } else {
      what += std::string(", unordered with what ") + did + " it: " + describe_operation(a.operation);
    }
    what += "\n    operation " + describe_operation(mine.operation) + "\n    at " + memory().describe(address);
    if (in != nullptr) {
      in->report(*with, what);
    } else {
      report(what);
    }
  }
};

/// One report per access, however many bytes it has.
void note(accessor const& who, std::uint64_t address, std::size_t bytes, bool write) {
  device_memory& m = memory();
  byte_record* const records = m.records + (address - m.base);
  access harmless{};  // the last one that was compared: neighbours are mostly of the same access
  bool told = false;
  auto const compare = [&](access const& a, char const* did, std::size_t k) {
    if (told || (a.operation == harmless.operation && a.thread == harmless.thread && a.epoch == harmless.epoch)) return;
    if (!who.clashes_with(a)) {
      harmless = a;
    } else {
      told = true;
      who.tell(a, did, write, address + k);
    }
  };
  for (std::size_t k = 0; k < bytes; ++k) {
    compare(records[k].write, "wrote", k);
    if (write) compare(records[k].read, "read", k);
    (write ? records[k].write : records[k].read) = who.mine;
  }
}

}  // namespace

void note_device_access(grid& g, thread const& t, instruction const& i, std::uint64_t address, std::size_t bytes,
                        bool write, bool strong) {
  std::uint32_t const number = g.block_number * static_cast<std::uint32_t>(g.threads.size()) + t.index;
  access const mine{g.operation, number, t.epoch | (strong ? strong_bit : 0)};
  note({mine, strong, &g, &t, &i}, address, bytes, write);
}

void note_host_access(std::uint32_t operation, std::uint64_t address, std::size_t bytes, bool write) {
  note({{operation, 0, 0}, false, nullptr, nullptr, nullptr}, address, bytes, write);
}

void note_shared_access(grid& g, thread const& t, instruction const& i, byte_record* records, std::size_t bytes,
                        bool write) {
  if (i.strong) return;
  auto const clashes = [&](access const& a) {
    if (a.operation == 0 || a.thread == t.index || a.epoch != t.epoch) return false;
    return a.thread / warp_size != t.index / warp_size || a.operation - 1 == t.warp_epoch;
  };
  bool told = false;
  for (std::size_t k = 0; k < bytes; ++k) {
    byte_record& r = records[k];
    bool const wrote = clashes(r.write);
    if (!told && (wrote || (write && clashes(r.read)))) {
      told = true;
      g.report(i, std::string("shared memory: ") + (write ? "written" : "read") + " without a barrier after thread " +
                      std::to_string(wrote ? r.write.thread : r.read.thread) + (wrote ? " wrote" : " read") + " it");
    }
    (write ? r.write : r.read) = {t.warp_epoch + 1, t.index, t.epoch};
  }
}

}  // namespace emulator
