/// @file
/// Sets of names: a regular expression or a predicate.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <regex>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// The names that an initializer or a monitor is for. A text is an ECMAScript regular expression that a name has to begin
/// with: "fc" has "fc1.weight", and ".*bias" all names with "bias". A predicate takes a std::string_view.
class name_pattern {
 public:
  /// @throws invalid_argument if the text is no regular expression
  name_pattern(std::string_view text) : contains_(of_text(text)) {}
  name_pattern(char const* text) : name_pattern(std::string_view(text)) {}
  name_pattern(std::string const& text) : name_pattern(std::string_view(text)) {}
  template <class F>
    requires(!std::convertible_to<F const&, std::string_view> && !std::same_as<F, name_pattern> &&
             std::predicate<F const&, std::string_view>)
  name_pattern(F predicate) : contains_(std::move(predicate)) {}

  bool contains(std::string_view name) const { return contains_(name); }

 private:
  static std::function<bool(std::string_view)> of_text(std::string_view text) {
    try {
      std::regex const expression(text.begin(), text.end());
      return [expression](std::string_view name) {
        return std::regex_search(name.begin(), name.end(), expression, std::regex_constants::match_continuous);
      };
    } catch (std::regex_error const& error) {
      throw invalid_argument("name_pattern: \"" + std::string(text) + "\" is no regular expression: " + error.what());
    }
  }

  std::function<bool(std::string_view)> contains_;
};

}  // namespace pushpull::train
