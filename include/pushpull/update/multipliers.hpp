/// @file
/// A rule whose learning rate and weight decay are multiplied: what parameter groups are often made of.
#pragma once

#include <type_traits>

#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/update/ftrl.hpp>
#include <pushpull/update/pipeline.hpp>
#include <pushpull/update/scalar.hpp>
#include <pushpull/update/scheduled.hpp>
#include <pushpull/update/transform.hpp>
#include <pushpull/update/wrapper.hpp>

namespace pushpull::inline PUSHPULL_ABI::update {

namespace detail {

template <class Stage>
inline constexpr bool is_decoupled_decay = false;
template <class Rule>
inline constexpr bool is_decoupled_decay<decoupled_decay<Rule>> = true;

/// Multiplies what a stage calls its learning rate and its weight decay, scheduled or not.
struct multiply {
  double learning_rate, weight_decay;

  template <class Stage>
  static constexpr bool has_rate = requires(Stage& stage) { stage.learning_rate *= 1.0; };
  template <class Stage>
  static constexpr bool has_decay = requires(Stage& stage) { stage.weight_decay *= 1.0; };

  template <class Stage>
  void operator()(Stage& stage) const {
    if constexpr (has_rate<Stage>) stage.learning_rate *= learning_rate;
    if constexpr (has_decay<Stage>) stage.weight_decay *= weight_decay;
    if constexpr (pushpull::detail::Wrapping<Stage>) (*this)(stage.rule);
  }
  void operator()(ftrl& rule) const {
    rule.learning_rate *= learning_rate;
    rule.lambda2 *= weight_decay;
  }
  void operator()(update::weight_decay& stage) const { stage.decay *= weight_decay; }
  template <class First, class Rest>
  void operator()(pipeline<First, Rest>& pipe) const {
    (*this)(pipe.first);
    (*this)(pipe.rest);
  }
  template <class Rule>
  void operator()(decoupled_decay<Rule>& wrapper) const {
    (*this)(wrapper.rule);
    wrapper.rate *= learning_rate * weight_decay;
  }
  template <class Stage, class Hyperparameter, class Schedule>
  void operator()(scheduled<Stage, Hyperparameter, Schedule>& s) const {
    auto& holder = holder_of<Hyperparameter>(s.stage);
    auto const* const set = static_cast<void const*>(&Hyperparameter::in(holder));
    if constexpr (has_rate<decltype(holder)>)
      if (set == static_cast<void const*>(&holder.learning_rate)) s.factor *= learning_rate;
    if constexpr (has_decay<decltype(holder)>)
      if (set == static_cast<void const*>(&holder.weight_decay)) s.factor *= weight_decay;
    if constexpr (std::is_same_v<decltype(holder), ftrl&>)
      if (set == static_cast<void const*>(&holder.lambda2)) s.factor *= weight_decay;
    if constexpr (std::is_same_v<decltype(holder), update::weight_decay&>)
      if (set == static_cast<void const*>(&holder.decay)) s.factor *= weight_decay;
    if constexpr (is_decoupled_decay<std::remove_reference_t<decltype(holder)>>)
      if (set == static_cast<void const*>(&holder.rate)) s.factor *= learning_rate * weight_decay;
    (*this)(s.stage);
  }
};

}  // namespace detail

/// The rule, or every stage of the pipe, with learning rate and weight decay multiplied, also where a schedule sets them:
/// MXNet's lr_mult and wd_mult. `store.add_group(is_bias, with_multipliers(store.updater(), 2, 0))`. A rule has a learning
/// rate if it has a member `learning_rate`, a decay if it has a member `weight_decay`, and both of a rule that is its member
/// `rule`; ftrl's decay is its lambda2. Others stay as they are.
/// @throws invalid_argument on a multiplier that is negative or not finite
template <Updater Rule>
Rule with_multipliers(Rule rule, double learning_rate, double weight_decay = 1) {
  detail::expects_not_negative("with_multipliers: learning_rate", learning_rate);
  detail::expects_not_negative("with_multipliers: weight_decay", weight_decay);
  detail::multiply{learning_rate, weight_decay}(rule);
  return rule;
}

}  // namespace pushpull::update
