/// @file
/// The key-value store: push gradients, pull weights.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/engine.hpp>
#include <pushpull/store/engine_calls.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/kv_store_types.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/store/refusal.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Element types of one store.
template <ElementType... Ts>
struct type_list {};

template <class T, Device D, class... Policies>
class kv_store {
  static_assert(ElementType<T>, "kv_store: the first argument is neither an ElementType nor a type_list of such");
};

namespace detail {

/// The traits of stores whose keys have one element type. Values and outputs of any type are converted.
template <ElementType T>
struct one_element_type {
  using sole_type = T;
  template <class>
  using stored_as = T;
  template <class E>
  static constexpr bool has_type = std::same_as<E, T>;
  template <class>
  static constexpr bool converts = true;
  template <class>
  static constexpr bool pulls = true;
  template <class>
  static constexpr bool lists = true;
};

/// Types and constants of kv_store<T, D, Policies...>, as store_face, key_access and engine_calls ask for them.
template <ElementType T, Device D, class... Policies>
struct kv_store_traits : one_element_type<T> {
  using resolved = kv_store_types<T, D, Policies...>;
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
  /// Whether states are codes: the policy `state_codecs`.
  static constexpr bool has_coded_states = resolved::coded;

  using engine_types = std::tuple<engine<resolved>>;
  template <class>
  using types_of = resolved;
  static constexpr bool may_accumulate = accumulates, compressed = resolved::compressed, one_rule = true,
                        lists_have_one_engine = true;
  template <class Rule>
  static constexpr bool has_rule = std::same_as<Rule, updater_type>;
  template <class F>
  static constexpr bool takes_function = std::invocable<F&, key_view, tensor_view<T, D>, tensor_view<master_type, D>>;
};

struct store_access;

/// kv_store<T, D, Policies...> without the overloads that explain refused calls.
template <ElementType T, Device D, class... Policies>
class kv_store_calls : public engine_calls<kv_store_calls<T, D, Policies...>, kv_store_traits<T, D, Policies...>> {
  using engine_type = engine<kv_store_types<T, D, Policies...>>;

 public:
  using typename kv_store_traits<T, D, Policies...>::compressor_type;
  using typename kv_store_traits<T, D, Policies...>::key_type;
  using typename kv_store_traits<T, D, Policies...>::key_view;
  using typename kv_store_traits<T, D, Policies...>::updater_type;

  /// @throws invalid_argument if there is no device or the rule refuses its hyperparameters; duplicate_device
  explicit kv_store_calls(std::vector<D> const& devices)
    requires std::default_initializable<updater_type>
      : kv_store_calls(devices, updater_type{}) {}
  /// Policies that are given as values name themselves in the type; a Compressor, an accumulation policy, a placement
  /// and a Communicator keep their values: kv_store store{devices, rule, reduce::mean{}, compress::two_bit{0.1F}}.
  /// @throws also invalid_argument if the communicator has several ranks that are not independent
  template <detail::HasPolicyKind... P>
  kv_store_calls(std::vector<D> const& devices, updater_type const& updater, P const&... policies)
      : kv_store_calls({}, 0, devices, updater, policies...) {}
  /// Without a rule: kv_store store{devices, synchronous{}}.
  template <detail::HasPolicyKind First, detail::HasPolicyKind... P>
    requires std::default_initializable<updater_type>
  kv_store_calls(std::vector<D> const& devices, First const& first, P const&... policies)
      : kv_store_calls({}, 0, devices, updater_type{}, first, policies...) {}

  kv_store_calls(kv_store_calls&&) noexcept = default;
  /// Work under way is finished first.
  kv_store_calls& operator=(kv_store_calls&&) noexcept = default;
  /// Finishes what is under way. Errors that nobody waited for are lost.
  ~kv_store_calls() = default;

  bool contains(key_view key) const {
    return engine_->with_keys([&](auto const& keys) { return keys.contains(key); });
  }
  /// All keys, in the order of their registration.
  std::vector<key_type> keys() const {
    return engine_->with_keys([](auto const& keys) { return keys.keys(); });
  }

 private:
  using traits = kv_store_traits<T, D, Policies...>;
  friend class store_face<kv_store_calls, traits>;
  friend class key_access<kv_store_calls, traits>;
  friend class state_access<kv_store_calls, traits>;
  friend class checkpoint_access<kv_store_calls, traits>;
  friend class engine_calls<kv_store_calls, traits>;
  template <class>
  friend class partitioned_store;
  friend store_access;

