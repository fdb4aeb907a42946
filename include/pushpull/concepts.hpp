/// @file
/// All concepts.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/compressor.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/learning_rate_schedule.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/reduction.hpp>
#include <pushpull/concepts/row_sparse_tensor.hpp>
#include <pushpull/concepts/tensor.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/store/concepts.hpp>
