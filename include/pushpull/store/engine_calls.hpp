/// @file
/// The way from the arguments of a store's calls to its engines.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <exception>
#include <iterator>
#include <limits>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/heap_sort.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/call_arguments.hpp>
#include <pushpull/store/checkpoint_access.hpp>
#include <pushpull/store/engine.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/store/store_face.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

template <class Engines>
inline constexpr bool any_pre_reduction = false;
template <class... Engines>
inline constexpr bool any_pre_reduction<std::tuple<Engines...>> = (PreReduction<typename Engines::rule_type> || ...);

/// A store whose keys one engine holds, or several that share a schedule and a directory.
/// @tparam Derived  Has: engines() -> a tuple of references; engines_of<Rule>() -> those with the rule; owner(caller, key, f) ->
///                  f(engine) of the key; with(caller, key, f) -> f(engine, record); with_element<E>(caller, key, f) ->
///                  f(engine), the one that takes tensors of type E for the key; with_new_key<E>(key, f) -> f(engine);
///                  shares<E>(arguments, f): f(engine, arguments of its keys) for each engine that a list names;
///                  add_keys<E>(keys, values); number(caller, key) -> that of the key's engine; contains(key), keys().
template <class Derived, class Traits>
class engine_calls : public checkpoint_access<Derived, Traits> {
  using D = typename Traits::device_type;
  using engine_types = typename Traits::engine_types;
  static constexpr std::size_t count = std::tuple_size_v<engine_types>;
  template <class Engine>
  using plan_of = std::optional<typename Engine::plan_type>;
  template <class Engines>
  struct plans_of;
  template <class... Engines>
  struct plans_of<std::tuple<Engines...>> {
    using type = std::tuple<plan_of<Engines>...>;
  };

 public:
  using typename Traits::key_type;
  using typename Traits::key_view;

  /// A step over given keys, from their resident gradients to their resident mirrors. See `make_plan`.
  struct plan_type {
    typename plans_of<engine_types>::type plans;  ///< One per engine that has such keys.
  };

  using key_access<Derived, Traits>::devices;
  using checkpoint_access<Derived, Traits>::expect_weights;

