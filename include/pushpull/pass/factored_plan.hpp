/// @file
/// The tensors of one device whose rows and columns a Factored rule asks for, and the launches that find their numbers.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/device_table.hpp>
#include <pushpull/pass/factored_body.hpp>
#include <pushpull/pass/matrix_states.hpp>
#include <pushpull/pass/may_fail.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// How `f` cuts a tensor into rows and columns. Pointers are null.
template <class A>
matrix<A> matrix_of(factors const& f, pushpull::shape const& shape) {
  auto const size = static_cast<std::int64_t>(shape.size());
  matrix<A> m{};
  m.size = size;
  m.is_matrix = shape.rank() > 1;
  m.batches = 1;
  m.rows = size;
  m.columns = 1;
  if (size == 0) {
    m.batches = 0;
  } else if (!f.last_dimensions) {
    m.rows = shape.rank() == 0 ? 1 : shape[0];
    m.columns = size / m.rows;
  } else if (m.is_matrix) {
    m.rows = shape[shape.rank() - 2];
    m.columns = shape[shape.rank() - 1];
    m.batches = size / (m.rows * m.columns);
  }
  return m;
}

/// How many numbers the states of rows, columns and matrices of a tensor are, in the order of their names.
template <class Rule>
std::array<std::int64_t, pushpull::detail::factor_state_count<Rule>> factor_sizes(pushpull::shape const& shape) {
  std::array<std::int64_t, pushpull::detail::factor_state_count<Rule>> sizes{};
  std::size_t n = 0;
  pushpull::detail::for_each_factored_stage<Rule>([&]<class Stage>(factors const& f) {
    auto const m = matrix_of<float>(f, shape);
    if (!f.rows.empty()) sizes[n++] = m.all_rows();
    if (!f.columns.empty()) sizes[n++] = m.is_matrix ? m.batches * m.columns : 0;
    if constexpr (pushpull::detail::matrix_state_count<Stage> != 0)
      for (matrix_extents const& e : Stage::matrix_states_of(m)) sizes[n++] = m.size > 0 ? e.size() : 0;
  });
  return sizes;
}

/// The shape of number `number` of these states: a list, or a matrix.
template <class Rule>
pushpull::shape factor_shape(pushpull::shape const& shape, std::size_t number) {
  pushpull::shape result{factor_sizes<Rule>(shape)[number]};
  std::size_t n = 0;
  pushpull::detail::for_each_factored_stage<Rule>([&]<class Stage>(factors const& f) {
    n += std::size_t{!f.rows.empty()} + std::size_t{!f.columns.empty()};
    if constexpr (pushpull::detail::matrix_state_count<Stage> != 0)
      for (matrix_extents const& e : Stage::matrix_states_of(matrix_of<float>(f, shape)))
        if (n++ == number && shape.size() > 0) result = {e.rows, e.columns};
  });
  return result;
}

/// From 1 to the next number of type T.
template <class T>
double machine_epsilon() {
  double epsilon = 1;
  while (convert<double>(convert<T>(1 + epsilon / 2)) > 1) epsilon /= 2;
  return epsilon;
}

/// @tparam Types  The element types of the step.
template <Device D, class Rule, class Types>
class matrix_plan {
 public:
  using A = typename Types::accumulation;
  using S = typename Types::state;
  using clock_type = clock_of<Rule, Types>;
  static constexpr std::size_t stages = pushpull::detail::factored_count<Rule>;
  using run_type = matrix_run<Types, pushpull::detail::state_count<Rule>, stages>;

  /// Whether numbers are kept by `keep`, when it is known that there is a step, and not at once.
  static constexpr bool keeps_late = pushpull::detail::MayLeaveAlone<Rule, A> || detail::may_fail<D, Rule, A>;
  static_assert(!pushpull::detail::keeps_matrices<Rule> || pushpull::detail::MayLeaveAlone<Rule, A>,
                "Factored: a stage with states of matrices refuses steps by its sums: see the concept");

  void clear() {
    runs_.rows.clear();
    matrices_.rows.clear();
    states_.clear();
  }

