/// @file
/// The calls of a store for checkpoints and for tables: what this process holds of a key, values that all keys take together, and
/// single rows.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/store/array_parts.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/store/rows/key_rows.hpp>
#include <pushpull/store/saved_values.hpp>
#include <pushpull/store/state_access.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// @tparam Derived, Traits  As for key_access.
template <class Derived, class Traits>
class checkpoint_access : public state_access<Derived, Traits> {
  using base = state_access<Derived, Traits>;

 public:
  using Traits::has_updater;
  using typename Traits::key_view;

  /// For checkpoints: the ranks that hold the keys together, and this process's place among them.
  detail::owning_ranks owning_ranks() const { return this->first().owning_ranks(); }

  /// For checkpoints: which elements of an array this process saves, and their bytes, if `copies`; else those that it loads.
  /// Bytes of a sum are collective, all else is not. Waits for the key. @throws unknown_key; invalid_argument if the rule has no such state
  array_part local_part(key_view key, saved_array what, std::string_view state, bool copies) const {
    array_part result;
    self().with("local_part", key, [&](auto& engine, auto& r) {
      using rule = typename base::template rule_of<decltype(engine)>;
      std::size_t const s = what == saved_array::state ? base::state_number("local_part", engine, state) : 0;
      engine.run_in_order(r, [&](auto& contents) {
        auto const& table = contents.keys;
        switch (what) {
          case saved_array::value: result = value_part(table, r, copies); break;
          case saved_array::untrained_value: result = untrained_value_part(table, r, copies); break;
          case saved_array::sum: result = sum_part(table, r, copies); break;
          case saved_array::state:
            if constexpr (all_state_names<rule>.size() > 0) result = state_part<rule>(table, r, s, copies);
        }
      });
    });
    return result;
  }

  /// For checkpoints: the values that `changes` sets, in this key and others, when it is committed. Not collective.
  void prepare_values(prepared_changes& changes, key_view key, saved_values const& values) {
    self().with("load_optimizer_states", key, [&](auto& engine, auto& r) {
      engine.run_in_order(r, [&](auto& contents) {
        using engine_type = std::remove_reference_t<decltype(engine)>;
        using rule = typename engine_type::rule_type;
        using change = value_change<typename engine_type::table_type>;
        contents.captured.expect_whole_runs("load", [&](auto const& f) { f(r); });
        for (std::size_t s = 0; s < values.states.size(); ++s) make_room_for_state<rule>(contents.keys, r, s);
        if (values.micro_batches > 0) make_room_for_sum(contents.keys, r);
        std::shared_ptr<change> const value =
            values.value ? std::make_shared<change>(contents.keys, r, *values.value) : nullptr;
        changes.add(r.order, base::performer(engine), [&contents, &r, &values, value] {
          if (value != nullptr) value->make();
          for (std::size_t s = 0; s < values.states.size(); ++s)
            write_state<rule>(contents.keys, r, s, values.states[s]);
          if constexpr (has_updater) write_steps(contents.keys, contents.controls, r, values.steps);
          if (values.micro_batches > 0) write_sum(contents.keys, r, values.sum);
          r.micro_batches = values.micro_batches;
        });
      });
    });
  }

  /// For tables: f(rows), with a key_rows for each key of a list, between the earlier and the later operations on them. Keys have
  /// no mirrors and are on host devices; the store is of one process, one element type and one rule. Returns when done.
  /// @param changes  Else f only reads, and other readers run at the same time. @throws unknown_key, what f throws
  template <class Keys, class F>
  void with_rows(Keys const& keys, bool changes, F const& f) const {
    auto& engine = this->first();
    using engine_type = std::remove_reference_t<decltype(engine)>;
    using rows_type = key_rows<typename engine_type::rule_type, typename engine_type::table_type>;
    std::vector<typename engine_type::record*> records;
    for (auto const& key : keys) records.push_back(&engine.find("with_rows", key));
    auto const& table = *engine.with_keys([](auto const& known) { return &known; });
    auto const run = [&] {
      std::vector<rows_type> rows;
      for (auto* const r : records) rows.emplace_back(table, *r);
      f(std::span<rows_type const>(rows));
    };
    function_operation op(run);
    for (auto* const r : records) changes ? op.writes(r->order) : op.reads(r->order);
    engine.run_in_order(op);
  }

 protected:
  checkpoint_access() = default;
  checkpoint_access(checkpoint_access&&) noexcept = default;
  checkpoint_access& operator=(checkpoint_access&&) noexcept = default;
  ~checkpoint_access() = default;

 private:
  Derived& self() { return static_cast<Derived&>(*this); }
  Derived const& self() const { return static_cast<Derived const&>(*this); }
};

}  // namespace pushpull::detail
