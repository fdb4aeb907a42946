/// @file
/// A key-value store whose parameters have rules of different types.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
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
#include <pushpull/store/gather.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/refusal.hpp>
#include <pushpull/store/rules.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// kv_store without the overloads that explain refused calls.
template <ElementType T, Device D, class List, class... Policies>
class ruled_store_calls;
template <ElementType T, Device D, Updater... Rules, class... Policies>
class ruled_store_calls<T, D, rules<Rules...>, Policies...> {
  static constexpr std::size_t count = sizeof...(Rules);
  template <class Rule>
  using part_type = kv_store<T, D, Rule, Policies...>;
  using first_store = part_type<std::tuple_element_t<0, std::tuple<Rules...>>>;
  using first_types = detail::kv_store_types<T, D, std::tuple_element_t<0, std::tuple<Rules...>>, Policies...>;
  using key_directory = typename first_types::table_type::directory_type;
  template <std::size_t N>
  using rule_at = std::tuple_element_t<N, std::tuple<Rules...>>;

  static_assert(std::same_as<typename first_store::key_type, std::string>, "kv_store: rules go by names: string_keys");
  static_assert(
      count == 1 || !(detail::sums_over_keys<Rules> || ...),
      "kv_store: a PreReduction over all keys, such as clip_global_norm, takes the norm of all gradients of a call, "
      "which a rule among several does not see");

 public:
  using value_type = T;
  using device_type = D;
  using key_type = std::string;
  using key_view = std::string_view;
  using master_type = typename first_store::master_type;
  using state_type = typename first_store::state_type;
  using accumulation_type = typename first_store::accumulation_type;
  static constexpr bool has_updater = true;
  static constexpr bool is_synchronous = first_store::is_synchronous;
  static constexpr bool accumulates = first_store::accumulates;

  /// As kv_store with one rule.
  template <detail::HasPolicyKind... P>
  ruled_store_calls(std::vector<D> const& devices, rules<Rules...> const& chosen, P const&... policies)
      : chosen_(chosen),
        schedule_(std::make_shared<typename first_types::schedule_type>()),
        directory_(std::make_shared<key_directory>()),
        parts_(make_parts(devices, std::index_sequence_for<Rules...>(), policies...)) {}

  /// The part whose rule is of type `Rule`, the first one if there are several.
  template <class Rule>
    requires(std::same_as<Rule, Rules> || ...)
  auto& of() {
    return *std::get<number_of<Rule>()>(parts_);
  }

  std::vector<D> const& devices() const { return first().devices(); }
  std::size_t size() const {
    return [&]<std::size_t... N>(std::index_sequence<N...>) {
      return (std::get<N>(parts_)->size() + ...);
    }(std::index_sequence_for<Rules...>());
  }
  bool contains(key_view key) const { return directory_->find(key).has_value(); }
  /// All keys, in the order of their registration.
  std::vector<key_type> keys() const {
    std::lock_guard const lock(order_->mutex);
    return order_->keys;
  }
  pushpull::shape const& shape(key_view key) const { return find_shape("shape", key); }
  int rank() const { return first().rank(); }
  int num_workers() const { return first().num_workers(); }
  static constexpr std::string_view type() { return first_store::type(); }
  static bool is_capable(std::string_view capability) { return first_store::is_capable(capability); }
  void barrier() const { first().barrier(); }
  /// The number of the key's rule among `rules`. @throws unknown_key
  std::size_t rule(key_view key) const { return number("rule", key); }

  /// As kv_store::init.
  template <TensorLike V>
  void init(key_view key, V const& value) {
    init(std::array{key}, std::array{view_of(value)});
  }
  /// As kv_store::init for a list: all or none. @throws duplicate_key, shape_mismatch
  template <KeysOf<key_view> Keys, std::ranges::input_range Values>
    requires LastingTensorLike<std::ranges::range_reference_t<Values>>
  void init(Keys&& keys, Values&& values) {
    std::vector<key_type> names;
    auto const parts = split_new("init", keys, values, names);
    add(parts, std::move(names), [](auto& engine, auto keys_of_part, auto values_of_part) {
      return engine.prepare_init(keys_of_part, values_of_part, false, {});
    });
  }

