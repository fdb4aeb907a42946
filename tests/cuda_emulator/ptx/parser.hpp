/// @file
/// PTX text in, decoded functions out. Written from NVIDIA's PTX ISA document.
#pragma once

#include <memory>
#include <string>

#include "ptx/instruction.hpp"

namespace emulator {

/// Variables of the module get memory that all devices reach.
/// @throws std::runtime_error for text it does not understand
std::unique_ptr<ptx_module> parse(std::string const& text);

}  // namespace emulator
