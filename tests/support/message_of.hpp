/// @file
/// The text of an exception that a test expects.
#pragma once

#include <string>

#include <pushpull/error.hpp>

namespace pushpull::test {

/// The message of the error E that f() throws.
template <class E = invalid_argument, class F>
std::string message_of(F const& f) {
  try {
    f();
  } catch (E const& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace pushpull::test
