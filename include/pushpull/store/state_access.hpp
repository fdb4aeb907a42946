/// @file
/// The calls of a store on step counts, micro-batches and states, on top of the engines that hold the keys.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/key_access.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/keys/record.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/saved_values.hpp>
#include <pushpull/tensor/copy_bytes.hpp>
#include <pushpull/update/loss_scale.hpp>
#include <pushpull/update/rule_description.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The calls of a store on its states and counts: they are read, saved, set and exchanged with weights.
/// @tparam Derived, Traits  As for key_access.
template <class Derived, class Traits>
class state_access : public key_access<Derived, Traits> {
  template <class E>
  using accumulation_of = typename Traits::template types_of<E>::accumulation_type;
  template <class E>
  using state_of = typename Traits::template types_of<E>::state_type;

 public:
  using Traits::has_updater;
  using typename Traits::key_view;
  using typename Traits::sole_type;
  using typename Traits::updater_type;

  /// Updates of the key so far. Waits for them. @throws unknown_key
  std::int64_t steps(key_view key) const
    requires has_updater
  {
    std::int64_t t = 0;
    self().with("steps", key, [&](auto& engine, auto& r) {
      engine.run_in_order(r, [&](auto& contents) { t = read_steps(contents.keys, contents.controls, r); });
    });
    return t;
  }
  /// Makes the key's next update number t + 1. Waits.
  /// @throws unknown_key; invalid_argument on a negative t, on one above `max_steps`, and if a swap has put a state in the
  /// place of the weights
  void set_steps(key_view key, std::int64_t t)
    requires has_updater
  {
    self().with("set_steps", key, [&](auto& engine, auto& r) {
      expect_a_count("set_steps", key, t);
      engine.run_in_order(r, [&](auto& contents) {
        detail::expect_weights("set_steps", key, r);
        contents.captured.expect_whole_runs("set_steps", [&](auto const& f) { f(r); });
        write_steps(contents.keys, contents.controls, r, t);
      });
    });
  }

  /// In stores with the policy `accumulate`: pushes of the key since its last step. Waits for the key. @throws unknown_key
  std::int64_t micro_batches(key_view key) const
    requires(Traits::accumulates)
  {
    std::int64_t number = 0;
    self().with("micro_batches", key,
                [&](auto& engine, auto& r) { engine.run_in_order(r, [&](auto&) { number = r.micro_batches; }); });
    return number;
  }
  /// The sum of their gradients, as many elements as the key has; zero if there were none. Waits for the key. In a store of
  /// several element types: of a key of type T. @throws unknown_key
  template <class T = sole_type>
    requires(Traits::accumulates && Traits::template has_type<T>)
  auto gradient_sum(key_view key) const {
    std::vector<accumulation_of<T>> elements;
    with_type<T>("gradient_sum", key, [&](auto& engine, auto& r) {
      engine.run_in_order(r, [&](auto& contents) { elements = read_sum(contents.keys, r); });
    });
    return elements;
  }
  /// Sets both, for what is resumed amid a step: the sum of `count` micro-batches. Waits for the key.
  /// @throws unknown_key; invalid_argument on a negative count; shape_mismatch on another number of elements
  template <class T = sole_type>
    requires(Traits::accumulates && Traits::template has_type<T>)
  void set_micro_batches(key_view key, std::int64_t count, std::span<accumulation_of<T> const> sum) {
    with_type<T>("set_micro_batches", key, [&](auto& engine, auto& r) {
      expect_a_count("set_micro_batches", key, count);
      expect_shape("set_micro_batches", key, pushpull::shape{r.size()},
                   pushpull::shape{static_cast<std::int64_t>(sum.size())});
      write_micro_batches(engine, r, count, sum);
    });
  }
  /// Forgets the gradients that the key has gathered since its last step: its next push is the first of a step. Waits for
  /// the key. @throws unknown_key
  void discard_micro_batches(key_view key)
    requires(Traits::accumulates)
  {
    self().with("discard_micro_batches", key, [](auto& engine, auto& r) { write_micro_batches(engine, r, 0, {}); });
  }