  /// As init of a list, for keys whose mirrors (one per device) and gradients the store holds: see ResidentStore. A key
  /// that needs no gradient gets none. @throws as init
  template <class V>
    requires(!Traits::compressed &&
             Traits::template has_type<typename Traits::template stored_as<element_of<V const&>>>)
  void init_resident(std::span<key_type const> keys, std::span<V const> values,
                     std::vector<bool> const& needs_gradient) {
    expect_count("init_resident", keys.size(), values.size(), "value");
    expect_count("init_resident", keys.size(), needs_gradient.size(), "flag");
    std::vector<key_view> const names(keys.begin(), keys.end());
    self().template add_keys<typename Traits::template stored_as<element_of<V const&>>>(
        std::span<key_view const>(names), values, "init_resident", &needs_gradient);
  }
  /// The key's mirror on device number n. @throws unknown_key; invalid_argument if the key is not resident
  template <class T = typename Traits::sole_type>
    requires(Traits::template has_type<T>)
  tensor_view<T, D> mirror(key_view key, std::size_t n) const {
    return self().template with_element<T>("mirror", key, [&](auto& engine) -> tensor_view<T, D> {
      auto const& r = engine.with_keys([&](auto const& keys) -> auto& { return keys.find_resident("mirror", key); });
      return {std::remove_reference_t<decltype(engine)>::table_type::mirror(r, n), r.shape, devices()[n]};
    });
  }
  /// The key's gradient on device number n, to be written before each update.
  /// @throws as mirror; invalid_argument if the key was initialised without one
  template <class T = typename Traits::sole_type>
    requires(Traits::template has_type<T>)
  tensor_view<T, D> gradient(key_view key, std::size_t n) const {
    return self().template with_element<T>("gradient", key, [&](auto& engine) -> tensor_view<T, D> {
      auto const& r =
          engine.with_keys([&](auto const& keys) -> auto& { return keys.find_with_gradient("gradient", key); });
      return {std::remove_reference_t<decltype(engine)>::table_type::gradient(r, n), r.shape, devices()[n]};
    });
  }
  /// Gives a resident key a gradient on every device, if it has none. @throws as mirror
  void require_gradient(key_view key) {
    self().owner("require_gradient", key, [&](auto& engine) { engine.require_gradient(key); });
  }
  /// The step over resident keys, in arenas. A plan is valid for the life of the store and may be used again and again.
  /// @throws unknown_key; invalid_argument if a key has no resident gradient; duplicate_key
  plan_type make_plan(std::span<key_type const> keys) {
    plan_type plan;
    if constexpr (count == 1) {
      std::get<0>(plan.plans).emplace(this->first().make_plan(keys));
    } else {
      std::array<std::vector<key_type>, count> names;
      for (key_type const& key : keys) names[self().number("make_plan", key)].push_back(key);
      each_of(plan, [&](auto& engine, auto& part, std::size_t n) {
        if (!names[n].empty()) part.emplace(engine.make_plan(names[n]));
      });
    }
    return plan;
  }
  /// pushpull from the resident gradients to the resident mirrors: one pass per device and engine, two if the rule is a
  /// PreReduction. Enqueued; on CPU devices finished when it returns.
  void update(plan_type& plan) { run(plan, false); }
  /// Whether a step of some keys does not depend on which others are stepped with them: no rule sums over keys.
  static constexpr bool steps_in_parts = !detail::any_pre_reduction<engine_types>;
  /// Same as update, but on CPU devices too it may go on when this returns. To be finished before the plan is used again.
  void start(plan_type& plan, priority when = {std::numeric_limits<int>::max()}) {
    std::size_t started = 0;  // engines
    try {
      each_of(plan, [&](auto& engine, auto& part, std::size_t n) {
        if (part) engine.start(*part, when);
        started = n + 1;
      });
    } catch (...) {
      finish_first(started, plan);
      throw;
    }
  }
  /// Returns when a step that was started is done, of all engines. @throws what the first of them fails with
  void finish(plan_type& plan) {
    if (auto const failed = finish_first(count, plan)) std::rethrow_exception(failed);
  }
  /// Adds the resident gradients, those of a micro-batch, to what the plan's next update takes. See `accumulate`.
  void accumulate(plan_type& plan)
    requires(Traits::accumulates)
  {
    run(plan, true);
  }
  /// Says that no graph with captured calls of the store is launched any more. The memory that they refer to is given back, and
  /// what they forbade is allowed: `init` of more keys, more groups, steps of parts of a captured step. Waits.
  void discard_captures() {
    std::apply([](auto&... engines) { (engines.discard_captures(), ...); }, self().engines());
  }
  /// Whether graphs with captured calls of the store may be launched.
  bool has_captures() const {
    return std::apply([](auto const&... engines) { return (engines.has_captures() || ...); }, self().engines());
  }
  using store_face<Derived, Traits>::accumulate;
  /// @throws invalid_argument if a swap has put a state in the place of the weights of one of the plan's keys
  void expect_weights(char const* caller, plan_type const& plan) const {
    std::apply(
        [&](auto const&... parts) {
          ((parts ? parts->for_each_key([&](auto& r) { detail::expect_weights(caller, key_view(r.key), r); }) : void()),
           ...);
        },
        plan.plans);
  }

 protected:
  friend class store_face<Derived, Traits>;

  template <class E, class V>
  void add_rows_of_key(key_view key, V const& value, key_options options) {
    self().template with_new_key<E>(key, [&](auto& engine) { engine.init_rows(key, value, options); });
  }
  template <class E, class Arguments>
  void assign_values(Arguments const& arguments, rule_states states) {
    submit<E>(
        arguments, priority{std::numeric_limits<int>::max()},
        [&](auto& engine) { return engine.template new_assign<E>(arguments.caller, states); },
        [&](auto const& f) { return self().owner(arguments.caller, arguments.keys, f); })
        .wait();
  }
  template <class E, class Arguments>
  completion update(Arguments const& arguments, priority when, bool only_accumulates) {
    return submit<E>(
        arguments, when, [&](auto& engine) { return engine.new_push(arguments.caller, only_accumulates); },
        [&](auto const& f) { return self().template with_element<E>(arguments.caller, arguments.keys, f); });
  }
  /// @tparam E  The element type of listed keys. @tparam U  Of the outputs.
  template <class E, class U, class Arguments>
  completion fetch(Arguments const& arguments, priority when) {
    return submit<E>(
        arguments, when, [&](auto& engine) { return engine.template new_pull<U>(arguments.caller); },
        [&](auto const& f) { return self().owner(arguments.caller, arguments.keys, f); });
  }

