/// @file
/// The part of a kv_store without its operations: its keys, its rule and states, waiting, and resident keys.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/engine.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/kv_store_types.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/update/loss_scale.hpp>
#include <pushpull/update/rule_description.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

struct store_access;

/// The part of kv_store<T, D, Policies...> that it inherits.
template <ElementType T, Device D, class... Policies>
class kv_store_base {
  using resolved = kv_store_types<T, D, Policies...>;

 public:
  using value_type = T;
  using device_type = D;
  using key_type = typename resolved::key_type;
  using key_view = typename resolved::key_view;
  using updater_type = typename resolved::updater_type;
  using reduction_type = typename resolved::reduction_type;
  using compressor_type = typename resolved::compressor_type;
  using communicator_type = typename resolved::communicator_type;
  using master_type = typename resolved::master_type;
  using state_type = typename resolved::state_type;
  using accumulation_type = typename resolved::accumulation_type;
  /// Whether push applies a rule.
  static constexpr bool has_updater = resolved::has_updater;
  /// Whether calls return when their work is finished.
  static constexpr bool is_synchronous = resolved::is_synchronous;
  /// Whether several pushes make a step: the policy `accumulate`.
  static constexpr bool accumulates = resolved::accumulates;
  /// A step over given keys, from their resident gradients to their resident mirrors. See `make_plan`.
  using plan_type = typename engine<resolved>::plan_type;

  std::vector<D> const& devices() const { return engine_->devices(); }
  /// Number of keys.
  std::size_t size() const {
    return engine_->with_keys([](auto const& keys) { return keys.size(); });
  }
  bool contains(key_view key) const {
    return engine_->with_keys([&](auto const& keys) { return keys.contains(key); });
  }
  /// All keys, in the order of their registration.
  std::vector<key_type> keys() const {
    return engine_->with_keys([](auto const& keys) { return keys.keys(); });
  }
  /// @throws unknown_key
  pushpull::shape const& shape(key_view key) const { return engine_->find("shape", key).shape; }
  /// The number of this process among those of the communicator.
  int rank() const { return engine_->communicator().rank(); }
  int num_workers() const { return engine_->communicator().size(); }
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
  void barrier() const { engine_->communicator().barrier(); }

  /// The rule with its present hyperparameters, or that of a parameter group.
  /// @throws invalid_argument if there is no such group
  updater_type updater(std::size_t group = 0) const {
    engine_->groups().expect("updater", group);
    return (*engine_->groups().rules())[group];
  }
  /// Other hyperparameters for the pushes that follow; states and step counts stay.
  /// @throws invalid_argument as the rule's, and if there is no such group
  void set_hyperparameters(updater_type const& updater, std::size_t group = 0)
    requires has_updater
  {
    auto made = engine_->prepare_rule(group, updater);
    engine_->commit(made);
  }

  /// Adds a parameter group: from now on keys for which `belongs(key)` holds, those that come later too, are updated with
  /// the hyperparameters of `updater`; states and step counts stay. One pass updates keys of all groups. A key is in the
  /// last group that claims it, or in group 0, that of the store's rule. Sums that a PreReduction takes over all keys go
  /// over all groups. Waits for work that is under way.
  /// @returns the group's number: 1, 2, ... @throws invalid_argument as the rule's, and if the predicate is empty
  std::size_t add_group(std::function<bool(key_view)> belongs, updater_type const& updater)
    requires has_updater
  {
    return engine_->add_group(std::move(belongs), updater);
  }
  /// Number of parameter groups, group 0 included.
  std::size_t groups() const { return engine_->groups().rules()->size(); }
  /// The number of the key's group. @throws unknown_key
  std::size_t group(key_view key) const {
    auto const& r = engine_->find("group", key);
    return engine_->with_keys([&](auto const&) { return static_cast<std::size_t>(r.parameter_group); });
  }

