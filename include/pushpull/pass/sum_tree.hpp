/// @file
/// The fixed tree by which partial sums are added: the same for any number of devices.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/pass/step_control.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// Levels of nodes over slots that are cut into segments. Every node adds up to `tree_width` neighbours of the level
/// below, in order and of one segment; the last level has a node per segment.
struct sum_tree {
  struct level {
    std::size_t first;  ///< Where its nodes' entries begin in `begins`.
    std::int64_t nodes;
  };
  std::vector<level> levels;
  /// Per level: the first child of each node, then the end. Empty without segments, where node i begins at 64 i.
  std::vector<std::int64_t> begins;

  /// @param segments  The first slot of each, ascending; they end at `slots`. None: all slots are one.
  void build(std::span<std::int64_t const> segments, std::int64_t slots) {
    levels.clear();
    begins.clear();
    if (segments.empty()) {
      for (std::int64_t size = slots; size > 1;) levels.push_back({0, size = (size + tree_width - 1) / tree_width});
      return;
    }
    ends_.assign(segments.begin() + 1, segments.end());
    ends_.push_back(slots);
    for (std::int64_t size = slots; size > static_cast<std::int64_t>(ends_.size());) {
      level next{begins.size(), 0};
      std::int64_t first = 0;
      for (std::int64_t& end : ends_) {
        for (; first < end; first += std::min(tree_width, end - first)) {
          begins.push_back(first);
          ++next.nodes;
        }
        first = end;
        end = next.nodes;
      }
      begins.push_back(size);
      levels.push_back(next);
      size = next.nodes;
    }
  }

  /// Over all levels.
  std::int64_t nodes() const {
    std::int64_t total = 0;
    for (level const& l : levels) total += l.nodes;
    return total;
  }

 private:
  std::vector<std::int64_t> ends_;  // of the segments in the level below
};

}  // namespace pushpull::pass
