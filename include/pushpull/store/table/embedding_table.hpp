/// @file
/// A table of rows for ids of a growing vocabulary, over the row-sparse keys of a store.
///
/// No umbrella includes it.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <shared_mutex>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <oneapi/tbb/task_arena.h>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/table/row_initializers.hpp>
#include <pushpull/store/table/row_segments.hpp>
#include <pushpull/store/table/row_usage.hpp>
#include <pushpull/store/table/slot_map.hpp>
#include <pushpull/store/table/table_options.hpp>
#include <pushpull/store/table/table_rows.hpp>
#include <pushpull/store/table/table_slots.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// A store whose keys can be the rows of an embedding_table: it has one rule and one element type, keys are strings, and devices are
/// CPUs. Model: kv_store<T, D, Policies...> with an Updater.
template <class S>
concept TableStore =
    HostDevice<typename S::device_type> && ElementType<typename S::value_type> &&
    ElementType<typename S::master_type> && std::constructible_from<typename S::key_type, std::string> &&
    requires(S& store, std::vector<typename S::key_type> const& keys) {
      typename S::state_type;
      store.with_rows(keys, true, [](auto const) {});
    };

/// Rows for 64-bit ids, such as the numbers or hashes of words, users or items. Any id may come at any time; one that is new gets a
/// row from the initializer in the first pull or push that names it. Rows are those of row-sparse keys "<name>.0", "<name>.1", ...
/// of the store, which the table adds as it grows; a push updates them in the store's one pass. All 2^64 ids are ordinary ones;
/// unsigned hashes are cast.
///
/// A step is the calls from the end of a push to the end of the next one: pulls, then the push. An id counts as seen once per step.
/// Admission: an id that was seen in fewer steps than `admission` has no row. Pulls read its initial value, pushes drop its
/// gradient. Eviction: see table_options. An evicted id is a new one when it comes back: weights and states start again.
///
/// Calls return when their work is finished. Several threads may call: those whose ids all have rows run at the same time, others
/// one after the other. For one order of calls the results are the same, bit for bit, for any number of devices. The order of calls of
/// several threads is not fixed, and with it counts, slots and sums. After an error the table holds what it held before; but after a
/// failure of the store itself, new ids may have their rows, with initial values. The table refers to the store, which must
/// outlive it, and no one else may use its keys. The initializer and the functions that the store calls must not call the table.
/// Cost per id of a call: a look-up in the map, in parallel. New ids are handled one by one.
/// @tparam S    A TableStore, of one process, with a rule whose states begin at zero and whose first update is like later ones.
/// @tparam Map  A SlotMap.
template <TableStore S, SlotMap<typename S::device_type> Map = flat_slot_map>
class embedding_table {
  static_assert(
      !requires { requires S::has_coded_states; },
      "embedding_table: the store's states are codes; its rows need states in plain elements");

 public:
  using value_type = typename S::value_type;    ///< Of rows that are pulled, and of gradients.
  using device_type = typename S::device_type;  ///< Of the store.
  using master_type = typename S::master_type;  ///< Of the initializer's values.
  using state_type = typename S::state_type;    ///< Of the rule's states.
  using rows_type = table_rows<master_type, state_type>;
  using gradient_type = table_gradient<value_type>;

  /// @param name  Of the keys. @param row_length  Elements of a row.
  /// @throws invalid_argument on options that are out of range, in a store of several ranks, on a rule whose states do not begin at
  /// zero (ema, swa, lookahead, dcasgd, delay_compensation, schedule_free, prodigy, adagrad with an initial value), and on one whose
  /// first update differs from later ones (adopt); duplicate_key
  template <RowInitializer<master_type> Initializer = normal_rows>
  embedding_table(S& store, std::string name, std::int64_t row_length, table_options const& options = {},
                  Initializer initial = {})
      : options_(checked(store, name, row_length, options, initial)),
        initial_(std::move(initial)),
        segments_(store, std::move(name), row_length, options.initial_rows, options.capacity),
        slots_(options) {}
  embedding_table(embedding_table const&) = delete;
  embedding_table& operator=(embedding_table const&) = delete;