  /// As kv_store::assign; a list all or none, unless memory ends between two rules.
  template <TensorLike V>
  void assign(key_view key, V const& value, rule_states states = rule_states::keep) {
    visit("assign", key, [&](auto& part) { part.assign(key, value, states); });
  }
  template <KeysOf<key_view> Keys, std::ranges::input_range Values>
    requires LastingTensorLike<std::ranges::range_reference_t<Values>>
  void assign(Keys&& keys, Values&& values, rule_states states = rule_states::keep) {
    auto const parts = split("assign", keys, values, "value", true);
    for (auto const& part : parts) expect_once("assign", part.keys);
    for_each_part(parts, [&](auto& part, auto const& p) { part.assign(p.keys, p.items, states); });
  }

  /// As kv_store::push.
  template <TensorsOf<T> Gradients>
    requires OutlivesCall<Gradients, is_synchronous, D>
  completion push(key_view key, Gradients&& gradients, priority when = {}) {
    return visit("push", key, [&](auto& part) { return part.push(key, std::forward<Gradients>(gradients), when); });
  }
  template <KeysOf<key_view> Keys, TensorListOf<T> Gradients>
    requires OutlivesCall<Gradients, is_synchronous, D>
  completion push(Keys&& keys, Gradients&& gradients, priority when = {}) {
    auto const parts = split("push", keys, gradients, "gradient", true);
    return join(parts, when, [](auto& engine, auto const& p) {
      auto call = engine.new_push("push");
      call.lists.add_list(p.keys, p.items, detail::none_listed);
      return engine.prepare(call);
    });
  }
  template <RowSparseTensorsOf<T> Gradients>
    requires RowsOutliveCall<Gradients, is_synchronous, D>
  completion push(key_view key, Gradients&& gradients, row_updates rows = row_updates::lazy, priority when = {}) {
    return visit("push", key,
                 [&](auto& part) { return part.push(key, std::forward<Gradients>(gradients), rows, when); });
  }

  /// As kv_store::pull.
  template <OutputTensors Outputs>
    requires OutlivesCall<Outputs, is_synchronous, D>
  completion pull(key_view key, Outputs&& outputs, priority when = {}) {
    return visit("pull", key, [&](auto& part) { return part.pull(key, std::forward<Outputs>(outputs), when); });
  }
  template <KeysOf<key_view> Keys, OutputTensorList Outputs>
    requires OutlivesCall<Outputs, is_synchronous, D>
  completion pull(Keys&& keys, Outputs&& outputs, priority when = {}) {
    auto const parts = split("pull", keys, outputs, "output", false);
    return join(parts, when, [](auto& engine, auto const& p) {
      auto call = engine.template new_pull<detail::element_in<Outputs>>("pull");
      call.lists.add_list(p.keys, detail::none_listed, p.items);
      return engine.prepare(call);
    });
  }

  /// As kv_store::pushpull.
  template <TensorsOf<T> Gradients, OutputTensorsOf<T> Outputs>
    requires(OutlivesCall<Gradients, is_synchronous, D> && OutlivesCall<Outputs, is_synchronous, D>)
  completion pushpull(key_view key, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    return visit("pushpull", key, [&](auto& part) {
      return part.pushpull(key, std::forward<Gradients>(gradients), std::forward<Outputs>(outputs), when);
    });
  }
  template <KeysOf<key_view> Keys, TensorListOf<T> Gradients, OutputTensorList Outputs>
    requires(TensorListOf<Outputs, T> && detail::Repeatable<Keys> && OutlivesCall<Gradients, is_synchronous, D> &&
             OutlivesCall<Outputs, is_synchronous, D>)
  completion pushpull(Keys&& keys, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    auto const sources = split("pushpull", keys, gradients, "gradient", true);
    auto const targets = split("pushpull", keys, outputs, "output", false);
    std::size_t n = 0;
    return join(sources, when, [&](auto& engine, auto const& p) {
      while (targets[n].keys.empty()) ++n;
      auto call = engine.new_push("pushpull");
      call.lists.add_list(p.keys, p.items, targets[n++].items);
      return engine.prepare(call);
    });
  }

  /// As kv_store::broadcast.
  template <TensorLike V, OutputTensors Outputs>
    requires(detail::Repeatable<Outputs> && OutlivesCall<Outputs, is_synchronous, D>)
  completion broadcast(key_view key, V const& value, Outputs&& outputs, priority when = {}) {
    detail::expect_outputs_like(key, value, outputs);
    init(key, value);
    return pull(key, outputs, when);
  }

  void wait() const { first().wait(); }
  void drain() const { first().drain(); }
  void wait(key_view key) const {
    visit("wait", key, [&](auto& part) { part.wait(key); });
  }

