/// @file
/// Parameter groups from the multipliers that parameters were registered with.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/store/parameter_options.hpp>
#include <pushpull/update/multipliers.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Adds a parameter group to the store for each pair of multipliers other than 1 that parameters were registered with: their
/// rule is update::with_multipliers(rule, learning rate, weight decay). Call it again after any_store::set_optimizer, which
/// drops all groups. Over ranks all make the call.
/// @param parameters  A parameter_store. @param rule  Of the type of the store's rule: for instance its updater().
/// @throws invalid_argument on a multiplier that is negative or not finite, before any group is added
template <class Parameters, class Rule>
void add_multiplier_groups(Parameters& parameters, Rule const& rule) {
  using names = std::set<std::string, std::less<>>;
  std::map<std::pair<double, double>, names> members;
  std::pair<double, double> const plain{1, 1};
  for (parameter_info const p : parameters) {
    std::pair const multipliers{p.options.learning_rate_multiplier, p.options.weight_decay_multiplier};
    if (multipliers != plain) members[multipliers].emplace(p.name);
  }
  std::vector<std::pair<Rule, names>> groups;
  for (auto& [multipliers, own] : members)
    groups.emplace_back(update::with_multipliers(rule, multipliers.first, multipliers.second), std::move(own));
  for (auto& [changed, own] : groups)
    parameters.store().add_group(
        [own = std::move(own)](auto const& key) {
          if constexpr (requires { key.is_string(); }) {
            return key.is_string() && own.contains(std::string_view(key.string()));
          } else {
            return own.contains(std::string_view(key));
          }
        },
        changed);
}

}  // namespace pushpull
