/// @file
/// The names of rules and stages in files.
#pragma once

#include <concepts>
#include <string_view>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// The name of a rule or of a stage of a pipe in checkpoints, the same for every compiler and version. The library's
/// own have one each. A rule of yours gives its own: `static constexpr std::string_view name = "my_rule"`; a class
/// that inherits the member shares the name. Empty where there is none: see `describe`.
template <class Stage>
inline constexpr std::string_view rule_name = [] {
  if constexpr (requires {
                  { Stage::name } -> std::convertible_to<std::string_view>;
                }) {
    return std::string_view(Stage::name);
  } else {
    return std::string_view();
  }
}();

}  // namespace pushpull::update
