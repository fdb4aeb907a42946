/// @file
/// The part of an any_store that does not depend on what it may be asked for: its keys, its states, waiting.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/any_store_calls.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/exchange/command.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/update/rule_description.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The part of any_store<D, Compressors, Ts...> that is the same for all Compressors.
template <Device D, ElementType... Ts>
class any_store_contents : public sole_type<Ts...> {
 public:
  /// Whether keys may have elements of type T.
  template <class T>
  static constexpr bool has_type = (std::same_as<T, Ts> || ...);
  /// What a value with elements E is stored as: E, or the store's only type.
  template <class E>
  using stored_as =
      std::conditional_t<sizeof...(Ts) == 1 && !has_type<E>, std::tuple_element_t<0, std::tuple<Ts...>>, E>;
  template <class E>
  static constexpr bool converts = has_type<stored_as<E>>;
  template <class E>
  static constexpr bool pulls = has_type<E>;
  template <class E>
  static constexpr bool lists = has_type<E>;
  static constexpr bool is_synchronous = false;
  static constexpr bool may_accumulate = true;
  using device_type = D;
  using key_type = any_key;
  using key_view = any_key_view;

  std::string const& type() const { return type_; }
  std::vector<D> const& devices() const { return store_->devices(); }
  std::vector<any_key> keys() const { return store_->keys(); }
  std::size_t size() const { return store_->keys().size(); }
  bool contains(any_key_view key) const { return store_->contains(key); }
  pushpull::shape const& shape(any_key_view key) const { return store_->shape(checked("shape", key)); }
  /// The name of a key's element type: "float32". @throws unknown_key
  std::string_view dtype(any_key_view key) const { return store_->dtype(checked("dtype", key)); }
  /// As kv_store's.
  bool is_mirrored(any_key_view key) const { return store_->is_mirrored(checked("is_mirrored", key)); }
  int rank() const { return store_->rank(); }
  int num_workers() const { return store_->num_workers(); }
  /// As kv_store's.
  void barrier() const { store_->barrier(); }
  /// As kv_store's.
  void on_command(command_handler handler) { commands_->set(std::move(handler)); }
  void command(std::int64_t head, std::string_view body) {
    store_->drain();
    commands_->run(store_->owning_ranks().group, head, body);
  }
  std::optional<double> join(double weight) { return store_->join(weight); }
  static bool is_capable(std::string_view capability) {
    return kv_store<std::tuple_element_t<0, std::tuple<Ts...>>, D>::is_capable(capability);
  }
  /// The store that this one was made of, if its type is S; else null.
  template <class S>
  S* target() const {
    return static_cast<S*>(store_->target(&type_tag<S>));
  }

  /// Whether a rule was set.
  bool has_updater() const { return store_->has_updater(); }

  std::size_t groups() const { return store_->groups(); }
  /// A number that grows with each change of rules or groups, and with each other optimizer.
  std::uint64_t rule_changes() const { return changes_before_ + store_->rule_changes(); }
  std::size_t group(any_key_view key) const { return store_->group(checked("group", key)); }