  /// That holds the rows.
  S& store() const { return segments_.store(); }
  /// Elements of a row.
  std::int64_t row_length() const { return segments_.length(); }
  /// As given.
  table_options const& options() const { return options_; }
  /// The names of the rule's states.
  static std::vector<std::string> state_names() { return S::state_names(); }
  /// Ids that have rows.
  std::int64_t size() const {
    detail::shared_guard const lock(mutex_);
    return slots_.usage().size();
  }
  /// Rows for which memory is allocated.
  std::int64_t allocated_rows() const {
    detail::shared_guard const lock(mutex_);
    return segments_.rows();
  }
  /// Whether the id has a row.
  bool contains(std::int64_t id) const {
    detail::shared_guard const lock(mutex_);
    return slots_.slot(device(), id) != no_slot;
  }
  /// The steps that have seen the id, with or without a row; 0 for one that the table does not know.
  std::int64_t seen(std::int64_t id) const {
    detail::unique_guard const lock(mutex_);
    std::int64_t const slot = slots_.slot(device(), id);
    return slot == no_slot ? slots_.candidates().usage(id).seen : slots_.usage().usage(slot).seen;
  }

  /// Copies the row of ids[i] to row i of `rows`, ids.size() x row_length() elements. Ids may repeat. New ids are admitted.
  /// @throws shape_mismatch; table_full; out_of_memory; what the initializer throws; duplicate_key if the store has a key that the
  /// growing table needs, "<name>.<number>"
  void pull(std::span<std::int64_t const> ids, std::span<value_type> rows) {
    expect_rows("pull", ids.size(), rows.size());
    if (ids.empty()) return;
    std::vector<std::int64_t> slots(ids.size());
    // An initializer that throws does so before the table has changed.
    auto const fill_waiting = [&](detail::new_ids const& fresh) {
      first_values(ids, rows.data(), [&](std::size_t i) {
        return slots[i] == no_slot && fresh.number.at(ids[i]) == detail::new_ids::no_number;
      });
    };
    with_slots("pull", std::span(&ids, 1), slots, false, fill_waiting,
               [&](auto const& see) { segments_.read(slots, rows.data(), see); });
  }
  /// Same as pull, but changes nothing: for evaluation. An id without a row reads its initial value.
  void find(std::span<std::int64_t const> ids, std::span<value_type> rows) const {
    expect_rows("find", ids.size(), rows.size());
    if (ids.empty()) return;
    std::vector<std::int64_t> slots(ids.size());
    detail::shared_guard const lock(mutex_);
    tbb::this_task_arena::isolate([&] {
      slots_.map().find(device(), ids, std::span(slots));
      first_values(ids, rows.data(), [&](std::size_t i) { return slots[i] == no_slot; });
      segments_.read(slots, rows.data(), [](std::span<std::int64_t const>) {});
    });
  }

  /// Reduces the gradients of one source and applies the rule to their rows, as a row-sparse push of the store: row i of `rows` is
  /// of ids[i], and rows of one id are added. New ids are admitted. t counts, and a step ends, also without ids.
  /// @throws shape_mismatch; table_full; what the initializer throws
  void push(std::span<std::int64_t const> ids, std::span<value_type const> rows) {
    gradient_type const source{ids, rows};
    push(std::span(&source, 1));
  }
  /// Same for several sources, such as one per device. @throws also invalid_argument if there is none
  void push(std::span<gradient_type const> sources) {
    detail::expects<invalid_argument>(!sources.empty(), [&] { return message("push") + "came with no gradient"; });
    std::vector<detail::id_list> ids;
    std::size_t count = 0;
    for (gradient_type const& source : sources) {
      expect_rows("push", source.ids.size(), source.rows.size());
      ids.push_back(source.ids);
      count += source.ids.size();
    }
    std::vector<std::int64_t> slots(count);
    with_slots(
        "push", std::span(std::as_const(ids)), slots, true, [](detail::new_ids const&) {},
        [&](auto const& see) { segments_.push(sources, slots, [&] { see(slots); }); });
  }