  /// Appends a key.
  template <class Run>
  void add(Run const& from, A const* gradient, pushpull::shape const& shape, factor_memory<S> const& memory) {
    S* kept = memory.first;
    run_type r{};
    r.gradient = gradient;
    r.master = from.master;
    for (std::size_t s = 0; s != pushpull::detail::state_count<Rule>; ++s) r.state[s] = from.state[s];
    r.clock = from.clock;
    std::size_t n = 0;
    pushpull::detail::for_each_factored_stage<Rule>([&]<class Stage>(factors const& f) {
      auto m = matrix_of<A>(f, shape);
      m.first = from.first_element;
      m.weight_epsilon = machine_epsilon<typename Types::master>();
      if (!f.rows.empty()) {
        r.kept_rows[n] = kept;
        kept += m.all_rows();
      }
      if (!f.columns.empty() && m.is_matrix) {
        r.kept_columns[n] = kept;
        kept += m.batches * m.columns;
      }
      if constexpr (pushpull::detail::matrix_state_count<Stage> != 0) {
        std::int64_t size = 0;
        for (matrix_extents const& e : Stage::matrix_states_of(matrix_of<float>(f, shape))) size += e.size();
        if (m.size > 0) states_.add(memory, kept, size, from.clock, matrices_.rows.size());
        if (m.size > 0) kept += size;
      }
      matrices_.rows.push_back(m);
      ++n;
    });
    runs_.rows.push_back(r);
  }

  /// Makes the plan visible to the device. Once after the last `add`, before any launch.
  void commit(D const& device) {
    ends_.rows.clear();
    std::int64_t partials = 0;
    for (std::size_t stage = 0; stage < stages; ++stage) partials = std::max(partials, count_tasks(stage));
    lay_out(device, partials);
    has_scratch_ = false;
    committed_.ends = ends_.commit(device);
    committed_.runs = runs_.commit(device);
    committed_.matrices = matrices_.commit(device);
  }

  /// Those of each key's stages, in the order of `add`.
  matrix<A> const* matrices() const { return committed_.matrices; }

  /// Takes the memory that the stages' `transform` need. After `commit`; only the first time does anything.
  template <class Control>
  void make_room([[maybe_unused]] D const& device, [[maybe_unused]] Control const& control) {
    if constexpr (pushpull::detail::transforms_matrices<Rule>) {
      if (has_scratch_) return;
      std::int64_t most = 0;  // matrices are transformed one after another
      for (std::size_t i = 0; i < matrices_.rows.size(); ++i)
        most = std::max(most, scratch_size(i % stages, matrices_.rows[i], control.libraries()));
      std::size_t const bytes = static_cast<std::size_t>(most) * sizeof(A);
      if (scratch(control).bytes() < bytes) scratch(control) = buffer<D>(device, bytes);
      has_scratch_ = true;
    }
  }

  /// The phase of a stage that has numbers of rows and columns.
  /// @param host_rules  The rules where the host reads them.
  template <std::size_t Phase, class Control>
  void sum(D const& device, Control const& control, Rule const* host_rules) {
    if (runs_.rows.empty()) return;
    using execution = typename D::execution;
    Rule const* const rules = control.rules(host_rules);
    clock_type const* const clocks = control.clocks();
    constexpr std::size_t stage = pushpull::detail::factored_number<Rule, Phase>;
    constexpr bool with_columns = !pushpull::detail::factors_of<Rule>[stage].columns.empty();
    constexpr bool keep = !keeps_late;
    if constexpr (pushpull::detail::factors_of<Rule>[stage].elements) {
      using stage_type = pushpull::detail::factored_stage_type<Rule, stage>;
      static_assert(
          HostDevice<D> || pushpull::detail::NamesLibrary<stage_type, D>,
          "Factored: a stage with .elements transforms matrices on GPUs only with a `library`: see the concept");
      device.for_each(tasks(stage, of_parts),
                      detail::write_terms<Rule, Types, execution, Phase>{{rules, clocks, table(stage, of_parts)}});
      pushpull::detail::factored_library<Rule, stage, D> const& library = control.libraries();
      for (std::size_t i = 0; i < runs_.rows.size(); ++i) {  // one after another: a BLAS has threads of its own
        auto& m = matrices_.rows[i * stages + stage];
        if (m.size == 0) continue;
        m.scratch = static_cast<A*>(scratch(control).data());
        std::int32_t const clock = runs_.rows[i].clock;
        auto const& rule = host_rules[control.group_of(clock)];
        if constexpr (pushpull::detail::matrix_state_count<stage_type> != 0) {
          static_assert(pushpull::detail::has_sums_after<Rule, Phase>,
                        "Factored: a stage with states of matrices needs a later phase with sums: see the concept");
          m.t = control.steps_of(clock);
          states_.change(device, i * stages + stage, m, clocks, [&] { library.transform(rule, m); });
        } else {
          library.transform(rule, m);
        }
      }
      return;
    }
    device.for_each_leaf(tasks(stage, of_rows),
                         detail::row_sums<Rule, Types, execution, Phase>{{rules, clocks, table(stage, of_rows)}},
                         partials_);
    device.for_each(tasks(stage, of_short_rows), detail::short_row_sums<Rule, Types, execution, Phase>{
                                                     {rules, clocks, table(stage, of_short_rows)}, partials_});
    if constexpr (with_columns)
      device.for_each(tasks(stage, of_columns), detail::column_sums<Rule, Types, execution, Phase>{
                                                    {rules, clocks, table(stage, of_columns)}, partials_});
    device.for_each(tasks(stage, of_numbers),
                    detail::move_numbers<run_type, A, stage, keep>{table(stage, of_numbers), partials_});
    if constexpr (with_columns) {
      device.for_each_leaf(tasks(stage, of_means), detail::row_number_sums<run_type, A, stage>{table(stage, of_means)},
                           partials_);
      device.for_each(tasks(stage, of_batches),
                      detail::average_rows<run_type, A, stage>{table(stage, of_batches), partials_});
    }
  }

