/// @file
/// The one pass over rows of a key: what an owner's part of it is given.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/pass/body.hpp>
#include <pushpull/pass/row_schedule.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/profile/tracing.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/tensor/row_sparse.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// One pass over rows of what an owner, `device`, holds of a key.
/// @param rows  Those that the tasks have to cover.
template <class Rule, class Reduction, class Types, template <class> class Schedule, Device D, class Clocks>
void launch_rows(D const& device, pass::row_operands<pass::run<Types, state_count<Rule>>> const& operands,
                 Rule const* rules, Clocks const* clocks, std::int64_t rows) {
  using run_type = pass::run<Types, state_count<Rule>>;
  using body = pass::body<Rule, Reduction, Types, typename D::execution, pass::memory::rows, Schedule>;
  constexpr auto gradient =
      static_cast<std::int64_t>(pass::reads_gradient<Rule> ? sizeof(typename Types::gradient) : 0);
  std::int64_t const mirrors = operands.slice.mirrors * static_cast<std::int64_t>(sizeof(typename Types::mirror));
  profile::detail::pass_span const traced(
      "rows", device.id(),
      rows * operands.row_length * (gradient + mirrors) +
          pass::stored_bytes<Rule, Types, state_count<Rule>>(rows * operands.row_length));
  pass::row_tasks const tasks(operands.row_length, body::grain, body::task_type::block);
  if constexpr (HostDevice<D>) {
    using either = pass::body<Rule, Reduction, Types, typename D::execution, pass::memory::rows, pass::some_rows>;
    bool const all = std::same_as<Schedule<run_type>, pass::all_rows<run_type>>;
    device.for_each(tasks.count(rows), either{rules, clocks, {{operands}, all}});
  } else {
    device.for_each(tasks.count(rows), body{rules, clocks, {{operands}}});
  }
}

/// The common part of the passes over a key's rows.
/// @tparam Table  The store's key_table.
template <class Table>
class row_pass {
  using T = typename Table::T;
  using D = typename Table::device_type;

 public:
  using record = typename Table::record;
  using shard_type = typename Table::shard_type;
  template <class Run>
  using operands_of = pass::row_operands<Run>;

  explicit row_pass(Table const& table) : table_(table) {}

  std::vector<D> const& devices() const { return table_.devices(); }

  /// What an owner holds of the key; no mirrors yet.
  template <class Run>
  operands_of<Run> describe(record const& r, shard_type const& shard, row_tables<T, D> const& tables) const {
    auto operands = shard.template row_operands<operands_of<Run>>(row_length_of(r.shape));
    tables.describe(shard.device_number(), operands);
    return operands;
  }

  /// Takes up to as many mirrors from the front as a pass over `rows` writes.
  template <class Run>
  static void take_mirrors(operands_of<Run>& operands, std::span<T* const>& mirrors, bool aligned, std::int64_t rows) {
    std::size_t const count = std::min<std::size_t>(mirrors.size(), pass::inline_operands);
    auto const taken = mirrors.first(count);
    operands.slice.mirrors = static_cast<std::int32_t>(count);
    std::copy_n(taken.begin(), count, operands.slice.mirror);
    operands.slice.aligned = aligned && pass::all_aligned(taken, 16);  // masters and states are
    auto const row_bytes = static_cast<std::size_t>(operands.row_length) * sizeof(T);
    operands.slice.streaming =
        rows * operands.row_length >= pass::streamed_size && row_bytes % 16 == 0 && pass::all_aligned(taken, 16);
    mirrors = mirrors.subspan(count);
  }

  /// Copies stored rows to all `mirrors`: a pass per as many as one writes.
  template <template <class> class Schedule>
  void copy_rows(record const& r, shard_type const& shard, row_tables<T, D> const& tables, std::span<T* const> mirrors,
                 bool packed, std::int64_t rows) const {
    using W = typename Table::W;
    using types = pass::element_types<T, typename Table::accumulation_type, W, W, T>;
    auto operands = describe<pass::run<types, 0>>(r, shard, tables);
    operands.packed = packed;
    copy_rows<types, Schedule>(shard.device(), operands, mirrors, rows);
  }
  /// Copies rows from the mirror on device number 0 to all `mirrors`, which hold nothing else.
  void copy_rows_of_mirror(record const& r, row_tables<T, D> const& tables, std::span<T* const> mirrors) const {
    using types = pass::element_types<T, accumulation_t<T>, T, T, T>;
    using operands_type = operands_of<pass::run<types, 0>>;
    auto operands = whole_key_row_operands<operands_type>(r, Table::mirror(r, 0), row_length_of(r.shape));
    tables.describe(0, operands);
    operands.packed = true;
    copy_rows<types, pass::present_rows>(devices().front(), operands, mirrors, tables.size());
  }

 private:
  template <class RunTypes, template <class> class Schedule>
  static void copy_rows(D const& device, operands_of<pass::run<RunTypes, 0>> operands, std::span<T* const> mirrors,
                        std::int64_t rows) {
    while (!mirrors.empty()) {
      take_mirrors(operands, mirrors, true, rows);
      using clock = pass::clock_of<pass::hold, RunTypes>;
      launch_rows<pass::hold, reduce::sum, RunTypes, Schedule, D, clock>(device, operands, nullptr, nullptr, rows);
    }
  }

  Table const& table_;
};

}  // namespace pushpull::detail
