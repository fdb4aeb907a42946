/// @file
/// A rule that takes the mean of gradients which are sums over samples.
#pragma once

#include <concepts>
#include <optional>
#include <utility>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/pipeline.hpp>
#include <pushpull/update/transform.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace train {

/// Which number of samples a step divides gradients by.
enum class rescale_policy {
  current_batch,  ///< Those of the batch that was trained.
  bound_batch,    ///< Those of the batch that the module was bound for, also for smaller ones: as MXNet does.
  none            ///< None: the rule gets sums.
};

}  // namespace train

namespace detail {

template <class Rule>
inline constexpr bool has_rescale = [] {
  if constexpr (requires { update::detail::has_stage<update::rescale, Rule>; }) {
    return bool{update::detail::has_stage<update::rescale, Rule>};
  } else {
    return false;
  }
}();

/// The rule behind a stage `rescale`, unless it has one of its own, which stays as it is.
template <class Rule>
auto rescaled(Rule const& rule) {
  if constexpr (has_rescale<Rule>) {
    return rule;
  } else {
    return update::operator|(update::rescale(1), rule);
  }
}
template <class Rule>
using rescaled_t = decltype(rescaled(std::declval<Rule const&>()));

/// The learning rate of a rule, if it has one.
template <class Rule>
std::optional<double> learning_rate_of(Rule const& rule) {
  if constexpr (requires {
                  { rule.learning_rate } -> std::convertible_to<double>;
                }) {
    return rule.learning_rate;
  } else if constexpr (requires { rule.rest; }) {
    return learning_rate_of(rule.rest);
  } else {
    return std::nullopt;
  }
}

/// Where and by how much a store divides gradients.
template <class Rule>
class sample_scale {
 public:
  sample_scale(rescaled_t<Rule> rule, train::rescale_policy policy)
      : rule_(std::move(rule)), is_on_(policy != train::rescale_policy::none && !has_rescale<Rule>) {}

  rescaled_t<Rule> const& rule() const { return rule_; }
  std::optional<double> learning_rate() const { return learning_rate_of(rule_); }
  /// set(rule) if the number of samples has changed. @returns whether it has
  template <class Set>
  bool set_samples(double samples, Set const& set) {
    if (!is_on_ || !(samples > 0)) return false;
    if constexpr (!has_rescale<Rule>) {
      auto& factor = update::get<update::rescale>(rule_).factor;
      if (!(factor < 1 / samples) && !(factor > 1 / samples)) return false;
      auto const before = factor;
      factor = 1 / samples;
      try {
        set(std::as_const(rule_));
      } catch (...) {
        factor = before;
        throw;
      }
    }
    return true;
  }

 private:
  rescaled_t<Rule> rule_;
  bool is_on_;
};
/// Of a store with a rule of its own.
template <>
class sample_scale<void> {
 public:
  static std::optional<double> learning_rate() { return std::nullopt; }
  template <class Set>
  bool set_samples(double, Set const&) {
    return false;
  }
};

}  // namespace detail
}  // namespace pushpull
