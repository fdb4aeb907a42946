/// @file
/// A key-value store of several parts: one per element type, or one per rule.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
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
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/call_arguments.hpp>
#include <pushpull/store/engine_calls.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/partition.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/store/refusal.hpp>
#include <pushpull/store/rules.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// A store whose parts, kv_stores, share a schedule and a directory of keys. A call is checked as a whole before any part of
/// it is enqueued. @tparam Partition  Its traits, and which part a key belongs to: by_element_type or by_rule.
template <class Partition>
class partitioned_store : public engine_calls<partitioned_store<Partition>, Partition> {
  using base = engine_calls<partitioned_store, Partition>;
  using D = typename Partition::device_type;
  using argument = typename Partition::argument;
  using part_types = typename Partition::part_types;
  using engine_types = typename Partition::engine_types;
  using first_engine = std::tuple_element_t<0, engine_types>;
  using key_directory = typename first_engine::table_type::directory_type;
  static constexpr std::size_t count = std::tuple_size_v<part_types>;
  static constexpr auto all_numbers = std::make_index_sequence<count>();

 public:
  using typename Partition::key_type;
  using typename Partition::key_view;

  /// As kv_store of one part; the rule is the only one of the store, or its `rules`.
  explicit partitioned_store(std::vector<D> const& devices)
    requires std::default_initializable<argument>
      : partitioned_store(devices, argument{}) {}
  template <HasPolicyKind... P>
  partitioned_store(std::vector<D> const& devices, argument const& chosen, P const&... policies)
      : chosen_(chosen), parts_(make_parts(all_numbers, devices, policies...)) {}
  template <HasPolicyKind First, HasPolicyKind... P>
    requires std::default_initializable<argument>
  partitioned_store(std::vector<D> const& devices, First const& policy, P const&... policies)
      : partitioned_store(devices, argument{}, policy, policies...) {}

  /// The part with the keys of an element type, or of a type of rule: a kv_store.
  template <class Kind>
    requires(Partition::template number_of<Kind> < count)
  auto& of() {
    return *std::get<Partition::template number_of<Kind>>(parts_);
  }
  template <class Kind>
    requires(Partition::template number_of<Kind> < count)
  auto const& of() const {
    return *std::get<Partition::template number_of<Kind>>(parts_);
  }

  bool contains(key_view key) const { return shared_->directory->find(key).has_value(); }
  /// All keys, in the order of their registration.
  std::vector<key_type> keys() const {
    if constexpr (Partition::lists_have_one_engine) {
      return shared_->directory->keys();
    } else {
      std::lock_guard const lock(shared_->mutex);
      return shared_->order;
    }
  }
  /// The number of the key's part: of its element type, or its rule. @throws unknown_key
  std::size_t part(key_view key) const { return number("part", key); }
  /// The number of the key's rule among `rules`. @throws unknown_key
  std::size_t rule(key_view key) const
    requires(!Partition::one_rule)
  {
    return number("rule", key);
  }
  /// f(the part with the key), a kv_store. @throws unknown_key, with `caller` in the message
  template <class F>
  decltype(auto) visit(char const* caller, key_view key, F const& f) const {
    return at_number<0>(number(caller, key),
                        [&]<std::size_t N>(std::integral_constant<std::size_t, N>) -> decltype(auto) {
                          return f(*std::get<N>(parts_));
                        });
  }

 private:
  friend class store_face<partitioned_store, Partition>;
  friend class key_access<partitioned_store, Partition>;
  friend class state_access<partitioned_store, Partition>;
  friend class checkpoint_access<partitioned_store, Partition>;
  friend class engine_calls<partitioned_store, Partition>;

  template <std::size_t N>
  auto& engine_at() const {
    return store_access::engine(*std::get<N>(parts_));
  }
  template <std::size_t... N>
  auto engines_at(std::index_sequence<N...>) const {
    return std::tie(engine_at<N>()...);
  }
  auto engines() const { return engines_at(all_numbers); }
  template <class Rule>
  auto engines_of() const {
    return engines_at(typename Partition::template numbers_with<Rule>());
  }