  std::int64_t steps(key_view key) const {
    return visit("steps", key, [&](auto& part) { return part.steps(key); });
  }
  void set_steps(key_view key, std::int64_t t) {
    visit("set_steps", key, [&](auto& part) { part.set_steps(key, t); });
  }
  /// As kv_store's, of the key's rule.
  update::rule_description describe_rule(key_view key) const {
    return visit("describe_rule", key, [](auto& part) { return part.describe_rule(); });
  }
  /// The names of the states that the key's rule has.
  std::vector<std::string> state_names(key_view key) const {
    return visit("state_names", key, [](auto& part) { return part.state_names(); });
  }
  pushpull::shape state_shape(key_view key, std::string_view name) const {
    return visit("state_shape", key, [&](auto& part) { return part.state_shape(key, name); });
  }
  std::vector<state_type> state(key_view key, std::string_view name) const {
    return visit("state", key, [&](auto& part) { return part.state(key, name); });
  }
  void set_state(key_view key, std::string_view name, std::span<state_type const> elements) {
    visit("set_state", key, [&](auto& part) { part.set_state(key, name, elements); });
  }
  std::string swapped(key_view key) const {
    return visit("swapped", key, [&](auto& part) { return part.swapped(key); });
  }
  /// As kv_store's.
  std::int64_t micro_batches(key_view key) const
    requires accumulates
  {
    return visit("micro_batches", key, [&](auto& part) { return part.micro_batches(key); });
  }
  std::vector<accumulation_type> gradient_sum(key_view key) const
    requires accumulates
  {
    return visit("gradient_sum", key, [&](auto& part) { return part.gradient_sum(key); });
  }
  void set_micro_batches(key_view key, std::int64_t number, std::span<accumulation_type const> sum)
    requires accumulates
  {
    visit("set_micro_batches", key, [&](auto& part) { part.set_micro_batches(key, number, sum); });
  }
  void discard_micro_batches(key_view key)
    requires accumulates
  {
    visit("discard_micro_batches", key, [&](auto& part) { part.discard_micro_batches(key); });
  }
  /// Same as kv_store's. Persistent values need sums over all keys, which a rule among several does not see.
  std::vector<double> carried_numbers() const { return first().carried_numbers(); }
  void set_carried_numbers(std::span<double const> numbers) { std::get<0>(parts_)->set_carried_numbers(numbers); }
  /// Other hyperparameters for the keys whose rule has this type.
  template <class Rule>
    requires(std::same_as<Rule, Rules> || ...)
  void set_hyperparameters(Rule const& rule) {
    of<Rule>().set_hyperparameters(rule);
  }
  /// Bytes that the store holds on device number n. Waits.
  std::size_t bytes(std::size_t n) const {
    return [&]<std::size_t... N>(std::index_sequence<N...>) {
      return (std::get<N>(parts_)->bytes(n) + ...);
    }(std::index_sequence_for<Rules...>());
  }

  /// A step over given keys: one pass per device and rule.
  struct plan_type {
    std::tuple<std::optional<typename part_type<Rules>::plan_type>...> plans;
  };
  /// As in ResidentStore.
  template <class V>
  void init_resident(std::span<key_type const> keys, std::span<V const> values,
                     std::vector<bool> const& needs_gradient) {
    detail::expect_count("init_resident", keys.size(), needs_gradient.size(), "flag");
    std::vector<key_type> names;
    auto const parts = split_new("init_resident", keys, values, names);
    std::array<std::vector<bool>, count> flags;
    for (std::size_t i = 0; i < keys.size(); ++i) flags[chosen_.of(keys[i])].push_back(needs_gradient[i]);
    std::size_t n = 0;
    add(parts, std::move(names), [&](auto& engine, auto keys_of_part, auto values_of_part) {
      while (flags[n].empty()) ++n;
      return engine.prepare_init(keys_of_part, values_of_part, true, flags[n++]);
    });
  }
  tensor_view<T, D> mirror(key_view key, std::size_t n) const {
    return visit("mirror", key, [&](auto& part) { return part.mirror(key, n); });
  }
  tensor_view<T, D> gradient(key_view key, std::size_t n) const {
    return visit("gradient", key, [&](auto& part) { return part.gradient(key, n); });
  }
  void require_gradient(key_view key) {
    visit("require_gradient", key, [&](auto& part) { part.require_gradient(key); });
  }
  plan_type make_plan(std::span<key_type const> keys) {
    std::array<std::vector<key_type>, count> names;
    for (key_type const& key : keys) names[number("make_plan", key)].push_back(key);
    plan_type plan;
    [&]<std::size_t... N>(std::index_sequence<N...>) {
      ((names[N].empty() ? void() : void(std::get<N>(plan.plans).emplace(std::get<N>(parts_)->make_plan(names[N])))),
       ...);
    }(std::index_sequence_for<Rules...>());
    return plan;
  }
  void update(plan_type& plan) {
    [&]<std::size_t... N>(std::index_sequence<N...>) {
      ((std::get<N>(plan.plans) ? std::get<N>(parts_)->expect_weights("update", *std::get<N>(plan.plans)) : void()),
       ...);
      ((std::get<N>(plan.plans) ? std::get<N>(parts_)->update(*std::get<N>(plan.plans)) : void()), ...);
    }(std::index_sequence_for<Rules...>());
  }

