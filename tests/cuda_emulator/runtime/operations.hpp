/// @file
/// What the host asked streams for, and which of it comes after which.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace emulator {

/// How many operations of each stream have to be finished. What waits for several has the join of their clocks.
using vector_clock = std::vector<std::uint32_t>;
void join(vector_clock& a, vector_clock const& b);

/// The number of a new operation, the `sequence`-th of its stream, which starts at `clock`. Numbers begin with 1.
std::uint32_t add_operation(std::uint32_t stream, std::uint32_t sequence, std::string what, vector_clock const& clock);

/// Whether streams, events and waits of the host order the first operation before the second.
bool is_ordered(std::uint32_t first, std::uint32_t second);
std::string describe_operation(std::uint32_t operation);

}  // namespace emulator
