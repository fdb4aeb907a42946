/// @file
/// Which run each task of a launch belongs to.
#pragma once

#include <cstdint>

#include <pushpull/config.hpp>
#include <pushpull/detail/index_range.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass::detail {

using run_range = pushpull::detail::index_range;

/// The only run of a launch, in the launch's arguments: its pointers cost a GPU no load.
template <class Run>
struct one_run {
  using run_type = Run;
  Run run;

  PUSHPULL_DEVICE_INLINE Run const& find(std::int64_t&) const { return run; }
};

/// The run of `task`, which becomes the task's number within it. @param ends  ends[r]: number of tasks in runs 0..r.
PUSHPULL_DEVICE_INLINE std::int32_t find_run(std::int64_t& task, std::int64_t const* ends, run_range range) {
  std::int32_t low = range.first;
  for (std::int32_t high = range.last; low < high;) {
    std::int32_t const middle = (low + high) / 2;
    if (ends[middle] > task) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  if (low > 0) task -= ends[low - 1];
  return low;
}

/// The runs of a launch in a table where the device reads it. (A kernel that took a run from either place would hold
/// the run's pointers in registers or in local memory: 128 registers instead of 64 for Adam.)
template <class Run>
struct run_table {
  using run_type = Run;
  Run const* rows;
  std::int64_t const* ends;  ///< ends[r]: number of tasks in runs 0..r.
  std::int32_t size;

  /// The run of `task`, which becomes the task's number within it.
  PUSHPULL_DEVICE_INLINE Run const& find(std::int64_t& task) const {
#if !defined(__CUDA_ARCH__)
    // Many small runs of one task each: a search whose branches no processor foresees would take as long as their pass.
    if (ends[size - 1] == size) {
      Run const& only = rows[task];
      task = 0;
      return only;
    }
#endif
    return find(task, {0, size - 1});
  }
  /// The same for a task whose run is in `range`.
  PUSHPULL_DEVICE_INLINE Run const& find(std::int64_t& task, run_range range) const {
    return rows[find_run(task, ends, range)];
  }
};

}  // namespace pushpull::pass::detail
