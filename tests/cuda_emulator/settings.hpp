/// @file
/// What the environment asks of the emulator. README.md of this folder has the list.
#pragma once

#include <cstdint>

namespace emulator {

struct settings {
  bool races, undefined, trace, summary, lenient, contract, strict, peers;
  int devices;
  std::uint64_t seed;   // 0: everything in the order of the program
  std::uint64_t steps;  // instructions of a launch that ends

  bool shuffled() const { return seed != 0; }
};

/// Read once; a seed that is not given is drawn then.
settings const& setting();

}  // namespace emulator
