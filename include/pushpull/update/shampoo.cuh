/// @file
/// Shampoo on GPUs. Not in the umbrella: needs the target pushpull::cusolver.
#pragma once

#include <pushpull/device/cuda_matrix_factorizations.cuh>
#include <pushpull/update/shampoo_rule.hpp>
