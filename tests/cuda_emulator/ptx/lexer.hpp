/// @file
/// The words of PTX text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

struct tokens {
  std::vector<std::string> words;
  std::vector<int> lines;  // where each word stands
};

tokens split_into_tokens(std::string const& text);

bool is_number(std::string const& word);
/// The bits of an integer, or of a float written as 0f3F800000 or 0d3FF0000000000000.
std::uint64_t number(std::string const& word);
/// Words as somebody would write them.
std::string join(std::vector<std::string> const& words);

}  // namespace emulator
