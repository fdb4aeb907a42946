/// @file
/// Training on GPUs: on_cuda.cu in a build with CUDA, on_cuda.cpp in one without.
#pragma once

#include "options.hpp"

namespace train_classifier {

/// Trains and tests as on CPUs, while GPUs reduce, update and mirror; forward and backward stay on the host.
/// @throws input_error without CUDA, or if CUDA finds no GPU
void run_on_cuda(options const& chosen);

}  // namespace train_classifier
