/// @file
/// What MXNet says of rates, decays, their multipliers and per-key state, for its optimizers' forms in stores; and its
/// defects that are not carried over.
#include <cmath>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "update/rule_runner.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
namespace mxnet1 = pushpull::compat::mxnet1;
namespace mxnet2 = pushpull::compat::mxnet2;
using floats = std::vector<float>;
using doubles = std::vector<double>;

doubles random_values(unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  doubles x(33);
  for (double& e : x) e = uniform(random);
  return x;
}

template <class Rule>
doubles trained(Rule const& rule) {
  pp::test::rule_runner<double, double, Rule> runner(rule, random_values(1), 1);
  for (unsigned t = 2; t < 8; ++t) runner.step(random_values(t));
  return runner.values(0);
}

/// A form under multipliers against the form that is given the products. Powers of two: nothing is rounded.
template <class Options, class Form>
void multiply(char const* name, Form const& form, Options const& options) {
  INFO(name);
  auto products = options;
  products.learning_rate *= 0.5;
  products.wd *= 0.25;
  auto const expected = trained(form(products));
  CHECK(trained(update::with_multipliers(form(options), 0.5, 0.25)) == expected);
  auto rate_only = options, decay_only = options;
  rate_only.learning_rate *= 0.5;
  decay_only.wd *= 0.25;
  CHECK(trained(form(rate_only)) != expected);
  CHECK(trained(form(decay_only)) != expected);
}

}  // namespace

TEST_CASE("multipliers reach the rate and the decay of MXNet's optimizers", "[update][groups]") {
  constexpr double rate = 0.125, wd = 0.5;
  auto const each = [](char const* name, auto const& form, auto options) {
    options.learning_rate = rate;
    options.wd = wd;
    multiply(name, form, options);
  };
  each("1 sgd", mxnet1::sgd, mxnet1::sgd_options{});
  each("1 sgd_momentum", mxnet1::sgd_momentum, mxnet1::sgd_momentum_options{.momentum = 0.5});
  each("1 nag", mxnet1::nag, mxnet1::nag_options{.momentum = 0.5});
  each("1 signum", mxnet1::signum, mxnet1::signum_options{});
  each("1 signsgd", mxnet1::signsgd, mxnet1::signsgd_options{});
  each("1 dcasgd", mxnet1::dcasgd, mxnet1::dcasgd_options{});
  each("1 adam", mxnet1::adam, mxnet1::adam_options{});
  each("1 adamax", mxnet1::adamax, mxnet1::adamax_options{});
  each("1 nadam", mxnet1::nadam, mxnet1::nadam_options{});
  each("1 adagrad", mxnet1::adagrad, mxnet1::adagrad_options{});
  each("1 rmsprop", mxnet1::rmsprop, mxnet1::rmsprop_options{});
  each("1 rmsprop_centered", mxnet1::rmsprop_centered, mxnet1::rmsprop_centered_options{});
  each("1 ftrl", mxnet1::ftrl, mxnet1::ftrl_options{});
  each("1 ftml", mxnet1::ftml, mxnet1::ftml_options{});
  each("2 adam", mxnet2::adam, mxnet2::adam_options{});
  each("2 adamw", mxnet2::adamw, mxnet2::adamw_options{});
  each("2 adabelief", mxnet2::adabelief, mxnet2::adabelief_options{});
  each("2 adadelta", mxnet2::adadelta, mxnet2::adadelta_options{});
  each("2 dcasgd_momentum", mxnet2::dcasgd_momentum, mxnet2::dcasgd_momentum_options{.momentum = 0.5});
}

TEST_CASE("a group gives no decay to keys whose names end in neither _weight nor _gamma, MXNet's default",
          "[update][groups]") {
  auto const rule = mxnet1::sgd({.learning_rate = 1, .wd = 0.5});
  pp::kv_store store{pp::cpu_devices(2), rule, pp::synchronous{}};
  store.add_group([](std::string_view name) { return !name.ends_with("_weight") && !name.ends_with("_gamma"); },
                  update::with_multipliers(rule, 1, 0));
  floats const w(5, 2.0F), zero(5);
  floats out(5);
  for (std::string const name : {"fc_weight", "norm_gamma", "fc_bias", "norm_beta"}) {
    store.init(name, w);
    store.pushpull(name, zero, out);
    REQUIRE(out == floats(5, name.ends_with("t") || name.ends_with("gamma") ? 1.0F : 2.0F));
  }
}

