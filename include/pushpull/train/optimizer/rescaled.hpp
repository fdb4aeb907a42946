/// @file
/// A rule that takes the mean of gradients which are sums over samples.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
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

/// The rule of a store's parameter group, as it is now. @tparam Rule  The type, which an any_store has to be told.
template <class Rule, class S>
Rule rule_of_group(S const& store, std::size_t group) {
  if constexpr (requires { store.template updater<Rule>(group); }) {
    return store.template updater<Rule>(group);
  } else {
    return store.updater(group);
  }
}

/// Whether and by how much a store divides gradients.
/// @tparam Rule  The rule that the module was given, void if the store brought its own.
template <class Rule>
class sample_scale {
 public:
  using rule_type = rescaled_t<Rule>;

  explicit sample_scale(train::rescale_policy policy)
      : is_on_(policy != train::rescale_policy::none && !has_rescale<Rule>) {}

  /// In all parameter groups of the store, whose other hyperparameters stay: also in groups and rules that the user gave since the
  /// last call. Rules that have the factor are not set again. A scale is that of one store.
  template <class S>
  void set_samples(double samples, S& store) {
    if (!is_on_ || !(samples > 0)) return;
    if constexpr (!has_rescale<Rule>) {
      // Asked in each step: rules are copied only where something has changed.
      if constexpr (requires { store.rule_changes(); }) {
        bool const same = !(samples < samples_) && !(samples > samples_) && changes_ == store.rule_changes();
        if (same) return;
      }
      double const wanted = 1 / samples;
      for (std::size_t group = 0; group < store.groups(); ++group) {
        auto rule = rule_of_group<rule_type>(store, group);
        double& factor = update::get<update::rescale>(rule).factor;
        if (!(factor < wanted) && !(factor > wanted)) continue;
        factor = wanted;
        store.set_hyperparameters(rule, group);
      }
      samples_ = samples;
      if constexpr (requires { store.rule_changes(); }) changes_ = store.rule_changes();
    }
  }

 private:
  bool is_on_;
  double samples_ = 0;  // of the last call
  std::uint64_t changes_ = 0;
};
template <>
class sample_scale<void> {
 public:
  template <class S>
  void set_samples(double, S&) const {}
};

}  // namespace detail
}  // namespace pushpull
