/// @file
/// The exception for everything that the person at the keyboard can mend: options and data files (exit code 2).
#pragma once

#include <stdexcept>

namespace train_classifier {

/// Says in one sentence which option or which file is wrong, and what was expected.
class input_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace train_classifier
