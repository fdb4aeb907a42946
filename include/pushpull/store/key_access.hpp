/// @file
/// The calls of a store on its keys, rules and devices, on top of the engines that hold the keys.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/profile/statistics.hpp>
#include <pushpull/store/exchange/agreement.hpp>
#include <pushpull/store/exchange/command.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/store/store_face.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/update/hyperparameter_list.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The calls that read keys and rules, set rules, and wait.
/// @tparam Derived  See engine_calls.
/// @tparam Traits   As for store_face, and: one_rule, whether all keys have the same type of rule, and updater_type, that type;
///                  has_rule<R>; takes_function<F>, whether set_updater does.
template <class Derived, class Traits>
class key_access : public store_face<Derived, Traits> {
  using D = typename Traits::device_type;

 public:
  using Traits::has_updater;
  using typename Traits::key_view;
  using typename Traits::updater_type;

  std::vector<D> const& devices() const { return first().devices(); }
  /// Number of keys.
  std::size_t size() const {
    std::size_t result = 0;
    each([&](auto& engine) { result += engine.with_keys([](auto const& keys) { return keys.size(); }); });
    return result;
  }
  /// @throws unknown_key
  pushpull::shape const& shape(key_view key) const {
    return *self().with("shape", key, [](auto&, auto& r) { return &std::as_const(r.shape); });
  }
  /// The name of a key's element type: "float32". @throws unknown_key
  std::string_view dtype(key_view key) const {
    return self().with("dtype", key, [](auto& engine, auto&) {
      return std::string_view(dtype_traits<typename std::remove_reference_t<decltype(engine)>::T>::name);
    });
  }
  /// Whether this process has a mirror of the key on every device: over ranks unless init was told {.mirrored = false}, and
  /// in a store of one process only if a parameter_store asked for it. @throws unknown_key
  bool is_mirrored(key_view key) const {
    return self().with("is_mirrored", key, [](auto&, auto& r) { return r.arena->resident(); });
  }
  /// The number of this process among those of the communicator.
  int rank() const { return first().communicator().rank(); }
  int num_workers() const { return first().communicator().size(); }
  /// "local" where the devices are CPUs, else "device": MXNet's names.
  static constexpr std::string_view type() { return HostDevice<D> ? "local" : "device"; }
  /// Whether the store can do something: "optimizer", apply a rule. @throws invalid_argument on another name
  static bool is_capable(std::string_view capability) {
    expects<invalid_argument>(capability == "optimizer", [&] {
      return "is_capable: \"optimizer\" expected, got \"" + std::string(capability) + "\"";
    });
    return true;
  }
  /// Returns when all processes of the communicator have called it; does not wait for work that is under way.
  void barrier() const { first().communicator().barrier(); }

  /// The handler that `command` calls on this rank, in place of an earlier one; an empty function is none.
  void on_command(command_handler handler) { first().on_command(std::move(handler)); }
  /// Gives rank 0's head and body to the handlers of all ranks, after all earlier work and before later calls. All ranks make the
  /// call; a handler runs on the thread that does, and may call the store as that thread may. Without a handler nothing
  /// happens. Returns when all handlers have returned. @throws what the handler throws; on other ranks error, with its text
  void command(std::int64_t head, std::string_view body) { first().command(head, body); }
  /// Says how much of the next step's data this rank has, where ranks have more and less of it, or none any more: samples of
  /// its batch, for instance. All ranks call it before each step, and then make the calls of the step alike.
  /// @returns  What to multiply this rank's gradients by: 0 for a weight of 0; else 1 where they are added, and where a mean
  ///           is taken a factor that makes it the mean of the ranks' gradients, each with its weight. None if all weights are
  ///           0: then no step follows. Waits for all ranks.
  /// @throws invalid_argument on all ranks if a weight is negative or not finite
  std::optional<double> join(double weight) const { return first().join(weight); }

