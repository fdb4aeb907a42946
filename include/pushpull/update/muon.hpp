/// @file
/// Muon on CPUs. Not in the umbrella: needs the target pushpull::blas.
#pragma once

#include <pushpull/device/cpu_matrix_products.hpp>
#include <pushpull/update/muon_rule.hpp>
