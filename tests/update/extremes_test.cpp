/// @file
/// Hyperparameters at the ends of their ranges and gradients at the ends of float's: refused by name, or no NaN anywhere.
#include <cmath>
#include <cstdint>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "update/rule_runner.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
namespace compat = pushpull::compat;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

/// What each hyperparameter is set to.
constexpr double extremes[] = {
    not_a_number,         infinity, -infinity, -1, 0,    -0.0, 1e-300, 1e-45, 1e-39, 1e-30, 1e-16, 0.5, 1 - 1e-10,
    0x1.fffffffffffffp-1, 1,        1 + 1e-6,  2,  1e300};
/// Factors of the largest gradient, which is at most 1e30.
constexpr double gradients[] = {0, 1e-74, 1e-60, 1e-30, -1, 1};

/// A hyperparameter of `Rule` and its name.
template <class Rule>
struct member {
  std::string name;
  double& (*in)(Rule&);
};

template <class T, class Stored, class Rule>
void has_no_nan(Rule const& rule, double largest) {
  std::vector<double> const weight{0, 1, -0.5, 1e-30, 100};
  for (double const first : gradients)
    for (double const second : gradients) {
      pp::test::rule_runner<T, Stored, Rule> runner(rule, weight, 1);
      for (int t = 0; t < 3; ++t) {
        runner.step(std::vector<double>(weight.size(), largest * (t == 1 ? second : first)));
        for (std::size_t s = 0; s < runner.states + 1; ++s)
          for (double const x : runner.values(s)) {
            INFO("gradients " << first << ", " << second << ", step " << t + 1 << ", state " << s << " of "
                              << runner.states);
            if (std::isnan(x)) FAIL("NaN");
          }
      }
    }
}

template <class Rule>
void at_extremes(std::string const& name, Rule const& rule, std::vector<member<Rule>> const& members,
                 double largest = 1e30) {
  INFO(name);
  has_no_nan<float, float>(rule, largest);
  has_no_nan<double, double>(rule, largest);
  int refused = 0;
  for (auto const& [member, in] : members)
    for (double const value : extremes) {
      INFO(member << " = " << value);
      Rule changed = rule;
      in(changed) = value;
      try {
        changed.validate();
      } catch (pp::invalid_argument const& error) {
        std::string const text = error.what();
        INFO(text);
        REQUIRE(text.find(": a value in ") != std::string::npos);
        REQUIRE(text.find(member) != std::string::npos);
        REQUIRE_FALSE(update::detail::is_valid(changed));
        ++refused;
        continue;
      }
      REQUIRE(update::detail::is_valid(changed));
      has_no_nan<float, float>(changed, largest);
      has_no_nan<double, double>(changed, largest);
    }
  REQUIRE((members.empty() || refused > 0));
}

#define MEMBER(name) {#name, [](rule_type& r) -> double& { return r.name; }}
#define INSIDE(name, holder) {#name, [](rule_type& r) -> double& { return r.holder.name; }}

/// Rules with Adam's hyperparameters.
template <class rule_type>
void adaptive(std::string const& name, std::vector<member<rule_type>> more = {}) {
  more.insert(more.end(), {MEMBER(learning_rate), MEMBER(beta1), MEMBER(beta2), MEMBER(epsilon)});
  at_extremes(name, rule_type{}, more);
}

}  // namespace

TEST_CASE("rules of gradients and their averages leave no NaN at any extreme", "[update][extremes]") {
  {
    using rule_type = update::sgd;
    at_extremes<rule_type>("sgd", {}, {MEMBER(learning_rate)});
  }
  {
    using rule_type = update::momentum;
    at_extremes<rule_type>("momentum", {}, {MEMBER(learning_rate), MEMBER(momentum), MEMBER(dampening)});
  }
  {
    using rule_type = update::nesterov;
    at_extremes<rule_type>("nesterov", {}, {MEMBER(learning_rate), MEMBER(momentum)});
  }
  {
    using rule_type = update::signsgd;
    at_extremes<rule_type>("signsgd", {}, {MEMBER(learning_rate), MEMBER(weight_decay)});
  }
  {
    using rule_type = update::signum;
    at_extremes<rule_type>("signum", {}, {MEMBER(learning_rate), MEMBER(momentum), MEMBER(weight_decay)});
  }
  {
    using rule_type = update::lion;
    at_extremes<rule_type>("lion", {}, {MEMBER(learning_rate), MEMBER(beta1), MEMBER(beta2), MEMBER(weight_decay)});
  }
  {
    using rule_type = update::dcasgd;
    at_extremes<rule_type>("dcasgd", {}, {MEMBER(learning_rate), MEMBER(lambda)}, 1e12);  // of its square
  }
  {
    using rule_type = update::sgld;
    at_extremes<rule_type>("sgld", {}, {MEMBER(learning_rate)});
  }
  {
    using rule_type = compat::rated_momentum;
    at_extremes<rule_type>("rated_momentum", {}, {MEMBER(learning_rate), MEMBER(momentum)});
  }
  {
    using rule_type = compat::rated_nesterov;
    at_extremes<rule_type>("rated_nesterov", {}, {MEMBER(learning_rate), MEMBER(momentum)});
  }
}

