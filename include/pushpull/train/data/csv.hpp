/// @file
/// Tables of numbers in CSV files.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::data {

/// The options of read_csv.
struct csv_options {
  char delimiter = ',';
  std::size_t header_lines = 0;  ///< Skipped, but the last of them names the columns.
};

/// Rows of numbers, row-major.
class csv_table {
 public:
  /// @param values  rows * columns numbers
  csv_table(std::size_t columns, std::vector<double> values, std::vector<std::string> names)
      : columns_(columns), values_(std::move(values)), names_(std::move(names)) {}

  std::size_t rows() const { return columns_ == 0 ? 0 : values_.size() / columns_; }
  std::size_t columns() const { return columns_; }
  /// The names of the columns, if the file has a header.
  std::vector<std::string> const& names() const { return names_; }
  double operator()(std::size_t row, std::size_t column) const { return values_[row * columns_ + column]; }

  /// Columns [first, first + count) of all rows as elements of type T: an array of shape (rows, count), row-major.
  /// @throws invalid_argument if there are no such columns
  template <class T>
  std::vector<T> take(std::size_t first, std::size_t count) const {
    pushpull::detail::expects<invalid_argument>(first <= columns_ && count <= columns_ - first, [&] {
      return "csv_table: columns " + std::to_string(first) + " to " + std::to_string(first + count) + " of " +
             std::to_string(columns_);
    });
    std::vector<T> taken;
    taken.reserve(rows() * count);
    for (std::size_t row = 0; row < rows(); ++row)
      for (std::size_t column = first; column < first + count; ++column)
        taken.push_back(static_cast<T>((*this)(row, column)));
    return taken;
  }

 private:
  std::size_t columns_;
  std::vector<double> values_;
  std::vector<std::string> names_;
};

namespace detail {

/// The text without spaces and one pair of quotes around it.
inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view spaces = " \t\r";
  auto const first = text.find_first_not_of(spaces);
  if (first == text.npos) return {};
  text = text.substr(first, text.find_last_not_of(spaces) - first + 1);
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') text = text.substr(1, text.size() - 2);
  return text;
}

template <class F>
void for_each_field(std::string_view line, char delimiter, F const& f) {
  for (std::size_t begin = 0;;) {
    auto const end = line.find(delimiter, begin);
    f(trimmed(line.substr(begin, end - begin)));
    if (end == line.npos) return;
    begin = end + 1;
  }
}

}  // namespace detail

/// Reads a file of numbers, in one pass. Empty lines are skipped; numbers may be in quotes, and have a sign.
/// @throws file_error, with path, line and column, if the file cannot be read, a field is no number, or lines have different
///         numbers of fields
inline csv_table read_csv(std::filesystem::path const& path, csv_options options = {}) {
  std::ifstream file(path);
  if (!file) throw file_error("read_csv: " + path.string() + " cannot be opened");
  std::string line;
  std::vector<std::string> names;
  std::vector<double> values;
  std::size_t columns = 0;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    if (number <= options.header_lines) {
      names.clear();
      detail::for_each_field(line, options.delimiter, [&](std::string_view field) { names.emplace_back(field); });
      continue;
    }
    if (detail::trimmed(line).empty()) continue;
    std::size_t fields = 0;
    auto const at = [&] { return "read_csv: " + path.string() + ": line " + std::to_string(number); };
    detail::for_each_field(line, options.delimiter, [&](std::string_view field) {
      ++fields;
      std::string_view const digits = field.starts_with('+') ? field.substr(1) : field;
      double value = 0;
      auto const read = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (read.ec != std::errc() || read.ptr != digits.data() + digits.size())
        throw file_error(at() + ", column " + std::to_string(fields) + ": a number expected, got \"" +
                         std::string(field) + "\"");
      values.push_back(value);
    });
    if (columns == 0) columns = fields;
    if (fields != columns)
      throw file_error(at() + ": " + std::to_string(columns) + " fields expected, got " + std::to_string(fields));
  }
  if (file.bad()) throw file_error("read_csv: " + path.string() + " cannot be read");
  if (!names.empty() && columns != 0 && names.size() != columns)
    throw file_error("read_csv: " + path.string() + ": the header names " + std::to_string(names.size()) +
                     " columns, lines have " + std::to_string(columns));
  return {columns, std::move(values), std::move(names)};
}

}  // namespace pushpull::train::data
