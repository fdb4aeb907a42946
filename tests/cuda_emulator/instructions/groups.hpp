/// @file
/// Instructions that several threads execute together, once all of them have come.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "execution/grid.hpp"

namespace emulator {

/// The register that names the lanes.
std::int32_t mask_register(instruction const& i);
/// Gives the lanes of the mask their results. A warp has up to 32 threads; those that have ended take no part.
void complete_warp(std::span<thread> warp, std::uint32_t mask, instruction const& i);
/// Gives the threads at a barrier that reduces the result.
void complete_barrier(std::vector<thread>& threads, instruction const& i);

}  // namespace emulator
