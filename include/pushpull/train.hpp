/// @file
/// The layer above a store: batches, executors, modules. Opt-in: pushpull.hpp does not include it.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <pushpull/train/batch.hpp>
#include <pushpull/train/descriptor.hpp>
#include <pushpull/train/slicing.hpp>
