/// @file
/// The small work of a Factored stage's phase: sums over rows and columns, and what becomes of their numbers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/factored.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/pass/body.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/registers/row_column_statistics.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// A whole tensor, on its owner. Where numbers of its rows and columns lie is in a `matrix` for each of `Stages`
/// stages.
template <class Types, std::size_t States, std::size_t Stages>
struct matrix_run {
  using S = typename Types::state;

  typename Types::accumulation const* gradient;  ///< Reduced.
  typename Types::master const* master;
  S const* state[States == 0 ? 1 : States];
  std::int32_t clock;
  S* kept_rows[Stages];           ///< States between steps, or null.
  S* kept_columns[Stages];        ///< States between steps, or null.
  std::int64_t row_slot[Stages];  ///< Where partial sums begin.
  std::int64_t column_slot[Stages];
  std::int64_t mean_slot[Stages];
};

namespace detail {

/// How the sums of one tensor are cut into tasks: depends on its shape alone.
struct matrix_cuts {
  std::int64_t row_chunks;     ///< Parts of a row, of a leaf each.
  std::int64_t chunk;          ///< Rows in a part of a column.
  std::int64_t column_chunks;  ///< Parts of a column.
  std::int64_t mean_chunks;    ///< Parts of the rows of a matrix, whose numbers are averaged.

  /// Whether rows are short: see short_row_sums.
  template <class A>
  PUSHPULL_HOST_DEVICE static bool has_short_rows(matrix<A> const& m) {
    return m.columns <= 256;
  }

  /// Neither a column nor the sum over its parts is long: both grow like the root of the rows.
  template <class A>
  PUSHPULL_HOST_DEVICE explicit matrix_cuts(matrix<A> const& m)
      : row_chunks((m.columns + leaf_size - 1) / leaf_size),
        chunk(64),
        mean_chunks((m.rows + leaf_size - 1) / leaf_size) {
    while (chunk * chunk < m.rows) chunk *= 2;
    column_chunks = (m.rows + chunk - 1) / chunk;
  }
};

/// The tensors of a launch, and how many tasks those before each and it have.
template <class Run, class A>
struct matrix_table {
  Run const* runs;
  matrix<A> const* matrices;  ///< Of one stage: every `stride`.
  std::int64_t const* ends;
  std::int32_t size;
  std::int32_t stride;

  /// The tensor of `task`, which becomes the task's number within it.
  PUSHPULL_DEVICE_INLINE std::int32_t find(std::int64_t& task) const { return find_run(task, ends, {0, size - 1}); }
  PUSHPULL_DEVICE_INLINE matrix<A> const& matrix_of(std::int32_t i) const { return matrices[i * stride]; }
};

/// Terms of phase `Phase` for `valid` elements of a tensor from number `i` on.
template <class Rule, class Types, class Execution, std::size_t Phase>
struct matrix_terms {
  using A = typename Types::accumulation;
  static constexpr std::size_t states = pushpull::detail::state_count<Rule>;
  static constexpr std::size_t stage = pushpull::detail::factored_number<Rule, Phase>;
  using run_type = matrix_run<Types, states, pushpull::detail::factored_count<Rule>>;
  using block_type = typename Execution::template block_type<A, A, typename Types::master, typename Types::state, A>;
  using V = typename block_type::pack_type;