TEST_CASE("adaptive rules leave no NaN at any extreme", "[update][extremes]") {
  adaptive<update::adam>("adam");
  {
    using rule_type = update::adamw;
    adaptive<rule_type>("adamw", {MEMBER(weight_decay)});
  }
  adaptive<update::amsgrad>("amsgrad");
  adaptive<update::adamax>("adamax");
  adaptive<update::basic_adamax<update::adamax_epsilon::denominator>>("adamax, denominator");
  {
    using rule_type = update::nadam;
    adaptive<rule_type>("nadam", {MEMBER(momentum_decay)});
  }
  adaptive<update::radam>("radam");
  adaptive<update::adabelief>("adabelief");
  adaptive<update::yogi>("yogi");
  adaptive<update::ftml>("ftml");
  {
    using rule_type = compat::folded_correction<update::adabelief>;
    at_extremes<rule_type>(
        "folded_correction", {},
        {INSIDE(learning_rate, rule), INSIDE(beta1, rule), INSIDE(beta2, rule), INSIDE(epsilon, rule)});
  }
  {
    using rule_type = compat::corrected_decay;
    at_extremes<rule_type>("corrected_decay", {}, {MEMBER(weight_decay)});
  }
}

TEST_CASE("rules since 2022 leave no NaN at any extreme", "[update][extremes]") {
  {
    using rule_type = update::ademamix;
    adaptive<rule_type>("ademamix", {MEMBER(beta3), MEMBER(alpha), MEMBER(weight_decay)});
    at_extremes<rule_type>("ademamix, rising", {.warmup = 2}, {MEMBER(beta1), MEMBER(beta3)});
  }
  {
    using rule_type = update::adopt;
    adaptive<rule_type>("adopt", {MEMBER(clip_exponent), MEMBER(weight_decay)});
  }
  {
    using rule_type = update::adan;
    adaptive<rule_type>("adan", {MEMBER(beta3), MEMBER(weight_decay)});
  }
  {
    using rule_type = update::mars;
    adaptive<rule_type>("mars", {MEMBER(weight_decay), MEMBER(gamma)});
  }
  {
    using rule_type = update::schedule_free_sgd;
    at_extremes<rule_type>("schedule_free_sgd", {}, {MEMBER(learning_rate), MEMBER(momentum), MEMBER(weight_decay)});
  }
  {
    using rule_type = update::schedule_free_adamw;
    adaptive<rule_type>("schedule_free_adamw", {MEMBER(weight_decay)});
  }
  {
    using rule_type = update::sophia_g;
    adaptive<rule_type>("sophia_g", {MEMBER(rho), MEMBER(weight_decay), MEMBER(batch)});
    at_extremes<rule_type>("sophia_g, often", {.interval = 1}, {MEMBER(beta2), MEMBER(epsilon), MEMBER(batch)});
  }
  {
    using rule_type = update::cautious<update::adam>;
    at_extremes<rule_type>("cautious", {}, {INSIDE(learning_rate, rule), INSIDE(beta1, rule)});
  }
  {
    using rule_type = update::prodigy;
    adaptive<rule_type>("prodigy", {MEMBER(weight_decay), MEMBER(d0), MEMBER(d_coef), MEMBER(growth_rate)});
    at_extremes<rule_type>("prodigy, guarded", {.correct_bias = true, .safeguard_warmup = true}, {MEMBER(beta2)});
  }
  {
    using rule_type = update::dadapt_adam;
    adaptive<rule_type>("dadapt_adam", {MEMBER(weight_decay), MEMBER(d0), MEMBER(growth_rate)});
  }
}

