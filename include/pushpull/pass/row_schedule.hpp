/// @file
/// Which rows of a tensor each task of the pass takes, where only some rows came with a gradient.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <pushpull/config.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/pass/coded_states.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/registers/detail/memory.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// How many rows a call brought. On the device, which alone knows it.
struct row_counts {
  std::int32_t given;       ///< Rows with an id that exists.
  std::int32_t distinct;    ///< Different ids among them.
  std::int32_t begin, end;  ///< Those distinct ids of which the owner has elements.
};

namespace detail {

/// The first i in [low, high) with !less(i), or `high`; less is true up to some place.
template <class Less>
PUSHPULL_DEVICE_INLINE std::int32_t partition_point(std::int32_t low, std::int32_t high, Less const& less) {
  while (low < high) {
    std::int32_t const middle = low + (high - low) / 2;
    if (less(middle)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/// The operands of the pass for the rows of one launch. Tables are in memory of the device that runs it.
template <class Run>
struct row_operands {
  using gradient_type = typename Run::gradient_type;

  Run slice;  ///< Master and states: the owner's first element. Mirrors: the output's first. `aligned`: all these.
  std::int64_t row_length;
  std::int64_t begin, end;    ///< The elements of the key that the owner has.
  bool packed;                ///< Mirrors hold the distinct rows, one after another, instead of all.
  std::int64_t const* ids;    ///< Of the given rows, ascending.
  std::int32_t const* first;  ///< first[u]: the given row that is the first with the u-th distinct id.
  row_counts const* counts;
  gradient_type const* const* gradients;  ///< The values of each given row, in the order of `ids`.
  gradient_type const* absent;            ///< A row of zeros.
};

/// How rows are dealt to tasks of `grain` elements: several to one, or one to several.
struct row_tasks {
  std::int64_t rows, parts;

  PUSHPULL_HOST_DEVICE row_tasks(std::int64_t row_length, std::int64_t grain, std::int64_t block)
      : rows(grain > block && row_length < grain ? grain / row_length : 1),
        parts(rows > 1 ? 1 : (row_length + grain - 1) / grain) {}

  /// Tasks for `count` rows.
  std::int64_t count(std::int64_t count) const { return (count + rows - 1) / rows * parts; }
};

/// The part of a schedule of rows that does not depend on which it takes: one row.
template <class Run>
struct row_schedule {
  row_operands<Run> operands;

  PUSHPULL_DEVICE_INLINE std::int32_t clock() const { return operands.slice.clock; }

 protected:
  PUSHPULL_DEVICE_INLINE std::int64_t id(std::int32_t u) const { return operands.ids[operands.first[u]]; }

  /// The run that the rows of a task change one after the other.
  template <std::int64_t Block>
  PUSHPULL_DEVICE_INLINE Run begin_run() const {
    Run r = operands.slice;
    r.aligned = r.aligned && operands.row_length % Block == 0 && operands.begin % Block == 0;
    return r;
  }

  /// f(i) for the task's rows from `from` on, below `end`. Of a task that is one block there is one, without a loop.
  template <std::int64_t Grain, std::int64_t Block, class F>
  PUSHPULL_DEVICE_INLINE static void for_each(std::int64_t from, std::int64_t end, row_tasks const& tasks, F const& f) {
    if constexpr (Grain == Block) {
      if (from < end) f(from);
    } else {
      for (std::int64_t i = from; i < end && i < from + tasks.rows; ++i) f(i);
    }
  }

  /// Gives the run the gradients of distinct row u.
  PUSHPULL_DEVICE_INLINE void set_gradients(Run& r, std::int32_t u) const {
    std::int32_t const first = operands.first[u];
    std::int32_t const last = u + 1 < operands.counts->distinct ? operands.first[u + 1] : operands.counts->given;
    r.gradients = last - first;
    pushpull::detail::static_for<inline_operands>([&](auto k) PUSHPULL_INLINE_LAMBDA {
      constexpr auto index = static_cast<std::int32_t>(decltype(k)::value);
      if (index < last - first) r.gradient[k] = operands.gradients[first + index];
    });
    r.more_gradients = operands.gradients + first + inline_operands;
  }

  /// Asks for the first elements of distinct row u < `end`, which the loop over rows on a CPU will come to: the
  /// hardware cannot foresee where rows are.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void fetch(std::int32_t u, std::int32_t end) const {
    if (u >= end) return;
    std::int64_t const size = operands.row_length < 256 ? operands.row_length : 256;
    auto const ask = [&](auto const* from) PUSHPULL_INLINE_LAMBDA { pushpull::detail::simd_fetch(from, size); };
    std::int64_t const offset = id(u) * operands.row_length - operands.begin;
    if (offset < 0) return;
    ask(operands.slice.master + offset);
    pushpull::detail::static_for<Run::states>(
        [&](auto s) PUSHPULL_INLINE_LAMBDA { fetch_state<typename Run::state_type, s>(operands.slice, offset, size); });
    if (operands.gradients != nullptr) ask(operands.gradients[operands.first[u]]);
  }

  /// f(run, first, last) for part `part` of what the owner has of row `id`. The run's pointers are to the row's first
  /// element, even if that is another owner's.
  template <std::int64_t Grain, class F>
  PUSHPULL_DEVICE_INLINE void row(Run& r, std::int64_t id, std::int32_t u, std::int64_t part, F const& f) const {
    std::int64_t const start = id * operands.row_length;
    std::int64_t const stop = start + operands.row_length;
    std::int64_t const skipped = operands.begin > start ? operands.begin - start : 0;
    r.size = (stop < operands.end ? stop : operands.end) - start;
    std::int64_t const first = skipped + part * Grain;
    if (first >= r.size) return;
    std::int64_t const offset = start - operands.begin;
    std::int64_t const mirror_offset = operands.packed ? u * operands.row_length : start;
    r.first_element = operands.slice.first_element + start;
    r.master = operands.slice.master + offset;
    pushpull::detail::static_for<Run::states>(
        [&](auto s) PUSHPULL_INLINE_LAMBDA { r.state[s] = operands.slice.state[s] + offset; });
    pushpull::detail::static_for<inline_operands>([&](auto k) PUSHPULL_INLINE_LAMBDA {
      if (static_cast<std::int32_t>(decltype(k)::value) < r.mirrors)
        r.mirror[k] = operands.slice.mirror[k] + mirror_offset;
    });
    f(r, first, first + Grain < r.size ? first + Grain : r.size);
  }
};

/// The rows that came with a gradient, or all: those that came with none then have one of zeros. A launch is sized by the rows
/// that were given; tasks beyond the distinct ones return.
/// @tparam All  std::true_type, std::false_type, or bool: known at run time, for hosts, where a choice per row costs nothing and
/// the pass is compiled once.
template <class Run, class All>
struct rows_of : row_schedule<Run> {
  using run_type = Run;
  All all = {};

  /// f(run, first, last) for the elements [first, last) of each row of a task.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <std::int64_t Grain, std::int64_t Block, class F>
  PUSHPULL_DEVICE_INLINE void for_each_row(std::int64_t task, F const& f) const {
    auto const& o = this->operands;
    row_tasks const tasks(o.row_length, Grain, Block);
    std::int64_t const skipped = task / tasks.parts * tasks.rows;
    std::int64_t const from = skipped + (takes_all() ? o.begin / o.row_length : o.counts->begin);
    std::int32_t const present_end = o.counts->end;
    std::int64_t const end = takes_all() ? (o.end + o.row_length - 1) / o.row_length : present_end;
    auto const ahead = static_cast<std::int32_t>(320 / o.row_length + 1);
    std::int32_t next = o.counts->begin;
    if (takes_all())
      next =
          partition_point(next, present_end, [&](std::int32_t i) PUSHPULL_INLINE_LAMBDA { return this->id(i) < from; });
    Run r = this->template begin_run<Block>();
    this->template for_each<Grain, Block>(from, end, tasks, [&](std::int64_t i) PUSHPULL_INLINE_LAMBDA {
      std::int64_t id = i;
      std::int32_t u = 0, given = -1;  // the row's place among those of a packed output, and among the given ones
      if (!takes_all()) {
        given = u = static_cast<std::int32_t>(i);
        if constexpr (Grain != Block) this->fetch(u + ahead, present_end);
        id = this->id(u);
      } else if (next < present_end && this->id(next) == id) {
        given = next++;
      }
      if (given < 0) {
        r.gradient[0] = o.absent;
        r.gradients = 1;
      } else if (o.gradients != nullptr) {
        this->set_gradients(r, given);
      }
      this->template row<Grain>(r, id, u, task % tasks.parts, f);
    });
  }

 private:
  PUSHPULL_DEVICE_INLINE constexpr bool takes_all() const {
    if constexpr (std::same_as<All, bool>) {
      return all;
    } else {
      return All::value;
    }
  }
};

template <class Run>
using present_rows = rows_of<Run, std::false_type>;
template <class Run>
using all_rows = rows_of<Run, std::true_type>;
template <class Run>
using some_rows = rows_of<Run, bool>;

}  // namespace detail

// What a pass over rows is launched with.
using detail::all_rows;
using detail::partition_point;
using detail::present_rows;
using detail::row_operands;
using detail::row_tasks;
using detail::some_rows;

}  // namespace pushpull::pass