  std::size_t number(char const* caller, key_view key) const {
    auto const found = shared_->directory->find(key);
    expects<unknown_key>(found.has_value(),
                         [&] { return std::string(caller) + ": " + key_text(key) + " was never given to init"; });
    return found->store;
  }
  /// f(integral_constant) of a number.
  template <std::size_t N, class F>
  static decltype(auto) at_number(std::size_t wanted, F const& f) {
    if constexpr (N + 1 < count) {
      if (wanted != N) return at_number<N + 1>(wanted, f);
    }
    return f(std::integral_constant<std::size_t, N>());
  }
  /// f(engine, record) of the key.
  template <class F>
  decltype(auto) owner(char const* caller, key_view key, F const& f) const {
    return at_number<0>(
        number(caller, key),
        [&]<std::size_t N>(std::integral_constant<std::size_t, N>) -> decltype(auto) { return f(engine_at<N>()); });
  }
  template <class F>
  decltype(auto) with(char const* caller, key_view key, F const& f) const {
    return owner(caller, key, [&](auto& engine) -> decltype(auto) { return f(engine, engine.find(caller, key)); });
  }
  /// f(the engine that takes tensors of type E for the key).
  template <class E, class F>
  decltype(auto) with_element(char const* caller, key_view key, F const& f) const {
    if constexpr (Partition::lists_have_one_engine) {
      return f(engine_at<Partition::template number_of<E>>());
    } else {
      return owner(caller, key, f);
    }
  }
  /// The number of the part of a new key whose value is stored as E.
  template <class E>
  std::size_t number_of_new([[maybe_unused]] key_view key) const {
    if constexpr (Partition::lists_have_one_engine) {
      return Partition::template number_of<E>;
    } else {
      return chosen_.of(key);
    }
  }
  template <class E, class F>
  void with_new_key(key_view key, F const& f) {
    if constexpr (Partition::lists_have_one_engine) {
      f(engine_at<Partition::template number_of<E>>());
    } else {
      std::lock_guard const lock(shared_->mutex);
      shared_->order.emplace_back(key);
      try {
        at_number<0>(chosen_.of(key),
                     [&]<std::size_t N>(std::integral_constant<std::size_t, N>) { f(engine_at<N>()); });
      } catch (...) {
        shared_->order.pop_back();
        throw;
      }
    }
  }

  /// Adds keys to their parts, all or none.
  template <class E, class View>
  void add_keys(std::span<key_view const> keys, std::span<View const> values, char const* = "init",
                std::vector<bool> const* needs_gradient = nullptr, key_options options = {}) {
    static std::vector<bool> const none;
    if constexpr (Partition::lists_have_one_engine) {
      engine_at<Partition::template number_of<E>>().init(keys, values, needs_gradient != nullptr,
                                                         needs_gradient == nullptr ? none : *needs_gradient, options);
    } else {
      std::array<std::vector<key_view>, count> names;
      std::array<std::vector<View>, count> views;
      std::array<std::vector<bool>, count> flags;
      std::vector<key_type> order(keys.begin(), keys.end());
      for (std::size_t i = 0; i < keys.size(); ++i) {
        std::size_t const n = chosen_.of(keys[i]);
        names[n].push_back(keys[i]);
        views[n].push_back(values[i]);
        if (needs_gradient != nullptr) flags[n].push_back((*needs_gradient)[i]);
      }
      [&]<std::size_t... N>(std::index_sequence<N...>) {
        std::tuple<std::optional<typename std::tuple_element_t<N, engine_types>::new_keys>...> made;
        ((names[N].empty() ? void()
                           : void(std::get<N>(made).emplace(engine_at<N>().prepare_init(
                                 std::span<key_view const>(names[N]), std::span(std::as_const(views[N])),
                                 needs_gradient != nullptr, flags[N], options)))),
         ...);
        std::lock_guard const lock(shared_->mutex);
        auto& all = shared_->order;
        if (all.capacity() < all.size() + order.size()) all.reserve(2 * (all.size() + order.size()));
        ((std::get<N>(made) ? engine_at<N>().commit(*std::get<N>(made)) : void()), ...);
        for (key_type& name : order) all.push_back(std::move(name));
      }(all_numbers);
    }
  }
  /// The keys of one part in a call, and views of the tensors that came with each.
  template <class Source, class Output>
  struct share {
    std::vector<key_type> keys;
    std::vector<Source> sources;
    std::vector<Output> outputs;
  };
  /// Views of a tensor or of a range of tensors.
  template <class R>
  static auto views_of(R&& element) {
    if constexpr (std::same_as<std::remove_cvref_t<R>, no_tensors>) {
      return element;
    } else if constexpr (TensorLike<R>) {
      return view_of(element);
    } else {
      std::vector<decltype(view_of(*std::ranges::begin(element)))> views;
      for (auto&& tensor : element) views.push_back(view_of(tensor));
      return views;
    }
  }
  template <class R>
  using views_in = decltype(views_of(*std::declval<companion<R>&>()));
  template <class R, class Views>
  static decltype(auto) list_of(Views& views) {
    if constexpr (std::same_as<R, no_list const>) {
      return (none_listed);
    } else {
      return (views);
    }
  }

