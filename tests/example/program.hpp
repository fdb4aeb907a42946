/// @file
/// Runs the built examples, whose paths are macros: TRAIN_CLASSIFIER, TRAIN_WORD2VEC, TRAIN_BUCKETING, TRAIN_TORCH.
#pragma once

#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace pushpull::test {

/// What a run of a program left behind.
struct outcome {
  int exit_code;
  std::string output, errors;
};

/// Runs a program; `environment` is what the shell has to set for it, as "NAME=value".
inline outcome run_program(std::string const& program, std::string const& arguments,
                           std::string const& environment = "") {
  temporary_folder const folder;
  auto const output = folder.file("output").string(), errors = folder.file("errors").string();
  auto const command = environment + " '" + program + "' " + arguments + " >'" + output + "' 2>'" + errors + "'";
  int const status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(output), read_file(errors)};
}

/// Runs train_classifier.
inline outcome run(std::string const& arguments, std::string const& environment = "") {
  return run_program(TRAIN_CLASSIFIER, arguments, environment);
}

inline auto lines(std::string const& text) { return std::count(text.begin(), text.end(), '\n'); }

/// The accuracy on the test images that the program printed.
inline double accuracy(outcome const& result) {
  std::string const label = "test accuracy ";
  auto const at = result.output.rfind(label);
  REQUIRE(at != std::string::npos);
  return std::stod(result.output.substr(at + label.size()));
}

/// The weights that a run saves.
inline std::vector<float> trained_weights(std::string const& arguments) {
  temporary_folder const folder;
  auto const file = folder.file("weights");
  auto const result = run("--quiet --save-weights '" + file.string() + "' " + arguments);
  INFO(result.errors);
  REQUIRE(result.exit_code == 0);
  auto const content = read_file(file);
  std::vector<float> weights(content.size() / sizeof(float));
  std::memcpy(weights.data(), content.data(), weights.size() * sizeof(float));
  return weights;
}

/// The largest difference of two weights at one place, as a part of the largest weight expected; infinite if either
/// holds something that is no number.
inline float relative_difference(std::vector<float> const& weights, std::vector<float> const& expected) {
  REQUIRE(weights.size() == expected.size());
  float difference = 0, largest = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!std::isfinite(weights[i] - expected[i])) return std::numeric_limits<float>::infinity();
    difference = std::max(difference, std::abs(weights[i] - expected[i]));
    largest = std::max(largest, std::abs(expected[i]));
  }
  return difference / largest;
}

}  // namespace pushpull::test