  template <class E, class Gradients>
  completion push_rows(key_view key, Gradients& gradients, row_updates rows, priority when) {
    return self().template with_element<E>("push", key, [&](auto& engine) {
      auto call = engine.new_push_rows("push", key, updates_all(rows));
      add_sources(call.operation, "push", key, gradients);
      return engine.submit(call, when);
    });
  }
  template <class E, class Gradients, class Outputs>
  completion pushpull_rows(key_view key, Gradients& gradients, Outputs& outputs, row_updates rows, priority when) {
    return self().template with_element<E>("pushpull", key, [&](auto& engine) {
      auto call = engine.new_push_rows("pushpull", key, updates_all(rows));
      add_sources(call.operation, "pushpull", key, gradients);
      for_each_tensor(outputs, [&](auto const& view) { call.operation.add_output("pushpull", key, view); });
      return engine.submit(call, when);
    });
  }
  template <class E, class Keys, class Gradients>
  completion push_listed_rows(Keys& keys, Gradients& gradients, row_updates rows, priority when) {
    std::vector<prepared_call> all;
    auto const groups = listed_keys<E>("push", keys, gradients);
    for (auto const& group : groups)
      self().template with_element<E>("push", key_view(group.key), [&](auto& engine) {
        auto call = engine.new_push_rows("push", group.key, updates_all(rows));
        for (auto const& entry : group.entries) add_sources(call.operation, "push", key_view(group.key), *entry);
        all.push_back(engine.prepare(call));
      });
    return this->first().submit_jointly(all, when);
  }

  template <class E, class Outputs, class Ids>
  completion pull_rows(key_view key, Outputs& outputs, Ids const& row_ids, priority when) {
    return self().template with_element<E>("row_sparse_pull", key, [&](auto& engine) {
      return engine.submit(prepare_row_pull(engine, key, outputs, row_ids), when);
    });
  }
  template <class E, class Keys, class Outputs, class Ids>
  completion pull_listed_rows(Keys& keys, Outputs& outputs, Ids const& row_ids, priority when) {
    static constexpr char const* caller = "row_sparse_pull";
    std::vector<prepared_call> all;
    for_each_entry(
        caller, keys,
        [&](auto&& key, auto const& output, auto const& ids) {
          auto&& filled = *output;
          self().template with_element<E>(caller, key_view(key), [&](auto& engine) {
            all.push_back(prepare_row_pull(engine, key_view(key), filled, *ids));
          });
        },
        companion<Outputs>("output", outputs), companion<Ids const>("tensor of row ids", row_ids));
    return this->first().submit_jointly(all, when);
  }

 private:
  Derived& self() { return static_cast<Derived&>(*this); }
  Derived const& self() const { return static_cast<Derived const&>(*this); }

  /// Fills what make(engine) drafts with the arguments, and submits it: of one key to the engine that of_key(f) calls f with,
  /// of a list to all engines that it names, as one.
  template <class E, class Arguments, class Make, class OfKey>
  completion submit(Arguments const& arguments, priority when, Make const& make, [[maybe_unused]] OfKey const& of_key) {
    auto const prepare = [&](auto& engine, auto const& given) {
      auto call = make(engine);
      given.add_to(call);
      return engine.prepare(call);
    };
    if constexpr (!Arguments::is_list) {
      return of_key([&](auto& engine) { return engine.submit(prepare(engine, arguments), when); });
    } else if constexpr (Traits::lists_have_one_engine) {
      completion result;
      self().template shares<E>(
          arguments, [&](auto& engine, auto const& given) { result = engine.submit(prepare(engine, given), when); });
      return result;
    } else {
      std::vector<prepared_call> all;
      self().template shares<E>(arguments,
                                [&](auto& engine, auto const& given) { all.push_back(prepare(engine, given)); });
      return this->first().submit_jointly(all, when);
    }
  }

