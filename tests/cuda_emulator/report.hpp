/// @file
/// What the emulator tells, on stderr, in lines that start with `== emulator:`.
#pragma once

#include <stdexcept>
#include <string>

namespace emulator {

/// A kernel did what a GPU answers with an error.
struct launch_failure : std::runtime_error {
  using runtime_error::runtime_error;
};

/// Tells the first one of a kind: the same words about the same kernel, whatever the numbers and addresses.
void report(std::string const& text);
bool reported_anything();
/// How many reports there were, if there was one.
void summarize_reports();

/// The name that the source code has for a symbol.
std::string demangled(std::string const& name);

}  // namespace emulator
