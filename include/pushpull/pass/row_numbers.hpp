/// @file
/// The numbers of rows that a Factored rule keeps, where only some rows came with a gradient.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/pass/body.hpp>
#include <pushpull/pass/device_table.hpp>
#include <pushpull/pass/factored_plan.hpp>
#include <pushpull/pass/row_schedule.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/registers/row_column_statistics.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// Whether the only sums of `Rule` are those of the rows of each tensor, which it keeps: group_adagrad, adam_mini, and
/// transforms without sums and states before them. Such a rule takes row-sparse gradients, since a row that came with none keeps its number.
template <class Rule>
inline constexpr bool keeps_rows_alone = [] {
  if constexpr (pushpull::detail::factored_count<Rule> == 1) {
    constexpr factors f = pushpull::detail::factors_of<Rule>[0];
    return pushpull::detail::phase_count<Rule> == 1 && !f.rows.empty() && f.columns.empty() && !f.last_dimensions &&
           !pushpull::detail::has_terms_of_states<Rule, 0>;
  } else {
    return false;
  }
}();

/// Whether it does over `Types`: numbers move in place, so that states have the type in which the pass computes.
template <class Rule, class Types>
inline constexpr bool takes_rows =
    keeps_rows_alone<Rule> && std::is_same_v<typename Types::accumulation, typename Types::state>;

namespace detail {

/// Moves the number of each row of a task in its state. Of a row with several tasks the first has the whole row.
template <class Rule, class Reduction, class Types, class Execution, template <class> class Schedule>
struct move_row_numbers {
  using A = typename Types::accumulation;
  using run_type = run<Types, pushpull::detail::state_count<Rule>>;
  using block_type = typename body<Rule, Reduction, Types, Execution, memory::rows, Schedule>::block_type;
  using V = typename block_type::pack_type;
  static constexpr std::int64_t grain = body<Rule, Reduction, Types, Execution, memory::rows, Schedule>::grain;

  Rule const* rules;
  clock<Rule, A> const* clocks;
  matrix<A> const* rows;
  Schedule<run_type> schedule;

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    auto const& own_clock = clocks[schedule.clock()];
    if (pushpull::detail::is_refused(own_clock.prepared)) return;
    Rule const& rule = rules[own_clock.parameter_group];
    schedule.template for_each_row<grain, block_type::size>(
        task, [&](run_type const& r, std::int64_t first, std::int64_t) PUSHPULL_INLINE_LAMBDA {
          if (first != 0) return;
          double sum = 0;
          for (std::int64_t i = 0; i < r.size; i += block_type::size) add(sum, rule, own_clock.prepared, r, i);
          A& number = rows->row[rows->row_of(r.first_element - rows->first)];
          number = pushpull::detail::to_finite<A>(rows->motion[0] * static_cast<double>(number) +
                                                  rows->motion[1] * (sum / static_cast<double>(r.size)));
        });
  }

 private:
  /// Terms in the order of the elements. Where squares of floats overflow, they are computed in double.
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class P>
  PUSHPULL_DEVICE_INLINE static void add(double& sum, Rule const& rule, P const& prepared, run_type const& r,
                                         std::int64_t i) {
    std::int64_t const valid = r.size - i < block_type::size ? r.size - i : block_type::size;
    block_type g, w;
    detail::reduce<Reduction, memory::rows>(g, r, i, valid);
    load_stored<memory::rows>(w, r.master + i, r.aligned, valid);
    static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
      constexpr auto begin = static_cast<std::int64_t>(j * V::size);
      V const term = of_pack(rule, prepared, r.first_element + i + begin, w.x[j], g.x[j]);
      for (std::size_t lane = 0; lane < V::size; ++lane) {
        if (begin + static_cast<std::int64_t>(lane) >= valid) break;
        auto const at = [lane](V const& x) PUSHPULL_INLINE_LAMBDA { return reinterpret_cast<A const*>(&x)[lane]; };
        A const x = at(term);
        if (sizeof(A) == sizeof(double) || pushpull::detail::is_finite(x)) {
          sum += static_cast<double>(x);
        } else {
          using one = pack<double>;
          sum += of_pack(rule, prepared, r.first_element + i + begin + static_cast<std::int64_t>(lane), one(at(w.x[j])),
                         one(at(g.x[j])))
                     .value;
        }
      }
    });
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class P, class W>
  PUSHPULL_DEVICE_INLINE static W of_pack(Rule const& rule, P const& prepared, std::int64_t number, W const& w,
                                          W const& g) {
    return pushpull::detail::terms<0>(rule, pushpull::detail::argument(prepared, number), w, g);
  }
};

}  // namespace detail

/// The rows of one key whose numbers its owner keeps, as the rule's `prepare` and its pass find them.
/// @tparam Types  The element types of the step.
template <Device D, class Rule, class Types>
class row_numbers {
 public:
  using A = typename Types::accumulation;
  static_assert(
      takes_rows<Rule, Types>,
      "kv_store: row-sparse gradients of a rule with numbers of rows, such as group_adagrad, need states in the "
      "type that the store computes in: float or double, or element::master<float>");

  /// @param kept  The states of all rows of a key of this shape; null where its owner is another rank.
  void set(D const& device, pushpull::shape const& shape, std::int64_t first_element, A* kept) {
    if (motion_.bytes() == 0) motion_ = buffer<D>(device, 2 * sizeof(double));
    auto m = matrix_of<A>(pushpull::detail::factors_of<Rule>[0], shape);
    m.first = first_element;
    m.weight_epsilon = machine_epsilon<typename Types::master>();
    m.row = kept;
    m.motion = static_cast<double*>(motion_.data());
    matrix_.rows.assign(1, m);
    committed_ = matrix_.commit(device);
  }
  /// The argument of the rule's `prepare`.
  pass::detail::steps_of<Rule, A> steps() const { return {committed_}; }

  /// Before the pass over the same rows.
  template <class Reduction, template <class> class Schedule, class Operands>
  void move(D const& device, Operands const& operands, Rule const* rules, clock_of<Rule, Types> const* clocks,
            std::int64_t rows) const {
    using moves = detail::move_row_numbers<Rule, Reduction, Types, typename D::execution, Schedule>;
    row_tasks const tasks(operands.row_length, moves::grain, moves::block_type::size);
    device.for_each(tasks.count(rows), moves{rules, clocks, committed_, {{operands}}});
  }

 private:
  detail::table<D, matrix<A>> matrix_;
  buffer<D> motion_;
  matrix<A> const* committed_ = nullptr;
};

}  // namespace pushpull::pass
