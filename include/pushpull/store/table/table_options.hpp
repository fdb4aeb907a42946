/// @file
/// How a table admits and evicts ids.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Whose row a full table gives to a new id.
enum class eviction {
  none,                   ///< Nobody's: the call throws table_full.
  least_recently_used,    ///< The id that no call has named for the longest time.
  least_frequently_used,  ///< The id that was seen in the fewest steps; of several the least recently used.
};

/// How an embedding_table admits and evicts ids.
struct table_options {
  /// Rows that the table has at most.
  std::int64_t capacity = std::numeric_limits<std::int64_t>::max();
  /// Rows for which memory is allocated at first. It doubles as often as it is needed.
  std::int64_t initial_rows = 1024;
  /// The steps in which an id must have been seen before it gets a row, the present one included.
  std::int64_t admission = 1;
  /// Ids without a row whose counts are kept, about: of more, those seen least recently are forgotten.
  std::int64_t candidates = std::int64_t{1} << 20;
  eviction evicts = eviction::none;
  /// Rows that an eviction frees at least, if as many may go: to choose them costs a look at all rows.
  std::int64_t evict_at_least = 1;

  /// @throws invalid_argument
  void validate() const {
    auto const expect = [](char const* name, std::int64_t value, std::int64_t lowest) {
      detail::expects<invalid_argument>(value >= lowest, [&] {
        return "embedding_table: " + std::string(name) + " of at least " + std::to_string(lowest) + " expected, got " +
               std::to_string(value);
      });
    };
    expect("a capacity", capacity, 1);
    expect("initial_rows", initial_rows, 1);
    expect("an admission", admission, 1);
    expect("a number of candidates", candidates, 2);
    expect("evict_at_least", evict_at_least, 1);
  }
};

}  // namespace pushpull
