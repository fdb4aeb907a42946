/// @file
/// The name of a rule, pipe included, and the stages that keep states or values: checkpoints compare them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/rule_name.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

/// A rule in words.
struct rule_description {
  /// The persistent values of a stage among those of the rule.
  struct carried_range {
    std::string stage;  ///< Of several stages of one name the second is "name.2".
    std::size_t first, count;
  };

  std::string name;      ///< All stages: "dynamic_loss_scale|clip_global_norm|ema(adam)".
  std::string stateful;  ///< Those with states of each key: "ema(adam)".
  std::vector<carried_range> carried;
};

namespace detail {

/// The type's identifier, without namespaces and template arguments, as every compiler spells it.
template <class T>
constexpr std::string_view identifier() {
  std::string_view text = __PRETTY_FUNCTION__;  // "... identifier() [with T = a::b<c>; std::string_view = ...]"
  std::size_t const spaced = text.find("T = ");
  text.remove_prefix(spaced != text.npos ? spaced + 4 : text.find("T=") + 2);
  std::size_t begin = 0, end = 0, arguments = text.npos;
  for (int depth = 0; end < text.size(); ++end) {
    char const c = text[end];
    if (c == '<' || c == '(' || c == '{') {  // also of unnamed namespaces and of functions
      if (depth++ == 0 && c == '<') arguments = end;
    } else if (c == '>' || c == ')' || c == '}') {
      --depth;
    } else if (depth == 0) {
      if (c == ';' || c == ',' || c == ']') break;
      if (c == ':' || c == ' ') {
        begin = end + 1;
        arguments = text.npos;
      }
    }
  }
  return text.substr(begin, std::min(arguments, end) - begin);
}

/// The part of a name that a stage adds. A type that gives no name has that of its class, and its states: such names
/// do not collide with the library's.
template <class Stage>
std::string own_name() {
  if constexpr (!rule_name<Stage>.empty()) {
    return std::string(rule_name<Stage>);
  } else {
    std::string text = std::string(identifier<Stage>()) + "{";
    for (std::string_view const state : pushpull::detail::all_state_names<Stage>)
      text.append(text.ends_with('{') ? "" : ",").append(state);
    return text + "}";
  }
}

template <class Stage>
inline constexpr std::size_t all_states = pushpull::detail::all_state_names<Stage>.size();

/// @param first  The place of the stage's numbers among those of the whole rule.
template <class Stage>
rule_description describe_at(std::size_t first) {
  if constexpr (requires {
                  Stage::behind;
                  &Stage::first;
                  &Stage::rest;
                }) {
    auto all = describe_at<decltype(Stage::first)>(first);
    auto const rest = describe_at<decltype(Stage::rest)>(first + Stage::behind);
    all.name += '|' + rest.name;
    all.stateful.append(all.stateful.empty() || rest.stateful.empty() ? "" : "|").append(rest.stateful);
    all.carried.insert(all.carried.end(), rest.carried.begin(), rest.carried.end());
    return all;
  } else if constexpr (requires {
                         requires pushpull::detail::Wrapping<Stage>;
                         &Stage::stage;
                       }) {
    return describe_at<typename Stage::wraps>(first);  // a schedule is a hyperparameter
  } else if constexpr (pushpull::detail::Wrapping<Stage>) {
    auto inner = describe_at<typename Stage::wraps>(first);
    inner.name = own_name<Stage>() + '(' + inner.name + ')';
    if constexpr (all_states<Stage> > all_states<typename Stage::wraps>)
      inner.stateful = own_name<Stage>() + '(' + inner.stateful + ')';
    return inner;
  } else {
    rule_description own{own_name<Stage>(), all_states<Stage> > 0 ? own_name<Stage>() : "", {}};
    if constexpr (pushpull::detail::Carries<Stage>)
      own.carried.push_back({own.name, first, pushpull::detail::sum_count<pushpull::detail::sums_t<Stage>>});
    return own;
  }
}

}  // namespace detail

/// Says what `Rule` is called in files. A type without a name of its own (see `rule_name`) is called by the identifier
/// of its class, without namespaces and template arguments, and its states: "my_rule{exp_avg}". Schedules are
/// hyperparameters and have no part in it.
template <class Rule>
rule_description describe() {
  auto result = detail::describe_at<Rule>(0);
  for (std::size_t i = result.carried.size(); i-- > 0;) {
    auto const before = std::count_if(result.carried.begin(), result.carried.begin() + static_cast<std::ptrdiff_t>(i),
                                      [&](auto const& c) { return c.stage == result.carried[i].stage; });
    if (before > 0) result.carried[i].stage += "." + std::to_string(before + 1);
  }
  return result;
}

}  // namespace pushpull::update
