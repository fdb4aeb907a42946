/// @file
/// Options that take one of some names.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <string>

namespace train_classifier::detail {

/// An option `name` that sets `target` to one of `choices`.
template <class Enum>
CLI::Option* add_choice(CLI::App& app, std::string const& name, Enum& target,
                        std::map<std::string, Enum> const& choices, std::string const& description) {
  std::string names;
  for (auto const& choice : choices) names += (names.empty() ? "" : "|") + choice.first;
  auto const choose = [&target, choices, names, name](std::string const& value) {
    auto const found = choices.find(value);
    if (found == choices.end()) throw CLI::ValidationError{name, value + " is not one of " + names};
    target = found->second;
  };
  return app.add_option_function<std::string>(name, choose, description)->type_name(names);
}

/// The text without its line ends.
inline std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace train_classifier::detail