  Rule const* rules;
  clock<Rule, A> const* clocks;
  matrix_table<run_type, A> table;

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_DEVICE_INLINE void terms(block_type& to, run_type const& r, std::int64_t first, std::int64_t i,
                                    std::int64_t valid) const {
    constexpr bool of_states = pushpull::detail::has_terms_of_states<Rule, Phase>;
    auto const& own_clock = clocks[r.clock];
    block_type g, w, state[states + 1];
    load_stored<memory::rows>(g, r.gradient + i, false, valid);
    load_stored<memory::rows>(w, r.master + i, false, valid);
    if constexpr (of_states)
      static_for<states>(
          [&](auto s) PUSHPULL_INLINE_LAMBDA { load_stored<memory::rows>(state[s], r.state[s] + i, false, valid); });
    static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
      std::int64_t const number = first + i + static_cast<std::int64_t>(j * V::size);
      V lanes[states + 1];
      static_for<of_states ? states : 0>([&](auto s) PUSHPULL_INLINE_LAMBDA { lanes[s] = state[s].x[j]; });
      to.x[j] =
          of_pack(own_clock, number, w.x[j], g.x[j], static_cast<V const*>(lanes), std::make_index_sequence<states>{});
    });
  }

  /// The term of the element with number `i` of a tensor, computed in double.
  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE double term_in_double(run_type const& r, std::int64_t first, std::int64_t i) const {
    using one = pack<double>;
    one state[states + 1];
    if constexpr (pushpull::detail::has_terms_of_states<Rule, Phase>)
      for (std::size_t s = 0; s != states; ++s) state[s] = one(convert<double>(r.state[s][i]));
    return of_pack(clocks[r.clock], first + i, one(convert<double>(r.master[i])), one(convert<double>(r.gradient[i])),
                   static_cast<one const*>(state), std::make_index_sequence<states>{})
        .value;
  }

  /// f(k, the term of element number k) for each of `valid` elements of a tensor from number `i` on. Where squares of
  /// floats overflow, terms are computed in double: floats that are finite have finite means of squares.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class F>
  PUSHPULL_DEVICE_INLINE void each(run_type const& r, std::int64_t first, std::int64_t i, std::int64_t valid,
                                   F const& f) const {
    block_type terms;
    this->terms(terms, r, first, i, valid);
    if constexpr (sizeof(A) < sizeof(double)) {
      bool overflows = false;
      static_for<block_type::count>(
          [&](auto j) PUSHPULL_INLINE_LAMBDA { overflows = overflows || any(!is_finite(terms.x[j])); });
      if (overflows) {
        for (std::int64_t k = 0; k < valid; ++k) f(static_cast<std::size_t>(k), term_in_double(r, first, i + k));
        return;
      }
    }
    static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
      for (std::size_t lane = 0; lane < V::size; ++lane) {
        std::size_t const k = j * V::size + lane;
        if (static_cast<std::int64_t>(k) < valid)
          f(k, static_cast<double>(reinterpret_cast<A const*>(&terms.x[j])[lane]));
      }
    });
  }

 private:
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class W, std::size_t... I>
  PUSHPULL_DEVICE_INLINE W of_pack(clock<Rule, A> const& own_clock, std::int64_t number, W const& w, W const& g,
                                   W const* state, std::index_sequence<I...>) const {
    auto const& given = pushpull::detail::argument(own_clock.prepared, number);
    if constexpr (pushpull::detail::has_terms_of_states<Rule, Phase>) {
      return pushpull::detail::terms<Phase>(rules[own_clock.parameter_group], given, w, g, state[I]...);
    } else {
      return pushpull::detail::terms<Phase>(rules[own_clock.parameter_group], given, w, g);
    }
  }
};

/// The terms of all elements: a task is a part of a tensor.
template <class Rule, class Types, class Execution, std::size_t Phase>
struct write_terms : matrix_terms<Rule, Types, Execution, Phase> {
  using base = matrix_terms<Rule, Types, Execution, Phase>;
  using typename base::block_type;
  /// Elements of a task: a thread's on GPUs.
  static constexpr std::int64_t part = Execution::grain == 0 ? block_type::size : leaf_size * 4;

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    std::int32_t const n = this->table.find(task);
    auto const& m = this->table.matrix_of(n);
    std::int64_t const begin = task * part, end = begin + part < m.size ? begin + part : m.size;
    for (std::int64_t i = begin; i < end; i += block_type::size) {
      std::int64_t const valid = end - i < block_type::size ? end - i : block_type::size;
      block_type block;
      this->terms(block, this->table.runs[n], m.first, i, valid);
      store_stored<memory::rows>(block, m.terms + i, false, valid);
    }
  }
};

/// Sums over parts of rows: a leaf each.
template <class Rule, class Types, class Execution, std::size_t Phase>
struct row_sums : matrix_terms<Rule, Types, Execution, Phase> {
  using base = matrix_terms<Rule, Types, Execution, Phase>;
  using typename base::block_type;

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE double operator()(std::int64_t task, std::int32_t thread, std::int32_t threads) const {
    std::int32_t const n = this->table.find(task);
    auto const& m = this->table.matrix_of(n);
    std::int64_t const chunks = matrix_cuts(m).row_chunks, row = task / chunks;
    std::int64_t const begin = (task - row * chunks) * leaf_size;
    std::int64_t const end = begin + leaf_size < m.columns ? begin + leaf_size : m.columns;
    double sum = 0;
    for (std::int64_t i = begin + thread * block_type::size; i < end; i += threads * block_type::size) {
      std::int64_t const valid = end - i < block_type::size ? end - i : block_type::size;
      this->each(this->table.runs[n], m.first, row * m.columns + i, valid,
                 [&](std::size_t, double x) PUSHPULL_INLINE_LAMBDA { sum += x; });
    }
    return sum;
  }
  PUSHPULL_HOST_DEVICE std::int64_t slot(std::int64_t task) const {
    std::int32_t const n = this->table.find(task);
    return this->table.runs[n].row_slot[base::stage] + task;
  }
};

