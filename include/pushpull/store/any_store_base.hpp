/// @file
/// The part of an any_store without its operations: its keys, its rule and states, waiting.
#pragma once

#include <any>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/comm/any_communicator.hpp>
#include <pushpull/comm/any_device_communicator.hpp>
#include <pushpull/compress/by_name.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/any_store_calls.hpp>
#include <pushpull/store/any_store_model.hpp>
#include <pushpull/store/any_store_replacement.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/exchange/agreement.hpp>
#include <pushpull/store/exchange/command.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/store/wrapped_store.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/update/hyperparameter_list.hpp>
#include <pushpull/update/rule_description.hpp>
#include <pushpull/update/rule_text.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The communicator of any_store<D, Compressors, ...>: without several ranks memory of devices does not travel.
template <Device D, class Compressors>
struct communicator_of_any_store {
  using type = comm::any_communicator;
};
template <Device D, class... Cs>
  requires(!HostDevice<D>)
struct communicator_of_any_store<D, compressors_over_ranks<Cs...>> {
  using type = comm::any_device_communicator<D>;
};

/// The part of any_store<D, Compressors, Ts...> that it inherits.
template <Device D, class Compressors, ElementType... Ts>
class any_store_base : public sole_type<Ts...> {
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
  using communicator_type = typename communicator_of_any_store<D, Compressors>::type;

  /// Without a rule. @param type  The name that `type()` returns. @throws as kv_store
  any_store_base(std::string type, std::vector<D> const& devices, communicator_type communicator = {})
      : type_(std::move(type)),
        communicator_(std::move(communicator)),
        store_(make(devices, no_updater{}, compress::none{})) {}
  /// A user's store, which updates as it does: set_optimizer and set_gradient_compression are refused, unless it has them
  /// itself, as remote_store has. Its value_type is one of Ts. Calls on lists are made key by key. Where its calls return no
  /// `completion`, those of any_store return when their work is finished.
  template <Store S>
    requires(std::same_as<typename S::device_type, D> && !std::derived_from<S, any_store_base>)
  any_store_base(std::string type, S store) : any_store_base(std::move(type), std::make_unique<S>(std::move(store))) {}
  /// Same as the constructor from a user's store, but takes a store that cannot be moved.
  template <Store S>
    requires(std::same_as<typename S::device_type, D> && !std::derived_from<S, any_store_base>)
  any_store_base(std::string type, std::unique_ptr<S> store)
      : type_(std::move(type)), store_(std::make_unique<wrapped_store<S, Ts...>>(std::move(store))) {
    using key = typename S::key_type;
    if constexpr (!std::constructible_from<key, any_key_view>)
      kind_ = std::integral<key> ? key_kind::integers : key_kind::strings;
  }
  any_store_base(any_store_base&&) noexcept = default;
  any_store_base& operator=(any_store_base&&) noexcept = default;

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

  /// The rule of the pushes that follow, in place of any other and of a function; states, step counts and parameter groups
  /// start again. Policies are `accumulate`, a Reduction, a placement: `set_optimizer(adamw{}, accumulate{4})`.
  /// Returns when all work is finished and the values have moved. Over ranks all make the call, with the same rule.
  /// @throws invalid_argument, also for a user's store without a set_optimizer, between the micro-batches of a step, and while a state is swapped;
  /// what work failed with
  template <class Updater, HasPolicyKind... Policies>
    requires(FloatingElement<Ts> && ...)
  void set_optimizer(Updater const& updater, Policies const&... policies) {
    static_assert(((is_kind<Policies, accumulation_tag> || is_kind<Policies, reduction_tag> ||
                    is_kind<Policies, placement_tag>) &&
                   ...),
                  "set_optimizer: of the policies it takes accumulate, a Reduction and a placement");
    if constexpr (sizeof...(Policies) == 0)
      if (store_->sets_optimizer_itself([&] { return update::detail::whole_text(updater); })) return;
    expect_replaceable("set_optimizer");
    auto next = prepared(
        "set_optimizer", text_of_optimizer<Updater>(policies...),
        [&] {
          expect_movable("set_optimizer", *store_);
          return make(devices(), updater, compressor_, policies...);
        },
        [&](auto const&) { return update::list_hyperparameters(updater); });
    replace(std::move(next), false);
  }
  /// From now on gradients travel as the parameters say: see compress::by_name. Values, rules, groups, states and step
  /// counts stay, residuals start at zero. Returns when all work is finished. Over ranks all make the call.
  /// @throws invalid_argument as by_name; for a store whose name says neither "device" nor "dist", as in MXNet; for a
  /// compressor that is not in `Compressors`; between the micro-batches of a step, and while a state is swapped
  void set_gradient_compression(compress::parameters const& given) {
    expects<invalid_argument>(
        type_.find("device") != std::string::npos || type_.find("dist") != std::string::npos, [&] {
          return "set_gradient_compression: a store \"device\" or \"dist\" expected, this one is \"" + type_ + "\"";
        });
    if (store_->compresses_itself(given)) return;
    expect_replaceable("set_gradient_compression");
    compress::any_compressor compressor;
    auto next = prepared("set_gradient_compression", text_of_parameters(given), [&] {
      ((compressor = compress::by_name<Ts>(given)), ...);
      auto compressing = store_->compressing(compressor);
      expects<invalid_argument>(compressing != nullptr, [&] {
        return "set_gradient_compression: the store was not created with a compressor for \"" +
               given.find("type")->second + "\": name it in create(name, devices, compressors<...>())";
      });
      expect_movable("set_gradient_compression", *store_);
      return compressing;
    });
    replace(std::move(next), true);
    compressor_ = compressor;
  }