TEST_CASE("rules with sums of squares leave no NaN at any extreme", "[update][extremes]") {
  {
    using rule_type = update::adagrad;
    at_extremes<rule_type>(
        "adagrad", {}, {MEMBER(learning_rate), MEMBER(lr_decay), MEMBER(initial_accumulator_value), MEMBER(epsilon)});
  }
  {
    using rule_type = update::basic_adagrad<update::epsilon_inside_root>;
    at_extremes<rule_type>("adagrad, inside", {}, {MEMBER(epsilon)});
  }
  {
    using rule_type = update::rmsprop;
    at_extremes<rule_type>("rmsprop", {}, {MEMBER(learning_rate), MEMBER(alpha), MEMBER(epsilon)});
  }
  {
    using rule_type = update::centered_rmsprop;
    at_extremes<rule_type>("centered_rmsprop", {}, {MEMBER(learning_rate), MEMBER(alpha), MEMBER(epsilon)});
  }
  {
    using rule_type = decltype(update::basic_scale_by_centered_rms<update::epsilon_inside_root>{} | update::sgd{});
    at_extremes<rule_type>("scale_by_centered_rms, inside", {}, {INSIDE(alpha, first), INSIDE(epsilon, first)});
  }
  {
    using rule_type = update::adadelta;
    at_extremes<rule_type>("adadelta", {}, {MEMBER(learning_rate), MEMBER(rho), MEMBER(epsilon)});
  }
  {
    using rule_type = update::ftrl;
    at_extremes<rule_type>("ftrl", {}, {MEMBER(learning_rate), MEMBER(lambda1), MEMBER(lambda2), MEMBER(beta)});
  }
}

TEST_CASE("rules with norms leave no NaN at any extreme", "[update][extremes]") {
  {
    using rule_type = update::lars;
    at_extremes<rule_type>(
        "lars", {},
        {MEMBER(learning_rate), MEMBER(momentum), MEMBER(weight_decay), MEMBER(trust_coefficient), MEMBER(epsilon)});
  }
  {
    using rule_type = update::lamb;
    adaptive<rule_type>("lamb", {MEMBER(weight_decay), MEMBER(lower_bound), MEMBER(upper_bound)});
  }
  {
    using rule_type = update::lans;
    adaptive<rule_type>("lans", {MEMBER(weight_decay), MEMBER(lower_bound), MEMBER(upper_bound)});
  }
  {
    using rule_type = compat::layer_rated_momentum<compat::lars_factor>;
    at_extremes<rule_type>("mxnet lars", {},
                           {MEMBER(learning_rate), MEMBER(momentum), MEMBER(weight_decay), MEMBER(rescale),
                            MEMBER(limit), INSIDE(eta, factor), INSIDE(epsilon, factor)});
  }
  {
    using rule_type = compat::layer_rated_momentum<compat::lbsgd_factor>;
    at_extremes<rule_type>("mxnet lbsgd", {}, {MEMBER(learning_rate)});
  }
  {
    auto const rule = update::clip_norm(1) | update::sgd{};
    using rule_type = std::remove_const_t<decltype(rule)>;
    at_extremes<rule_type>("clip_norm", rule, {INSIDE(max_norm, first)});
  }
}

TEST_CASE("stages and wrappers leave no NaN at any extreme", "[update][extremes]") {
  auto const stage = [](std::string const& name, auto const& first, auto const&... members) {
    auto const rule = first | update::sgd{};
    at_extremes(name, rule, {members...});
  };
  {
    using rule_type = decltype(update::rescale(1) | update::sgd{});
    stage("rescale", update::rescale(1), member<rule_type> INSIDE(factor, first));
  }
  {
    using rule_type = decltype(update::clip_value(1) | update::sgd{});
    stage("clip_value", update::clip_value(1), member<rule_type> INSIDE(limit, first));
  }
  {
    using rule_type = decltype(update::weight_decay(0) | update::sgd{});
    stage("weight_decay", update::weight_decay(0), member<rule_type> INSIDE(decay, first));
  }
  {
    using rule_type = decltype(update::trace(0.9) | update::sgd{});
    stage("trace", update::trace(0.9), member<rule_type> INSIDE(decay, first));
  }
  {
    using rule_type = decltype(update::add_noise(1) | update::sgd{});
    stage("add_noise", update::add_noise(1), member<rule_type> INSIDE(eta, first),
          member<rule_type> INSIDE(gamma, first));
  }
  {
    using rule_type = update::decoupled_decay<update::sgd>;
    at_extremes<rule_type>("decoupled_decay", {}, {MEMBER(rate), INSIDE(learning_rate, rule)});
  }
  {
    using rule_type = update::clip_weights<update::sgd>;
    at_extremes<rule_type>("clip_weights", {{}, 1}, {MEMBER(limit)});
  }
  {
    using rule_type = update::ema<update::sgd>;
    at_extremes<rule_type>("ema", {}, {MEMBER(decay)});
  }
  {
    using rule_type = update::lookahead<update::sgd>;
    at_extremes<rule_type>("lookahead", {}, {MEMBER(alpha)});
  }
  {
    using rule_type = compat::rated_decay<update::sgd>;
    at_extremes<rule_type>("rated_decay", {}, {MEMBER(weight_decay), INSIDE(learning_rate, rule)});
  }
}