  /// Evicts ids until at most `rows` are left: least recently used ones first, or least frequently used ones if the options
  /// say so. @returns how many were evicted
  std::int64_t evict_to(std::int64_t rows) {
    detail::unique_guard const lock(mutex_);
    std::int64_t const count = slots_.usage().size() - std::max<std::int64_t>(rows, 0);
    if (count <= 0) return 0;
    slots_.evict(device(), count, step_began_);
    return count;
  }

  /// A copy of all rows, their states and their usage, by ascending slots.
  /// Memory: as much as these take.
  rows_type export_rows() const {
    detail::unique_guard const lock(mutex_);
    rows_type result;
    slots_.usage().for_each([&](std::int64_t slot) {
      result.slots.push_back(slot);
      result.ids.push_back(slots_.usage().id(slot));
      result.last_used.push_back(slots_.usage().usage(slot).last);
      result.seen.push_back(slots_.usage().usage(slot).seen);
    });
    std::size_t const count = result.ids.size();
    result.values.resize(count * static_cast<std::size_t>(row_length()));
    auto const lengths = segments_.state_lengths();
    std::vector<state_type*> states;
    for (std::size_t s = 0; s < lengths.size(); ++s)
      result.states.push_back(
          {state_names()[s], std::vector<state_type>(count * static_cast<std::size_t>(lengths[s]))});
    for (auto& state : result.states) states.push_back(state.elements.data());
    tbb::this_task_arena::isolate([&] { segments_.copy(result.slots, result.values.data(), states); });
    result.calls = calls_;
    result.step_began = step_began_;
    result.steps = segments_.steps();
    for (auto const& [id, usage, newer] : slots_.candidates().list()) {
      result.waiting.ids.push_back(id);
      result.waiting.last_used.push_back(usage.last);
      result.waiting.seen.push_back(usage.seen);
      result.waiting.newer.push_back(newer);
    }
    return result;
  }
  /// Replaces all that the table holds by rows that a table with the same rule and row length has exported. Its next calls give what
  /// those of the other table would give. Capacity, number of devices and of keys may differ. Rows keep their slots, unless these
  /// are beyond the capacity, or eight times as many as rows here and there: then the order of victims with equal usage may differ.
  /// @throws invalid_argument on lists whose lengths do not fit, other states, ids or slots that repeat, and negative numbers;
  /// table_full
  void import_rows(rows_type const& rows) {
    detail::unique_guard const lock(mutex_);
    expect_import(rows);
    auto const count = static_cast<std::int64_t>(rows.ids.size());
    detail::expects<table_full>(count <= options_.capacity, [&] { return full("import_rows", count); });
    // Slots far above the number of rows would take memory that no row needs.
    bool const fits = rows.slots.empty() || (rows.slots.back() < options_.capacity &&
                                             rows.slots.back() / 8 < std::max(count, segments_.rows()));
    std::vector<std::int64_t> const slots = fits ? rows.slots : detail::row_usage().lowest_free(count, {});
    std::vector<detail::id_usage> usages;
    for (std::size_t i = 0; i < rows.ids.size(); ++i) usages.push_back({rows.last_used[i], rows.seen[i]});
    detail::table_slots<Map> made(options_);
    made.restore(device(), rows.ids, slots, usages);
    for (std::size_t i = 0; i < rows.waiting.ids.size(); ++i)
      made.restore_candidate(rows.waiting.ids[i], {rows.waiting.last_used[i], rows.waiting.seen[i]},
                             rows.waiting.newer[i] != 0);
    if (!slots.empty()) segments_.grow(slots.back() + 1);
    std::vector<state_type const*> states;
    for (auto const& state : rows.states) states.push_back(state.elements.data());
    tbb::this_task_arena::isolate([&] { segments_.write(slots, rows.values.data(), states); });
    segments_.set_steps(rows.steps);
    slots_ = std::move(made);
    calls_ = rows.calls;
    step_began_ = rows.step_began;
  }

