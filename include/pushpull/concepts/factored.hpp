/// @file
/// The concept of a stage that needs per-row, and perhaps per-column, statistics of each tensor.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// Whether the terms of phase `P` are summed by rows and columns: in the first phase of a stage that has `factored`.
template <class U, std::size_t P>
constexpr bool is_factored() {
  if constexpr (requires { U::template factored_in<P>(); }) {
    return U::template factored_in<P>();
  } else if constexpr (requires { U::factored; }) {
    return P == 0;
  } else if constexpr (Wrapping<U>) {
    return is_factored<typename U::wraps, P>();
  } else {
    return false;
  }
}

/// Which of the factored phases of `U` phase `P` is.
template <class U, std::size_t P>
inline constexpr std::size_t factored_number = []<std::size_t... Q>(std::index_sequence<Q...>) {
  return (std::size_t{is_factored<U, Q>()} + ... + std::size_t{0});
}(std::make_index_sequence<P>());

/// The stage of `U` whose statistics are number `Stage` of those that it needs.
template <std::size_t Stage, class U>
auto const& factored_stage(U const& u) {
  if constexpr (requires {
                  u.first;
                  u.rest;
                }) {
    constexpr std::size_t of_first = factored_count<std::remove_cvref_t<decltype(u.first)>>;
    if constexpr (Stage < of_first) {
      return factored_stage<Stage>(u.first);
    } else {
      return factored_stage<Stage - of_first>(u.rest);
    }
  } else if constexpr (Wrapping<U>) {
    return factored_stage<Stage>(inside(u));
  } else {
    return u;
  }
}

/// The library of stage number `Stage`, of those of `U` that need statistics, on a device of type D; empty if it names none.
template <class U, std::size_t Stage, class D>
struct factored_library {
  explicit factored_library(D const&) {}
  template <class A>
  auto transform(U const& rule, matrix<A> const& m) const {
    return factored_stage<Stage>(rule).transform(m);
  }
};
template <class U, std::size_t Stage>
using factored_stage_type = std::remove_cvref_t<decltype(factored_stage<Stage, U>(std::declval<U const&>()))>;
/// Whether a stage names what it computes with on devices of type D.
template <class Stage, class D>
concept NamesLibrary = requires { typename Stage::template library<D>; };
template <class U, std::size_t Stage, class D>
  requires NamesLibrary<factored_stage_type<U, Stage>, D>
struct factored_library<U, Stage, D> {
  explicit factored_library(D const& device) : library(device) {}
  template <class A>
  auto transform(U const& rule, matrix<A> const& m) const {
    return factored_stage<Stage>(rule).transform(m, library);
  }
  typename factored_stage_type<U, Stage>::template library<D> library;
};

/// Those of all stages.
template <class U, class D, class Numbers = std::make_index_sequence<factored_count<U>>>
struct factored_libraries;
template <class U, class D, std::size_t... Stage>
struct factored_libraries<U, D, std::index_sequence<Stage...>> : factored_library<U, Stage, D>... {
  explicit factored_libraries(D const& device) : factored_library<U, Stage, D>(device)... {}
};

/// Whether a stage of `U` transforms whole matrices.
template <class U>
inline constexpr bool transforms_matrices = [] {
  for (factors const& f : factors_of<U>)
    if (f.elements) return true;
  return false;
}();

/// The cost of a tensor's step in stage number `Stage`; elements where the stage does not say it, or the tensor is no matrix.
template <class U, std::size_t Stage, class A>
double cost_of_stage(matrix<A> const& m) {
  using stage = factored_stage_type<U, Stage>;
  if constexpr (requires { stage::cost(m.rows, m.columns); }) {
    if (m.is_matrix) return stage::cost(m.rows, m.columns) * static_cast<double>(m.batches);
  }
  return static_cast<double>(m.size);
}
/// That of all stages. @param cut  cut(factors): the tensor as the stage sees it.
template <class U, class Cut>
std::int64_t cost_of_matrices(Cut const& cut) {
  double const total = [&]<std::size_t... Stage>(std::index_sequence<Stage...>) {
    return (cost_of_stage<U, Stage>(cut(factors_of<U>[Stage])) + ... + 0);
  }(std::make_index_sequence<factored_count<U>>());
  return static_cast<std::int64_t>(total < 0x1p53 ? total : 0x1p53);
}

