/// @file
/// Assertions for code that several threads run at once, which Catch2's macros are not for.
#pragma once

#include <stdexcept>
#include <string>

namespace pushpull::test {

/// Throws unless it holds, so that the rank fails, and with it the test.
inline void expect(bool holds, char const* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (!holds) throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": expected otherwise");
}
/// Throws unless the text holds the part.
inline void expect_text(std::string const& text, std::string const& part, char const* file = __builtin_FILE(),
                        int line = __builtin_LINE()) {
  if (text.find(part) == text.npos)
    throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": \"" + part + "\" expected in \"" + text +
                           "\"");
}
/// Throws unless f() throws an E.
template <class E, class F>
void expect_throws(F const& f, char const* file = __builtin_FILE(), int line = __builtin_LINE()) {
  try {
    f();
  } catch (E const&) {
    return;
  }
  throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": expected an exception");
}

}  // namespace pushpull::test
