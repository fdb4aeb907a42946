/// @file
/// A key-value store of several element types.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/refusal.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// kv_store without the overloads that explain refused calls.
template <class List, Device D, class... Policies>
class typed_store_calls;
template <ElementType... Ts, Device D, class... Policies>
class typed_store_calls<type_list<Ts...>, D, Policies...> {
  static_assert(sizeof...(Ts) > 0, "kv_store: a type_list of at least one type");
  using first_type = std::tuple_element_t<0, std::tuple<Ts...>>;
  using first_store = kv_store<first_type, D, Policies...>;
  using key_directory = typename detail::kv_store_types<first_type, D, Policies...>::table_type::directory_type;

  template <class T>
  static constexpr bool has_type = (std::same_as<T, Ts> || ...);
  template <class T>
  static constexpr std::size_t number = [] {
    std::size_t n = 0;
    (void)((std::same_as<T, Ts> || (++n, false)) || ...);
    return n;
  }();

 public:
  using device_type = D;
  using key_type = typename first_store::key_type;
  using key_view = typename first_store::key_view;
  using updater_type = typename first_store::updater_type;
  static constexpr bool has_updater = first_store::has_updater;
  static constexpr bool is_synchronous = first_store::is_synchronous;
  /// Whether several pushes make a step.
  static constexpr bool accumulates = first_store::accumulates;
  static_assert(
      sizeof...(Ts) == 1 || !detail::sums_over_keys<updater_type>,
      "kv_store: a PreReduction over all keys, such as clip_global_norm, takes the norm of all gradients of a "
      "call, which several element types do not give");

  /// As kv_store of one type.
  explicit typed_store_calls(std::vector<D> const& devices)
    requires std::default_initializable<updater_type>
      : typed_store_calls(devices, updater_type{}) {}
  template <detail::HasPolicyKind... P>
  typed_store_calls(std::vector<D> const& devices, updater_type const& updater, P const&... policies)
      : schedule_(std::make_shared<schedule_type>()),
        directory_(std::make_shared<key_directory>()),
        stores_(std::unique_ptr<kv_store<Ts, D, Policies...>>(
            new kv_store<Ts, D, Policies...>({schedule_, directory_}, number<Ts>, devices, updater, policies...))...) {}

  /// The part with the keys of element type T, a kv_store of one type.
  template <class T>
    requires(has_type<T>)
  auto& of() {
    return *std::get<number<T>>(stores_);
  }
  template <class T>
    requires(has_type<T>)
  auto const& of() const {
    return *std::get<number<T>>(stores_);
  }

  std::vector<D> const& devices() const { return of<first_type>().devices(); }
  std::size_t size() const { return (of<Ts>().size() + ...); }
  bool contains(key_view key) const { return directory_->find(key).has_value(); }
  /// All keys, in the order of their registration.
  std::vector<key_type> keys() const { return directory_->keys(); }
  /// The name of a key's element type: "float32". @throws unknown_key
  std::string_view dtype(key_view key) const { return find("dtype", key).dtype; }
  pushpull::shape const& shape(key_view key) const {
    return *visit("shape", key, [&](auto& store) { return &store.shape(key); });
  }
  int rank() const { return of<first_type>().rank(); }
  int num_workers() const { return of<first_type>().num_workers(); }
  static constexpr std::string_view type() { return first_store::type(); }
  static bool is_capable(std::string_view capability) { return first_store::is_capable(capability); }
  void barrier() const { of<first_type>().barrier(); }

  updater_type updater(std::size_t group = 0) const { return of<first_type>().updater(group); }
  void set_hyperparameters(updater_type const& updater, std::size_t group = 0)
    requires has_updater
  {
    auto made = std::tuple{engine_of<Ts>().prepare_rule(group, updater)...};
    (engine_of<Ts>().commit(std::get<number<Ts>>(made)), ...);
  }
  /// As kv_store::add_group; a group holds keys of any element type.
  std::size_t add_group(std::function<bool(key_view)> belongs, updater_type const& updater)
    requires has_updater
  {
    auto made = std::tuple{engine_of<Ts>().prepare_group(belongs, updater)...};
    std::size_t const added = std::get<0>(made).rules->size() - 1;
    auto const add = [&] { (engine_of<Ts>().commit(std::get<number<Ts>>(made)), ...); };
    detail::function_operation<decltype(add) const&> op(add);
    (engine_of<Ts>().write_all(op), ...);
    engine_of<first_type>().run_in_order(op);
    return added;
  }
  std::size_t groups() const { return of<first_type>().groups(); }
  std::size_t group(key_view key) const {
    return visit("group", key, [&](auto& store) { return store.group(key); });
  }