  /// f(the part with the key). @throws unknown_key, with `call` in the message
  template <class F>
  decltype(auto) visit(char const* call, key_view key, F const& f) const {
    return visit_number<0>(number(call, key), f);
  }

 private:
  /// The keys of one rule in a call, and views of the tensors that came with each.
  template <class Item>
  struct part_of_call {
    std::vector<key_type> keys;
    std::vector<Item> items;
  };
  template <class E>
  static auto views_of(E&& element) {
    if constexpr (TensorLike<E>) {
      return view_of(element);
    } else {
      std::vector<decltype(view_of(*std::ranges::begin(element)))> views;
      for (auto&& tensor : element) views.push_back(view_of(tensor));
      return views;
    }
  }

  /// Divides a list among the rules, checked. @param what  A word for its tensors. @param needed  Every key needs one.
  template <class Keys, class List>
  auto split(char const* call, Keys& keys, List& list, char const* what, bool needed) const {
    using item = decltype(views_of(*std::ranges::begin(list)));
    std::array<part_of_call<item>, count> parts;
    auto const add = [&](auto&& k, auto const& tensors) {
      key_view const key(k);
      auto& part = parts[number(call, key)];
      pushpull::shape const& expected = find_shape(call, key);
      if (needed) visit(call, key, [&](auto& owner) { owner.expect_weights(call, key); });
      item views = views_of(*tensors);
      if constexpr (TensorLike<item>) {
        detail::expect_shape(call, key, expected, views.shape());
      } else {
        for (auto const& view : views) detail::expect_shape(call, key, expected, view.shape());
        detail::expects<invalid_argument>(!needed || !views.empty(), [&] {
          return std::string(call) + ": " + detail::key_text(key) + " came with no gradient";
        });
      }
      part.keys.emplace_back(key);
      part.items.push_back(std::move(views));
    };
    detail::for_each_entry(call, keys, add, detail::companion<std::remove_reference_t<List>>(what, list));
    return parts;
  }
  /// Same as `split`, but for keys that the store does not have yet. @param names  Receives them in their order.
  template <class Keys, class List>
  auto split_new(char const* call, Keys& keys, List& list, std::vector<key_type>& names) const {
    using item = decltype(view_of(*std::ranges::begin(list)));
    std::array<part_of_call<item>, count> parts;
    auto const add = [&](auto&& k, auto const& value) {
      key_view const key(k);
      detail::expects<duplicate_key>(!contains(key), [&] {
        return std::string(call) + ": " + detail::key_text(key) + " was given to init before";
      });
      names.emplace_back(key);
      auto& part = parts[chosen_.of(key)];
      part.keys.emplace_back(key);
      part.items.push_back(view_of(*value));
    };
    detail::for_each_entry(call, keys, add, detail::companion<std::remove_reference_t<List>>("value", list));
    expect_once(call, names);
    return parts;
  }
  static void expect_once(char const* call, std::vector<key_type> const& names) {
    std::vector<key_view> seen(names.begin(), names.end());
    std::sort(seen.begin(), seen.end());
    auto const twice = std::adjacent_find(seen.begin(), seen.end());
    detail::expects<duplicate_key>(twice == seen.end(), [&] {
      return std::string(call) + ": " + detail::key_text(*twice) + " stands twice in one call";
    });
  }

  /// f(part, its share) for each rule that the call names.
  template <class Parts, class F>
  void for_each_part(Parts const& parts, F const& f) const {
    [&]<std::size_t... N>(std::index_sequence<N...>) {
      ((parts[N].keys.empty() ? void() : void(f(*std::get<N>(parts_), parts[N]))), ...);
    }(std::index_sequence_for<Rules...>());
  }
  /// f(engine of a part, its share) -> a prepared call, for each rule that the call names; then all as one.
  template <class Parts, class F>
  completion join(Parts const& parts, priority when, F const& f) const {
    auto& engine = detail::store_access::engine(first());
    std::vector<detail::prepared_call> all;
    for_each_part(parts, [&](auto& part, auto const& p) { all.push_back(f(detail::store_access::engine(part), p)); });
    return engine.submit_jointly(all, when);
  }

