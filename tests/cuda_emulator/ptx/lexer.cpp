#include "ptx/lexer.hpp"

#include <cctype>
#include <cstdlib>
#include <utility>

namespace emulator {
namespace {

bool in_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.';
}

/// Behind the word that starts at `i`; `::` belongs to a word, as in shared::cta.
std::size_t end_of_word(std::string const& s, std::size_t i) {
  while (i < s.size()) {
    if (in_word(s[i])) {
      ++i;
    } else if (s.compare(i, 2, "::") == 0) {
      i += 2;
    } else {
      break;
    }
  }
  return i;
}

}  // namespace

tokens split_into_tokens(std::string const& s) {
  tokens out;
  int line = 1;
  std::size_t i = 0;
  auto const push_until = [&](std::size_t end) {
    out.words.push_back(s.substr(i, end - i));
    out.lines.push_back(line);
    i = end;
  };
  while (i < s.size()) {
    if (s[i] == '\n') ++line;
    if (std::isspace(static_cast<unsigned char>(s[i]))) {
      ++i;
    } else if (s.compare(i, 2, "//") == 0) {
      while (i < s.size() && s[i] != '\n') ++i;
    } else if (s.compare(i, 2, "/*") == 0) {
      while (i < s.size() && s.compare(i, 2, "*/") != 0) line += s[i++] == '\n';
      i += 2;
    } else if (s[i] == '"') {
      push_until(s.find('"', i + 1) + 1);
    } else if (in_word(s[i])) {
      push_until(end_of_word(s, i));
    } else {
      push_until(i + 1);
    }
  }
  return out;
}

bool is_number(std::string const& word) { return !word.empty() && std::isdigit(static_cast<unsigned char>(word[0])); }

std::uint64_t number(std::string const& word) {
  bool const is_float = word.size() > 2 && word[0] == '0' && std::string("fFdD").find(word[1]) != std::string::npos;
  return is_float ? std::strtoull(word.c_str() + 2, nullptr, 16) : std::strtoull(word.c_str(), nullptr, 0);
}

std::string join(std::vector<std::string> const& words) {
  std::string s;
  for (auto const& word : words) {
    bool const apart = word != "," && word != "]" && word != ";";
    if (!s.empty() && apart && s.back() != '[' && s.back() != '@' && s.back() != '!') s += ' ';
    s += word;
  }
  return s;
}

}  // namespace emulator