 private:
  template <class Initializer>
  static table_options const& checked(S& store, std::string const& name, std::int64_t row_length,
                                      table_options const& options, Initializer const& initial) {
    options.validate();
    if constexpr (requires { initial.validate(); }) initial.validate();
    auto const expect = [&](bool holds, std::string const& what) {
      detail::expects<invalid_argument>(holds, [&] { return "embedding_table: \"" + name + "\": " + what; });
    };
    expect(row_length > 0, "rows of at least 1 element expected, got " + std::to_string(row_length));
    expect(store.num_workers() == 1,
           "a store of one process expected, got one of " + std::to_string(store.num_workers()));
    expect(!detail::starts_states(store.updater()), "the rule's states do not begin at zero, as those of a new row do");
    expect(!detail::first_update_differs(store.updater()),
           "the rule's first update differs from later ones, in which new rows come");
    return options;
  }

  device_type const& device() const { return segments_.device(); }
  std::string message(char const* call) const { return std::string(call) + ": table \"" + segments_.name() + "\" "; }
  std::string full(char const* call, std::int64_t rows) const {
    return message(call) + "has a capacity of " + std::to_string(options_.capacity) + " rows, " + std::to_string(rows) +
           " are needed" + (options_.evicts == eviction::none ? ", and no id is evicted" : " at once");
  }
  void expect_rows(char const* call, std::size_t ids, std::size_t elements) const {
    detail::expects<shape_mismatch>(elements == ids * static_cast<std::size_t>(row_length()), [&] {
      return message(call) + "takes rows of " + std::to_string(row_length()) + " elements: " + std::to_string(ids) +
             " ids came with " + std::to_string(elements) + " elements";
    });
  }

  /// f(see) when `slots` are those of the ids of all sources, new ones admitted. f calls see(part of the slots) for all parts, if
  /// nothing fails. Before anything changes comes prepare(new ids), if there are some. No slot changes hands meanwhile. A thread that waits for others in here begins no other task, which might call the
  /// table.
  template <class Prepare, class F>
  void with_slots(char const* call, std::span<detail::id_list const> sources, std::vector<std::int64_t>& slots,
                  bool ends_step, Prepare const& prepare, F const& f) {
    auto const finish = [&] {
      std::int64_t const now = ++calls_, step = step_began_;
      f([&](std::span<std::int64_t const> part) { slots_.usage().see(part, now, step); });
      for (std::int64_t before = step_began_; ends_step && before <= now;)
        if (step_began_.compare_exchange_weak(before, now + 1)) break;
    };
    auto const finish_if_known = [&] {
      bool const known = slots_.find(device(), sources, slots);
      if (known) finish();
      return known;
    };
    {
      detail::shared_guard const lock(mutex_);
      if (tbb::this_task_arena::isolate(finish_if_known)) return;
    }
    detail::unique_guard const lock(mutex_);
    tbb::this_task_arena::isolate([&] {
      if (!slots_.find(device(), sources, slots)) admit(call, sources, slots, prepare);
      finish();
    });
  }
  /// Gives slots to those ids without one whose turn has come.
  template <class Prepare>
  void admit(char const* call, std::span<detail::id_list const> sources, std::vector<std::int64_t>& slots,
             Prepare const& prepare) {
    auto const fresh =
        slots_.find_new(sources, slots, calls_ + 1, step_began_, [&](std::int64_t rows) { return full(call, rows); });
    prepare(fresh);
    auto const length = static_cast<std::size_t>(row_length());
    std::vector<master_type> values(fresh.ids.size() * length);
    for (std::size_t i = 0; i < fresh.ids.size(); ++i)
      initial_(fresh.ids[i], std::span(values).subspan(i * length, length));
    if (!fresh.slots.empty()) segments_.grow(fresh.slots.back() + 1);
    slots_.admit(device(), fresh, [&] { segments_.write(fresh.slots, values.data(), {}); });
    slots_.fill(fresh, sources, slots);
  }