  /// As kv_store::init. The key's element type is that of the value, or `T`.
  template <TensorLike V>
    requires(has_type<element_of<V>>)
  void init(key_view key, V const& value) {
    of<element_of<V>>().init(key, value);
  }
  template <class V>
    requires(RowSparseTensor<V> && has_type<detail::element_in<V>>)
  void init(key_view key, V const& rows) {
    of<detail::element_in<V>>().init(key, rows);
  }
  template <class T, TensorLike V>
    requires(has_type<T>)
  void init(key_view key, V const& value) {
    of<T>().init(key, value);
  }
  template <KeysOf<key_view> Keys, std::ranges::input_range Values>
    requires(LastingTensorLike<std::ranges::range_reference_t<Values>> && has_type<detail::element_in<Values>>)
  void init(Keys&& keys, Values&& values) {
    of<detail::element_in<Values>>().init(std::forward<Keys>(keys), std::forward<Values>(values));
  }

  /// As kv_store::assign; values of a list have the keys' element type.
  template <TensorLike V>
  void assign(key_view key, V const& value, rule_states states = rule_states::keep) {
    visit("assign", key, [&](auto& store) { store.assign(key, value, states); });
  }
  template <KeysOf<key_view> Keys, std::ranges::input_range Values>
    requires(LastingTensorLike<std::ranges::range_reference_t<Values>> && has_type<detail::element_in<Values>>)
  void assign(Keys&& keys, Values&& values, rule_states states = rule_states::keep) {
    of<detail::element_in<Values>>().assign(std::forward<Keys>(keys), std::forward<Values>(values), states);
  }

  /// As kv_store::push; the gradients' element type is the keys'. @throws invalid_argument if it is not
  template <class Keys, class Gradients>
    requires(has_type<detail::element_in<Gradients>>)
  completion push(Keys&& keys, Gradients&& gradients, priority when = {}) {
    return of<detail::element_in<Gradients>>().push(std::forward<Keys>(keys), std::forward<Gradients>(gradients), when);
  }
  template <class Keys, class Gradients>
    requires(has_type<detail::element_in<Gradients>>)
  completion push(Keys&& keys, Gradients&& gradients, row_updates rows, priority when = {}) {
    return of<detail::element_in<Gradients>>().push(std::forward<Keys>(keys), std::forward<Gradients>(gradients), rows,
                                                    when);
  }
  /// As kv_store::accumulate.
  template <class Keys, class Gradients>
    requires(has_type<detail::element_in<Gradients>> && accumulates)
  completion accumulate(Keys&& keys, Gradients&& gradients, priority when = {}) {
    return of<detail::element_in<Gradients>>().accumulate(std::forward<Keys>(keys), std::forward<Gradients>(gradients),
                                                          when);
  }
  template <class Keys, class Gradients, class Outputs>
    requires(has_type<detail::element_in<Gradients>>)
  completion pushpull(Keys&& keys, Gradients&& gradients, Outputs&& outputs, row_updates rows, priority when = {}) {
    return of<detail::element_in<Gradients>>().pushpull(std::forward<Keys>(keys), std::forward<Gradients>(gradients),
                                                        std::forward<Outputs>(outputs), rows, when);
  }
  template <class Keys, class Outputs, class Ids>
    requires(has_type<detail::element_in<Outputs>>)
  completion row_sparse_pull(Keys&& keys, Outputs& outputs, Ids const& row_ids, priority when = {}) {
    return of<detail::element_in<Outputs>>().row_sparse_pull(std::forward<Keys>(keys), outputs, row_ids, when);
  }
  template <class Keys, class Gradients, class Outputs>
    requires(has_type<detail::element_in<Gradients>> && !std::same_as<std::remove_cvref_t<Outputs>, priority>)
  completion pushpull(Keys&& keys, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    return of<detail::element_in<Gradients>>().pushpull(std::forward<Keys>(keys), std::forward<Gradients>(gradients),
                                                        std::forward<Outputs>(outputs), when);
  }
  template <class Keys, class Tensors>
    requires(has_type<detail::element_in<Tensors>>)
  completion pushpull(Keys&& keys, Tensors&& tensors, priority when = {}) {
    return of<detail::element_in<Tensors>>().pushpull(std::forward<Keys>(keys), std::forward<Tensors>(tensors), when);
  }
  /// As kv_store::pull; outputs of one key may have any element type, those of a list have the keys'.
  template <OutputTensors Outputs>
    requires OutlivesCall<Outputs, is_synchronous, D>
  completion pull(key_view key, Outputs&& outputs, priority when = {}) {
    return visit("pull", key, [&](auto& store) { return store.pull(key, std::forward<Outputs>(outputs), when); });
  }
  template <KeysOf<key_view> Keys, OutputTensorList Outputs>
    requires(has_type<detail::element_in<Outputs>> && OutlivesCall<Outputs, is_synchronous, D>)
  completion pull(Keys&& keys, Outputs&& outputs, priority when = {}) {
    return of<detail::element_in<Outputs>>().pull(std::forward<Keys>(keys), std::forward<Outputs>(outputs), when);
  }
  template <class Keys, class Values, class Outputs>
    requires(has_type<detail::element_in<Values>>)
  completion broadcast(Keys&& keys, Values&& values, Outputs&& outputs, priority when = {}) {
    return of<detail::element_in<Values>>().broadcast(std::forward<Keys>(keys), std::forward<Values>(values),
                                                      std::forward<Outputs>(outputs), when);
  }

