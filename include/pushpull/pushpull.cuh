/// @file
/// pushpull.hpp, and the headers that every program on GPUs needs. Others, such as update/muon.cuh, are opt-in.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <pushpull/compress/primitives.cuh>
#include <pushpull/device/cuda_device.cuh>
#include <pushpull/device/cuda_memory_resource.cuh>
#include <pushpull/pushpull.hpp>
#include <pushpull/registers/cuda_execution.cuh>
#include <pushpull/tensor/thrust_vector.cuh>