/// Sums over whole rows that are short: a task is a few of them, which lie side by side.
template <class Rule, class Types, class Execution, std::size_t Phase>
struct short_row_sums : matrix_terms<Rule, Types, Execution, Phase> {
  using base = matrix_terms<Rule, Types, Execution, Phase>;
  using typename base::block_type;

  double* partials;

  /// Rows of a task: as many as make up a leaf on CPUs, one on GPUs.
  PUSHPULL_HOST_DEVICE static constexpr std::int64_t rows(std::int64_t columns) {
    return Execution::grain == 0 ? 1 : leaf_size / columns;
  }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    std::int32_t const n = this->table.find(task);
    auto const& m = this->table.matrix_of(n);
    std::int64_t const group = rows(m.columns), first = task * group;
    std::int64_t const end = (first + group < m.all_rows() ? first + group : m.all_rows()) * m.columns;
    double* to = partials + this->table.runs[n].row_slot[base::stage] + first;
    double sum = 0;
    std::int64_t column = 0;
    for (std::int64_t i = first * m.columns; i < end; i += block_type::size) {
      std::int64_t const valid = end - i < block_type::size ? end - i : block_type::size;
      this->each(this->table.runs[n], m.first, i, valid, [&](std::size_t, double x) PUSHPULL_INLINE_LAMBDA {
        sum += x;
        if (++column < m.columns) return;
        *to++ = sum;
        sum = 0;
        column = 0;
      });
    }
  }
};

/// Sums over parts of columns: a task is a block of columns.
template <class Rule, class Types, class Execution, std::size_t Phase>
struct column_sums : matrix_terms<Rule, Types, Execution, Phase> {
  using base = matrix_terms<Rule, Types, Execution, Phase>;
  using typename base::block_type;

  double* partials;

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    std::int32_t const n = this->table.find(task);
    auto const& m = this->table.matrix_of(n);
    matrix_cuts const cuts(m);
    std::int64_t const blocks = (m.columns + block_type::size - 1) / block_type::size, part = task / blocks;
    std::int64_t const batch = part / cuts.column_chunks, chunk = part - batch * cuts.column_chunks;
    std::int64_t const column = (task - part * blocks) * block_type::size, left = m.columns - column;
    std::int64_t const valid = left < block_type::size ? left : block_type::size;
    std::int64_t const begin = chunk * cuts.chunk, end = begin + cuts.chunk < m.rows ? begin + cuts.chunk : m.rows;
    double sums[static_cast<std::size_t>(block_type::size)] = {};
    for (std::int64_t row = begin; row < end; ++row) {
      this->each(this->table.runs[n], m.first, (batch * m.rows + row) * m.columns + column, valid,
                 [&](std::size_t k, double x) PUSHPULL_INLINE_LAMBDA { sums[k] += x; });
    }
    std::int64_t const to =
        this->table.runs[n].column_slot[base::stage] + (chunk * m.batches + batch) * m.columns + column;
    static_for<static_cast<std::size_t>(block_type::size)>([&](auto k) PUSHPULL_INLINE_LAMBDA {
      if (static_cast<std::int64_t>(k) < valid) partials[to + static_cast<std::int64_t>(k)] = sums[k];
    });
  }
};

/// A number as a state, at most the largest of its type: an infinite one would make 0 or NaN of its row for ever.
template <class S, class A>
PUSHPULL_HOST_DEVICE S stored(A number) {
  if constexpr (std::is_same_v<S, half>) {
    if (number > A(65504) && pushpull::detail::is_finite(number)) return convert<S>(A(65504));
  } else if constexpr (std::is_same_v<S, bfloat16>) {
    if (number > A(0x1.FEp127) && pushpull::detail::is_finite(number)) return convert<S>(A(0x1.FEp127));
  }
  return convert<S>(number);
}

