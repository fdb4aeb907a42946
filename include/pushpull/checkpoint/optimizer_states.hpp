/// @file
/// The states of a store's rule and its step counts, to a file and back.
///
/// Needs what safetensors.hpp needs. No umbrella includes it.
#pragma once

#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/safetensors.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/tensor/dtype.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

namespace detail {

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

}  // namespace detail

/// A store whose keys have the states of a rule. Models: kv_store with an Updater or `rules`, of one element type or several,
/// any_store.
template <class S>
concept OptimizerStateStore =
    (detail::StoreOfParts<S> || requires(S& store, typename S::key_type const& key, std::string const& name) {
      store.state(key, name);
    }) && requires(S& store, typename S::key_type const& key) {
      store.keys();
      store.shape(key);
      detail::names_of_states(store, key);
      store.state_shape(key, std::string());
      { store.steps(key) } -> std::convertible_to<std::int64_t>;
      store.set_steps(key, std::int64_t{});
      { store.carried_numbers() } -> std::same_as<std::vector<double>>;
    };

namespace detail {

inline constexpr std::string_view states_format = "pushpull.optimizer_states";
inline constexpr std::string_view states_version = "1";
inline constexpr std::string_view carried_entry = "carried";

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

/// The format's name of the elements of a key's states, and their bytes. An any_store says both at run time.
template <class S, class Key>
std::string dtype_of_states(S& store, Key const& key) {
  if constexpr (requires { typename S::state_type; }) {
    return std::string(safetensors_dtype<typename S::state_type>::name);
  } else if constexpr (StoreOfParts<S>) {
    return store.visit("save_optimizer_states", key, [&](auto& part) { return dtype_of_states(part, key); });
  } else {
    std::string name;
    [&]<class... Ts>(std::type_identity<std::tuple<Ts...>>) {
      std::string_view const dtype = store.dtype(key);
      (void)((dtype == dtype_traits<Ts>::name && (name = safetensors_dtype<Ts>::name, true)) || ...);
    }(std::type_identity<std::tuple<float, double, half, bfloat16>>());
    return name;
  }
}
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
template <class S, class Key>
void set_state_bytes(S& store, Key const& key, std::string const& name, std::span<std::byte const> bytes) {
  if constexpr (requires { typename S::state_type; }) {
    std::vector<typename S::state_type> elements(bytes.size() / sizeof(typename S::state_type));
    if (!bytes.empty()) std::memcpy(static_cast<void*>(elements.data()), bytes.data(), bytes.size());
    store.set_state(key, name, std::span(std::as_const(elements)));
  } else if constexpr (StoreOfParts<S>) {
    store.visit("load_optimizer_states", key, [&](auto& part) { set_state_bytes(part, key, name, bytes); });
  } else {
    store.set_state(key, name, bytes);
  }
}

/// @throws invalid_argument if the store has no rule, which a kv_store says by its type
template <class S>
void expect_rule(char const* call, S& store) {
  if constexpr (requires { store.has_updater(); })
    pushpull::detail::expects<invalid_argument>(store.has_updater(), [&] {
      return std::string(call) + ": the store has no optimizer whose states there were";
    });
}

/// A count of steps in metadata. @throws file_error
inline std::int64_t steps_in(safetensors_file const& file, std::string const& name) {
  auto const found = file.metadata().find(name);
  pushpull::detail::expects<file_error>(found != file.metadata().end(), [&] {
    return file.path().string() + ": metadata " + in_quotes(name) + " expected, it is not there";
  });
  std::string const& text = found->second;
  std::int64_t steps = -1;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), steps);
  pushpull::detail::expects<file_error>(error == std::errc() && end == text.data() + text.size() && steps >= 0, [&] {
    return file.path().string() + ": metadata " + in_quotes(name) + ": a count of steps expected, got " + in_quotes(text);
  });
  return steps;
}

/// Numbers as text that gives the same numbers again, each followed by a space.
inline std::string text_of(std::vector<double> const& numbers) {
  std::string text;
  for (double const x : numbers) {
    std::array<char, 32> digits{};
    text.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), x).ptr);
    text += ' ';
  }
  return text;
}
/// The `count` numbers in metadata "carried". @throws file_error
inline std::vector<double> carried_in(safetensors_file const& file, std::size_t count) {
  auto const found = file.metadata().find(carried_entry);
  std::string const text = found == file.metadata().end() ? std::string() : found->second;
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
    return file.path().string() + ": metadata " + in_quotes(carried_entry) + ": " + std::to_string(count) +
           " numbers that the rule keeps from step to step expected, got " + in_quotes(text);
  });
  return numbers;
}

}  // namespace detail

