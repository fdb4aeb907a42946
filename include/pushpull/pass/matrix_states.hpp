/// @file
/// The states of whole matrices of a step on a CPU: copies that a stage's `transform` changes, kept where the step is made.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <string>
#include <vector>

#include <pushpull/concepts/factored.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/step_control.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// The memory of a Factored rule's states of a key, on its owner. @tparam S  The type of its numbers.
template <class S>
struct factor_memory {
  S* first;                          ///< The states of rows, columns and matrices, one after the other.
  void const* key;                   ///< The key's record.
  std::string (*text)(void const*);  ///< Names the key in messages.
};

/// The states of whole matrices of all keys of a step. Empty for rules that have none.
template <class Rule, class A, class S>
class matrix_states {
 public:
  static constexpr bool exist = pushpull::detail::keeps_matrices<Rule>;

  void clear() { entries_.clear(); }
  /// @param kept  The stage's states of the key, between steps. @param matrix  The key's among all matrices of the plan.
  void add(factor_memory<S> const& key, S* kept, std::int64_t size, std::int32_t clock, std::size_t matrix) {
    entries_.push_back({key, kept, nullptr, size, clock, matrix, {}});
  }
  /// f(size, matrix) gives each its copy.
  template <class F>
  void lay_out(F const& f) {
    for (auto& e : entries_) e.copy = f(e.size, e.matrix);
  }
  /// Calls transform() for matrix number `number`, on copies of its states, and remembers why it failed. Its terms are NaN
  /// then, which reaches all ranks in the sums of a later phase.
  template <class F>
  void change(std::size_t number, matrix<A> const& m, F const& transform) {
    auto const found = std::ranges::lower_bound(entries_, number, {}, &entry::matrix);  // in the order of `add`
    if (found == entries_.end() || found->matrix != number) return;
    entry& e = *found;
    for (std::int64_t i = 0; i < e.size; ++i) e.copy[i] = convert<A>(e.kept[i]);
    try {
      e.failure = transform();
    } catch (std::exception const& error) {  // passed on, it would leave the other ranks in the step
      e.failure = std::string("its transform threw: ") + error.what();
    }
    if (e.failure.empty() && !fits(e)) e.failure = "a number of its states is too large for the states' type";
    if (!e.failure.empty()) std::fill_n(m.terms, m.size, std::numeric_limits<A>::quiet_NaN());
  }
  /// @throws update_error for the first key that has failed and whose step is made
  template <class Clock>
  void expect_success(Clock const* clocks) const {
    for (auto const& e : entries_)
      if (!e.failure.empty() && !is_left_alone(clocks[e.clock]))
        throw update_error(e.key.text(e.key.key) + ": " + e.failure);
  }
  template <class Clock>
  void keep(Clock const* clocks) const {
    for (auto const& e : entries_)
      for (std::int64_t i = 0; i < e.size && !is_left_alone(clocks[e.clock]); ++i) e.kept[i] = convert<S>(e.copy[i]);
  }

 private:
  struct entry {
    factor_memory<S> key;
    S* kept;
    A* copy;
    std::int64_t size;
    std::int32_t clock;
    std::size_t matrix;
    std::string failure;
  };

  /// Whether no finite number becomes an infinite state, which would stay.
  static bool fits(entry const& e) {
    if constexpr (sizeof(S) < sizeof(A)) {
      return std::all_of(e.copy, e.copy + e.size, [](A x) {
        return !pushpull::detail::is_finite(x) || pushpull::detail::is_finite(convert<A>(convert<S>(x)));
      });
    } else {
      return true;
    }
  }
  /// Whether the step of the key changes neither weights nor states.
  template <class Clock>
  static bool is_left_alone(Clock const& clock) {
    return (pushpull::detail::MaySkip<Rule> && clock.skipped) || pushpull::detail::is_refused(clock.prepared);
  }

  std::vector<entry> entries_;
};

}  // namespace pushpull::pass
