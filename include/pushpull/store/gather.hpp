/// @file
/// How the ranges of a call become its keys and tensors.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <ranges>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/tensor/shape.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Where a call takes no tensors of a kind.
struct no_tensors {};
struct no_list {};
inline constexpr no_list none_listed;

/// What can be walked through more than once.
template <class R>
concept Repeatable = TensorLike<R> || std::ranges::forward_range<R>;

inline void expect_count(char const* call, std::size_t keys, std::size_t count, char const* what) {
  expects<shape_mismatch>(keys == count, [&] {
    return std::string(call) + ": " + std::to_string(keys) + " " + what + " expected, one per key, got " +
           std::to_string(count);
  });
}
inline void expect_more(char const* call, bool more, char const* what) {
  expects<shape_mismatch>(
      more, [&] { return std::string(call) + ": fewer " + what + " than the other ranges have elements"; });
}

/// @throws invalid_argument on a list without keys: whatever made it is not what its writer meant
inline void expect_keys(char const* call, bool any) {
  expects<invalid_argument>(any, [&] { return std::string(call) + ": at least 1 key expected, an empty list came"; });
}
template <class View>
void expect_shape(char const* call, View key, shape const& expected, shape const& got) {
  expects<shape_mismatch>(expected == got, [&] {
    return std::string(call) + ": " + key_text(key) + " has shape " + to_string(expected) + ", a tensor of shape " +
           to_string(got) + " came";
  });
}

/// Where `name` stands among the names of a rule's states. @throws invalid_argument
inline std::size_t position_of(char const* call, std::vector<std::string> const& names, std::string_view name) {
  auto const found = std::find(names.begin(), names.end(), name);
  expects<invalid_argument>(found != names.end(), [&] {
    return std::string(call) + ": the rule has no state \"" + std::string(name) + "\"";
  });
  return static_cast<std::size_t>(found - names.begin());
}

/// Adds one key with its tensors to a call.
template <class Call, class Table, class Gradients, class Outputs>
void add_to(Call& call, Table const& table, char const* name, typename Table::key_view key, Gradients&& gradients,
            Outputs&& outputs) {
  call.add_key(table, name, key);
  if constexpr (!std::same_as<std::remove_cvref_t<Gradients>, no_tensors>) {
    for_each_tensor(gradients, [&](auto const& view) { call.add_source(name, key, view); });
    call.expect_source(name, key);
  }
  if constexpr (!std::same_as<std::remove_cvref_t<Outputs>, no_tensors>)
    for_each_tensor(outputs, [&](auto const& view) { call.add_output(name, key, view); });
}

/// Walks along a range beside the keys; where there is none, yields nothing for ever.
template <class R>
struct companion {
  char const* call;
  char const* what;
  std::ranges::iterator_t<R> next;
  std::ranges::sentinel_t<R> end;

  companion(char const* call, char const* what, R& range)
      : call(call), what(what), next(std::ranges::begin(range)), end(std::ranges::end(range)) {}
  decltype(auto) operator*() const {
    expect_more(call, next != end, what);
    return *next;
  }
  void operator++() { ++next; }
  bool at_end() const { return next == end; }
};
template <class R>
  requires std::same_as<R, no_list const>
struct companion<R> {
  companion(char const*, char const*, no_list const&) {}
  no_tensors operator*() const { return {}; }
  void operator++() {}
  bool at_end() const { return true; }
};

/// Adds each key of a list with its tensors to a call.
template <class Call, class Table, class Keys, class Gradients, class Outputs>
void add_list_to(Call& call, Table const& table, char const* name, Keys&& keys, Gradients&& gradients,
                 Outputs&& outputs) {
  companion<std::remove_reference_t<Gradients>> gradient(name, "gradients", gradients);
  companion<std::remove_reference_t<Outputs>> output(name, "outputs", outputs);
  bool any = false;
  for (auto&& key : keys) {
    any = true;
    add_to(call, table, name, key, *gradient, *output);
    ++gradient;
    ++output;
  }
  expect_more(name, gradient.at_end() && output.at_end(), "keys");
  expect_keys(name, any);
}

/// A key of a list, and where its entries stand in the ranges beside it.
template <class Record, class Iterator>
struct listed_key {
  Record* key;
  std::vector<Iterator> entries;
};

/// The keys of a list in the order of their registration, each once.
/// @param find  find(key) -> the record.
template <class Keys, class R, class Find>
auto group_keys(char const* call, char const* what, Keys& keys, R& range, Find const& find) {
  using record = std::remove_reference_t<decltype(find(*std::ranges::begin(keys)))>;
  std::vector<listed_key<record, std::ranges::iterator_t<R>>> groups;
  auto entry = std::ranges::begin(range);
  for (auto&& key : keys) {
    expect_more(call, entry != std::ranges::end(range), what);
    record& r = find(key);
    auto const known = std::find_if(groups.begin(), groups.end(), [&](auto const& g) { return g.key == &r; });
    if (known == groups.end()) {
      groups.push_back({&r, {entry}});
    } else {
      known->entries.push_back(entry);
    }
    ++entry;
  }
  expect_more(call, entry == std::ranges::end(range), "keys");
  expect_keys(call, !groups.empty());
  std::sort(groups.begin(), groups.end(), [](auto const& a, auto const& b) { return a.key->clock < b.key->clock; });
  return groups;
}

/// Checks the shapes of a broadcast: those of each key's outputs are its value's.
template <class Value, class Outputs, class View>
void expect_outputs_like(View key, Value const& value, Outputs& outputs) {
  for_each_tensor(outputs, [&](auto const& output) {
    expect_shape("broadcast", key, view_of(value).shape(), output.shape());
  });
}
template <class View, class Keys, class Values, class Outputs>
void expect_outputs_like_each(Keys& keys, Values& values, Outputs& outputs) {
  companion<Values> value("broadcast", "values", values);
  companion<Outputs> output("broadcast", "outputs", outputs);
  for (auto&& key : keys) {
    auto&& filled = *output;
    expect_outputs_like(View(key), *value, filled);
    ++value;
    ++output;
  }
  expect_more("broadcast", value.at_end() && output.at_end(), "keys");
}

}  // namespace pushpull::detail