  /// The initial values of the ids for which has_none(place) holds, into their rows.
  template <class Predicate>
  void first_values(detail::id_list ids, value_type* to, Predicate const& has_none) const {
    std::vector<master_type> row(static_cast<std::size_t>(row_length()));
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (!has_none(i)) continue;
      initial_(ids[i], std::span(row));
      std::transform(row.begin(), row.end(), to + i * row.size(), [](master_type w) { return convert<value_type>(w); });
    }
  }

  void expect_import(rows_type const& rows) const {
    std::size_t const count = rows.ids.size();
    auto const expect = [&](bool holds, char const* what) {
      detail::expects<invalid_argument>(holds, [&] { return message("import_rows") + what; });
    };
    auto const are_counts = [](std::vector<std::int64_t> const& list) {
      return std::all_of(list.begin(), list.end(), [](std::int64_t x) { return x >= 0; });
    };
    auto const differ = [](std::vector<std::int64_t> list) {
      std::sort(list.begin(), list.end());
      return std::adjacent_find(list.begin(), list.end()) == list.end();
    };
    expect(rows.values.size() == count * static_cast<std::size_t>(row_length()) && rows.last_used.size() == count &&
               rows.seen.size() == count && rows.slots.size() == count,
           "takes a row, a slot, a last use and a count for each id");
    auto const& waiting = rows.waiting;
    std::size_t const others = waiting.ids.size();
    expect(waiting.last_used.size() == others && waiting.seen.size() == others && waiting.newer.size() == others,
           "takes a last use, a count and a generation for each candidate");
    auto const names = state_names();
    auto const lengths = segments_.state_lengths();
    bool same = rows.states.size() == names.size();
    for (std::size_t s = 0; same && s < names.size(); ++s)
      same = rows.states[s].name == names[s] &&
             rows.states[s].elements.size() == count * static_cast<std::size_t>(lengths[s]);
    expect(same, "takes the states of its rule, for each id");
    auto all = rows.ids;
    all.insert(all.end(), waiting.ids.begin(), waiting.ids.end());
    expect(differ(std::move(all)), "takes each id once");
    expect(are_counts(rows.slots) &&
               std::adjacent_find(rows.slots.begin(), rows.slots.end(), std::greater_equal<>()) == rows.slots.end(),
           "takes slots that ascend");
    expect(rows.slots.empty() || rows.slots.back() < std::int64_t{1} << 44, "takes slots below 2^44");
    expect(rows.calls >= 0 && rows.calls <= max_steps && rows.step_began >= 1 && rows.step_began <= rows.calls + 1 &&
               rows.steps >= 0 && rows.steps <= max_steps,
           "takes counts of at least 0 and at most 2^53, and a step that began in one of the calls");
    auto const are_usages = [&](std::vector<std::int64_t> const& last, std::vector<std::int64_t> const& seen) {
      for (std::size_t i = 0; i < last.size(); ++i)
        if (seen[i] < 0 || seen[i] > last[i] || last[i] > rows.calls) return false;
      return true;
    };
    expect(are_usages(rows.last_used, rows.seen) && are_usages(waiting.last_used, waiting.seen),
           "takes ids that were seen in no more steps than there were calls up to their last one");
    expect(std::all_of(waiting.newer.begin(), waiting.newer.end(), [](std::int64_t x) { return x == 0 || x == 1; }),
           "takes generations 0 and 1");
  }

  table_options options_;
  std::function<void(std::int64_t, std::span<master_type>)> initial_;
  detail::row_segments<S> segments_;
  detail::table_slots<Map> slots_;
  std::atomic<std::int64_t> calls_ = 0;
  std::atomic<std::int64_t> step_began_ = 1;
  detail::guarded_mutex<std::shared_mutex> mutex_;
};

}  // namespace pushpull
