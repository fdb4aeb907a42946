/// @file
/// The rows of a table outside of it: ids, weights, states of the rule, and usage.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Rows that `embedding_table::export_rows` has copied. Entry i of every list is of ids[i].
/// @tparam W, S  Element types of the store's masters and states.
template <class W, class S>
struct table_rows {
  /// Elements of a state, row by row.
  struct state {
    std::string name;         ///< As the store names it.
    std::vector<S> elements;  ///< As many per row as the rule keeps.
  };

  std::vector<std::int64_t> ids = {};        ///< Each once.
  std::vector<W> values = {};                ///< Row by row.
  std::vector<state> states = {};            ///< In the order of the store's names.
  std::vector<std::int64_t> last_used = {};  ///< The number of the last call that named the id.
  std::vector<std::int64_t> seen = {};       ///< The steps that named it.
  std::vector<std::int64_t> slots = {};      ///< An empty table puts the rows there, so that it goes on bit for bit.

  std::int64_t calls = 0;       ///< Calls of the table so far.
  std::int64_t step_began = 1;  ///< The number of the first call of the present step.
  std::int64_t steps = 0;       ///< t of the rule.

  /// Ids without a row, of which the counts are kept.
  struct candidates {
    std::vector<std::int64_t> ids = {}, last_used = {}, seen = {};  ///< As those of rows.
    std::vector<std::int64_t> newer = {};                           ///< 1 in the newer generation, 0 in the older one.
  } waiting = {};
};

}  // namespace pushpull
