/// @file
/// What ran: told at the start and at the end of a program.
#pragma once

#include <cstdint>
#include <string>

namespace emulator {

/// Tells once that the program runs on the emulator, on which devices and in which order. A program that asks for no
/// device says nothing.
void announce();
/// At the end of the program, after its own static objects: what was left undone runs, and everything is summed up.
void summarize_at_exit();

void count_launch(std::string const& kernel);
void count_steps(std::uint64_t instructions);
void count_copy();

}  // namespace emulator