/// Writes the states of all keys, as tensors "key/state" of the keys' shapes, or lists of their rows or columns, and their
/// step counts, as metadata "key/steps"; likewise the numbers that the rule keeps from step to step, as "carried". Waits for
/// the store. A file of that name is replaced when the new one is complete and on disk.
/// Not written are weights (see write_safetensors), hyperparameters and parameter groups, residuals of compressed
/// gradients, and sums of micro-batches between two steps. While weights and a state are swapped the file holds the weights
/// as that state.
/// Memory: as much as the states take. @throws file_error
template <OptimizerStateStore S>
void save_optimizer_states(S& store, std::filesystem::path const& path) {
  detail::expect_rule("save_optimizer_states", store);
  std::vector<std::vector<std::byte>> values;
  std::vector<entry> entries;
  metadata_map metadata{{"format", std::string(detail::states_format)}, {"version", std::string(detail::states_version)}};
  auto const keys = store.keys();
  detail::key_names const name_of(keys);
  for (auto const& key : keys) {
    std::string const text = name_of(key);
    for (std::string const& name : detail::names_of_states(store, key)) {
      values.push_back(detail::bytes_of_state(store, key, name));  // moving a vector leaves its elements where they are
      entries.push_back(
          {text + "/" + name, detail::dtype_of_states(store, key), store.state_shape(key, name), values.back()});
    }
    metadata[text + "/steps"] = std::to_string(store.steps(key));
  }
  if (auto const numbers = store.carried_numbers(); !numbers.empty())
    metadata[std::string(detail::carried_entry)] = detail::text_of(numbers);
  write_safetensors(path, entries, metadata);
}

/// Reads what save_optimizer_states wrote, into a store with the same keys, shapes, rule and state types, on any number
/// of devices: its next step is the one that the saved store would have made, given the same weights and hyperparameters.
/// Keys come first: `init`, or parameter_store::materialize. Waits for the store. No other thread may use the store
/// meanwhile.
/// @throws file_error if the file is damaged or foreign, or speaks of other keys, states, shapes or types; the store then
/// holds what it held
template <OptimizerStateStore S>
void load_optimizer_states(S& store, std::filesystem::path const& path) {
  using pushpull::detail::expects;
  detail::expect_rule("load_optimizer_states", store);
  safetensors_file const file(path);
  auto const where = path.string() + ": ";
  auto const metadata = [&](std::string_view name) {
    auto const found = file.metadata().find(name);
    return found == file.metadata().end() ? std::string() : found->second;
  };
  expects<file_error>(metadata("format") == detail::states_format, [&] {
    return where + "optimizer states expected, got format " + detail::in_quotes(metadata("format"));
  });
  expects<file_error>(metadata("version") == detail::states_version, [&] {
    return where + "version " + std::string(detail::states_version) + " expected, got " +
           detail::in_quotes(metadata("version"));
  });

  auto const keys = store.keys();
  detail::key_names const name_of(keys);
  std::vector<std::int64_t> steps;
  std::vector<entry const*> states;
  std::set<std::string, std::less<>> known;
  for (auto const& key : keys) {
    std::string const text = name_of(key);
    steps.push_back(detail::steps_in(file, text + "/steps"));
    known.insert(text + "/steps");
    for (auto const& name : detail::names_of_states(store, key)) {
      entry const& e = file.find(text + "/" + name);
      std::string const dtype = detail::dtype_of_states(store, key);
      expects<file_error>(e.dtype == dtype, [&] {
        return where + "tensor " + detail::in_quotes(e.name) + ": elements of " + dtype + " expected, got " +
               detail::in_quotes(e.dtype);
      });
      expects<file_error>(e.shape == store.state_shape(key, name), [&] {
        return where + "tensor " + detail::in_quotes(e.name) + ": shape " + to_string(store.state_shape(key, name)) +
               " expected, got " + to_string(e.shape);
      });
      states.push_back(&e);
      known.insert(e.name);
    }
  }
  for (auto const& e : file.entries())
    expects<file_error>(known.contains(e.name), [&] {
      return where + "tensor " + detail::in_quotes(e.name) + ": the store has no such key or state";
    });
  for (auto const& item : file.metadata())
    expects<file_error>(known.contains(item.first) || !item.first.ends_with("/steps"), [&] {
      return where + "metadata " + detail::in_quotes(item.first) + ": the store has no such key";
    });

  auto const carried = detail::carried_in(file, store.carried_numbers().size());

  auto state = states.begin();
  for (std::size_t k = 0; k < keys.size(); ++k) {
    for (auto const& name : detail::names_of_states(store, keys[k]))
      detail::set_state_bytes(store, keys[k], name, (*state++)->bytes);
    store.set_steps(keys[k], steps[k]);
  }
  store.set_carried_numbers(carried);
}

}  // namespace pushpull::checkpoint