  /// f(engine, arguments of its keys) for each engine that a list names.
  template <class E, class Sources, class Keys, class Outputs, class F>
  void shares(call_arguments<true, Keys, Sources, Outputs> const& given, F const& f) const {
    if constexpr (Partition::lists_have_one_engine) {
      f(engine_at<Partition::template number_of<E>>(), given);
    } else {
      std::array<share<views_in<Sources>, views_in<Outputs>>, count> divided;
      for_each_entry(
          given.caller, given.keys,
          [&](auto&& k, auto const& source, auto const& output) {
            key_view const key(k);
            auto& part = divided[number(given.caller, key)];
            part.keys.emplace_back(key);
            part.sources.push_back(views_of(*source));
            part.outputs.push_back(views_of(*output));
          },
          companion<Sources>(given.word, given.sources), companion<Outputs>("output", given.outputs));
      [&]<std::size_t... N>(std::index_sequence<N...>) {
        ((divided[N].keys.empty()
              ? void()
              : f(engine_at<N>(), with_list(given.caller, divided[N].keys, list_of<Sources>(divided[N].sources),
                                            list_of<Outputs>(divided[N].outputs), given.word))),
         ...);
      }(all_numbers);
    }
  }
  template <class Parts>
  struct owned_parts;
  template <class... Parts>
  struct owned_parts<std::tuple<Parts...>> {
    using type = std::tuple<std::unique_ptr<Parts>...>;
  };
  template <std::size_t... N, class... P>
  auto make_parts(std::index_sequence<N...>, std::vector<D> const& devices, P const&... policies) {
    return typename owned_parts<part_types>::type(std::unique_ptr<std::tuple_element_t<N, part_types>>(
        new std::tuple_element_t<N, part_types>({shared_->schedule, shared_->directory}, N, devices,
                                                Partition::template rule_of_part<N>(chosen_), policies...))...);
  }

  /// What the parts share, and the order of all keys: a part knows its own only.
  struct shared_by_parts {
    std::shared_ptr<typename Partition::schedule_type> schedule = std::make_shared<typename Partition::schedule_type>();
    std::shared_ptr<key_directory> directory = std::make_shared<key_directory>();
    std::mutex mutex;
    std::vector<key_type> order;
  };

  argument chosen_;
  std::unique_ptr<shared_by_parts> shared_ = std::make_unique<shared_by_parts>();
  typename owned_parts<part_types>::type parts_;
};

}  // namespace detail

/// One store for keys of several element types: a pass per device and element type that a call names. Each key has the
/// element type of its initial value, or the one that init was told; a list names keys of one type. Errors name the type that
/// a key has. Everything else is as in kv_store of one type; `of<T>()` is the part with the keys of type T.
/// A PreReduction over all keys is refused: its norm would not go over all types.
template <ElementType... Ts, Device D, class... Policies>
class kv_store<type_list<Ts...>, D, Policies...>
    : public detail::explained_rows<
          detail::partitioned_store<detail::by_element_type<type_list<Ts...>, D, Policies...>>> {
 public:
  using detail::explained_rows<
      detail::partitioned_store<detail::by_element_type<type_list<Ts...>, D, Policies...>>>::explained_rows;
};

/// One store for parameters with rules of several types: a pass per device and rule that a call names, states for each as its
/// rule needs them. What has one rule only is kv_store's with parameter groups. `kv_store store{devices, rules{adamw{},
/// where(is_bias, sgd{0.1})}}`. A call is checked as a whole before any part of it is enqueued. A step that fails later
/// leaves the keys of its rule unchanged; those of other rules may have made the step. `of<Rule>()` is the part with that rule,
/// a kv_store with one. Keys are strings. A PreReduction over all keys is refused: its norm would not go over all
/// rules.
template <ElementType T, Device D, Updater... Rules, class... Policies>
class kv_store<T, D, rules<Rules...>, Policies...>
    : public detail::explained_rows<detail::partitioned_store<detail::by_rule<T, D, rules<Rules...>, Policies...>>> {
 public:
  using detail::explained_rows<
      detail::partitioned_store<detail::by_rule<T, D, rules<Rules...>, Policies...>>>::explained_rows;
};

}  // namespace pushpull