  /// @throws update_error if a `transform` has failed, and the step of its key is not skipped
  void expect_success(clock_type const* clocks) const { states_.expect_success(clocks); }
  /// Keeps the statistics of a rule that may skip steps or fail, once the step is known to do neither.
  void keep(D const& device, clock_type const* clocks) const {
    if (runs_.rows.empty()) return;
    states_.keep(device, clocks);
    [&]<std::size_t... Stage>(std::index_sequence<Stage...>) {
      (device.for_each(tasks(Stage, of_numbers),
                       detail::keep_numbers<Rule, run_type, A, Stage>{clocks, table(Stage, of_numbers)}),
       ...);
    }(std::make_index_sequence<stages>());
  }

 private:
  enum kind : std::size_t { of_rows, of_short_rows, of_columns, of_numbers, of_means, of_batches, of_parts, kinds };

  static bool has_columns(std::size_t stage, matrix<A> const& m) {
    return !pushpull::detail::factors_of<Rule>[stage].columns.empty() && m.is_matrix;
  }

  /// Appends the tasks of all kinds of one stage to `ends_`. @returns how many partial sums they leave
  std::int64_t count_tasks(std::size_t stage) {
    constexpr std::int64_t block = detail::matrix_terms<Rule, Types, typename D::execution, 0>::block_type::size;
    std::array<std::int64_t, kinds> total{};
    std::int64_t slots = 0;
    std::size_t const size = runs_.rows.size(), first = ends_.rows.size();
    ends_.rows.resize(first + kinds * size);
    for (std::size_t i = 0; i < size; ++i) {
      run_type& r = runs_.rows[i];
      auto const& m = matrices_.rows[i * stages + stage];
      detail::matrix_cuts const cuts(m);
      bool const columns = has_columns(stage, m);
      std::int64_t const all_columns = columns ? m.batches * m.columns : 0;
      std::array<std::int64_t, kinds> own{};
      if (pushpull::detail::factors_of<Rule>[stage].elements) {
        constexpr std::int64_t part = detail::write_terms<Rule, Types, typename D::execution, 0>::part;
        own[of_parts] = (m.size + part - 1) / part;
      } else if (detail::matrix_cuts::has_short_rows(m)) {
        std::int64_t const group = detail::short_row_sums<Rule, Types, typename D::execution, 0>::rows(m.columns);
        own[of_short_rows] = (m.all_rows() + group - 1) / group;
      } else {
        own[of_rows] = m.all_rows() * cuts.row_chunks;
      }
      own[of_numbers] = pushpull::detail::factors_of<Rule>[stage].elements ? 0 : m.all_rows() + all_columns;
      if (columns) {
        own[of_columns] = m.batches * cuts.column_chunks * ((m.columns + block - 1) / block);
        own[of_means] = m.batches * cuts.mean_chunks;
        own[of_batches] = m.batches;
      }
      r.row_slot[stage] = slots;
      r.column_slot[stage] = slots += m.all_rows() * cuts.row_chunks;
      r.mean_slot[stage] = slots += all_columns * cuts.column_chunks;
      slots += own[of_means];
      for (std::size_t k = 0; k < kinds; ++k) ends_.rows[first + k * size + i] = total[k] += own[k];
    }
    return slots;
  }

