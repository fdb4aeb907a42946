/// @file
/// Hyperparameters that can never be right are refused with the rule's and the parameter's name; the others are taken.
#include <cmath>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <set>
#include <string>
#include <string_view>
#include <tuple>

#include "support/catch.hpp"

namespace update = pushpull::update;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

/// The rule is refused, and the message begins with `name`.
template <class Rule>
void refused(Rule const& rule, std::string const& name) {
  try {
    rule.validate();
    FAIL(name << " was taken");
  } catch (pushpull::invalid_argument const& error) {
    INFO(error.what());
    REQUIRE(std::string(error.what()).starts_with(name + ": "));
  }
}

/// Rules with Adam's four hyperparameters.
template <class Rule>
void adaptive(std::string const& name) {
  Rule{}.validate();
  for (double const wrong : {-1e-3, not_a_number, infinity})
    refused(Rule{.learning_rate = wrong}, name + ": learning_rate");
  for (double const wrong : {-0.1, 1.0, not_a_number}) {
    refused(Rule{.beta1 = wrong}, name + ": beta1");
    refused(Rule{.beta2 = wrong}, name + ": beta2");
  }
  refused(Rule{.epsilon = -1e-8}, name + ": epsilon");
}

/// Every number that a rule checks travels to servers, and arrives.
template <class Rule>
void travels(Rule const& rule) {
  std::set<std::string> sent;
  Rule changed = rule;
  update::detail::for_each_hyperparameter(changed, [&]<class Number>(std::string_view name, Number& value) {
    sent.emplace(name);
    value = static_cast<Number>(value + 1);
  });
  for (std::string const& text : update::list_hyperparameters(rule)) {
    auto const name = text.find(": ") + 2;
    auto const value = text.find(' ', name) + 1;
    if (text.find(" in update ") != std::string::npos || text.ends_with(" true") || text.ends_with(" false")) continue;
    INFO(text);
    REQUIRE(sent.contains(text.substr(name, value - 1 - name)));
  }
  REQUIRE(update::detail::to_text(update::detail::rule_of_text(rule, update::detail::whole_text(changed))) ==
          update::detail::to_text(changed));
}

}  // namespace

TEST_CASE("every number of a rule travels as text, and nothing else changes", "[update]") {
  std::apply(
      [](auto const&... rules) { (travels(rules), ...); },
      std::tuple<update::sgd, update::momentum, update::nesterov, update::adagrad, update::adadelta, update::rmsprop,
                 update::centered_rmsprop, update::adam, update::adamw, update::amsgrad, update::adamax, update::nadam,
                 update::radam, update::adabelief, update::yogi, update::ftml, update::ftrl, update::ademamix,
                 update::adopt, update::adan, update::mars, update::adam_mini, update::sophia_g, update::prodigy,
                 update::dadapt_adam, update::schedule_free_sgd, update::schedule_free_adamw, update::adafactor,
                 update::lamb, update::lans, update::lars, update::lion, update::signsgd, update::signum, update::sgld,
                 update::dcasgd, update::group_adagrad>{});
  travels(update::clip_norm(1) | update::clip_value(2) | update::add_noise(0.5) | update::sgd{} | update::ema(0.9));
  travels(update::dynamic_loss_scale{} | update::apply_if_finite{} | update::clip_global_norm(1) | update::adam{} |
          update::lookahead(5, 0.5) | update::swa(2, 3));
  travels(update::clip_weights{update::decoupled_decay{update::sgd{}, 0.1}, 3});
  auto const scheduled = [](double rate) {
    return update::sgd{} | update::learning_rate(pushpull::lr_schedule::constant{rate});
  };
  travels(scheduled(1));
  REQUIRE_THROWS_AS(update::detail::rule_of_text(scheduled(1), update::detail::whole_text(scheduled(2))),
                    pushpull::invalid_argument);
  REQUIRE_THROWS_AS(update::detail::rule_of_text(update::prodigy{},
                                                 update::detail::whole_text(update::prodigy{.correct_bias = true})),
                    pushpull::invalid_argument);
}