  /// From the next push on f(key, received, stored) takes the place of the rule that the store does not have: it may change
  /// `stored` in place, given the reduced gradients. Both are whole tensors of the key's shape on the first device: views
  /// tensor_view<T, D> and tensor_view<master_type, D>, valid during the call. It is called on a thread of the schedule,
  /// once per key of a push and in the order of their registration; for GPUs it enqueues work on the device's stream. If
  /// it throws, no key of that push is changed. It must not call the store.
  /// Cost: beside the passes of push and pull one read and write of each key.
  /// @throws invalid_argument if f is an empty function
  template <class F>
    requires(!has_updater && std::invocable<F&, key_view, tensor_view<T, D>, tensor_view<master_type, D>>)
  void set_updater(F f) {
    typename function_slot<resolved>::function_type function(std::move(f));
    expects<invalid_argument>(bool{function}, [] { return std::string("set_updater: the function is empty"); });
    engine_->function().set(std::move(function));
  }
  /// From the next push on the stored values are replaced again.
  void reset_updater()
    requires(!has_updater)
  {
    engine_->function().set({});
  }

  /// Returns when all work is finished; this thread helps with it. @throws the first error
  /// that no earlier call has reported; at most one per call
  void wait() const { engine_->wait(); }
  /// Same as wait(), but only for the work on one key. @throws also unknown_key
  void wait(key_view key) const { engine_->wait(engine_->find("wait", key)); }

  /// As wait, but errors stay for the next wait: for destructors of what calls borrow. See wait_at_exit. @throws cuda_error
  void drain() const { engine_->drain(); }

  /// What `device` is given from now on, for instance the caller's stream, runs after the work on the key so far. Where the
  /// devices are CPUs this waits. @throws unknown_key
  void device_waits_for(D const& device, key_view key) const {
    auto& r = engine_->find("device_waits_for", key);
    if constexpr (HostDevice<D>) engine_->wait(r);
    for (D const& own : devices())
      if (!(own == device)) device.wait_for(own);
  }
  /// Work on the key from now on runs after what `device` was given so far. @throws unknown_key
  void key_waits_for(key_view key, D const& device) const {
    engine_->find("key_waits_for", key);
    for (D const& own : devices())
      if (!(own == device)) own.wait_for(device);
  }

  /// Updates of the key so far. Waits for them.
  /// @throws unknown_key
  std::int64_t steps(key_view key) const
    requires has_updater
  {
    auto& r = engine_->find("steps", key);
    std::int64_t t = 0;
    engine_->run_in_order(r, [&](auto& contents) { t = read_steps(contents.keys, contents.controls, r); });
    return t;
  }
  /// Makes the key's next update number t + 1. Waits.
  /// @throws unknown_key; invalid_argument on a negative t, on one above `max_steps`, and where a swap has put a state in the
  /// place of the weights
  void set_steps(key_view key, std::int64_t t)
    requires has_updater
  {
    auto& r = engine_->find("set_steps", key);
    expects<invalid_argument>(t >= 0 && t <= max_steps, [&] {
      return "set_steps: " + key_text(key) + ": a count of 0 to " + std::to_string(max_steps) + " expected, got " +
             std::to_string(t);
    });
    engine_->run_in_order(r, [&](auto& contents) {
      detail::expect_weights("set_steps", key, r);
      write_steps(contents.keys, contents.controls, r, t);
    });
  }

