/// @file
/// How states, step counts and sums of a store become entries of a file.
#pragma once

#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/safetensors.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/saved_values.hpp>
#include <pushpull/update/rule_description.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint::detail {

/// The names of a key's states. Where rules differ they depend on the key.
template <class S, class Key>
std::vector<std::string> names_of_states(S& store, Key const& key)
  requires requires { store.state_names(); } || requires { store.state_names(key); }
{
  if constexpr (requires { store.state_names(key); }) {
    return store.state_names(key);
  } else {
    return store.state_names();
  }
}

/// A store of several element types: the part that holds a key has its states.
template <class S>
concept StoreOfParts = !requires { typename S::state_type; } &&
                       requires(S& store, typename S::key_type const& key) { store.visit("", key, [](auto&) {}); };

inline constexpr std::string_view states_format = "pushpull.optimizer_states";
inline constexpr std::string_view states_version = "1";
/// Names in metadata: all numbers that a rule carries, and behind "carried." those of one stage; the rule, or behind
/// "key/" a key's, and its stages with states.
inline constexpr std::string_view carried_entry = "carried";
inline constexpr std::string_view rule_entry = "rule";
inline constexpr std::string_view stateful_entry = "rule.states";
/// Behind "key/": a sum of micro-batches among the tensors, and their number in metadata.
inline constexpr std::string_view sum_entry = "/gradient.sum";

/// The names of a store's keys in a file. Where keys of both kinds are, as with any_keys, a string that could be taken for
/// an integer, or for such a string in quotes, stands in quotes: 7 and "7" are two keys.
class key_names {
 public:
  template <class Key>
  explicit key_names(std::vector<Key> const& keys) {
    bool strings = false, integers = false;
    for (any_key_view const key : keys) (key.is_string() ? strings : integers) = true;
    quotes_ = strings && integers;
  }
  std::string operator()(any_key_view key) const {
    if (key.is_integer()) return std::to_string(key.integer());
    std::string const text(key.string());
    bool const digits = text.find_first_not_of("-0123456789") == text.npos;
    return quotes_ && (digits || text.front() == '"') ? '"' + text + '"' : text;
  }

 private:
  bool quotes_ = false;
};

/// The format's name of an element type of the library: "F32" for "float32".
inline std::string dtype_name(std::string_view dtype) {
  std::string name;
  [&]<class... Ts>(std::type_identity<std::tuple<Ts...>>) {
    (void)((dtype == dtype_traits<Ts>::name && (name = safetensors_dtype<Ts>::name, true)) || ...);
  }(std::type_identity<std::tuple<float, double, half, bfloat16, float8_e4m3, float8_e5m2>>());
  return name;
}
/// That of the elements of a key's array.
template <class S, class Key>
std::string dtype_of(S& store, Key const& key, pushpull::detail::saved_array what, std::string_view state = "") {
  return dtype_name(store.local_part(key, what, state, false).dtype);
}

/// The bytes of a key's state. All ranks call it.
template <class S, class Key>
std::vector<std::byte> bytes_of_state(S& store, Key const& key, std::string const& name) {
  if constexpr (StoreOfParts<S>) {
    return store.visit("save_optimizer_states", key, [&](auto& part) { return bytes_of_state(part, key, name); });
  } else {
    auto const elements = store.state(key, name);
    auto const bytes = std::as_bytes(std::span(elements));
    return {bytes.begin(), bytes.end()};
  }
}

/// Updates of a key so far; 0 where there is no rule.
template <class S, class Key>
std::int64_t steps_of([[maybe_unused]] S& store, [[maybe_unused]] Key const& key) {
  if constexpr (requires { store.steps(key); }) return store.steps(key);
  return 0;
}

/// A store that says at run time whether its keys may hold sums of micro-batches: an any_store.
template <class S>
concept AccumulatingAtRunTime = requires(S& store) {
  { store.accumulates() } -> std::same_as<bool>;
};
/// A store whose keys may hold sums of micro-batches.
template <class S>
concept Accumulating = AccumulatingAtRunTime<S> || requires { requires S::accumulates; };

/// The bytes of such a sum. All ranks call it.
template <Accumulating S, class Key>
std::vector<std::byte> bytes_of_sum(S& store, Key const& key) {
  if constexpr (StoreOfParts<S>) {
    return store.visit("save_optimizer_states", key, [&](auto& part) { return bytes_of_sum(part, key); });
  } else {
    auto const elements = store.gradient_sum(key);
    auto const bytes = std::as_bytes(std::span(elements));
    return {bytes.begin(), bytes.end()};
  }
}

