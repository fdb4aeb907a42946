/// @file
/// Which part of a store of several parts a key belongs to: by its element type, or by its rule.
#pragma once

#include <concepts>
#include <cstddef>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/store/engine.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/store/kv_store_types.hpp>
#include <pushpull/store/rules.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The traits that stores of several parts share. @tparam First  The first part, a kv_store.
template <class First>
struct partition_traits {
  using device_type = typename First::device_type;
  using key_type = typename First::key_type;
  using key_view = typename First::key_view;
  using schedule_type = typename First::resolved::schedule_type;
  static constexpr bool has_updater = First::has_updater;
  static constexpr bool is_synchronous = First::is_synchronous;
  /// Whether several pushes make a step.
  static constexpr bool accumulates = First::accumulates;
  static constexpr bool may_accumulate = accumulates;
  static constexpr bool compressed = First::compressed;
};

/// A part per element type: a key belongs to the part of its initial value's type, and all have the same rule.
template <class List, Device D, class... Policies>
struct by_element_type;
template <ElementType... Ts, Device D, class... Policies>
struct by_element_type<type_list<Ts...>, D, Policies...>
    : partition_traits<kv_store<std::tuple_element_t<0, std::tuple<Ts..., float>>, D, Policies...>> {
  static_assert(sizeof...(Ts) > 0, "kv_store: a type_list of at least one type");
  using first_type = std::tuple_element_t<0, std::tuple<Ts...>>;
  using part_types = std::tuple<kv_store<Ts, D, Policies...>...>;
  using engine_types = std::tuple<engine<kv_store_types<Ts, D, Policies...>>...>;
  using updater_type = typename kv_store<first_type, D, Policies...>::updater_type;
  static_assert(
      sizeof...(Ts) == 1 || !sums_over_keys<updater_type>,
      "kv_store: a PreReduction over all keys, such as clip_global_norm, takes the norm of all gradients of a "
      "call, which several element types do not give");

  template <class E>
  using types_of = kv_store_types<E, D, Policies...>;
  template <class E>
  static constexpr bool has_type = (std::same_as<E, Ts> || ...);
  using sole_type = std::conditional_t<sizeof...(Ts) == 1, first_type, void>;
  template <class E>
  using stored_as = std::conditional_t<sizeof...(Ts) == 1 && !has_type<E>, first_type, E>;
  static constexpr bool one_rule = true, lists_have_one_engine = true;
  template <class>
  static constexpr bool converts = true;
  template <class>
  static constexpr bool pulls = true;
  template <class E>
  static constexpr bool lists = has_type<E>;
  template <class Rule>
  static constexpr bool has_rule = std::same_as<Rule, updater_type>;
  template <class F>
  static constexpr bool takes_function = (kv_store<Ts, D, Policies...>::template takes_function<F> && ...);

  /// The number of the part of keys of type E.
  template <class E>
  static constexpr std::size_t number_of = [] {
    std::size_t n = 0;
    (void)((std::same_as<E, Ts> || (++n, false)) || ...);
    return n;
  }();
  template <class Rule>
  using numbers_with = std::index_sequence_for<Ts...>;

  /// What the constructor of a store takes beside its devices: the rule of all parts.
  using argument = updater_type;
  template <std::size_t>
  static updater_type const& rule_of_part(updater_type const& updater) {
    return updater;
  }
};

/// A part per rule: a key belongs to the part of the last rule that claims its name.
template <ElementType T, Device D, class List, class... Policies>
struct by_rule;
template <ElementType T, Device D, Updater... Rules, class... Policies>
struct by_rule<T, D, rules<Rules...>, Policies...>
    : partition_traits<kv_store<T, D, std::tuple_element_t<0, std::tuple<Rules...>>, Policies...>>,
      one_element_type<T> {
  using first_part = kv_store<T, D, std::tuple_element_t<0, std::tuple<Rules...>>, Policies...>;
  using part_types = std::tuple<kv_store<T, D, Rules, Policies...>...>;
  using engine_types = std::tuple<engine<kv_store_types<T, D, Rules, Policies...>>...>;
  static_assert(std::same_as<typename first_part::key_type, std::string>, "kv_store: rules go by names: string_keys");
  static_assert(
      sizeof...(Rules) == 1 || !(sums_over_keys<Rules> || ...),
      "kv_store: a PreReduction over all keys, such as clip_global_norm, takes the norm of all gradients of a call, "
      "which a rule among several does not see");

  using value_type = T;
  using master_type = typename first_part::master_type;
  using state_type = typename first_part::state_type;
  using accumulation_type = typename first_part::accumulation_type;
  /// No rule is that of all keys.
  using updater_type = void;
  template <class>
  using types_of = typename first_part::resolved;
  static constexpr bool one_rule = false, lists_have_one_engine = false;
  template <class Rule>
  static constexpr bool has_rule = (std::same_as<Rule, Rules> || ...);
  template <class>
  static constexpr bool takes_function = false;

  /// The number of the part of the rule, the first one if there are several.
  template <class Rule>
  static constexpr std::size_t number_of = [] {
    std::size_t n = 0;
    (void)((std::same_as<Rule, Rules> || (++n, false)) || ...);
    return n;
  }();
  template <class Rule>
  using numbers_with = std::index_sequence<number_of<Rule>>;

  using argument = rules<Rules...>;
  template <std::size_t N>
  static auto const& rule_of_part(argument const& chosen) {
    return std::get<N>(chosen.values);
  }
};

}  // namespace pushpull::detail
