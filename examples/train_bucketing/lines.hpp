/// @file
/// A text as lines of symbols, and batches of lines of about the same length.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/data/data_source.hpp>
#include <pushpull/train/data/shuffle.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "options.hpp"

namespace train_bucketing {

namespace pp = pushpull;

/// The characters of a text as symbols. Symbol 0 is padding, symbol 1 the end of a line.
class alphabet {
 public:
  static constexpr std::uint8_t padding = 0, end = 1;

  /// @throws input_error if there are more characters than symbols
  explicit alphabet(std::string_view text) {
    for (char const c : text) {
      auto& symbol = symbols_[static_cast<unsigned char>(c)];
      if (symbol != 0 || c == '\n' || c == '\r') continue;
      if (characters_.size() == 256) throw input_error{"--text: more than 254 different characters"};
      symbol = static_cast<std::uint8_t>(characters_.size());
      characters_ += c;
    }
  }
  std::size_t size() const { return characters_.size(); }
  std::uint8_t symbol(char c) const { return symbols_[static_cast<unsigned char>(c)]; }
  char character(std::size_t symbol) const { return characters_[symbol]; }

 private:
  std::array<std::uint8_t, 256> symbols_{};
  std::string characters_ = "\n\n";
};

/// The parts of a text's lines, without line ends: none is longer than `longest`. A verse of the Bible loses its number.
inline std::vector<std::string_view> parts_of(std::string_view text, std::size_t longest, bool numbered) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin < text.size();) {
    auto const end = std::min(text.find('\n', begin), text.size());
    auto line = text.substr(begin, end - begin);
    begin = end + 1;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (numbered) line.remove_prefix(std::min(line.find(' ') + 1, line.size()));
    for (; !line.empty(); line.remove_prefix(std::min(longest, line.size()))) parts.push_back(line.substr(0, longest));
  }
  return parts;
}

/// Batches of lines of one bucket each: data "symbol" is the end of a line and then its characters; "label" is the characters and
/// then the end. Seed and epoch decide the order.
class bucketed_lines {
 public:
  using batch = pp::train::batch<std::uint8_t>;

  /// @param buckets  Ascending lengths. Each line fits the last one.
  bucketed_lines(std::vector<std::string_view> const& lines, alphabet const& of, std::vector<std::int64_t> buckets,
                 std::int64_t rows, std::uint64_t seed)
      : symbols_{of}, buckets_{std::move(buckets)}, rows_{rows}, seed_{seed}, lines_(buckets_.size()) {
    for (auto const line : lines) {
      auto const length = static_cast<std::int64_t>(line.size()) + 1;
      auto const fits = std::lower_bound(buckets_.begin(), buckets_.end(), length);
      lines_[static_cast<std::size_t>(fits - buckets_.begin())].push_back(line);
    }
    begin_epoch();
  }

  std::optional<batch> next() {
    if (place_.batch == batches()) return std::nullopt;
    auto const [bucket, first] = order_[static_cast<std::size_t>(place_.batch++)];
    auto const& lines = lines_[bucket];
    auto const length = static_cast<std::size_t>(buckets_[bucket]);
    auto const rows = std::min(static_cast<std::size_t>(rows_), lines.size() - first);
    data_.assign(rows * length, alphabet::padding);
    labels_.assign(rows * length, alphabet::padding);
    for (std::size_t row = 0; row < rows; ++row) {
      auto const line = lines[static_cast<std::size_t>(lines_order_[bucket][first + row])];
      auto *data = &data_[row * length], *label = &labels_[row * length];
      *data++ = alphabet::end;
      for (char const c : line) *data++ = *label++ = symbols_.symbol(c);
      *label = alphabet::end;
    }
    pp::shape const shape{static_cast<std::int64_t>(rows), buckets_[bucket]};
    return batch{.data = {{data_.data(), shape}}, .labels = {{labels_.data(), shape}}, .bucket = buckets_[bucket]};
  }
  void reset() {
    if (place_.batch == 0) return;
    place_ = {place_.epoch + 1, 0};
    begin_epoch();
  }
  /// Of the longest bucket.
  pp::train::source_descs descs() const {
    pp::shape const shape{rows_, buckets_.back()};
    return {{{.name = "symbol", .shape = shape, .dtype = "uint8", .layout = "NT"}},
            {{.name = "label", .shape = shape, .dtype = "uint8", .layout = "NT"}}};
  }
  std::int64_t batches() const { return static_cast<std::int64_t>(order_.size()); }
  pp::train::source_position position() const { return place_; }
  void seek(pp::train::source_position to) {
    place_ = to;
    begin_epoch();
  }

 private:
  void begin_epoch() {
    std::vector<std::pair<std::size_t, std::size_t>> all;
    lines_order_.clear();
    for (std::size_t bucket = 0; bucket < lines_.size(); ++bucket) {
      auto const count = lines_[bucket].size();
      lines_order_.push_back(pp::train::data::shuffled(static_cast<std::int64_t>(count), seed_ + bucket, place_.epoch));
      for (std::size_t first = 0; first < count; first += static_cast<std::size_t>(rows_))
        all.emplace_back(bucket, first);
    }
    order_.clear();
    for (auto const i : pp::train::data::shuffled(static_cast<std::int64_t>(all.size()), seed_, place_.epoch))
      order_.push_back(all[static_cast<std::size_t>(i)]);
  }

  alphabet const& symbols_;
  std::vector<std::int64_t> buckets_;
  std::int64_t rows_;
  std::uint64_t seed_;
  std::vector<std::vector<std::string_view>> lines_;        // of each bucket
  std::vector<std::vector<std::int64_t>> lines_order_;      // of each bucket, in this epoch
  std::vector<std::pair<std::size_t, std::size_t>> order_;  // bucket and first line of each batch
  pp::train::source_position place_;
  std::vector<std::uint8_t> data_, labels_;
};

}  // namespace train_bucketing
