/// @file
/// The device code that nvcc put into the program.
#pragma once

namespace emulator {

/// The architecture of the program's PTX: 90 for compute_90.
int architecture();

}  // namespace emulator
