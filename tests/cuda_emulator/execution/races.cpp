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

  bool comes_after(access const& a) const {
    if (a.operation == 0) return true;
    if (a.operation != mine.operation) return is_ordered(a.operation, mine.operation);
    if (a.thread == mine.thread) return true;
    if (a.thread / threads_per_block() != mine.thread / threads_per_block()) return false;
    return (a.epoch & ~strong_bit) != (mine.epoch & ~strong_bit);
  }
  bool clashes_with(access const& a) const {
    bool const both_strong = a.operation == mine.operation && strong && (a.epoch & strong_bit) != 0;
    return !both_strong && !comes_after(a);
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

/// Notes a read that comes after those for which `comes_after` is true.
template <class F>
void note_read(byte_record& r, access const& mine, F const& comes_after) {
  if (comes_after(r.reads[0])) {
    r.reads[0] = mine;
    if (comes_after(r.reads[1])) r.reads[1] = {};
  } else {
    r.reads[1] = mine;
  }
}

/// update(record, k) for the record of each byte. Neighbours are mostly of the same accesses: their records become equal ones.
template <class F>
void update_records(byte_record* records, std::size_t bytes, F const& update) {
  byte_record before, after;
  for (std::size_t k = 0; k < bytes; ++k) {
    if (k == 0 || records[k] != before) {
      before = after = records[k];
      update(after, k);
    }
    records[k] = after;
  }
}

/// One report per access, however many bytes it has.
void note(accessor const& who, std::uint64_t address, std::size_t bytes, bool write) {
  device_memory& m = memory();
  bool told = false;
  auto const compare = [&](access const& a, char const* did, std::size_t k) {
    if (told || !who.clashes_with(a)) return;
    told = true;
    who.tell(a, did, write, address + k);
  };
  update_records(m.records + (address - m.base), bytes, [&](byte_record& r, std::size_t k) {
    compare(r.write, "wrote", k);
    if (write) {
      for (access const& read : r.reads) compare(read, "read", k);
      r.write = who.mine;
    } else {
      note_read(r, who.mine, [&](access const& a) { return who.comes_after(a); });
    }
  });
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
  access const mine{t.warp_epoch + 1, t.index, t.epoch | (i.strong ? strong_bit : 0)};
  auto const comes_after = [&](access const& a) {
    if (a.operation == 0 || a.thread == t.index || (a.epoch & ~strong_bit) != t.epoch) return true;
    return a.thread / warp_size == t.index / warp_size && a.operation != mine.operation;
  };
  bool told = false;
  auto const compare = [&](access const& a, char const* did) {
    if (told || (i.strong && (a.epoch & strong_bit) != 0) || comes_after(a)) return;
    told = true;
    g.report(i, std::string("shared memory: ") + (write ? "written" : "read") + " without a barrier after thread " +
                    std::to_string(a.thread) + " " + did + " it");
  };
  update_records(records, bytes, [&](byte_record& r, std::size_t) {
    compare(r.write, "wrote");
    if (write) {
      for (access const& read : r.reads) compare(read, "read");
      r.write = mine;
    } else {
      note_read(r, mine, comes_after);
    }
  });
}

}  // namespace emulator