  /// Adds keys to all parts or to none. @param prepare  prepare(engine, keys, values) -> the engine's new_keys.
  template <class Parts, class F>
  void add(Parts const& parts, std::vector<key_type> names, F const& prepare) {
    std::array<std::vector<key_view>, count> views;
    for (std::size_t n = 0; n < count; ++n) views[n].assign(parts[n].keys.begin(), parts[n].keys.end());
    std::tuple<std::optional<typename engine_type<Rules>::new_keys>...> made;
    auto const prepare_part = [&]<std::size_t N>(std::integral_constant<std::size_t, N>) {
      if (parts[N].keys.empty()) return;
      std::get<N>(made).emplace(prepare(engine_of<N>(), std::span(std::as_const(views[N])), std::span(parts[N].items)));
    };
    [&]<std::size_t... N>(std::index_sequence<N...>) {
      (prepare_part(std::integral_constant<std::size_t, N>()), ...);
      std::lock_guard const lock(order_->mutex);
      auto& order = order_->keys;
      if (order.capacity() < order.size() + names.size()) order.reserve(2 * (order.size() + names.size()));
      ((std::get<N>(made) ? engine_of<N>().commit(*std::get<N>(made)) : void()), ...);
      for (key_type& name : names) order.push_back(std::move(name));
    }(std::index_sequence_for<Rules...>());
  }
  template <class Rule>
  using engine_type =
      std::remove_cvref_t<decltype(detail::store_access::engine(std::declval<part_type<Rule> const&>()))>;
  template <std::size_t N>
  auto& engine_of() const {
    return detail::store_access::engine(*std::get<N>(parts_));
  }

  std::size_t number(char const* call, key_view key) const {
    auto const found = directory_->find(key);
    detail::expects<unknown_key>(found.has_value(), [&] {
      return std::string(call) + ": " + detail::key_text(key) + " was never given to init";
    });
    return found->store;
  }
  pushpull::shape const& find_shape(char const* call, key_view key) const {
    return *visit(call, key, [&](auto& part) { return &part.shape(key); });
  }
  template <std::size_t N, class F>
  decltype(auto) visit_number(std::size_t wanted, F const& f) const {
    if constexpr (N + 1 < count) {
      if (wanted != N) return visit_number<N + 1>(wanted, f);
    }
    return f(*std::get<N>(parts_));
  }
  template <class Rule>
  static constexpr std::size_t number_of() {
    std::size_t n = 0;
    (void)((std::same_as<Rule, Rules> || (++n, false)) || ...);
    return n;
  }
  first_store const& first() const { return *std::get<0>(parts_); }

  template <std::size_t... N, class... P>
  auto make_parts(std::vector<D> const& devices, std::index_sequence<N...>, P const&... policies) {
    return std::tuple<std::unique_ptr<part_type<Rules>>...>(std::unique_ptr<part_type<Rules>>(
        new part_type<Rules>({schedule_, directory_}, N, devices, std::get<N>(chosen_.values), policies...))...);
  }

  /// The parts know the order of their own keys only.
  struct ordered_keys {
    std::mutex mutex;
    std::vector<key_type> keys;
  };

  rules<Rules...> chosen_;
  std::unique_ptr<ordered_keys> order_ = std::make_unique<ordered_keys>();
  std::shared_ptr<typename first_types::schedule_type> schedule_;
  std::shared_ptr<key_directory> directory_;
  std::tuple<std::unique_ptr<part_type<Rules>>...> parts_;
};

}  // namespace detail

/// One store for parameters with rules of several types: a pass per device and rule that a call names, states for each as its
/// rule needs them. What has one rule only is kv_store's with parameter groups. `kv_store store{devices, rules{adamw{},
/// where(is_bias, sgd{0.1})}}`. A call is checked as a whole before any part of it is enqueued. `of<Rule>()` is the part with
/// that rule, a kv_store with one. Keys are strings. A PreReduction over all keys is refused: its norm would not go over all
/// rules.
template <ElementType T, Device D, Updater... Rules, class... Policies>
class kv_store<T, D, rules<Rules...>, Policies...>
    : public detail::explained<detail::ruled_store_calls<T, D, rules<Rules...>, Policies...>> {
 public:
  using detail::explained<detail::ruled_store_calls<T, D, rules<Rules...>, Policies...>>::explained;
};

}  // namespace pushpull
