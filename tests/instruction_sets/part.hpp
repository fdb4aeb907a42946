/// @file
/// A part of a program that is compiled once for each processor; the program chooses between them at run time.
#pragma once

#include <vector>

/// Trains one weight and returns it. @throws pushpull::unknown_key if `key` is not "w"
double train_on_oldest(char const* key);
double train_on_newest(char const* key);
double train_on_widest(char const* key);

/// All weights and states after steps of several rules, which are floats.
std::vector<double> results_on_oldest();
std::vector<double> results_on_newest();
std::vector<double> results_on_widest();
