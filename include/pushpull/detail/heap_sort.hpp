/// @file
/// A sort that is short to compile.
#pragma once

#include <algorithm>
#include <ranges>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Sorts in place, without memory of its own. std::sort makes three times as many functions per type of element and takes
/// half the time to run; this one is for templates that sort short lists, or lists that are seldom out of order.
template <std::ranges::random_access_range R, class Before>
void heap_sort(R& range, Before const& before) {
  std::make_heap(range.begin(), range.end(), before);
  std::sort_heap(range.begin(), range.end(), before);
}

}  // namespace pushpull::detail