  /// In stores with the policy `accumulate`: pushes of the key since its last step. Waits for the key. @throws unknown_key
  std::int64_t micro_batches(key_view key) const
    requires accumulates
  {
    auto& r = engine_->find("micro_batches", key);
    std::int64_t count = 0;
    engine_->run_in_order(r, [&](auto&) { count = r.micro_batches; });
    return count;
  }
  /// The sum of their gradients, as many elements as the key has; zero if there were none. Waits for the key.
  /// @throws unknown_key
  std::vector<accumulation_type> gradient_sum(key_view key) const
    requires accumulates
  {
    auto& r = engine_->find("gradient_sum", key);
    std::vector<accumulation_type> elements;
    engine_->run_in_order(r, [&](auto& contents) { elements = read_sum(contents.keys, r); });
    return elements;
  }
  /// Sets both, for what is resumed amid a step: the sum of `count` micro-batches. Waits for the key.
  /// @throws unknown_key; invalid_argument on a negative count; shape_mismatch on another number of elements
  void set_micro_batches(key_view key, std::int64_t count, std::span<accumulation_type const> sum)
    requires accumulates
  {
    auto& r = engine_->find("set_micro_batches", key);
    expects<invalid_argument>(count >= 0 && count <= max_steps, [&] {
      return "set_micro_batches: " + key_text(key) + ": a count of 0 to " + std::to_string(max_steps) +
             " expected, got " + std::to_string(count);
    });
    expect_shape("set_micro_batches", key, pushpull::shape{r.size()},
                 pushpull::shape{static_cast<std::int64_t>(sum.size())});
    set_micro_batches(r, count, sum);
  }
  /// Forgets the gradients that the key has gathered since its last step: its next push is the first of a step. Waits for
  /// the key. @throws unknown_key
  void discard_micro_batches(key_view key)
    requires accumulates
  {
    set_micro_batches(engine_->find("discard_micro_batches", key), 0, {});
  }

  /// The persistent values of the rule's stage `Stage`, as a value of the stage's sums_type: for instance
  /// update::dynamic_loss_scale. Waits for all steps.
  template <class Stage>
  auto carried() const
    requires(has_updater && Carries<Stage>)
  {
    return update::detail::sums_of_stage<Stage, updater_type>(shared_sums());
  }
  /// The loss's scale in the next step, on device number n and in its memory: what a loss is multiplied by, without a copy
  /// to the host. A step of the store changes it in that device's order; who reads it on the host waits for steps first.
  double const* loss_scale(std::size_t n) const
    requires(has_updater && update::detail::has_stage<update::dynamic_loss_scale, updater_type>)
  {
    auto const* const sums = reinterpret_cast<double const*>(engine_->shared_sums(n));
    return sums + update::detail::first_sum_of<update::dynamic_loss_scale, updater_type>() + 1;
  }
  /// All persistent values of the rule, to be saved and set again. Waits.
  std::vector<double> carried_numbers() const {
    std::vector<double> result;
    if constexpr (has_updater && Carries<updater_type>) {
      auto const sums = shared_sums();
      for (std::size_t k = 0; k < sum_count<sums_t<updater_type>>; ++k) result.push_back(sum(sums, k));
    }
    return result;
  }
  /// @throws shape_mismatch on another number of them
  void set_carried_numbers(std::span<double const> numbers) {
    constexpr std::size_t count = has_updater && Carries<updater_type> ? sum_count<sums_t<updater_type>> : 0;
    expects<shape_mismatch>(numbers.size() == count, [&] {
      return "set_carried_numbers: " + std::to_string(count) + " numbers expected, got " +
             std::to_string(numbers.size());
    });
    if constexpr (count > 0) {
      sums_t<updater_type> sums{};
      for (std::size_t k = 0; k < count; ++k) sum(sums, k) = numbers[k];
      engine_->run_between_steps([&](auto& contents) {
        for (std::size_t n = 0; n < devices().size(); ++n) contents.controls[n].set_shared(devices()[n], sums);
      });
    }
  }

