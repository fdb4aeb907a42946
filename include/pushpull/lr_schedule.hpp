/// @file
/// All schedules.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <pushpull/lr_schedule/annealing.hpp>
#include <pushpull/lr_schedule/compose.hpp>
#include <pushpull/lr_schedule/constant.hpp>
#include <pushpull/lr_schedule/cyclical.hpp>
#include <pushpull/lr_schedule/decay.hpp>
#include <pushpull/lr_schedule/plateau.hpp>
#include <pushpull/lr_schedule/scalar.hpp>
#include <pushpull/lr_schedule/warm_up.hpp>
