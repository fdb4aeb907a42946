/// @file
/// safetensors files: the tensors of a model or a checkpoint by name, as other frameworks read and write them.
///
/// Needs nlohmann-json and a POSIX system: link pushpull::checkpoint. No umbrella includes it.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <pushpull/checkpoint/safetensors_copy.hpp>
#include <pushpull/checkpoint/safetensors_entry.hpp>
#include <pushpull/checkpoint/safetensors_reader.hpp>
#include <pushpull/checkpoint/safetensors_writer.hpp>