  /// As kv_store::set_updater, in place of any rule, for keys of element type T. Over ranks all make the call, and rank 0's
  /// function counts. @throws as set_optimizer
  template <class T, class F>
    requires(has_type<T> && std::invocable<F&, any_key_view, tensor_view<T, D>, tensor_view<T, D>>)
  void set_updater(F f) {
    expect_replaceable("set_updater");
    function_type<T> function(std::move(f));
    auto next = prepared("set_updater", "a function of " + std::string(dtype_traits<T>::name), [&] {
      expects<invalid_argument>(bool{function}, [] { return std::string("set_updater: the function is empty"); });
      if (!store_->has_updater()) return std::unique_ptr<erased>();
      expect_movable("set_updater", *store_);
      return make(devices(), no_updater{}, compressor_);
    });
    if (next != nullptr) {
      static_cast<typed_calls<T, D>&>(*next).set_function(function);  // may fail, so before anything changes
      replace(std::move(next), false);
    } else {
      calls<T>().set_function(function);
    }
    std::get<function_type<T>>(functions_) = std::move(function);
  }
  /// For keys of every element type.
  template <class F>
    requires(std::invocable<F&, any_key_view, tensor_view<Ts, D>, tensor_view<Ts, D>> && ...)
  void set_updater(F f) {
    (set_updater<Ts>(f), ...);
  }
  /// From the next push on the stored values are replaced again. A rule stays.
  void reset_updater() {
    if (store_->has_updater() || !store_->replaceable()) return;
    functions_ = {};
    (calls<Ts>().set_function({}), ...);
  }
  /// Whether this any_store makes its stores itself: not where it was made of a user's.
  bool is_replaceable() const { return store_->replaceable(); }
  /// Whether a rule was set.
  bool has_updater() const { return store_->has_updater(); }

  /// The rule with its present hyperparameters, or that of a parameter group.
  /// @throws invalid_argument if there is none or no such group, or its type is another
  template <class Updater>
  Updater updater(std::size_t group = 0) const {
    expect_updater("updater");
    std::any const rule = store_->updater(group);
    auto const* const same = std::any_cast<Updater>(&rule);
    if (same == nullptr)
      refuse_call("updater", "the store's optimizer has another type than the one that was asked for");
    return *same;
  }
  /// Other hyperparameters for the pushes that follow; states and step counts stay.
  /// @throws invalid_argument as kv_store; where there is no rule, or one of another type than `updater`
  template <class Updater>
  void set_hyperparameters(Updater const& updater, std::size_t group = 0) {
    expect_rule("set_hyperparameters", updater);
    store_->set_hyperparameters(std::any(updater), group);
  }
  /// As kv_store::add_group. @throws also where there is no rule, or one of another type than `updater`
  template <class Updater>
  std::size_t add_group(std::function<bool(any_key_view)> belongs, Updater const& updater) {
    expect_rule("add_group", updater);
    return store_->add_group(std::move(belongs), std::any(updater));
  }
  std::size_t groups() const { return store_->groups(); }
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
  template <class T>
  using function_type = std::function<void(any_key_view, tensor_view<T, D> const&, tensor_view<T, D> const&)>;

  ~any_store_base() = default;

  template <class T>
  typed_calls<T, D>& calls() {
    return *store_;
  }
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

 private:
  template <class Updater, class... Policies>
  std::unique_ptr<erased> make(std::vector<D> const& devices, Updater const& updater,
                               compress::any_compressor const& compressor, Policies const&... policies) const {
    return make_model<D, Ts...>(Compressors(), devices, updater, compressor,
                                policy_list<communicator_type, Policies...>{{communicator_, policies...}});
  }

  void expect_updater(char const* call) const {
    expects<invalid_argument>(has_updater(), [&] { return std::string(call) + ": the store has no optimizer"; });
  }
  void expect_replaceable(char const* call) const {
    if (!store_->replaceable()) refuse_call(call, "any_store was made of a user's store, which updates as it does");
  }
  /// The result of prepare(). Ranks that train together all make the call, with the same arguments, of which `what` is the
  /// text: all throw or none.
  template <class Prepare, class More = no_texts>
  auto prepared(char const* call, std::string const& what, Prepare const& prepare, More const& more = {}) {
    auto const ranks = store_->owning_ranks();
    if (ranks.group != nullptr) return prepared_alike(*ranks.group, call, what, prepare, more);
    return prepare();
  }
  /// @throws invalid_argument, on all ranks, unless the store's rule has this type
  template <class Updater>
  void expect_rule(char const* call, Updater const& rule) {
    prepared(call, update::describe<Updater>().name, [&] {
      expect_updater(call);
      store_->expect_rule(call, std::any(rule));
      return true;
    });
  }
  /// Moves all values to another store, of the same rule also states and step counts.
  void replace(std::unique_ptr<erased> next, bool same_rule) {
    move_contents(*store_, *next, same_rule);
    if (same_rule && !has_updater())
      (static_cast<typed_calls<Ts, D>&>(*next).set_function(std::get<function_type<Ts>>(functions_)), ...);
    store_ = std::move(next);
    if (!same_rule) functions_ = {};
  }

  std::string type_;
  shared_kind kind_;
  compress::any_compressor compressor_;
  communicator_type communicator_;              // of a user's store: not asked
  std::tuple<function_type<Ts>...> functions_;  // of set_updater
  std::unique_ptr<command_slot> commands_ = std::make_unique<command_slot>();
  std::unique_ptr<erased> store_;
};

}  // namespace pushpull::detail