  template <class... P>
  kv_store_calls(typename engine_type::shared_parts shared, std::size_t number, std::vector<D> const& devices,
                 updater_type const& updater, P const&... policies)
      : engine_(std::make_unique<engine_type>(
            devices, updater, detail::pick_value<compressor_type>(policies...),
            detail::pick_value<typename traits::resolved::accumulation_policy>(policies...),
            detail::pick_value<typename traits::resolved::placement_type>(policies...),
            detail::pick_value<typename traits::resolved::communicator_type>(policies...), std::move(shared), number)) {
  }

  std::tuple<engine_type&> engines() const { return {*engine_}; }
  template <class Rule>
  std::tuple<engine_type&> engines_of() const {
    return {*engine_};
  }
  template <class F>
  decltype(auto) owner(char const*, key_view, F const& f) const {
    return f(*engine_);
  }
  template <class F>
  decltype(auto) with(char const* caller, key_view key, F const& f) const {
    return f(*engine_, engine_->find(caller, key));
  }
  template <class E, class F>
  decltype(auto) with_element(char const*, key_view, F const& f) const {
    return f(*engine_);
  }
  template <class E, class F>
  void with_new_key(key_view, F const& f) {
    f(*engine_);
  }
  template <class E, class Arguments, class F>
  void shares(Arguments const& arguments, F const& f) {
    f(*engine_, arguments);
  }
  template <class E, class View>
  void add_keys(std::span<key_view const> keys, std::span<View const> values, char const* = "init",
                std::vector<bool> const* needs_gradient = nullptr, key_options options = {}) {
    static std::vector<bool> const none;
    engine_->init(keys, values, needs_gradient != nullptr, needs_gradient == nullptr ? none : *needs_gradient, options);
  }

  std::unique_ptr<engine_type> engine_;
};

/// Reaches what a store keeps to itself.
struct store_access {
  template <class Store>
  static auto& engine(Store const& store) {
    return *store.engine_;
  }
};

}  // namespace detail

/// Keys with one stored tensor each, cut into slices that the devices own. A push reduces the gradients of all sources
/// and applies the rule in one pass per device; without a rule it replaces the stored value by the reduced gradients.
/// @tparam T         Element type of gradients and outputs; for several see kv_store<type_list<Ts...>, D, Policies...>.
/// @tparam D         The devices.
/// @tparam Policies  In any order, at most one of each: an Updater (default: none), a Reduction (reduce::sum), an element
///                   policy (element::uniform), string_keys, integer_keys or any_keys (string_keys), a Compressor
///                   (compress::none), a Communicator (comm::single), asynchronous or synchronous (asynchronous),
///                   placement::slices, owners or mxnet (slices), accumulate (every push is a step),
///                   state_codecs (plain states), hierarchy::nodes, flat or reduce_scatter (nodes).
/// Calls check what they are given, and return when their work is enqueued: until it is finished the caller's tensors must
/// stay, and are read and written (see `completion`, `wait`), so temporaries are refused. With `synchronous` calls return
/// when their work is finished. Work on one key takes effect in the order of the calls, pulls of
/// it run concurrently; work on different keys is independent. Several threads may call. Tensors in host memory work with
/// every device, by a copy. After an error the store holds what it held before the call that failed.
template <ElementType T, Device D, class... Policies>
class kv_store<T, D, Policies...> : public detail::explained_rows<detail::kv_store_calls<T, D, Policies...>> {
 public:
  using detail::explained_rows<detail::kv_store_calls<T, D, Policies...>>::explained_rows;
};

/// Types from arguments: floats, the rule or pipeline that was given, and the other policies.
template <Device D, class U, class... P>
kv_store(std::vector<D>, U, P...) -> kv_store<float, D, U, P...>;
template <Device D>
kv_store(std::vector<D>) -> kv_store<float, D>;

/// The same for another element type, or a type_list of several, where the rule's type is better deduced than written:
/// auto store = make_kv_store<bfloat16>(cpu_devices(2), rule, element::master<float>{}, accumulate{4}). @throws as kv_store
template <class T, Device D, class... P>
kv_store<T, D, P...> make_kv_store(std::vector<D> const& devices, P const&... policies) {
  return kv_store<T, D, P...>(devices, policies...);
}

}  // namespace pushpull