namespace {

/// `given` in the second update, else `usual`.
struct once {
  double usual, given;

  double operator()(std::int64_t t) const noexcept { return t == 2 ? given : usual; }
};

/// An update in which a schedule gives what the rule refuses changes nothing but t.
template <class Rule>
void leaves_alone(Rule const& rule) {
  rule.validate();
  std::vector<double> const weight{0, 1, -0.5}, gradient{1, -2, 3};
  pp::test::rule_runner<float, float, Rule> runner(rule, weight, 1);
  std::vector<std::vector<double>> before(runner.states + 1);
  for (int t = 1; t <= 3; ++t) {
    for (std::size_t s = 0; s < before.size(); ++s) before[s] = runner.values(s);
    runner.step(gradient);
    for (std::size_t s = 0; s < before.size(); ++s) REQUIRE((runner.values(s) == before[s]) == (t == 2));
  }
  REQUIRE(runner.t() == 3);
}

}  // namespace

TEST_CASE("an update whose schedule gives what the rule refuses leaves weights and states, and t goes on",
          "[update][extremes][lr_schedule]") {
  for (double const bad : {not_a_number, infinity, -1.0}) {
    leaves_alone(update::adam{} | update::learning_rate(once{0.1, bad}));
    leaves_alone(update::trace(0.9) | update::clip_value(10) | update::ema{update::adam{}, 0.5} |
                 update::learning_rate(once{0.1, bad}));
    leaves_alone(update::rescale(1) |
                 update::hyperparameter<&update::rescale::factor>(once{1, bad < 0 ? infinity : bad}) |
                 update::clip_norm(1) | update::momentum{});
  }
  for (double const bad : {not_a_number, 1.0, 1.5}) {
    leaves_alone(update::adam{} | update::hyperparameter<&update::adam::beta1>(once{0.9, bad}) |
                 update::hyperparameter<&update::adam::beta2>(once{0.99, 0.9}));
    leaves_alone(update::momentum{} | update::hyperparameter<&update::momentum::momentum>(once{0.9, bad}));
    leaves_alone(update::lamb{} | update::hyperparameter<&update::lamb::beta2>(once{0.9, bad}));
  }
  leaves_alone(update::ftrl{} | update::learning_rate(once{0.1, 0}));
  leaves_alone(update::ftml{} | update::learning_rate(once{0.1, 0}));
}