  /// The name of the rule, pipe included, and which of its stages keep something: what checkpoints compare.
  static update::rule_description describe_rule()
    requires has_updater
  {
    return update::describe<updater_type>();
  }
  /// The names of the rule's states, those of rows and columns last. A name that several stages of a pipe use is numbered:
  /// "average", "average.2".
  static std::vector<std::string> state_names() {
    return numbered_names(all_state_names<typename resolved::rule_type>);
  }
  /// The shape of a state tensor of the key: the key's own, or a list of its rows or columns.
  /// @throws as state
  pushpull::shape state_shape(key_view key, std::string_view name) const {
    return detail::state_shape<typename resolved::rule_type>(engine_->find("state_shape", key),
                                                             position_of("state_shape", state_names(), name));
  }
  /// The elements of a state tensor of the key, by its name. Waits.
  /// @throws unknown_key; invalid_argument if the rule has no such state
  std::vector<state_type> state(key_view key, std::string_view name) const {
    auto& r = engine_->find("state", key);
    std::size_t const s = position_of("state", state_names(), name);
    std::vector<state_type> elements;
    engine_->run_in_order(
        r, [&](auto& contents) { elements = read_state<typename resolved::rule_type>(contents.keys, r, s); });
    return elements;
  }
  /// Sets a state tensor of the key: as many elements as it has, in their order. Waits.
  /// @throws as state; shape_mismatch on another number of elements
  void set_state(key_view key, std::string_view name, std::span<state_type const> elements) {
    auto& r = engine_->find("set_state", key);
    std::size_t const s = position_of("set_state", state_names(), name);
    auto const expected = detail::state_shape<typename resolved::rule_type>(r, s);
    expect_shape("set_state", key, pushpull::shape{static_cast<std::int64_t>(expected.size())},
                 pushpull::shape{static_cast<std::int64_t>(elements.size())});
    engine_->run_in_order(r, [&](auto& contents) {
      detail::expect_weights("set_state", key, r);
      write_state<typename resolved::rule_type>(contents.keys, r, s, elements);
    });
  }

  /// Exchanges the stored values of all keys and a state of the rule, by its name: evaluation runs on averages behind
  /// swap("ema"), and training goes on, bit for bit, behind a second one. In between what would train, set or save the key is
  /// refused with an invalid_argument that says so; pull gives the averages. Resident mirrors follow. A key without updates has
  /// no such state yet: its weights stay. Needs states of the masters' element type.
  /// Enqueued; on CPU devices finished when it returns. Cost: one pass per device over masters, the state and mirrors.
  /// @throws invalid_argument if the rule has no such state, or another one stands in the place of a key's weights
  void swap(std::string_view name)
    requires has_updater
  {
    auto const s = position_of("swap", numbered_names(resolved::rule_type::state_names), name);
    engine_->swap(engine_->with_keys([](auto const& keys) { return keys.records(); }), s);
  }
  /// Same as swap(name), but only of one key. @throws also unknown_key
  void swap(key_view key, std::string_view name)
    requires has_updater
  {
    swap_keys(std::span<key_view const>(&key, 1), name);
  }
  /// Same as swap(name), but only of the keys of a list. @throws also unknown_key; duplicate_key if a key is repeated
  template <KeysOf<key_view> Keys>
    requires has_updater
  void swap(Keys&& keys, std::string_view name) {
    swap_keys(keys, name);
  }

  /// The name of the state that `swap` has put in the place of the key's weights; empty if they are there.
  /// @throws unknown_key
  std::string swapped(key_view key) const {
    std::string const* const name = swapped_state(engine_->find("swapped", key));
    return name == nullptr ? std::string() : *name;
  }

  /// Bytes that the store holds on device number n: masters, states, resident mirrors and gradients. Waits.
  std::size_t bytes(std::size_t n) const {
    engine_->drain();
    return engine_->with_keys([&](auto const& keys) { return keys.bytes(n); });
  }

  /// As init of a list, for keys whose mirrors (one per device) and gradients the store holds: see ResidentStore. A key
  /// that needs no gradient gets none.
  /// @throws as init
  template <class V>
  void init_resident(std::span<key_type const> keys, std::span<V const> values, std::vector<bool> const& needs_gradient)
    requires(!resolved::compressed)
  {
    std::vector<key_view> const names(keys.begin(), keys.end());
    expect_count("init_resident", names.size(), values.size(), "value");
    expect_count("init_resident", names.size(), needs_gradient.size(), "flag");
    engine_->init(std::span<key_view const>(names), values, true, needs_gradient);
  }