  void wait() const { of<first_type>().wait(); }
  void drain() const { of<first_type>().drain(); }
  void wait(key_view key) const {
    visit("wait", key, [&](auto& store) { store.wait(key); });
  }
  void device_waits_for(D const& device, key_view key) const {
    visit("device_waits_for", key, [&](auto& store) { store.device_waits_for(device, key); });
  }
  void key_waits_for(key_view key, D const& device) const {
    visit("key_waits_for", key, [&](auto& store) { store.key_waits_for(key, device); });
  }

  std::int64_t steps(key_view key) const
    requires has_updater
  {
    return visit("steps", key, [&](auto& store) { return store.steps(key); });
  }
  void set_steps(key_view key, std::int64_t t)
    requires has_updater
  {
    visit("set_steps", key, [&](auto& store) { store.set_steps(key, t); });
  }
  /// As kv_store::swap; a list names keys of any types.
  void swap(std::string_view name)
    requires has_updater
  {
    (of<Ts>().swap(name), ...);
  }
  void swap(key_view key, std::string_view name)
    requires has_updater
  {
    visit("swap", key, [&](auto& store) { store.swap(key, name); });
  }
  template <KeysOf<key_view> Keys>
    requires has_updater
  void swap(Keys&& keys, std::string_view name) {
    std::vector<key_type> owned;
    for (auto&& key : keys) owned.emplace_back(key_view(key));
    for (auto const& key : owned) find("swap", key);
    (swap_of<Ts>(owned, name), ...);
  }
  std::string swapped(key_view key) const {
    return visit("swapped", key, [&](auto const& store) { return store.swapped(key); });
  }
  /// As kv_store's.
  std::int64_t micro_batches(key_view key) const
    requires accumulates
  {
    return visit("micro_batches", key, [&](auto const& store) { return store.micro_batches(key); });
  }
  void discard_micro_batches(key_view key)
    requires accumulates
  {
    visit("discard_micro_batches", key, [&](auto& store) { store.discard_micro_batches(key); });
  }
  /// Same as kv_store's: only stores of one element type have persistent values.
  std::vector<double> carried_numbers() const { return of<first_type>().carried_numbers(); }
  void set_carried_numbers(std::span<double const> numbers) { of<first_type>().set_carried_numbers(numbers); }
  static update::rule_description describe_rule()
    requires has_updater
  {
    return first_store::describe_rule();
  }
  static std::vector<std::string> state_names() { return first_store::state_names(); }
  pushpull::shape state_shape(key_view key, std::string_view name) const {
    return visit("state_shape", key, [&](auto const& store) { return store.state_shape(key, name); });
  }
  /// Bytes that the store holds on device number n. Waits.
  std::size_t bytes(std::size_t n) const { return (of<Ts>().bytes(n) + ...); }

  /// f(the part with the key). @throws unknown_key, with `call` in the message
  template <class F>
  decltype(auto) visit(char const* call, key_view key, F const& f) const {
    return visit_number<0>(find(call, key).store, f);
  }

 private:
  using schedule_type = typename detail::kv_store_types<first_type, D, Policies...>::schedule_type;

  typename key_directory::place find(char const* call, key_view key) const {
    auto const found = directory_->find(key);
    detail::expects<unknown_key>(found.has_value(), [&] {
      return std::string(call) + ": " + detail::key_text(key) + " was never given to init";
    });
    return *found;
  }

  template <class T>
  auto& engine_of() const {
    return detail::store_access::engine(of<T>());
  }

  template <class T>
  void swap_of(std::vector<key_type> const& keys, std::string_view name) {
    std::vector<key_type> own;
    for (auto const& key : keys)
      if (find("swap", key).store == number<T>) own.push_back(key);
    of<T>().swap(own, name);
  }

  template <std::size_t N, class F>
  decltype(auto) visit_number(std::size_t wanted, F const& f) const {
    if constexpr (N + 1 < sizeof...(Ts)) {
      if (wanted != N) return visit_number<N + 1>(wanted, f);
    }
    return f(*std::get<N>(stores_));
  }

  std::shared_ptr<schedule_type> schedule_;
  std::shared_ptr<key_directory> directory_;
  std::tuple<std::unique_ptr<kv_store<Ts, D, Policies...>>...> stores_;
};

}  // namespace detail

/// One store for keys of several element types: a pass per device and element type that a call names. Each key has the
/// element type of its initial value, or the one that init was told; a list names keys of one type. Errors name the type that
/// a key has. Everything else is as in kv_store of one type; `of<T>()` is the part with the keys of type T.
/// A PreReduction over all keys is refused: its norm would not go over all types.
template <ElementType... Ts, Device D, class... Policies>
class kv_store<type_list<Ts...>, D, Policies...>
    : public detail::explained_rows<detail::typed_store_calls<type_list<Ts...>, D, Policies...>> {
 public:
  using detail::explained_rows<detail::typed_store_calls<type_list<Ts...>, D, Policies...>>::explained_rows;
};

}  // namespace pushpull
