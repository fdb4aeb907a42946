/// @file
/// How the ranges of a call become its keys and tensors.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ranges>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Where a call takes no tensors of a kind.
struct no_tensors {};
struct no_list {};
inline constexpr no_list none_listed;

/// An argument that can be traversed more than once.
template <class R>
concept Repeatable = TensorLike<R> || std::ranges::forward_range<R>;

/// "1 gradient", "2 gradients", "3 tensors of row ids": `what` in the plural unless there is one.
inline std::string counted(std::size_t count, std::string what) {
  if (count != 1) what.insert(std::min(what.find(' '), what.size()), "s");
  return std::to_string(count) + " " + what;
}

/// Elements of a list, for a message. A range without a size may have no end: more than the elements seen are not counted.
/// @param seen  Elements up to the place where the lists were compared. @param more  Whether there is another one.
template <class R>
std::string counted(R& range, std::size_t seen, bool more, char const* what) {
  if constexpr (std::ranges::forward_range<R> && std::ranges::sized_range<R>) {
    return counted(static_cast<std::size_t>(std::ranges::size(range)), what);
  } else {
    return (more ? "more than " : "") + counted(seen, what);
  }
}

/// @throws shape_mismatch unless there are as many elements as keys: "push: 3 keys, 2 gradients"
inline void expect_count(char const* call, std::size_t keys, std::size_t count, char const* what) {
  expects<shape_mismatch>(
      keys == count, [&] { return std::string(call) + ": " + counted(keys, "key") + ", " + counted(count, what); });
}

/// @param keys, others  Counted, in words.
[[noreturn]] inline void raise_counts(std::string const& call, std::string const& keys, std::string const& others) {
  throw shape_mismatch(call + ": " + keys + ", " + others);
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

/// @throws invalid_argument unless a number of steps, or of micro-batches, is one
template <class View>
void expect_a_count(char const* call, View key, std::int64_t count) {
  expects<invalid_argument>(count >= 0 && count <= max_steps, [&] {
    return std::string(call) + ": " + key_text(key) + ": a count of 0 to " + std::to_string(max_steps) +
           " expected, got " + std::to_string(count);
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

/// Walks along a range beside the keys; where there is none, yields nothing for ever.
template <class R>
class companion {
 public:
  companion(char const* what, R& range)
      : what_(what), range_(range), next_(std::ranges::begin(range)), end_(std::ranges::end(range)) {}
  decltype(auto) operator*() const { return *next_; }
  auto const& place() const { return next_; }
  void operator++() {
    ++next_;
    ++seen_;
  }
  bool at_end() const { return next_ == end_; }
  std::size_t seen() const { return seen_; }
  std::string count() const { return counted(range_, seen_, !at_end(), what_); }

 private:
  char const* what_;
  R& range_;
  std::ranges::iterator_t<R> next_;
  std::ranges::sentinel_t<R> end_;
  std::size_t seen_ = 0;
};
template <class R>
  requires std::same_as<R, no_list const>
class companion<R> {
 public:
  companion(char const*, no_list const&) {}
  no_tensors operator*() const { return {}; }
  void operator++() {}
};

/// f(key, element...) for each key of a list and the elements beside it.
/// @throws shape_mismatch where a range has fewer or more elements than the list has keys: "push: 3 keys, 2 gradients";
/// invalid_argument on a list without keys
template <class Keys, class F, class... R>
void for_each_entry(char const* call, Keys& keys, F const& f, companion<R>... beside) {
  companion<Keys> key("key", keys);
  auto const expect = [&](auto const& range, bool more) {
    if constexpr (requires { range.at_end(); })
      if (more == range.at_end()) raise_counts(call, key.count(), range.count());
  };
  for (; !key.at_end(); ++key, (++beside, ...)) {
    (expect(beside, true), ...);
    f(*key, beside...);
  }
  (expect(beside, false), ...);
  expect_keys(call, key.seen() > 0);
}

/// Checks the shapes of a broadcast: those of each key's outputs are its value's.
template <class Value, class Outputs, class View>
void expect_outputs_like(View key, Value const& value, Outputs& outputs) {
  for_each_tensor(outputs,
                  [&](auto const& output) { expect_shape("broadcast", key, view_of(value).shape(), output.shape()); });
}
template <class View, class Keys, class Values, class Outputs>
void expect_outputs_like_each(Keys& keys, Values& values, Outputs& outputs) {
  for_each_entry(
      "broadcast", keys,
      [](auto&& key, auto const& value, auto const& output) {
        auto&& filled = *output;
        expect_outputs_like(View(key), *value, filled);
      },
      companion<Values>("value", values), companion<Outputs>("output", outputs));
}

}  // namespace pushpull::detail