  /// Gives every number a place, behind the partial sums.
  void lay_out(D const& device, std::int64_t partials) {
    constexpr std::size_t line = 64;
    auto const aligned = [](std::size_t bytes) { return (bytes + line - 1) / line * line; };
    std::size_t bytes = aligned(static_cast<std::size_t>(partials) * sizeof(double));
    for (bool const known : {false, true}) {
      std::size_t at = aligned(static_cast<std::size_t>(partials) * sizeof(double));
      auto const take = [&]<class T>(T*& to, std::int64_t count) {
        if (known) to = reinterpret_cast<T*>(static_cast<char*>(memory_.data()) + at);
        at += aligned(static_cast<std::size_t>(count) * sizeof(T));
      };
      states_.lay_out([&](std::int64_t size, std::size_t i) {
        take(matrices_.rows[i].kept, size);
        return matrices_.rows[i].kept;
      });
      for (std::size_t i = 0; i < matrices_.rows.size(); ++i) {
        auto& m = matrices_.rows[i];
        take(m.motion, 2);
        if (pushpull::detail::factors_of<Rule>[i % stages].elements) {
          take(m.terms, m.size);
          continue;
        }
        take(m.row, m.all_rows());
        if (!has_columns(i % stages, m)) continue;
        take(m.column, m.batches * m.columns);
        take(m.mean, m.batches);
      }
      bytes = at;
      if (!known && memory_.bytes() < bytes) memory_ = buffer<D>(device, bytes);
    }
    partials_ = static_cast<double*>(memory_.data());
  }

  /// That of all steps of a device which runs one after another; else the plan's own.
  template <class Control>
  buffer<D>& scratch([[maybe_unused]] Control const& control) {
    if constexpr (HostDevice<D>) {
      return scratch_;
    } else {
      return control.scratch();
    }
  }

  /// How many numbers `transform` of the stage needs.
  template <class Libraries>
  static std::int64_t scratch_size(std::size_t stage, matrix<A> const& m, Libraries const& libraries) {
    std::int64_t size = 0;
    [&]<std::size_t... Stage>(std::index_sequence<Stage...>) {
      ((Stage == stage ? void(size = scratch_size<Stage>(m, libraries)) : void()), ...);
    }(std::make_index_sequence<stages>());
    return size;
  }
  template <std::size_t Stage>
  static std::int64_t scratch_size(matrix<A> const& m, pushpull::detail::factored_library<Rule, Stage, D> const& of) {
    using stage = pushpull::detail::factored_stage_type<Rule, Stage>;
    if (!pushpull::detail::factors_of<Rule>[Stage].elements || m.size == 0) return 0;
    if constexpr (requires { stage::scratch_size(m, of.library); }) {
      return stage::scratch_size(m, of.library);
    } else {
      return m.scratch_size();
    }
  }

  std::int64_t tasks(std::size_t stage, kind k) const {
    return ends_.rows[(stage * kinds + k + 1) * runs_.rows.size() - 1];
  }
  detail::matrix_table<run_type, A> table(std::size_t stage, kind k) const {
    return {committed_.runs, committed_.matrices + stage, committed_.ends + (stage * kinds + k) * runs_.rows.size(),
            static_cast<std::int32_t>(runs_.rows.size()), static_cast<std::int32_t>(stages)};
  }

  struct committed {
    run_type const* runs = nullptr;
    matrix<A> const* matrices = nullptr;
    std::int64_t const* ends = nullptr;
  };

  detail::table<D, run_type> runs_;
  detail::table<D, matrix<A>> matrices_;
  detail::table<D, std::int64_t> ends_;
  buffer<D> memory_;  // partial sums of a phase, and the numbers of a step
  double* partials_ = nullptr;
  buffer<D> scratch_;
  bool has_scratch_ = false;
  committed committed_;
  matrix_states<D, Rule, A, S> states_;
};

/// Keeps the statistics of a step on all devices.
/// @param failed  On another rank.
/// @throws update_error if a `transform` has failed; nothing is kept then
template <class Rule, class D, class Plans, class Controls>
void keep_statistics(std::vector<D> const& devices, Plans const& plans, Controls const& controls, bool failed) {
  for (std::size_t n = 0; n < devices.size(); ++n) plans[n].expect_success(controls[n].clocks());
  if constexpr (pushpull::detail::keeps_matrices<Rule>) {
    if constexpr (pushpull::detail::MaySkip<Rule>) failed = failed && !controls.front().shared()->skipped;
    if (failed) throw update_error("a rank could not compute the step of one of its keys");
  }
  for (std::size_t n = 0; n < devices.size(); ++n) plans[n].keep(devices[n], controls[n].clocks());
}

}  // namespace pushpull::pass