TEST_CASE("multipliers of a scheduled decay, and one origin per refused value", "[update]") {
  pushpull::lr_schedule::constant const one{1}, wrong{-1};
  auto const ftrl = update::ftrl{} | update::hyperparameter<&update::ftrl::lambda2>(one);
  REQUIRE(update::with_multipliers(ftrl, 1, 0.25).at(1).lambda2 == 0.25);
  REQUIRE(update::with_multipliers(ftrl, 0.25, 1).at(1).lambda2 == 1);
  auto const twice =
      update::lamb{} | update::hyperparameter<&update::lamb::epsilon>(wrong) | update::learning_rate(one);
  try {
    twice.validate();
    FAIL("taken");
  } catch (pushpull::invalid_argument const& error) {
    std::string const text = error.what();
    REQUIRE(text.find("from a schedule") == text.rfind("from a schedule"));
  }
}

TEST_CASE("every rule refuses what its formula cannot use", "[update]") {
  adaptive<update::adam>("adam");
  adaptive<update::adamw>("adamw");
  adaptive<update::amsgrad>("amsgrad");
  adaptive<update::adamax>("adamax");
  adaptive<update::nadam>("nadam");
  adaptive<update::radam>("radam");
  adaptive<update::adabelief>("adabelief");
  adaptive<update::yogi>("yogi");
  adaptive<update::ftml>("ftml");
  adaptive<update::ademamix>("ademamix");
  adaptive<update::adopt>("adopt");
  adaptive<update::adan>("adan");
  adaptive<update::mars>("mars");
  adaptive<update::adam_mini>("adam_mini");
  adaptive<update::sophia_g>("sophia_g");
  adaptive<update::prodigy>("prodigy");
  adaptive<update::dadapt_adam>("dadapt_adam");
  adaptive<update::schedule_free_adamw>("schedule_free_adamw");
  refused(update::nadam{.momentum_decay = -1}, "nadam: momentum_decay");
  refused(update::adafactor{.beta2_decay = 0.1}, "adafactor: beta2_decay");
  refused(update::adafactor{.d = 0.9}, "adafactor: d");
  refused(update::ademamix{.beta3 = 1}, "ademamix: beta3");
  refused(update::ademamix{.warmup = -1}, "ademamix: warmup");
  refused(update::adopt{.clip_exponent = 1.5}, "adopt: clip_exponent");
  refused(update::adan{.beta3 = -0.5}, "adan: beta3");
  refused(update::mars{.gamma = -1}, "mars: gamma");
  refused(update::sophia_g{.interval = 0}, "sophia_g: interval");
  refused(update::sophia_g{.rho = -1}, "sophia_g: rho");
  refused(update::sgd{-1} | update::cautious(), "sgd: learning_rate");
  refused(update::sgd{-1} | update::centralize_change(), "sgd: learning_rate");
  refused(update::prodigy{.d0 = 0}, "prodigy: d0");
  refused(update::prodigy{.growth_rate = 0.5}, "prodigy: growth_rate");
  refused(update::dadapt_adam{.d0 = 0}, "dadapt_adam: d0");
  refused(update::schedule_free_sgd{.momentum = 1}, "schedule_free_sgd: momentum");
  refused(update::schedule_free_adamw{.warmup = -1}, "schedule_free_adamw: warmup");
  refused(update::lamb{.lower_bound = 2, .upper_bound = 1}, "lamb: upper_bound");
  refused(update::ftml{.epsilon = 0}, "ftml: epsilon");
  for (double const wrong : {-1.0, not_a_number}) {
    refused(update::signsgd{.learning_rate = wrong}, "signsgd: learning_rate");
    refused(update::signsgd{.weight_decay = wrong}, "signsgd: weight_decay");
    refused(update::signum{.momentum = wrong}, "signum: momentum");
    refused(update::lion{.beta2 = wrong}, "lion: beta2");
    refused(update::adagrad{.lr_decay = wrong}, "adagrad: lr_decay");
    refused(update::adagrad{.initial_accumulator_value = wrong}, "adagrad: initial_accumulator_value");
    refused(update::rmsprop{.alpha = wrong}, "rmsprop: alpha");
    refused(update::centered_rmsprop{.epsilon = wrong}, "rmsprop: epsilon");
    refused(update::scale_by_rms{.alpha = wrong}, "rmsprop: alpha");
    refused(update::scale_by_centered_rms{.alpha = wrong}, "rmsprop: alpha");
    refused(update::adadelta{.rho = wrong}, "adadelta: rho");
    refused(update::dcasgd{.lambda = wrong}, "delay_compensation: lambda");
    refused(update::ftrl{.lambda1 = wrong}, "ftrl: lambda1");
    refused(update::ftrl{.beta = wrong}, "ftrl: beta");
    refused(update::sgld{.learning_rate = wrong}, "sgld: learning_rate");
    refused(update::clip_weights{update::sgd{}, wrong}, "clip_weights: limit");
    refused(update::decoupled_decay{update::sgd{}, wrong}, "decoupled_decay: rate");
    refused(update::sgd{} | update::ema(wrong), "ema: decay");
    refused(update::lookahead{update::sgd{}, 5, wrong}, "lookahead: alpha");
    REQUIRE_THROWS_AS(update::trace(wrong), pushpull::invalid_argument);
    REQUIRE_THROWS_AS(update::add_noise(wrong), pushpull::invalid_argument);
    REQUIRE_THROWS_AS(update::add_noise(1, wrong), pushpull::invalid_argument);
    REQUIRE_THROWS_AS(update::clip_value(wrong), pushpull::invalid_argument);
  }
  refused(update::sgd{} | update::lookahead(0), "lookahead: k");
  refused(update::sgd{} | update::lookahead(5, 0), "lookahead: alpha");
  refused(update::sgd{} | update::swa(0), "swa: start");
  refused(update::sgd{} | update::swa(std::int64_t{0}, 1), "swa: start");
  refused(update::sgd{} | update::swa(1, 0), "swa: every");
  refused(update::sgd{-1} | update::lookahead(5), "sgd: learning_rate");
  refused(update::clip_norm(1) | update::sgd{-1} | update::ema(0.9), "sgd: learning_rate");
  refused(update::sgd{1e300}, "sgd: learning_rate");  // infinite in float
  refused(update::decoupled_decay{update::sgd{-1}, 0}, "sgd: learning_rate");
  refused(update::clip_weights{update::sgd{-1}, 1}, "sgd: learning_rate");
  update::clip_value(infinity).validate();
}

TEST_CASE("a store refuses them too, in pipes and in other libraries' forms", "[update]") {
  auto const devices = pushpull::cpu_devices(1);
  REQUIRE_THROWS_AS((pushpull::kv_store{devices, pushpull::compat::mxnet1::adam({.beta1 = 1})}),
                    pushpull::invalid_argument);
  REQUIRE_THROWS_AS(pushpull::compat::mxnet1::sgd({.wd = -1}), pushpull::invalid_argument);
}

TEST_CASE("nadam's product of momenta is that of its factors, at any step", "[update]") {
  for (double const rate : {0.0, 1e-9, 1.6e-4, 0.04, 3.0}) {
    long double sum = 0;
    std::int64_t t = 0;
    for (std::int64_t const last : {1, 2, 10, 1000, 100000}) {
      while (t < last) {
        ++t;
        sum += std::log(1 - 0.5L * std::exp(-static_cast<long double>(rate) * static_cast<long double>(t)));
      }
      INFO(rate << " at step " << t);
      REQUIRE(update::detail::log_warming_product(rate, t) == Approx(static_cast<double>(sum)).epsilon(1e-14));
    }
  }
}