/// Updates the statistic of each row and column. States follow at once, unless the step may still be skipped.
template <class Run, class A, std::size_t Stage, bool Keep>
struct move_numbers {
  matrix_table<Run, A> table;
  double const* partials;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int32_t const n = table.find(i);
    matrix<A> const& m = table.matrix_of(n);
    Run const& r = table.runs[n];
    matrix_cuts const cuts(m);
    if (std::int64_t const rows = m.all_rows(); i < rows) {
      double const sum = add(r.row_slot[Stage] + i * cuts.row_chunks, cuts.row_chunks, 1);
      move(m, m.row[i], r.kept_rows[Stage], i, sum / static_cast<double>(m.columns));
    } else {
      std::int64_t const columns = m.all_columns();
      i -= rows;
      double const sum = add(r.column_slot[Stage] + i, cuts.column_chunks, columns);
      move(m, m.column[i], r.kept_columns[Stage], i, sum / static_cast<double>(m.rows));
    }
  }

 private:
  PUSHPULL_HOST_DEVICE double add(std::int64_t first, std::int64_t count, std::int64_t stride) const {
    double sum = 0;
    for (std::int64_t k = 0; k < count; ++k) sum += partials[first + k * stride];
    return sum;
  }
  template <class S>
  PUSHPULL_HOST_DEVICE void move(matrix<A> const& m, A& number, S* kept, std::int64_t i, double mean) const {
    double const before = kept != nullptr ? static_cast<double>(convert<A>(kept[i])) : 0;
    number = pushpull::detail::to_finite<A>(pushpull::detail::product(m.motion[0], before) +
                                            pushpull::detail::product(m.motion[1], mean));
    if (Keep && kept != nullptr) kept[i] = stored<S>(number);
  }
};

/// Sums over parts of the numbers of all rows of a matrix.
template <class Run, class A, std::size_t Stage>
struct row_number_sums {
  matrix_table<Run, A> table;

  PUSHPULL_HOST_DEVICE double operator()(std::int64_t task, std::int32_t thread, std::int32_t threads) const {
    matrix<A> const& m = table.matrix_of(table.find(task));
    std::int64_t const chunks = matrix_cuts(m).mean_chunks, batch = task / chunks;
    std::int64_t const begin = (task - batch * chunks) * leaf_size;
    std::int64_t const end = begin + leaf_size < m.rows ? begin + leaf_size : m.rows;
    double sum = 0;
    for (std::int64_t i = begin + thread; i < end; i += threads) sum += static_cast<double>(m.row[batch * m.rows + i]);
    return sum;
  }
  PUSHPULL_HOST_DEVICE std::int64_t slot(std::int64_t task) const {
    std::int32_t const n = table.find(task);
    return table.runs[n].mean_slot[Stage] + task;
  }
};

/// The mean of the numbers of all rows of a matrix.
template <class Run, class A, std::size_t Stage>
struct average_rows {
  matrix_table<Run, A> table;
  double const* partials;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int32_t const n = table.find(i);
    matrix<A> const& m = table.matrix_of(n);
    std::int64_t const chunks = matrix_cuts(m).mean_chunks;
    double sum = 0;
    for (std::int64_t k = 0; k < chunks; ++k) sum += partials[table.runs[n].mean_slot[Stage] + i * chunks + k];
    m.mean[i] = sum / static_cast<double>(m.rows);
  }
};

/// Keeps the statistics of a step that is not skipped.
template <class Rule, class Run, class A, std::size_t Stage>
struct keep_numbers {
  clock<Rule, A> const* clocks;
  matrix_table<Run, A> table;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int32_t const n = table.find(i);
    matrix<A> const& m = table.matrix_of(n);
    Run const& r = table.runs[n];
    if (pushpull::detail::MaySkip<Rule> && clocks[r.clock].skipped) return;
    if (pushpull::detail::is_refused(clocks[r.clock].prepared)) return;
    bool const of_row = i < m.all_rows();
    if (!of_row) i -= m.all_rows();
    auto* const kept = of_row ? r.kept_rows[Stage] : r.kept_columns[Stage];
    if (kept != nullptr) kept[i] = stored<typename Run::S>(of_row ? m.row[i] : m.column[i]);
  }
};

}  // namespace detail

}  // namespace pushpull::pass