  /// Without a rule the rows that did not come become zero.
  static constexpr bool updates_all(row_updates rows) { return !Traits::has_updater || rows == row_updates::standard; }
  template <class Operation, class Gradients>
  static void add_sources(Operation& op, char const* caller, key_view key, Gradients&& gradients) {
    for_each_row_sparse(gradients, [&](auto const& source) { op.add_source(caller, key, source); });
    op.expect_source(caller, key);
  }

  /// A key of a list, each once, and its entries in the range beside the list.
  template <class Iterator>
  struct listed_key {
    void const* record;
    std::size_t index;
    key_type key;
    std::vector<Iterator> entries;
  };
  /// In the order of their registration.
  template <class E, class Keys, class R>
  auto listed_keys(char const* caller, Keys& keys, R& range) {
    std::vector<listed_key<std::ranges::iterator_t<R>>> groups;
    for_each_entry(
        caller, keys,
        [&](auto&& key, auto const& entry) {
          self().template with_element<E>(caller, key_view(key), [&](auto& engine) {
            auto& r = engine.find(caller, key_view(key));
            auto const known =
                std::find_if(groups.begin(), groups.end(), [&](auto const& g) { return g.record == &r; });
            if (known == groups.end()) {
              groups.push_back({&r, static_cast<std::size_t>(r.index), r.key, {entry.place()}});
            } else {
              known->entries.push_back(entry.place());
            }
          });
        },
        companion<R>("gradient", range));
    heap_sort(groups, [](auto const& a, auto const& b) { return a.index < b.index; });
    return groups;
  }

  /// Nothing is written before the calls for all keys of a list have been checked.
  template <class Engine, class Outputs, class Ids>
  static prepared_call prepare_row_pull(Engine& engine, key_view key, Outputs&& outputs, Ids const& row_ids) {
    static constexpr char const* caller = "row_sparse_pull";
    auto call = engine.new_pull_rows(caller, key);
    auto& op = call.operation;
    if constexpr (TensorLike<Ids const&>) {
      op.add_ids(caller, key, view_of(row_ids));
      for_each_row_sparse(outputs, [&](auto& output) { op.add_output(caller, key, output); });
    } else {
      auto ids = std::ranges::begin(row_ids);
      std::size_t filled = 0, named = 0;
      for_each_row_sparse(outputs, [&](auto& output) {
        ++filled;
        if (ids == std::ranges::end(row_ids)) return;
        op.add_ids(caller, key, view_of(*ids));
        op.add_output(caller, key, output);
        ++ids;
        ++named;
      });
      if (bool const more = ids != std::ranges::end(row_ids); more || filled != named)
        raise_counts(std::string(caller) + ": " + key_text(key), counted(filled, "output"),
                     counted(row_ids, named, more, "tensor of row ids"));
    }
    return engine.prepare(call);
  }

  /// f(engine, its part of the plan, its number) for each engine.
  template <class F>
  void each_of(plan_type& plan, F const& f) {
    std::size_t n = 0;
    std::apply(
        [&](auto&... parts) { std::apply([&](auto&... engines) { (f(engines, parts, n++), ...); }, self().engines()); },
        plan.plans);
  }
  /// Waits for what the first `engines` engines have started. @returns what the first of them failed with, or null
  std::exception_ptr finish_first(std::size_t engines, plan_type& plan) {
    std::exception_ptr first;
    each_of(plan, [&](auto& engine, auto& part, std::size_t n) {
      if (!part || n >= engines) return;
      try {
        engine.finish(*part);
      } catch (...) {
        if (first == nullptr) first = std::current_exception();
      }
    });
    return first;
  }
  void run(plan_type& plan, bool only_accumulates) {
    if constexpr (count > 1) {
      expect_weights("update", plan);
      each_of(plan, [](auto& engine, auto&, std::size_t) { static_cast<void>(engine.captures_step("update")); });
    }
    each_of(plan, [&](auto& engine, auto& part, std::size_t) {
      if (part) engine.update(*part, only_accumulates);
    });
  }
};

}  // namespace pushpull::detail
