/// @file
/// The states of whole matrices of a step: copies that a stage's `transform` changes, kept where the step is made.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <string>
#include <vector>

#include <cuda/std/limits>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/operands.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

namespace detail {

/// Whether the step of a key changes neither weights nor states.
template <class Rule, class Clock>
PUSHPULL_HOST_DEVICE bool is_left_alone(Clock const& clock) {
  return (pushpull::detail::MaySkip<Rule> && clock.skipped) || pushpull::detail::is_refused(clock.prepared);
}

/// to = from, in another type.
template <class From, class To>
struct convert_numbers {
  From const* from;
  To* to;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const { to[i] = convert<To>(from[i]); }
};

/// Whether a number does not become an infinite state, which would stay.
template <class S, class A>
PUSHPULL_HOST_DEVICE bool fits(A x) {
  return !pushpull::detail::is_finite(x) || pushpull::detail::is_finite(convert<A>(convert<S>(x)));
}
/// Makes term number i NaN where one of numbers i, i + terms, ... does not fit.
template <class S, class A>
struct expect_fit {
  A const* x;
  std::int64_t size;
  A* term;
  std::int64_t terms;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    for (std::int64_t k = i; k < size; k += terms)
      if (!fits<S>(x[k])) term[i] = cuda::std::numeric_limits<A>::quiet_NaN();
  }
};

/// Keeps the states of a key whose step is made.
template <class Rule, class Clock, class A, class S>
struct keep_matrices {
  Clock const* clock;
  convert_numbers<A, S> keep;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    if (!is_left_alone<Rule>(*clock)) keep(i);
  }
};

}  // namespace detail

/// The memory of a Factored rule's states of a key, on its owner. @tparam S  The type of its numbers.
template <class S>
struct factor_memory {
  S* first;                          ///< The states of rows, columns and matrices, one after the other.
  void const* key;                   ///< The key's record.
  std::string (*text)(void const*);  ///< Names the key in messages.
};

/// The states of whole matrices of all keys of a step on a device of type D. Empty for rules that have none.
/// Where a `transform` fails, its terms are NaN, which reaches all ranks in the sums of a later phase. Hosts throw then; on GPUs,
/// for which nobody waits, the rule sees NaN in its sums and refuses the key's step.
template <Device D, class Rule, class A, class S>
class matrix_states {
 public:
  static constexpr bool exist = pushpull::detail::keeps_matrices<Rule>;

  void clear() { entries_.clear(); }
  /// @param kept  The stage's states of the key, between steps. @param matrix  The key's among all matrices of the plan.
  void add(factor_memory<S> const& key, S* kept, std::int64_t size, std::int32_t clock, std::size_t matrix) {
    entries_.push_back({key, kept, nullptr, size, clock, matrix, false, {}});
  }
  /// f(size, matrix) gives each its copy.
  template <class F>
  void lay_out(F const& f) {
    for (auto& e : entries_) e.copy = f(e.size, e.matrix);
  }
  /// Calls transform() for matrix number `number`, on copies of its states; on hosts remembers why it failed.
  template <class Clock, class F>
  void change(D const& device, std::size_t number, matrix<A> const& m, [[maybe_unused]] Clock const* clocks,
              F const& transform) {
    auto const found = std::ranges::lower_bound(entries_, number, {}, &entry::matrix);  // in the order of `add`
    if (found == entries_.end() || found->matrix != number) return;
    entry& e = *found;
    for_numbers(device, e.size, detail::convert_numbers<S, A>{e.kept, e.copy});
    if constexpr (HostDevice<D>) {
      e.refused = pushpull::detail::is_refused(clocks[e.clock].prepared);  // by a schedule: there are no sums yet
      e.failure.clear();
      try {
        transform();
        if (!all_fit(e)) e.failure = "a number of its states is too large for the states' type";
      } catch (update_error const& error) {
        e.failure = error.what();
      } catch (std::exception const& error) {  // passed on, it would leave the other ranks in the step
        e.failure = std::string("its transform threw: ") + error.what();
      }
      if (!e.failure.empty()) std::fill_n(m.terms, m.size, std::numeric_limits<A>::quiet_NaN());
    } else {
      transform();
      if constexpr (sizeof(S) < sizeof(A))
        device.for_each(m.size, detail::expect_fit<S, A>{e.copy, e.size, m.terms, m.size});
    }
  }
  /// @throws update_error for the first key that has failed and whose step is made. Without a failure its sums may be NaN.
  template <class Clock>
  void expect_success(Clock const* clocks) const {
    if constexpr (HostDevice<D>)
      for (auto const& e : entries_) {
        if (e.refused || (pushpull::detail::MaySkip<Rule> && clocks[e.clock].skipped)) continue;
        if (e.failure.empty() && !pushpull::detail::is_refused(clocks[e.clock].prepared)) continue;
        throw update_error(e.key.text(e.key.key) + ": " +
                           (e.failure.empty() ? "a state or a sum of its step is not finite" : e.failure));
      }
  }
  template <class Clock>
  void keep(D const& device, Clock const* clocks) const {
    for (auto const& e : entries_) {
      detail::convert_numbers<A, S> const keep{e.copy, e.kept};
      if constexpr (HostDevice<D>) {
        if (!detail::is_left_alone<Rule>(clocks[e.clock])) for_numbers(device, e.size, keep);
      } else {
        device.for_each(e.size, detail::keep_matrices<Rule, Clock, A, S>{clocks + e.clock, keep});
      }
    }
  }

 private:
  struct entry {
    factor_memory<S> key;
    S* kept;
    A* copy;
    std::int64_t size;
    std::int32_t clock;
    std::size_t matrix;
    bool refused;
    std::string failure;
  };

  /// A host's tasks would be too short.
  template <class F>
  static void for_numbers([[maybe_unused]] D const& device, std::int64_t n, F const f) {
    if constexpr (HostDevice<D>) {
      for (std::int64_t i = 0; i < n; ++i) f(i);
    } else {
      device.for_each(n, f);
    }
  }
  static bool all_fit(entry const& e) {
    if constexpr (sizeof(S) < sizeof(A)) return std::all_of(e.copy, e.copy + e.size, detail::fits<S, A>);
    return true;
  }

  std::vector<entry> entries_;
};

}  // namespace pushpull::pass
