/// @file
/// Which devices reach each other's memory.
#pragma once

#include <cstdint>

namespace emulator {

/// Whether kernels of `device` reach memory of that owner: see owner_of in memory.hpp.
bool reaches(int device, std::uint8_t owner);

}  // namespace emulator