  /// The rule with its present hyperparameters, or that of a parameter group. In a store of several rules: `Rule`.
  /// @throws invalid_argument if there is no such group
  template <class Rule = updater_type>
    requires(Traits::template has_rule<Rule>)
  Rule updater(std::size_t group = 0) const {
    auto const& groups = std::get<0>(self().template engines_of<Rule>()).groups();
    groups.expect("updater", group);
    return (*groups.rules())[group];
  }
  /// Other hyperparameters for the pushes that follow; states and step counts stay. In a store of several rules: for the
  /// keys whose rule has this type. All ranks make the call, with the same values.
  /// @throws invalid_argument as the rule's, if there is no such group, and on all ranks if they disagree
  template <class Rule = updater_type>
    requires(has_updater && Traits::template has_rule<Rule>)
  void set_hyperparameters(Rule const& updater, std::size_t group = 0) {
    std::apply(
        [&](auto& one, auto&... others) {
          auto made = one.prepared_alike(
              "set_hyperparameters", "parameter group " + std::to_string(group),
              [&] { return std::tuple{one.prepare_rule(group, updater), others.prepare_rule(group, updater)...}; },
              [&](auto const&) { return update::list_hyperparameters(updater); });
          std::apply([&](auto& rule, auto&... rules) { one.commit(rule), (others.commit(rules), ...); }, made);
        },
        self().template engines_of<Rule>());
  }
  /// Adds a parameter group: from now on keys for which `belongs(key)` holds, those that come later too, are updated with
  /// the hyperparameters of `updater`; states and step counts stay. One pass updates keys of all groups. A key is in the
  /// last group that claims it, or in group 0, that of the store's rule. Sums that a PreReduction takes over all keys go
  /// over all groups. In a store of several rules: keys whose rule has this type. Waits for work that is under way. All ranks
  /// make the call, with the same values and for the same keys. @returns the group's number: 1, 2, ...
  /// @throws invalid_argument as the rule's, if the predicate is empty, and on all ranks if they disagree
  template <class Rule = updater_type>
    requires(has_updater && Traits::template has_rule<Rule>)
  std::size_t add_group(std::function<bool(key_view)> belongs, Rule const& updater) {
    return std::apply(
        [&](auto& one, auto&... others) {
          auto made = one.prepared_alike(
              "add_group", "a parameter group",
              [&] {
                return std::tuple{one.prepare_group(belongs, updater), others.prepare_group(belongs, updater)...};
              },
              [&](auto const& groups) {
                auto texts = update::list_hyperparameters(updater);
                std::apply([&](auto const&... group) { (add_members(texts, group.members), ...); }, groups);
                return texts;
              });
          std::size_t const number = std::get<0>(made).rules->size() - 1;
          auto const add = [&] {
            std::apply([&](auto& group, auto&... groups) { one.commit(group), (others.commit(groups), ...); }, made);
          };
          function_operation op(add);
          one.write_all(op), (others.write_all(op), ...);  // no operation sees half of it
          first().run_in_order(op);
          return number;
        },
        self().template engines_of<Rule>());
  }
  /// Number of parameter groups, group 0 included. In a store of several rules: of `Rule`.
  template <class Rule = updater_type>
    requires(Traits::template has_rule<Rule>)
  std::size_t groups() const {
    return std::get<0>(self().template engines_of<Rule>()).groups().rules()->size();
  }
  /// A number that grows with each change of rules or groups: what was computed from them holds while it stays. In a store of
  /// several rules: of `Rule`.
  template <class Rule = updater_type>
    requires(Traits::template has_rule<Rule>)
  std::uint64_t rule_changes() const {
    return std::get<0>(self().template engines_of<Rule>()).groups().changes();
  }
  /// The number of the key's group. @throws unknown_key
  std::size_t group(key_view key) const {
    return self().with("group", key, [](auto& engine, auto& r) {
      return engine.with_keys([&](auto const&) { return static_cast<std::size_t>(r.parameter_group); });
    });
  }