  void wait() const { store_->wait(); }
  /// As kv_store's.
  void drain() const { store_->drain(); }
  void wait(any_key_view key) const { store_->wait(checked("wait", key)); }
  void device_waits_for(D const& device, any_key_view key) const {
    store_->device_waits_for(device, checked("device_waits_for", key));
  }
  void key_waits_for(any_key_view key, D const& device) const {
    store_->key_waits_for(checked("key_waits_for", key), device);
  }
  /// 0 where there is no rule. @throws unknown_key
  std::int64_t steps(any_key_view key) const { return store_->steps(checked("steps", key)); }
  /// @throws unknown_key, invalid_argument; also where there is no rule
  void set_steps(any_key_view key, std::int64_t t) {
    expect_updater("set_steps");
    store_->set_steps(checked("set_steps", key), t);
  }
  /// Pushes of the key since its last step; 0 where every push is a step. @throws unknown_key
  std::int64_t micro_batches(any_key_view key) const { return store_->micro_batches(checked("micro_batches", key)); }
  /// Whether set_optimizer was given the policy `accumulate`. steps_in_parts: whether its rule sums over no other keys of a step.
  bool accumulates() const { return store_->accumulates(); }
  bool steps_in_parts() const { return store_->steps_in_parts(); }
  /// The bytes of the sum of these gradients, elements of the type that the key is computed in: float, or double for double.
  /// @throws as kv_store's; invalid_argument unless the store accumulates
  std::vector<std::byte> gradient_sum(any_key_view key) const {
    return store_->gradient_sum(checked("gradient_sum", key));
  }
  void set_micro_batches(any_key_view key, std::int64_t count, std::span<std::byte const> sum) {
    store_->set_micro_batches(checked("set_micro_batches", key), count, sum);
  }
  /// As kv_store's. @throws unknown_key
  void discard_micro_batches(any_key_view key) { store_->discard_micro_batches(checked("discard_micro_batches", key)); }
  /// As kv_store's: says that no graph with captured calls is launched any more.
  void discard_captures() { store_->discard_captures(); }
  /// As kv_store's, on device number n. @throws invalid_argument if the rule has no dynamic_loss_scale
  double const* loss_scale(std::size_t n) const { return store_->loss_scale(n); }
  /// Same as kv_store's: the persistent values of the rule.
  std::vector<double> carried_numbers() const { return store_->carried_numbers(); }
  void set_carried_numbers(std::span<double const> numbers) { store_->set_carried_numbers(numbers); }
  /// As kv_store's, for checkpoints.
  detail::owning_ranks owning_ranks() const { return store_->owning_ranks(); }
  array_part local_part(any_key_view key, saved_array what, std::string_view state, bool copies) const {
    return store_->local_part(checked("local_part", key), what, state, copies);
  }
  void prepare_values(prepared_changes& changes, any_key_view key, saved_values const& values) {
    store_->prepare_values(changes, checked("load_optimizer_states", key), values);
  }
  void prepare_carried_numbers(prepared_changes& changes, std::span<double const> numbers) {
    store_->prepare_carried_numbers(changes, numbers);
  }
  std::vector<std::string> state_names() const { return store_->state_names(); }
  /// As kv_store's; empty where there is no rule.
  update::rule_description describe_rule() const { return store_->describe_rule(); }
  /// As kv_store's.
  pushpull::shape state_shape(any_key_view key, std::string_view name) const {
    return store_->state_shape(checked("state_shape", key), name);
  }
  /// The bytes of a state tensor, elements of the key's type. @throws as kv_store::state
  std::vector<std::byte> state(any_key_view key, std::string_view name) const {
    return store_->state(checked("state", key), name);
  }
  void set_state(any_key_view key, std::string_view name, std::span<std::byte const> bytes) {
    store_->set_state(checked("set_state", key), name, bytes);
  }
  /// As kv_store::swap: all keys, one, or those of a list. @throws as there; invalid_argument where there is no rule
  void swap(std::string_view name) {
    expect_updater("swap");
    store_->swap(keys(), name);
  }
  void swap(any_key_view key, std::string_view name) {
    expect_updater("swap");
    any_key const owned(checked("swap", key));
    store_->swap(std::span(&owned, 1), name);
  }
  template <KeysOf<any_key_view> Keys>
    requires(!std::convertible_to<Keys, any_key_view>)
  void swap(Keys&& keys, std::string_view name) {
    expect_updater("swap");
    std::vector<any_key> owned;
    for (auto&& key : keys) owned.emplace_back(checked("swap", key));
    store_->swap(owned, name);
  }
  std::string swapped(any_key_view key) const { return store_->swapped(checked("swapped", key)); }
  pushpull::memory_report memory_report() const { return store_->memory_report(); }
  profile::statistics statistics() const { return store_->statistics(); }  ///< `set_optimizer` begins anew.
  std::size_t bytes(std::size_t n) const { return memory_report().devices[n].total(); }

 protected:
  using erased = erased_store<D, Ts...>;

  explicit any_store_contents(std::string type) : type_(std::move(type)) {}
  any_store_contents(any_store_contents&&) noexcept = default;
  any_store_contents& operator=(any_store_contents&&) noexcept = default;
  ~any_store_contents() = default;

  void expect_accumulates(char const* call) const {
    if (!store_->accumulates())
      refuse_call(call,
                  "the store's optimizer was set without the policy accumulate: set_optimizer(rule, accumulate{n})");
  }
  /// Every key of a store is of one kind. @throws invalid_argument
  any_key_view checked(char const* call, any_key_view key) const {
    key_kind const kind = kind_.load();
    expects<invalid_argument>(kind == key_kind::none || key.is_string() == (kind == key_kind::strings), [&] {
      return std::string(call) + ": this store's keys are " + (kind == key_kind::strings ? "strings" : "integers") +
             ", " + key_text(key) + " came";
    });
    return key;
  }
  /// Same as `checked`, but for the keys of an init, which set the kind if they are the first.
  void expect_kind(std::span<any_key_view const> keys) const {
    for (any_key_view const key : keys) {
      checked("init", key);
      expects<invalid_argument>(key.is_string() == keys.front().is_string(), [&] {
        return "init: keys of one kind expected, " + key_text(keys.front()) + " and " + key_text(key) + " came";
      });
    }
  }
  void set_kind(any_key_view key) { kind_ = key.is_string() ? key_kind::strings : key_kind::integers; }
  void expect_updater(char const* call) const {
    expects<invalid_argument>(has_updater(), [&] { return std::string(call) + ": the store has no optimizer"; });
  }

  std::string type_;
  shared_kind kind_;
  std::unique_ptr<command_slot> commands_ = std::make_unique<command_slot>();
  std::unique_ptr<erased> store_;
  std::uint64_t changes_before_ = 0;  // of the rules of stores that this one took the place of
};

}  // namespace pushpull::detail
