/// @file
/// The hyperparameters of a rule and their values, as texts that ranks compare.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/update/checks.hpp>
#include <pushpull/update/rule_description.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

namespace detail {

/// The shortest text that no other value has.
template <class T>
std::string exact_text(T value) {
  if constexpr (std::same_as<T, bool>) {
    return value ? "true" : "false";
  } else {
    std::array<char, 32> text{};
    return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
  }
}

/// Lists what a rule checks.
struct lists : checks<lists> {
  using checks<lists>::in;

  void in(char const* rule, char const* name, double value, interval const&) {
    texts.push_back(std::string(rule) + name + ' ' + exact_text(value));
  }
  template <class T>
  void any(char const* name, T value) {
    texts.push_back(std::string(name) + ' ' + exact_text(value));
  }
  /// A stage inside; a scheduled one as it is in the first update, and then the values of the schedule.
  template <class Stage>
  void stage(Stage const& inside) {
    if constexpr (requires {
                    inside.schedule(std::int64_t{1});
                    inside.at(std::int64_t{1});
                    inside.factor;
                  }) {
      if constexpr (noexcept(inside.schedule(std::int64_t{1}))) {  // else it may be a caller's that counts its calls
        stage(inside.at(1));
        samples(identifier<decltype(inside.schedule)>(),
                [&](std::int64_t t) { return inside.factor * inside.schedule(t); });
      } else {
        stage(inside.stage);
      }
    } else if constexpr (requires { inside.check(*this); }) {
      inside.check(*this);
    }
  }

  std::vector<std::string> texts;

 private:
  /// Of the first updates, and of some 170 up to number 10^7.
  template <class Schedule>
  void samples(std::string_view name, Schedule const& schedule) {
    for (std::int64_t t = 2; t <= 10'000'000; t += std::max<std::int64_t>(1, t / 11))
      texts.push_back(std::string(name) + ' ' + exact_text(schedule(t)) + " in update " + std::to_string(t));
  }
};

}  // namespace detail

/// The hyperparameters of a rule, those that its `check` names, each with its value: "adam: learning_rate 0.001". Of a schedule
/// that is noexcept, values in many updates, not in all; of others none.
template <class Rule>
std::vector<std::string> list_hyperparameters(Rule const& rule) {
  detail::lists all;
  all.stage(rule);
  return std::move(all.texts);
}

}  // namespace pushpull::update
