/// @file
/// Rules of different types, and which parameters have which.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// A rule for the parameters whose names satisfy a predicate: what `where` gives.
template <Updater Rule>
struct assigned_rule {
  std::function<bool(std::string_view)> belongs;
  Rule rule;
};

/// `rules{adamw{}, where(is_bias, sgd{0.1})}`
template <Updater Rule>
assigned_rule<Rule> where(std::function<bool(std::string_view)> belongs, Rule const& rule) {
  return {std::move(belongs), rule};
}

/// Rules of different types for one store: each parameter has the last one that claims its name, or else the first.
template <Updater First, Updater... Others>
struct rules {
  std::tuple<First, Others...> values;
  std::array<std::function<bool(std::string_view)>, sizeof...(Others)> claims;

  explicit rules(First const& first, assigned_rule<Others> const&... others)
      : values(first, others.rule...), claims{others.belongs...} {
    for (auto const& claim : claims)
      detail::expects<invalid_argument>(bool{claim}, [] { return std::string("rules: a predicate is empty"); });
  }

  /// The number of the parameter's rule.
  std::size_t of(std::string_view name) const {
    for (std::size_t i = claims.size(); i > 0; --i)
      if (claims[i - 1](name)) return i;
    return 0;
  }
};

}  // namespace pushpull