/// How many states of whole matrices a stage has.
template <class Stage>
inline constexpr std::size_t matrix_state_count = [] {
  if constexpr (requires { Stage::matrix_states; }) {
    return Stage::matrix_states.size();
  } else {
    return std::size_t{0};
  }
}();
/// f.operator()<Stage>(its factors) for each stage of `U` that needs statistics.
template <class U, class F>
constexpr void for_each_factored_stage(F const& f) {
  [&]<std::size_t... Stage>(std::index_sequence<Stage...>) {
    (f.template operator()<factored_stage_type<U, Stage>>(factors_of<U>[Stage]), ...);
  }(std::make_index_sequence<factored_count<U>>());
}
/// Whether a stage of `U` has states of whole matrices. On hosts its `transform` may fail.
template <class U>
inline constexpr bool keeps_matrices = [] {
  bool any = false;
  for_each_factored_stage<U>([&]<class Stage>(factors const&) { any = any || matrix_state_count<Stage> != 0; });
  return any;
}();

/// Whether a phase after `P` has sums of terms, which ranks add up.
template <class U, std::size_t P>
inline constexpr bool has_sums_after = []<std::size_t... Q>(std::index_sequence<Q...>) {
  return (... || (Q > P && !is_factored<U, Q>() && sums_in<U, Q> != 0));
}(std::make_index_sequence<phase_count<U>>());

/// How many of the numbers of rows and columns, and of matrices, have names.
template <class U>
inline constexpr std::size_t factor_state_count = [] {
  std::size_t n = 0;
  for_each_factored_stage<U>([&]<class Stage>(factors const& f) {
    n += std::size_t{!f.rows.empty()} + std::size_t{!f.columns.empty()} + matrix_state_count<Stage>;
  });
  return n;
}();

/// The names of all states of `U`: those of elements, then of each stage those of rows, columns and matrices.
template <class U>
inline constexpr auto all_state_names = [] {
  std::array<std::string_view, state_count<U> + factor_state_count<U>> names{};
  std::size_t n = 0;
  for (std::string_view const name : U::state_names) names[n++] = name;
  for_each_factored_stage<U>([&]<class Stage>(factors const& f) {
    if (!f.rows.empty()) names[n++] = f.rows;
    if (!f.columns.empty()) names[n++] = f.columns;
    if constexpr (matrix_state_count<Stage> != 0)
      for (std::string_view const name : Stage::matrix_states) names[n++] = name;
  });
  return names;
}();

}  // namespace detail

/// A stage that needs a statistic for each row, and perhaps each column, of every tensor. A store with such a rule
/// gives each key one owner, as placement::owners does, and reads its gradient once more.
/// Needs:  static constexpr factors factored: how a tensor is cut into rows and columns, and under which names their
///         statistics are states; prepare(factored_step<A> s, sums), which calls s.numbers(keep, gain) to say how they
///         change and returns the matrix<A> that this gives, or something with a member at(number) that calls its `at`;
///         template <class V> V pre_reduce(phase<0>, S, V w, V g) const noexcept: the term that is summed over rows
///         and columns. Where it has no other phase: using sums_type = cuda::std::array<double, 0>. Further phases are
///         those of a PreReduction. static constexpr bool per_tensor = true.
/// May:    say .elements = true. Nothing is summed then: the terms, which may be of the states too, are kept for all
///         elements, and void transform(matrix<A> const& m) const noexcept changes m.terms, which are the elements of
///         m.rows x m.columns in order; m.scratch has room for m.scratch_size() numbers. The operator finds them by
///         `elements<V>(outside)`. With template <class D> using library, such as matrix_products<D>, it is
///         transform(m, library<D> const&), of which each store makes one per device D from a D const&. On GPUs a library is
///         a must, m points to memory of the GPU, and transform enqueues on its stream; it reads no number of the GPU, though
///         a library may wait, and then keeps those of other GPUs waiting. It throws nothing but a cuda_error, which is that of any
///         launch of the step. static double cost(rows, columns), a number that grows as the time of
///         transform does, balances the owners of keys.
///         A stage with .elements may have states of whole matrices, whose extents follow from those of the tensor: static
///         constexpr auto matrix_states = states(...), their names, and static std::array<matrix_extents, N>
///         matrix_states_of(matrix<float> const& m), their rows and columns; m.kept points to them, one state after another,
///         in `transform`, which changes them; m.t is the step. Where there is no such step, `transform` throws on CPUs: the store
///         throws an update_error with the reason, and holds what it held before. On GPUs it leaves NaN among the terms.
///         Such a stage needs a later phase of sums of its terms, which are NaN then, and `prepare` gives something with
///         bool is_refused() const, true where these sums are NaN: see MayRefuse. By these sums all ranks leave the step
///         out, on CPUs with an update_error. The library of both devices is matrix_factorizations<D>, or like it.
///         static std::int64_t scratch_size(matrix<A> const& m, library<D> const&) says how many numbers m.scratch has.
/// Models: update::centralize, centralize_change, group_adagrad, adam_mini, adafactor, muon, shampoo, soap, and every pipeline or
///         wrapper that holds one.
template <class U>
concept Factored = PreReduction<U> && (detail::factored_count<U> > 0);

}  // namespace pushpull
