/// @file
/// Every rule over 50 steps against its formula in double, in all element types, cut into any number of slices.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <map>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "update/formulas.hpp"
#include "update/rule_runner.hpp"

// Every rule on every type takes sanitizers minutes to compile; what differs between types is the pass.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PUSHPULL_TEST_EVERY_TYPE 0
#else
#define PUSHPULL_TEST_EVERY_TYPE 1
#endif

namespace {

using pushpull::bfloat16;
using pushpull::convert;
using pushpull::half;
using pushpull::test::rule_runner;

constexpr int steps = 50;

/// Distance of 1 from the next number of T.
template <class T>
double unit() {
  if constexpr (std::is_same_v<T, half>) return 0x1p-10;
  if constexpr (std::is_same_v<T, bfloat16>) return 0x1p-7;
  if constexpr (std::is_same_v<T, float>) return 0x1p-23;
  return 0x1p-52;
}

/// x as T stores it.
template <class T>
double rounded(double x) {
  return convert<double>(convert<T>(x));
}

/// Values of T in [-1, 1], in magnitude above 1/8: squares of smaller ones vanish in 16-bit states.
template <class T>
std::vector<double> random_values(std::mt19937& random, std::size_t size) {
  std::uniform_real_distribution<double> uniform(0.125, 1);
  std::vector<double> values(size);
  for (double& x : values) x = rounded<T>(random() % 2 == 0 ? uniform(random) : -uniform(random));
  return values;
}

struct deviations {
  double weight = 0, state = 0;  ///< Largest |difference| / (1 + |expected|), in units of the stored type.
};

/// 50 steps of a rule and of its formula, whose weights and states are rounded to `Stored` after each step as the
/// rule's are. Whether the weights agree bit for bit for 1 and for 3 slices is checked on the way.
template <class T, class Stored, class Rule, class Formula>
deviations run(char const* name, Rule const& rule, Formula const& formula, std::size_t size) {
  constexpr std::size_t states = Rule::state_names.size();
  std::mt19937 random(static_cast<unsigned>(size));
  auto w = random_values<Stored>(random, size);
  std::vector<double> state(states * size);
  rule_runner<T, Stored, Rule> one(rule, w, 1), three(rule, w, 3);
  for (int t = 1; t <= steps; ++t) {
    auto const g = random_values<T>(random, size);
    one.step(g);
    three.step(g);
    for (std::size_t i = 0; i < size; ++i) {
      formula(w[i], g[i], state.data() + i * states, t);
      w[i] = rounded<Stored>(w[i]);
      for (std::size_t s = 0; s < states; ++s) state[i * states + s] = rounded<Stored>(state[i * states + s]);
    }
  }
  INFO(name << ", " << size << " elements");
  deviations result;
  auto const compare = [&](double got, double expected) {
    REQUIRE(std::isfinite(got));
    return std::abs(got - expected) / (1 + std::abs(expected)) / unit<Stored>();
  };
  auto const weight = one.values(0);
  for (std::size_t i = 0; i < size; ++i) {
    result.weight = std::max(result.weight, compare(weight[i], w[i]));
    REQUIRE(convert<double>(one.mirror()[i]) == rounded<T>(weight[i]));
  }
  for (std::size_t s = 0; s < states; ++s) {
    auto const values = one.values(s + 1);
    for (std::size_t i = 0; i < size; ++i)
      result.state = std::max(result.state, compare(values[i], state[i * states + s]));
  }
  for (std::size_t s = 0; s <= states; ++s) REQUIRE(one.values(s) == three.values(s));
  return result;
}

/// Rounding flips where the formula and the rule are on two sides of a tie, and a flip lives on in a state; some states
/// (ftrl's z, a velocity of gradients that were divided by their size) have been ten times as large before.
constexpr double weight_units = 24, state_units = 50;

template <class T, class Stored>
void every_rule() {
  pushpull::test::for_each_rule([](char const* name, auto const& rule, auto const& formula) {
    for (std::size_t const size : {0U, 1U, 3U, 64U, 131U, 3001U}) {
      auto const off = run<T, Stored>(name, rule, formula, size);
      INFO(name << ", " << size << " elements: weights off by " << off.weight << " units, states by " << off.state);
      CHECK(off.weight <= weight_units);
      CHECK(off.state <= state_units);
    }
  });
}

}  // namespace

TEST_CASE("rules equal their formulas in float", "[update]") { every_rule<float, float>(); }

TEST_CASE("weights of every rule are finite after a step with the largest t", "[update]") {
  pushpull::test::for_each_rule([]<class Rule>(char const* name, Rule const& rule, auto const&) {
    std::mt19937 random(7);
    rule_runner<float, float, Rule> runner(rule, random_values<float>(random, 131), 1);
    runner.step(random_values<float>(random, 131));
    runner.set_t(pushpull::max_steps - 1);
    runner.step(random_values<float>(random, 131));
    INFO(name);
    for (double const w : runner.values(0)) REQUIRE(std::isfinite(w));
  });
}

#if PUSHPULL_TEST_EVERY_TYPE
TEST_CASE("rules equal their formulas in double", "[update]") { every_rule<double, double>(); }

TEST_CASE("rules equal their formulas in 16-bit types", "[update]") {
  every_rule<half, half>();
  every_rule<bfloat16, bfloat16>();
}

TEST_CASE("rules with 16-bit gradients over float masters equal their formulas", "[update]") {
  every_rule<bfloat16, float>();
  every_rule<half, float>();
}

TEST_CASE("table of the largest deviation per rule and type", "[.deviation]") {
  std::map<std::string, std::string> rows;
  auto const column = [&]<class T, class Stored>(std::type_identity<T>, std::type_identity<Stored>) {
    pushpull::test::for_each_rule([&](char const* name, auto const& rule, auto const& formula) {
      auto const off = run<T, Stored>(name, rule, formula, 20011);
      char text[64];
      std::snprintf(text, sizeof text, " | %.2g", off.weight);
      rows[name] += text;
    });
  };
  column(std::type_identity<double>{}, std::type_identity<double>{});
  column(std::type_identity<float>{}, std::type_identity<float>{});
  column(std::type_identity<half>{}, std::type_identity<half>{});
  column(std::type_identity<bfloat16>{}, std::type_identity<bfloat16>{});
  column(std::type_identity<bfloat16>{}, std::type_identity<float>{});
  for (auto const& [name, row] : rows) std::printf("| `%s`%s |\n", name.c_str(), row.c_str());
}
#endif