TEST_CASE("numbers of rows and columns stay in an update whose schedule gives what the rule refuses",
          "[update][extremes][lr_schedule]") {
  auto const rule = update::adafactor{} | update::learning_rate(once{0.1, not_a_number});
  pp::kv_store store{pp::cpu_devices(2), rule, pp::synchronous{}};
  std::vector<float> w(12, 1), g{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  pp::shape const shape{3, 4};
  store.init("w", pp::tensor_view(w.data(), shape));
  std::vector<std::vector<float>> seen;
  for (int t = 1; t <= 3; ++t) {
    store.push("w", pp::tensor_view(g.data(), shape)).wait();
    store.pull("w", pp::tensor_view(w.data(), shape)).wait();
    REQUIRE(store.steps("w") == t);
    auto all = w;
    for (auto const* name : {"row_var", "col_var"})
      for (auto const x : store.state("w", name)) all.push_back(static_cast<float>(x));
    seen.push_back(all);
    for (float& x : g) x += 1;
  }
  REQUIRE(seen[0] == seen[1]);
  REQUIRE_FALSE(seen[1] == seen[2]);
}

TEST_CASE("what a schedule gives in the first update is refused by the rule's name", "[update][lr_schedule]") {
  auto const text_of = [](auto const& rule) -> std::string {
    try {
      rule.validate();
    } catch (pp::invalid_argument const& error) {
      return error.what();
    }
    return "taken";
  };
  REQUIRE(text_of(update::clip_value(1) | update::adam{} |
                  update::learning_rate(pp::lr_schedule::constant{0.1} * once{0, 0})) == "taken");
  auto const never = [](std::int64_t) noexcept { return std::sqrt(-1.0); };
  REQUIRE(text_of(update::adam{} | update::learning_rate(never)).starts_with("adam: learning_rate: a value in [0, "));
  auto const one = [](std::int64_t) noexcept { return 1.0; };
  REQUIRE(text_of(update::adam{} | update::hyperparameter<&update::adam::beta1>(one)) ==
          "adam: beta1: a value in [0, 1) expected, got 1 from a schedule in update 1");
}

TEST_CASE("a rate of 0 leaves the weights of every rule, and ftrl's and ftml's states too", "[update][extremes]") {
  auto const stays = [](auto rule, bool states_stay) {
    rule.learning_rate = 0;
    std::vector<double> const weight{0, 1, -0.5};
    pp::test::rule_runner<float, float, decltype(rule)> runner(rule, weight, 1);
    for (int t = 0; t < 3; ++t) runner.step({1, -2, 3});
    REQUIRE(runner.values(0) == weight);
    for (std::size_t s = 1; states_stay && s < runner.states + 1; ++s)
      REQUIRE(runner.values(s) == std::vector<double>(3));
  };
  stays(update::ftrl{}, true);
  stays(update::ftml{}, true);
  stays(update::adam{}, false);
  stays(update::adamw{}, false);
  stays(update::lamb{}, false);
  stays(update::lars{}, false);
}

TEST_CASE("without an epsilon a step is that of the formula, and 0 where there was no gradient", "[update][extremes]") {
  auto const step = [](auto const& rule, double gradient) {
    pp::test::rule_runner<float, float, std::remove_cvref_t<decltype(rule)>> runner(rule, {0}, 1);
    runner.step({gradient});
    return runner.values(0)[0];
  };
  auto const check = [&](auto const& rule) {
    REQUIRE(step(rule, 0) == 0);
    for (double const g : {1e-9, 1.0, 1e9}) REQUIRE(step(rule, g) == Approx(-0.1));  // of any size
  };
  check(update::adam{.learning_rate = 0.1, .epsilon = 0});
  check(update::adam{.learning_rate = 0.1, .beta1 = 1 - 1e-10, .epsilon = 0});
  check(update::adam{.learning_rate = 0.1, .beta1 = 0, .beta2 = 0, .epsilon = 1e-50});
  // A bound beside the root that counted more than 2^-63 would take 3%.
  REQUIRE(step(update::adam{.learning_rate = 0.1, .epsilon = 0}, 1e-16) == Approx(-0.1).epsilon(0.01));
  check(update::amsgrad{.learning_rate = 0.1, .epsilon = 0});
  check(update::adamax{.learning_rate = 0.1, .epsilon = 0});
  check(update::adagrad{.learning_rate = 0.1, .epsilon = 0});
  check(update::basic_adagrad<update::epsilon_inside_root>{.learning_rate = 0.1, .epsilon = 0});
  check(update::rmsprop{.learning_rate = 0.1, .alpha = 0, .epsilon = 0});
  check(update::yogi{.learning_rate = 0.1, .epsilon = 0});
}

TEST_CASE("gradients that are not finite reach the weights of rules that would hide them", "[update][extremes]") {
  auto const reaches = [](auto const& rule, double wrong) {
    INFO(pp::update::describe<std::remove_cvref_t<decltype(rule)>>().name << " with " << wrong);
    pp::test::rule_runner<float, float, std::remove_cvref_t<decltype(rule)>> runner(rule, {1, 1, 1}, 1);
    runner.step({1, wrong, 1});
    REQUIRE(std::isnan(runner.values(0)[1]));
    runner.step({1, 1, 1});
    REQUIRE(std::isnan(runner.values(0)[1]));
  };
  reaches(update::signsgd{}, not_a_number);
  reaches(update::signum{}, not_a_number);
  reaches(update::lion{}, not_a_number);
  reaches(update::mars{}, infinity);
  reaches(update::mars{}, not_a_number);
}

TEST_CASE("changes that are too small for their weights count as cautious steps", "[update][extremes]") {
  std::vector<double> weight(1000, 1), gradient(1000, 1);
  weight[999] = 1e-3;
  auto const rule = update::sgd{1e-8} | update::cautious();
  pp::test::rule_runner<float, float, std::remove_cvref_t<decltype(rule)>> runner(rule, weight, 1);
  runner.step(gradient);
  float const before = 1e-3F;
  REQUIRE(runner.values(0)[999] == static_cast<double>(before - 1e-8F));  // the rule's own step
}
