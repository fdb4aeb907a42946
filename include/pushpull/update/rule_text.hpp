/// @file
/// The numbers of a rule as text, by name: how a process sends a rule to another.
#pragma once

#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/update/hyperparameter_list.hpp>
#include <pushpull/update/rule_description.hpp>

/// The names of members of rules and transforms that are hyperparameters with a number as value. These travel, and the server's
/// store checks them as any others.
#define PUSHPULL_HYPERPARAMETERS(number)                                                                               \
  number(learning_rate) number(weight_decay) number(momentum) number(beta1) number(beta2) number(beta) number(epsilon) \
      number(epsilon1) number(epsilon2) number(alpha) number(decay) number(rho) number(gamma) number(eta)              \
          number(lambda) number(lambda1) number(lambda2) number(dampening) number(momentum_decay) number(limit)        \
              number(factor) number(rate) number(lr_decay) number(initial_accumulator_value) number(beta3)             \
                  number(clip_exponent) number(batch) number(max_norm) number(trust_coefficient) number(lower_bound)   \
                      number(upper_bound) number(d) number(d0) number(d_coef) number(growth_rate) number(beta2_decay)  \
                          number(initial) number(growth) number(backoff) number(minimum) number(maximum)               \
                              number(shampoo_beta) number(graft_epsilon) number(a) number(b) number(c)                 \
                                  number(interval) number(max_consecutive) number(k) number(start) number(every)       \
                                      number(warmup) number(iterations) number(seed) number(wd_lh)

namespace pushpull::inline PUSHPULL_ABI::update::detail {

/// Whether a member of this type has a number that travels: not flags, which are part of what a rule is.
template <class T>
inline constexpr bool is_number =
    std::same_as<T, double> || std::same_as<T, std::int64_t> || std::same_as<T, std::uint64_t>;

/// f(name, number) for each hyperparameter of a rule, those of the first stage of a pipe first.
template <class Stage, class F>
void for_each_hyperparameter(Stage& stage, F const& f) {
#define PUSHPULL_VISIT(name)                                 \
  if constexpr (requires {                                   \
                  stage.name;                                \
                  requires is_number<decltype(Stage::name)>; \
                })                                           \
    f(std::string_view(#name), stage.name);
  PUSHPULL_HYPERPARAMETERS(PUSHPULL_VISIT)
#undef PUSHPULL_VISIT
  if constexpr (requires {
                  stage.first;
                  stage.rest;
                }) {
    for_each_hyperparameter(stage.first, f);
    for_each_hyperparameter(stage.rest, f);
  } else if constexpr (requires { stage.stage; }) {
    for_each_hyperparameter(stage.stage, f);
  } else if constexpr (requires { stage.rule; }) {
    for_each_hyperparameter(stage.rule, f);
  }
}

/// The rule's name, and a line "name value" for each of its hyperparameters.
template <class Rule>
std::string to_text(Rule rule) {
  std::string text = describe<Rule>().name + '\n';
  for_each_hyperparameter(rule, [&](std::string_view name, auto value) {
    text.append(name).append(" ").append(exact_text(value)).append("\n");
  });
  return text;
}

/// Takes the first line from a text.
inline std::string_view take_line(std::string_view& text) {
  std::size_t const end = std::min(text.find('\n'), text.size());
  std::string_view const line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

/// The rule with the hyperparameters of a text. @param call  For messages.
/// @throws invalid_argument if it is the text of another rule
template <class Rule>
Rule with_text(Rule rule, std::string_view text, std::string const& call) {
  std::string const own = describe<Rule>().name;
  std::string const came(take_line(text));
  pushpull::detail::expects<invalid_argument>(
      own == came, [&] { return call + ": the servers' rule is " + own + ", " + came + " came"; });
  for_each_hyperparameter(rule, [&]<class Number>(std::string_view name, Number& value) {
    std::string_view const line = take_line(text);
    Number number = 0;
    bool const fits = line.size() > name.size() && line.starts_with(name) && line[name.size()] == ' ';
    char const* const begin = line.data() + (fits ? name.size() + 1 : 0);
    char const* const end = line.data() + line.size();
    auto const [last, error] = std::from_chars(begin, end, number);
    pushpull::detail::expects<invalid_argument>(fits && error == std::errc() && last == end, [&] {
      return call + ": a number of " + own + " expected, " + std::string(name) + ", \"" + std::string(line) + "\" came";
    });
    value = number;
  });
  pushpull::detail::expects<invalid_argument>(text.empty(),
                                              [&] { return call + ": more numbers came than " + own + " has"; });
  return rule;
}

/// A rule as a text: its numbers, then a line for each hyperparameter that `checks` lists, flags and values of schedules included.
template <class Rule>
std::string whole_text(Rule const& rule) {
  std::string text = to_text(rule);
  for (std::string const& line : list_hyperparameters(rule)) text.append("= ").append(line).append("\n");
  return text;
}

/// A rule as `whole_text` wrote it. @param kind  Of the same type: its flags and schedules are taken.
/// @param call  For messages. @throws invalid_argument if the text is that of another type, or of other flags or schedules
template <class Rule>
Rule rule_of_text(Rule const& kind, std::string_view text, std::string const& call = "set_optimizer") {
  std::size_t const numbers = std::min(text.find("\n= "), text.size());
  std::size_t const end = std::min(numbers + 1, text.size());
  Rule const rule = with_text(kind, text.substr(0, end), call);
  text.remove_prefix(end);
  for (std::string const& own : list_hyperparameters(rule)) {
    std::string_view const line = take_line(text);
    pushpull::detail::expects<invalid_argument>(line.starts_with("= ") && line.substr(2) == own, [&] {
      return call + ": the servers take " + describe<Rule>().name + " with \"" + own + "\", \"" +
             std::string(line.substr(std::min<std::size_t>(2, line.size()))) + "\" came";
    });
  }
  pushpull::detail::expects<invalid_argument>(
      text.empty(), [&] { return call + ": more hyperparameters came than " + describe<Rule>().name + " has"; });
  return rule;
}

}  // namespace pushpull::update::detail

#undef PUSHPULL_HYPERPARAMETERS