TEST_CASE("learning rates default to MXNet's: 0.01 in 1.x, and each optimizer's own", "[update]") {
  REQUIRE(mxnet1::sgd_options{}.learning_rate == 0.01);
  REQUIRE(mxnet1::sgd_momentum_options{}.learning_rate == 0.01);
  REQUIRE(mxnet1::nag_options{}.learning_rate == 0.01);
  REQUIRE(mxnet1::signum_options{}.learning_rate == 0.01);
  REQUIRE(mxnet1::dcasgd_options{}.learning_rate == 0.01);
  REQUIRE(mxnet1::adagrad_options{}.learning_rate == 0.01);
  REQUIRE(mxnet1::ftml_options{}.learning_rate == 0.01);
  REQUIRE(mxnet1::adam_options{}.learning_rate == 0.001);
  REQUIRE(mxnet1::adamax_options{}.learning_rate == 0.002);
  REQUIRE(mxnet1::nadam_options{}.learning_rate == 0.001);
  REQUIRE(mxnet1::rmsprop_options{}.learning_rate == 0.001);
  REQUIRE(mxnet1::ftrl_options{}.learning_rate == 0.1);
  REQUIRE(mxnet2::sgd_options{}.learning_rate == 0.1);
  REQUIRE(mxnet2::nag_options{}.learning_rate == 0.1);
  REQUIRE(mxnet2::dcasgd_options{}.learning_rate == 0.1);
  REQUIRE(mxnet2::adam_options{}.learning_rate == 0.001);
  REQUIRE(mxnet2::adadelta_options{}.learning_rate == 1);
  REQUIRE(mxnet2::ftml_options{}.learning_rate == 0.0025);
}

TEST_CASE("a schedule's base is its own, whatever rate the rule says", "[update][lr_schedule]") {
  auto const train = [](double rate, auto const& schedule) {
    pp::kv_store store{pp::cpu_devices(1), update::adam{.learning_rate = rate} | update::learning_rate(schedule),
                       pp::synchronous{}};
    floats w(5), g(5, 1.0F);
    store.init("w", w);
    for (int t = 0; t < 3; ++t) store.pushpull("w", g, w);
    return w;
  };
  namespace mxnet = pushpull::compat::mxnet;
  auto const poly = mxnet::poly_scheduler({.max_update = 10, .base_lr = 0.5});
  auto const cosine = mxnet::cosine_scheduler({.max_update = 10, .base_lr = 0.5});
  REQUIRE(train(0.001, poly) == train(7, poly));
  REQUIRE(train(0.001, cosine) == train(7, cosine));
  REQUIRE(train(7, poly)[0] < -0.5F);  // three steps of nearly 0.5, not of 0.001
}

TEST_CASE("nag's decay is that of the weight before the step, over a float master too", "[update]") {
  constexpr double rate = 0.125, mu = 0.5, wd = 0.25;
  auto const rule = mxnet1::nag({.learning_rate = rate, .momentum = mu, .wd = wd});
  using rule_type = std::remove_const_t<decltype(rule)>;
  auto const start = random_values(1);
  pp::test::rule_runner<double, double, rule_type> fine(rule, start, 1);
  pp::test::rule_runner<pp::half, float, rule_type> mixed(rule, start, 1);
  auto w = start;
  doubles m(w.size());
  for (int t = 0; t < 5; ++t) {
    doubles const g(w.size(), 0.5);
    fine.step(g);
    mixed.step(g);
    for (std::size_t i = 0; i < w.size(); ++i) {
      double const in = g[i] + wd * w[i];
      m[i] = mu * m[i] - rate * in;
      w[i] += mu * m[i] - rate * in;
    }
  }
  for (std::size_t i = 0; i < w.size(); ++i) {
    REQUIRE(fine.values(0)[i] == Approx(w[i]).epsilon(1e-14));
    REQUIRE(mixed.values(0)[i] == Approx(w[i]).margin(1e-6));
  }
}

TEST_CASE("nadam's product of momenta belongs to a key: other keys do not change its steps", "[update]") {
  auto const rule = mxnet1::nadam({.learning_rate = 0.125});
  pp::kv_store together{pp::cpu_devices(2), rule, pp::synchronous{}},
      alone{pp::cpu_devices(2), rule, pp::synchronous{}};
  floats const w(70, 1.0F), g(70, 0.5F);
  floats a(70), b(70);
  for (char const* const name : {"before", "w", "behind"}) together.init(name, w);
  alone.init("w", w);
  for (int t = 0; t < 4; ++t) {
    for (char const* const name : {"before", "behind"}) together.push(name, g);
    together.pushpull("w", g, a);
    alone.pushpull("w", g, b);
    REQUIRE(a == b);
  }
}

TEST_CASE("a schedule sets the rate of MXNet's adam, adamw and adabelief, as setting it before every step does",
          "[update][lr_schedule]") {
  auto const schedule = pushpull::compat::mxnet::factor_scheduler({.step = 2, .factor = 0.5, .base_lr = 0.25});
  auto const compare = [&](auto const& form) {
    pp::kv_store by_hand{pp::cpu_devices(2), form(1.0), pp::synchronous{}};
    pp::kv_store scheduled{pp::cpu_devices(2), form(1.0) | update::learning_rate(schedule), pp::synchronous{}};
    floats a(70, 1.0F), b(70, 1.0F);
    by_hand.init("w", a);
    scheduled.init("w", b);
    for (int t = 1; t <= 5; ++t) {
      floats const g(70, 0.5F / static_cast<float>(t));
      by_hand.set_hyperparameters(form(schedule(t)));
      by_hand.pushpull("w", g, a);
      scheduled.pushpull("w", g, b);
      REQUIRE(a == b);
    }
    REQUIRE(a[0] != 1.0F);
  };
  compare([](double rate) { return mxnet1::adam({.learning_rate = rate, .wd = 0.25}); });
  compare([](double rate) { return mxnet2::adamw({.learning_rate = rate, .wd = 0.25}); });
  compare([](double rate) { return mxnet2::adabelief({.learning_rate = rate, .wd = 0.25}); });
}