/// The rule of a key, and that of a store that has one for all. Empty where the store does not say.
template <class S, class Key>
update::rule_description rule_of(S& store, [[maybe_unused]] Key const& key) {
  if constexpr (requires { store.describe_rule(key); }) {
    return store.describe_rule(key);
  } else if constexpr (requires { store.describe_rule(); }) {
    return store.describe_rule();
  } else {
    return {};
  }
}
template <class S>
inline constexpr bool has_rules_of_keys =
    requires(S& store, typename S::key_type const& key) { store.describe_rule(key); };

/// @throws invalid_argument if a swap has put a state in the place of the key's weights
template <class S, class Key>
void expect_weights_in_place([[maybe_unused]] char const* call, [[maybe_unused]] S& store,
                             [[maybe_unused]] Key const& key) {
  if constexpr (requires {
                  { store.swapped(key) } -> std::same_as<std::string>;
                }) {
    std::string const state = store.swapped(key);
    pushpull::detail::expects<invalid_argument>(state.empty(), [&] {
      return std::string(call) + ": " + pushpull::detail::key_text(typename S::key_view(key)) + ": its state " +
             in_quotes(state) + " stands in the place of the weights: swap it back first";
    });
  }
}

/// The names of a rule in metadata, behind "key/" where keys have rules of their own.
inline void add_rule(metadata_map& metadata, std::string const& prefix, update::rule_description const& rule) {
  if (rule.name.empty()) return;
  metadata[prefix + std::string(rule_entry)] = rule.name;
  metadata[prefix + std::string(stateful_entry)] = rule.stateful;
}

/// The value of a name in metadata, or null.
template <class File>
std::string const* find_metadata(File const& file, std::string_view name) {
  auto const found = file.metadata().find(name);
  return found == file.metadata().end() ? nullptr : &found->second;
}

/// @throws file_error unless the metadata is that of states in a version that this library reads
template <class File>
void expect_states_format(File const& file) {
  auto const expect = [&](std::string_view name, std::string_view value, char const* what) {
    std::string const* const found = find_metadata(file, name);
    pushpull::detail::expects<file_error>(found != nullptr && *found == value, [&] {
      return file.path().string() + ": " + what + " expected, got " + std::string(name) + " " +
             in_quotes(found == nullptr ? "" : *found);
    });
  };
  expect("format", states_format, "optimizer states");
  expect("version", states_version, "version 1");
}

/// A count in metadata, `lowest` to max_steps. @throws file_error
template <class File>
std::int64_t count_in(File const& file, std::string const& name, std::int64_t lowest, char const* what) {
  std::string const* const text = find_metadata(file, name);
  pushpull::detail::expects<file_error>(text != nullptr, [&] {
    return file.path().string() + ": metadata " + in_quotes(name) + " expected, it is not there";
  });
  std::int64_t count = -1;
  auto const [end, error] = std::from_chars(text->data(), text->data() + text->size(), count);
  bool const good = error == std::errc() && end == text->data() + text->size() && count >= lowest && count <= max_steps;
  pushpull::detail::expects<file_error>(good, [&] {
    return file.path().string() + ": metadata " + in_quotes(name) + ": a count of " + what + ", " +
           std::to_string(lowest) + " to " + std::to_string(max_steps) + ", expected, got " + in_quotes(*text);
  });
  return count;
}

/// Numbers as text that gives the same numbers again, each followed by a space.
inline std::string text_of(std::span<double const> numbers) {
  std::string text;
  for (double const x : numbers) {
    std::array<char, 32> digits{};
    text.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), x).ptr);
    text += ' ';
  }
  return text;
}
/// The values of a rule that persist, in metadata: all, and those of each stage.
inline void add_carried(metadata_map& metadata, std::span<double const> numbers, update::rule_description const& rule) {
  if (numbers.empty()) return;
  metadata[std::string(carried_entry)] = text_of(numbers);
  for (auto const& range : rule.carried)
    metadata[std::string(carried_entry) + "." + range.stage] = text_of(numbers.subspan(range.first, range.count));
}
/// The `count` numbers of a name in metadata; none where there is no such name. @throws file_error
template <class File>
std::vector<double> numbers_in(File const& file, std::string_view name, std::size_t count) {
  std::string const* const found = find_metadata(file, name);
  std::string const text = found == nullptr ? std::string() : *found;
  std::vector<double> numbers;
  char const* at = text.data();
  char const* const end = at + text.size();
  bool good = true;
  while (good && at != end) {
    auto const [next, error] = std::from_chars(at, end, numbers.emplace_back());
    good = error == std::errc() && next != end && *next == ' ';
    at = good ? next + 1 : end;
  }
  pushpull::detail::expects<file_error>(good && numbers.size() == count, [&] {
    return file.path().string() + ": metadata " + in_quotes(name) + ": " + std::to_string(count) +
           " numbers that the rule keeps from step to step expected, got " + in_quotes(text);
  });
  return numbers;
}

}  // namespace pushpull::checkpoint::detail
