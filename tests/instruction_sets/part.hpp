/// @file
/// A part of a program that is compiled once for each processor; the program chooses between them at run time.
#pragma once

/// Trains one weight and returns it. @throws pushpull::unknown_key if `key` is not "w"
double train_on_oldest(char const* key);
double train_on_newest(char const* key);