  /// The values of the rule's stage `Stage` that persist across steps, as a value of the stage's sums_type: for instance
  /// update::dynamic_loss_scale. Waits for all steps.
  template <class Stage>
  auto carried() const
    requires(has_updater && Traits::one_rule && Carries<Stage>)
  {
    return update::detail::sums_of_stage<Stage, updater_type>(shared_sums());
  }
  /// The loss's scale in the next step, on device number n and in its memory: what a loss is multiplied by, without a copy
  /// to the host. A step of the store changes it in that device's order; who reads it on the host waits for steps first.
  double const* loss_scale(std::size_t n) const
    requires(has_updater && Traits::one_rule &&
             update::detail::has_stage<update::dynamic_loss_scale, typename Traits::updater_type>)
  {
    auto const* const sums = reinterpret_cast<double const*>(this->first().shared_sums(n));
    return sums + update::detail::first_sum_of<update::dynamic_loss_scale, updater_type>() + 1;
  }
  /// All values of the rule that persist across steps, to be saved and set again; none if several rules, or several element
  /// types, share the store. Waits.
  std::vector<double> carried_numbers() const {
    std::vector<double> result;
    if constexpr (carried_count > 0) {
      auto const sums = shared_sums();
      for (std::size_t k = 0; k < carried_count; ++k) result.push_back(sum(sums, k));
    }
    return result;
  }
  /// @throws shape_mismatch on another number of them
  void set_carried_numbers(std::span<double const> numbers) {
    prepared_changes change;
    prepare_carried_numbers(change, numbers);
    change.commit();
  }
  /// For checkpoints: `changes` sets all values of the rule that persist across steps. @throws as set_carried_numbers
  void prepare_carried_numbers([[maybe_unused]] prepared_changes& changes, std::span<double const> numbers) {
    expects<shape_mismatch>(numbers.size() == carried_count, [&] {
      return "set_carried_numbers: " + std::to_string(carried_count) + " numbers expected, got " +
             std::to_string(numbers.size());
    });
    if constexpr (carried_count > 0) {
      sums_t<updater_type> sums{};
      for (std::size_t k = 0; k < carried_count; ++k) sum(sums, k) = numbers[k];
      this->first().run_between_steps([&](auto& contents) {
        changes.add(contents.steps, performer(this->first()), [&contents, sums] {
          for (std::size_t n = 0; n < contents.controls.size(); ++n)
            contents.controls[n].set_shared(contents.devices()[n], sums);
        });
      });
    }
  }

