/// @file
/// A text as numbers of words.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <text/read_text.hpp>

#include "options.hpp"

namespace train_word2vec {

/// The words of a text that occur often enough, the most frequent first, and the text in their numbers.
struct corpus {
  std::vector<std::string> words;
  std::vector<std::int64_t> counts;
  std::vector<std::int32_t> tokens;          ///< the whole text
  std::vector<std::size_t> sentence_begins;  ///< places in `tokens`, ascending; the first is 0

  /// The number of a word, or -1.
  std::int64_t find(std::string_view word) const {
    auto const found = std::find(words.begin(), words.end(), word);
    return found == words.end() ? -1 : found - words.begin();
  }
};

namespace detail {

/// Calls word(w) for each word of a line: letters and apostrophes within them, in lower case. Words with digits are none.
template <class F>
void for_each_word(std::string_view line, F const& word) {
  std::string w;
  bool digits = false;
  auto const end = [&] {
    while (!w.empty() && w.back() == '\'') w.pop_back();
    if (!w.empty() && !digits) word(w);
    w.clear();
    digits = false;
  };
  for (char const c : line) {
    auto const byte = static_cast<unsigned char>(c);
    if (std::isalpha(byte) || byte >= 0x80 || (c == '\'' && !w.empty()))
      w += static_cast<char>(std::tolower(byte));
    else if (std::isdigit(byte) || (digits && c == ':'))
      digits = true;
    else
      end();
  }
  end();
}

}  // namespace detail

/// @throws input_error if the text cannot be read, or has no word that is frequent enough
inline corpus read_corpus(options const& chosen) {
  auto const text = example_text::read_text(chosen.text);
  std::unordered_map<std::string, std::int64_t> counts;
  auto const for_each_line = [&](auto const& use) {
    for (std::size_t begin = 0; begin < text.size();) {
      auto const end = std::min(text.find('\n', begin), text.size());
      use(std::string_view{text}.substr(begin, end - begin));
      begin = end + 1;
    }
  };
  for_each_line(
      [&](std::string_view line) { detail::for_each_word(line, [&](std::string const& w) { ++counts[w]; }); });

  std::vector<std::pair<std::int64_t, std::string>> frequent;
  for (auto const& [word, count] : counts)
    if (count >= static_cast<std::int64_t>(chosen.min_count)) frequent.emplace_back(-count, word);
  std::sort(frequent.begin(), frequent.end());
  if (frequent.size() < 2)
    throw input_error{"fewer than 2 words occur " + std::to_string(chosen.min_count) +
                      " times: try a smaller --min-count"};
  corpus found;
  std::unordered_map<std::string, std::int32_t> numbers;
  for (auto const& [count, word] : frequent) {
    numbers.emplace(word, static_cast<std::int32_t>(found.words.size()));
    found.words.push_back(word);
    found.counts.push_back(-count);
  }
  for_each_line([&](std::string_view line) {
    auto const begin = found.tokens.size();
    detail::for_each_word(line, [&](std::string const& w) {
      if (auto const known = numbers.find(w); known != numbers.end()) found.tokens.push_back(known->second);
    });
    if (found.tokens.size() > begin) found.sentence_begins.push_back(begin);
  });
  return found;
}

}  // namespace train_word2vec
