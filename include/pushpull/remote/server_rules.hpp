/// @file
/// The rules of a server's store: its own, or one that workers choose.
#pragma once

#include <cstddef>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/update/rule_description.hpp>
#include <pushpull/update/rule_text.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

namespace detail {

/// A server knows neither the other keys of a step nor the shapes of matrices.
template <class Rule>
concept UpdatesKeysAlone = !pushpull::detail::sums_over_keys<Rule> && pushpull::detail::factored_count<Rule> == 0;

/// Whether the rule adds up over a tensor, of which servers then have all or nothing.
template <class Rule>
inline constexpr bool needs_whole_keys = PreReduction<Rule>;

}  // namespace detail

/// The rules out of which workers choose one for the servers, with their flags and schedules: `optimizers{update::sgd{},
/// update::adam{}}`. Numbers are those of the worker.
template <class Rule, class... Rules>
struct optimizers {
  static_assert(detail::UpdatesKeysAlone<Rule> && (detail::UpdatesKeysAlone<Rules> && ...),
                "optimizers: a rule needs sums over all keys (PreReduction) or the rows and columns of matrices "
                "(Factored), and a server has keys one by one, without their shapes");

  optimizers() = default;
  explicit optimizers(Rule const& first, Rules const&... others) : rules(first, others...) {}

  std::tuple<Rule, Rules...> rules;
};

namespace detail {

/// The rule that is part of a kv_store's type.
template <class Store>
class own_rule {
  static_assert(UpdatesKeysAlone<typename Store::updater_type>,
                "server: the rule needs sums over all keys (PreReduction) or the rows and columns of matrices "
                "(Factored), and a server has keys one by one, without their shapes");

 public:
  explicit own_rule(Store& store) : store_(store) {}

  static constexpr bool whole_keys = needs_whole_keys<typename Store::updater_type>;
  static constexpr bool has_updater() { return Store::has_updater; }

  /// f(rule_at), where rule_at(group) is the rule of a parameter group. @throws invalid_argument if there is no rule
  template <class F>
  void with_rule(char const* call, [[maybe_unused]] F const& f) {
    if constexpr (has_updater()) {
      f([&](std::size_t group) { return store_.updater(group); });
    } else {
      throw invalid_argument(std::string(call) + ": the servers' store has no rule");
    }
  }
  template <class F>
  [[noreturn]] bool set_optimizer(std::string_view, F const&) {
    throw invalid_argument(
        "set_optimizer: the servers' rule is part of their program: set_hyperparameters changes its numbers, and "
        "servers with remote::optimizers let workers choose one");
  }

 private:
  Store& store_;
};

/// The rule of an any_store, which workers choose.
template <class Store, class... Rules>
class chosen_rule {
 public:
  chosen_rule(Store& store, optimizers<Rules...> kinds) : store_(store), kinds_(std::move(kinds)) {
    if (!store_.has_updater()) return;
    any_rule([&]<class Rule>(std::size_t number, Rule const&) {
      try {
        static_cast<void>(store_.template updater<Rule>());
      } catch (invalid_argument const&) {
        return false;
      }
      present_ = number;
      return true;
    });
  }

  static constexpr bool whole_keys = (needs_whole_keys<Rules> || ...);
  bool has_updater() const { return store_.has_updater(); }

  template <class F>
  void with_rule(char const* call, F const& f) {
    bool const found = any_rule([&](std::size_t number, auto const& kind) {
      using rule = std::remove_cvref_t<decltype(kind)>;
      if (number != present_) return false;
      f([&](std::size_t group) { return store_.template updater<rule>(group); });
      return true;
    });
    if (!found)
      throw invalid_argument(std::string(call) + ": the servers' store has no rule before a worker's set_optimizer");
  }
  /// @param expect  expect(rule) throws if the store cannot have this rule's numbers. Called before numbers change.
  /// @returns whether the store has got another rule: else it has other numbers
  template <class F>
  bool set_optimizer(std::string_view text, F const& expect) {
    std::string const name(text.substr(0, text.find('\n')));
    std::string names;
    std::exception_ptr failed;
    bool replaced = false;
    bool const done = any_rule([&]<class Rule>(std::size_t number, Rule const& kind) {
      std::string const own = update::describe<Rule>().name;
      names.append(names.empty() ? "" : ", ").append(own);
      if (own != name) return false;
      std::optional<Rule> rule;
      try {
        rule = update::detail::rule_of_text(kind, text);
      } catch (invalid_argument const&) {  // there may be one of the same name with other flags
        failed = std::current_exception();
        return false;
      }
      replaced = number != present_;
      if (replaced) {
        store_.set_optimizer(*rule);
      } else {
        expect(*rule);
        store_.set_hyperparameters(*rule);
      }
      present_ = number;
      return true;
    });
    if (!done && failed) std::rethrow_exception(failed);
    pushpull::detail::expects<invalid_argument>(done, [&] {
      return "set_optimizer: a rule of the servers expected (" + names + "), " + name.substr(0, 80) + " came";
    });
    return replaced;
  }

 private:
  /// Whether f(number, kind) is true for one of the rules; further ones are not tried.
  template <class F>
  bool any_rule(F const& f) const {
    return std::apply(
        [&](Rules const&... kinds) {
          std::size_t number = 0;
          return (f(number++, kinds) || ...);
        },
        kinds_.rules);
  }

  Store& store_;
  optimizers<Rules...> kinds_;
  std::size_t present_ = sizeof...(Rules);
};

}  // namespace detail
}  // namespace pushpull::remote