  /// The name of the rule, pipe included, and which of its stages keep something: what checkpoints compare.
  static update::rule_description describe_rule()
    requires(has_updater && Traits::one_rule)
  {
    return update::describe<updater_type>();
  }
  /// In a store of several rules: the description of the key's. @throws unknown_key
  update::rule_description describe_rule(key_view key) const
    requires(!Traits::one_rule)
  {
    return self().with("describe_rule", key, [](auto& engine, auto&) {
      return update::describe<typename std::remove_reference_t<decltype(engine)>::updater_type>();
    });
  }
  /// The names of the rule's states, those of rows, columns and matrices last. A name that several stages of a pipe use is numbered:
  /// "average", "average.2".
  static std::vector<std::string> state_names()
    requires(Traits::one_rule)
  {
    return names_of_states<std::tuple_element_t<0, typename Traits::engine_types>>();
  }
  /// In a store of several rules: the names of the states that the key has. @throws unknown_key
  std::vector<std::string> state_names(key_view key) const
    requires(!Traits::one_rule)
  {
    return self().with("state_names", key, [](auto& engine, auto&) { return names_of_states<decltype(engine)>(); });
  }
  /// The shape of a state tensor of the key: the key's own, a list of its rows or columns, or a
  /// matrix that the rule keeps.
  /// @throws as state
  pushpull::shape state_shape(key_view key, std::string_view name) const {
    return self().with("state_shape", key, [&](auto& engine, auto& r) {
      return shape_of_state(engine, r, state_number("state_shape", engine, name));
    });
  }
  /// The elements of a state tensor of the key, by its name. Waits. In a store of several element types: of a key of type T.
  /// @throws unknown_key; invalid_argument if the rule has no such state
  template <class T = sole_type>
    requires(Traits::template has_type<T>)
  auto state(key_view key, std::string_view name) const {
    std::vector<state_of<T>> elements;
    with_type<T>("state", key, [&](auto& engine, auto& r) {
      std::size_t const s = state_number("state", engine, name);
      engine.run_in_order(
          r, [&](auto& contents) { elements = read_state<rule_of<decltype(engine)>>(contents.keys, r, s); });
    });
    return elements;
  }
  /// Sets a state tensor of the key: as many elements as it has, in their order. Waits.
  /// @throws as state; shape_mismatch on another number of elements
  template <class T = sole_type>
    requires(Traits::template has_type<T>)
  void set_state(key_view key, std::string_view name, std::span<state_of<T> const> elements) {
    with_type<T>("set_state", key, [&](auto& engine, auto& r) {
      std::size_t const s = state_number("set_state", engine, name);
      expect_shape("set_state", key, pushpull::shape{static_cast<std::int64_t>(shape_of_state(engine, r, s).size())},
                   pushpull::shape{static_cast<std::int64_t>(elements.size())});
      engine.run_in_order(r, [&](auto& contents) {
        detail::expect_weights("set_state", key, r);
        write_state<rule_of<decltype(engine)>>(contents.keys, r, s, {std::as_bytes(elements)});
      });
    });
  }

  /// Exchanges the stored values of all keys and a state of the rule, by its name: evaluation runs on averages behind
  /// swap("ema"), and training goes on, bit for bit, behind a second one. In between what would train, set or save the key is
  /// refused with an invalid_argument that says so; pull gives the averages. Resident mirrors follow. A key without updates has
  /// no such state yet: its weights stay. Needs states of the masters' element type. In a store of several rules: of the keys
  /// whose rule has the state. Enqueued; on CPU devices finished when it returns. Cost: one pass per device over masters, the
  /// state and mirrors.
  /// @throws invalid_argument if no rule has such a state, or another one is in the place of a key's weights
  void swap(std::string_view name)
    requires has_updater
  {
    swap_where(
        name, [](auto& engine) { return engine.with_keys([](auto const& keys) { return keys.records(); }); }, true);
  }
  /// Exchanges the value of one key and a state. @throws also unknown_key
  void swap(key_view key, std::string_view name)
    requires has_updater
  {
    swap_keys(std::span<key_view const>(&key, 1), name);
  }
  /// Exchanges the values of the keys of a list and a state. @throws also unknown_key; duplicate_key if one is listed twice
  template <KeysOf<key_view> Keys>
    requires has_updater
  void swap(Keys&& keys, std::string_view name) {
    swap_keys(keys, name);
  }
  /// The name of the state that `swap` has put in the place of the key's weights; empty if they are there.
  /// @throws unknown_key
  std::string swapped(key_view key) const {
    return self().with("swapped", key, [](auto&, auto& r) {
      std::string const* const name = swapped_state(r);
      return name == nullptr ? std::string() : *name;
    });
  }
  /// @throws unknown_key; invalid_argument if a swap has put a state in the place of the key's weights
  void expect_weights(char const* caller, key_view key) const {
    self().with(caller, key, [&](auto&, auto& r) { detail::expect_weights(caller, key, r); });
  }

 protected:
  state_access() = default;
  state_access(state_access&&) noexcept = default;
  state_access& operator=(state_access&&) noexcept = default;
  ~state_access() = default;

  template <class Engine>
  using rule_of = typename std::remove_reference_t<Engine>::rule_type;
  /// Runs operations of the engine's store.
  template <class Engine>
  static auto performer(Engine& engine) {
    return [&engine](operation& op) { engine.run_in_order(op); };
  }
  template <class Engine>
  static std::size_t state_number(char const* caller, Engine&, std::string_view name) {
    return position_of(caller, names_of_states<Engine>(), name);
  }