  /// The key's mirror on device number n. @throws unknown_key; invalid_argument if the key is not resident
  tensor_view<T, D> mirror(key_view key, std::size_t n) const {
    auto const& r = engine_->with_keys([&](auto const& keys) -> auto& { return keys.find_resident("mirror", key); });
    return {resolved::table_type::mirror(r, n), r.shape, devices()[n]};
  }

  /// The key's gradient on device number n, to be written before each update.
  /// @throws as mirror; invalid_argument if the key was initialised without one
  tensor_view<T, D> gradient(key_view key, std::size_t n) const {
    auto const& r =
        engine_->with_keys([&](auto const& keys) -> auto& { return keys.find_with_gradient("gradient", key); });
    return {resolved::table_type::gradient(r, n), r.shape, devices()[n]};
  }

  /// Gives a resident key a gradient on every device, if it has none. @throws as mirror
  void require_gradient(key_view key) { engine_->require_gradient(key); }

  /// The step over resident keys, in arenas. A plan is valid for the life of the store and may be used again and again.
  /// @throws unknown_key; invalid_argument if a key has no resident gradient; duplicate_key
  plan_type make_plan(std::span<key_type const> keys) { return engine_->make_plan(keys); }

  /// pushpull from the resident gradients to the resident mirrors: one pass per device, two if the rule is a
  /// PreReduction. Enqueued; on CPU devices finished when it returns.
  void update(plan_type& plan) { engine_->update(plan); }

  /// Adds the resident gradients, those of a micro-batch, to what the plan's next update takes. See `accumulate`.
  void accumulate(plan_type& plan)
    requires accumulates
  {
    engine_->update(plan, true);
  }

  /// @throws unknown_key; invalid_argument if a swap has put a state in the place of the key's weights
  void expect_weights(char const* call, key_view key) const {
    detail::expect_weights(call, key, engine_->find(call, key));
  }
  /// Same as expect_weights of one key, but of each key of a plan.
  void expect_weights(char const* call, plan_type const& plan) const {
    plan.for_each_key([&](auto& r) { detail::expect_weights(call, key_view(r.key), r); });
  }

 protected:
  friend struct store_access;
  using engine_type = engine<resolved>;

  explicit kv_store_base(std::unique_ptr<engine_type> engine) : engine_(std::move(engine)) {}
  kv_store_base(kv_store_base&&) noexcept = default;
  kv_store_base& operator=(kv_store_base&&) noexcept = default;
  ~kv_store_base() = default;

  std::unique_ptr<engine_type> engine_;

 private:
  /// The sums over all keys and the values that persist. Waits.
  auto shared_sums() const {
    typename control<D, typename resolved::rule_type, typename resolved::step_types>::shared_type result{};
    engine_->run_between_steps([&](auto& contents) {
      copy_bytes(cpu_device<>(), &result, devices().front(), contents.controls.front().shared(), sizeof(result));
    });
    return result.sums;
  }
  void set_micro_batches(typename resolved::record& r, std::int64_t count, std::span<accumulation_type const> sum) {
    engine_->run_in_order(r, [&](auto& contents) {
      if (count > 0) write_sum(contents.keys, r, sum);
      r.micro_batches = count;
    });
  }

  template <class Keys>
  void swap_keys(Keys&& keys, std::string_view name) {
    auto const s = position_of("swap", numbered_names(resolved::rule_type::state_names), name);
    std::vector<typename resolved::record*> records;
    for (auto&& key : keys) records.push_back(&engine_->find("swap", key_view(key)));
    engine_->swap(std::move(records), s);
  }
};

/// Reaches what kv_store keeps to itself.
struct store_access {
  template <class T, Device D, class... Policies>
  static auto& engine(kv_store_base<T, D, Policies...> const& store) {
    return *store.engine_;
  }
};

}  // namespace pushpull::detail
