/// @file
/// SOAP on CPUs. Not in the umbrella: needs the target pushpull::lapack.
#pragma once

#include <pushpull/device/cpu_matrix_factorizations.hpp>
#include <pushpull/update/soap_rule.hpp>
