/// @file
/// Muon on GPUs. Not in the umbrella: needs the target pushpull::cublas.
#pragma once

#include <pushpull/device/cuda_matrix_products.cuh>
#include <pushpull/update/muon_rule.hpp>
