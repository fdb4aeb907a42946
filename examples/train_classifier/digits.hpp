/// @file
/// Reader of the UCI handwritten digits: lines of 64 pixels from 0 to 16 and a label, compressed with gzip.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "dataset.hpp"
#include "gzip.hpp"
#include "input_error.hpp"
#include "random.hpp"

namespace train_classifier {

namespace detail {

inline constexpr std::size_t digits_features = 64;
inline constexpr unsigned digits_white = 16;

/// The integer that `text` holds, if it holds exactly one of 0 ... `largest`.
/// @throws input_error that begins with `where`.
inline unsigned parse_field(std::string_view text, unsigned largest, std::string const& where) {
  unsigned value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value > largest)
    throw input_error{where + " is not an integer from 0 to " + std::to_string(largest)};
  return value;
}

/// Appends one line, "p0,p1,...,p63,label".
inline void parse_digit(std::string_view line, std::string const& where, dataset& digits) {
  for (std::size_t field = 0;; ++field) {
    auto const comma = line.find(',');
    auto const last = comma == std::string_view::npos;
    if (last != (field == digits_features))
      throw input_error{where + " does not have " + std::to_string(digits_features + 1) + " fields"};
    auto const here = where + ", field " + std::to_string(field + 1);
    if (last) {
      digits.labels.push_back(static_cast<std::uint8_t>(parse_field(line, classes - 1, here)));
      return;
    }
    auto const pixel = parse_field(line.substr(0, comma), digits_white, here);
    digits.images.push_back(static_cast<float>(pixel) / static_cast<float>(digits_white));
    line.remove_prefix(comma + 1);
  }
}

}  // namespace detail

/// All digits of the file `path`, in its order.
/// @throws input_error if it cannot be read or is not what `expected` digits look like.
inline dataset read_digits(std::filesystem::path const& path, std::size_t expected = 1797) {
  auto const content = read_gzip(path);
  std::string_view text{reinterpret_cast<char const*>(content.data()), content.size()};
  dataset digits;
  digits.features = detail::digits_features;
  for (std::size_t number = 1; !text.empty(); ++number) {
    auto const line = text.substr(0, text.find('\n'));
    detail::parse_digit(line, path.string() + ": line " + std::to_string(number), digits);
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
  if (digits.size() != expected)
    throw input_error{path.string() + " has " + std::to_string(digits.size()) + " lines, expected " +
                      std::to_string(expected)};
  return digits;
}

/// Four fifths for training, one fifth for the test: the same fifth in every run, so that accuracies can be compared.
inline training_and_test split_digits(dataset const& digits) {
  generator random{1998};
  auto const order = shuffled_indices(digits.size(), random);
  std::span<std::uint32_t const> const rows{order};
  auto const training_size = digits.size() * 4 / 5;
  training_and_test split;
  append_rows(digits, rows.first(training_size), split.training);
  append_rows(digits, rows.subspan(training_size), split.test);
  return split;
}

}  // namespace train_classifier