 private:
  static constexpr std::size_t carried_count = [] {
    if constexpr (Traits::one_rule && has_updater)
      if constexpr (Carries<updater_type>) return sum_count<sums_t<updater_type>>;
    return std::size_t{0};
  }();

  Derived& self() { return static_cast<Derived&>(*this); }
  Derived const& self() const { return static_cast<Derived const&>(*this); }

  /// f(engine, record) of a key of element type T. @throws unknown_key; invalid_argument on a key of another type
  template <class T, class F>
  decltype(auto) with_type(char const* caller, key_view key, F const& f) const {
    return self().template with_element<T>(
        caller, key, [&](auto& engine) -> decltype(auto) { return f(engine, engine.find(caller, key)); });
  }

  /// The sums over all keys and the values that persist. Waits.
  auto shared_sums() const {
    sums_t<updater_type> sums{};
    this->first().run_between_steps([&](auto& contents) {
      auto shared = std::remove_cvref_t<decltype(*contents.controls.front().shared())>();
      copy_bytes(cpu_device<>(), &shared, this->devices().front(), contents.controls.front().shared(), sizeof(shared));
      sums = shared.sums;
    });
    return sums;
  }
  template <class Engine>
  static void write_micro_batches(Engine& engine, typename Engine::record& r, std::int64_t count,
                                  std::span<typename Engine::table_type::accumulation_type const> sum) {
    engine.run_in_order(r, [&](auto& contents) {
      if (count > 0) {
        make_room_for_sum(contents.keys, r);
        write_sum(contents.keys, r, {std::as_bytes(sum)});
      }
      r.micro_batches = count;
    });
  }

  template <class Engine>
  static std::vector<std::string> names_of_states() {
    return numbered_names(all_state_names<rule_of<Engine>>);
  }
  template <class Engine, class Record>
  static pushpull::shape shape_of_state(Engine&, Record const& r, std::size_t s) {
    return detail::state_shape<rule_of<Engine>>(r, s);
  }

  template <class Keys>
  void swap_keys(Keys&& keys, std::string_view name) {
    std::vector<std::pair<void const*, void*>> found;  // engine, record
    for (auto&& key : keys)
      self().with("swap", key_view(key), [&](auto& engine, auto& r) { found.emplace_back(&engine, &r); });
    swap_where(
        name,
        [&](auto& engine) {
          std::vector<typename std::remove_reference_t<decltype(engine)>::record*> records;
          for (auto const& [owner, r] : found)
            if (owner == &engine)
              records.push_back(static_cast<typename std::remove_reference_t<decltype(engine)>::record*>(r));
          return records;
        },
        false);
  }
  /// Swaps the keys that records(engine) lists: of all engines or, after an error, of none.
  /// @param lenient  A rule without the state keeps its keys as they are, unless no rule has it.
  template <class Records>
  void swap_where(std::string_view name, Records const& records, bool lenient) {
    std::size_t having = 0, done = 0;
    auto const has = [&](auto& engine) {
      auto const names = numbered_names(rule_of<decltype(engine)>::state_names);
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    auto const swap_one = [&](auto& engine, auto const& keys) {
      if ((lenient && having > 0 && !has(engine)) || (!lenient && keys.empty())) return;
      engine.swap(keys, position_of("swap", numbered_names(rule_of<decltype(engine)>::state_names), name));
    };
    std::apply(
        [&](auto&... engines) {
          having = (std::size_t{has(engines)} + ...);
          std::apply(
              [&](auto const&... keys) {
                try {
                  ((swap_one(engines, keys), ++done), ...);
                } catch (...) {  // a second swap is the first one undone
                  std::size_t number = 0;
                  ((number++ < done ? swap_one(engines, keys) : void()), ...);
                  throw;
                }
              },
              std::tuple{records(engines)...});
        },
        self().engines());
  }
};

}  // namespace pushpull::detail