  /// From the next push on f(key, received, stored) takes the place of the rule that the store does not have: it may change
  /// `stored` in place, given the reduced gradients. Both are whole tensors of the key's shape on the first device: views
  /// tensor_view<T, D> and tensor_view<master_type, D>, valid during the call. It is called on a thread of the schedule,
  /// once per key of a push and in the order of their registration; for GPUs it enqueues work on the device's stream. If
  /// it throws, no key of that push is changed. It must not call the store. In a store of several element types it takes
  /// views of each. All ranks make the call; rank 0's function counts. Cost: beside the passes of push and pull one read and
  /// write of each key. @throws invalid_argument if f is an empty function, also if it is on one rank only
  template <class F>
    requires(!has_updater && Traits::template takes_function<F>)
  void set_updater(F f) {
    std::apply(
        [&](auto&... engines) {
          auto made = first().prepared_alike(
              "set_updater", "a function",
              [&] {
                auto copies =
                    std::tuple{typename std::remove_reference_t<decltype(engines.function())>::function_type(f)...};
                expects<invalid_argument>(
                    std::apply([](auto const&... functions) { return (bool{functions} && ...); }, copies),
                    [] { return std::string("set_updater: the function is empty"); });
                return copies;
              },
              no_texts());
          std::apply([&](auto&... functions) { (engines.function().set(std::move(functions)), ...); }, made);
        },
        self().engines());
  }
  /// From the next push on the stored values are replaced again.
  void reset_updater()
    requires(!has_updater)
  {
    each([](auto& engine) { engine.function().set({}); });
  }

  /// Returns when all work is finished; this thread helps with it. Rethrows the first error that no earlier call has
  /// reported.
  void wait() const { first().wait(); }
  /// Returns when all work on the key is finished. @throws also unknown_key
  void wait(key_view key) const {
    self().with("wait", key, [](auto& engine, auto& r) { engine.wait(r); });
  }
  /// As wait, but errors stay for the next wait: for destructors of what calls borrow. See wait_at_exit. @throws cuda_error
  void drain() const { first().drain(); }
  /// What `device` is given from now on, for instance the caller's stream, runs after the work on the key so far. Where the
  /// devices are CPUs this waits. @throws unknown_key
  void device_waits_for(D const& device, key_view key) const {
    self().with("device_waits_for", key, [](auto& engine, auto& r) {
      if constexpr (HostDevice<D>) engine.wait(r);
    });
    for (D const& own : devices())
      if (!(own == device)) device.wait_for(own);
  }
  /// Work on the key from now on runs after what `device` was given so far. @throws unknown_key
  void key_waits_for(key_view key, D const& device) const {
    self().with("key_waits_for", key, [](auto&, auto&) {});
    for (D const& own : devices())
      if (!(own == device)) own.wait_for(device);
  }

  /// The bytes that the store holds on this rank, by device and purpose. Waits.
  pushpull::memory_report memory_report() const {
    first().drain();
    pushpull::memory_report result{.rank = rank(), .devices = std::vector<memory_use>(devices().size())};
    each([&](auto& engine) {
      engine.with_keys([&](auto const& keys) {
        for (std::size_t n = 0; n < result.devices.size(); ++n) result.devices[n] += keys.use(n);
      });
    });
    return result;
  }
  /// The work of this rank since the store was made. Does not wait: work under way is counted as far as it is known.
  profile::statistics statistics() const { return first().statistics(); }
  /// The bytes of memory_report on device number n. Waits.
  std::size_t bytes(std::size_t n) const { return memory_report().devices[n].total(); }

 protected:
  key_access() = default;
  key_access(key_access&&) noexcept = default;
  key_access& operator=(key_access&&) noexcept = default;
  ~key_access() = default;

  auto& first() const { return std::get<0>(self().engines()); }
  /// f(engine) for each.
  template <class F>
  void each(F const& f) const {
    std::apply([&](auto&... engines) { (f(engines), ...); }, self().engines());
  }

 private:
  /// The texts of keys that a new group claims, in the order of their registration.
  template <class Record>
  static void add_members(std::vector<std::string>& texts, std::vector<Record*> members) {
    std::ranges::sort(members, {}, &Record::index);
    for (Record const* const r : members) texts.push_back(key_text(key_view(r->key)));
  }

  Derived& self() { return static_cast<Derived&>(*this); }
  Derived const& self() const { return static_cast<Derived const&>(*this); }
};

}  // namespace pushpull::detail
