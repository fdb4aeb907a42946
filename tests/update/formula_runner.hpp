/// @file
/// A rule beside its formula: how far 50 steps of one are from 50 of the other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <pushpull/pushpull.hpp>
#include <random>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "update/rule_runner.hpp"

namespace pushpull::test {

constexpr int formula_steps = 50;

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
deviations formula_deviations(char const* name, Rule const& rule, Formula const& formula, std::size_t size) {
  constexpr std::size_t states = Rule::state_names.size();
  std::mt19937 random(static_cast<unsigned>(size));
  auto w = random_values<Stored>(random, size);
  std::vector<double> state(states * size);
  rule_runner<T, Stored, Rule> one(rule, w, 1), three(rule, w, 3);
  for (int t = 1; t <= formula_steps; ++t) {
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

/// The rule equals its formula for sizes below, at and above those of registers, and none.
template <class T, class Stored, class Rule, class Formula>
void follows_formula(char const* name, Rule const& rule, Formula const& formula) {
  for (std::size_t const size : {0U, 1U, 3U, 64U, 131U, 3001U}) {
    auto const off = formula_deviations<T, Stored>(name, rule, formula, size);
    INFO(name << ", " << size << " elements: weights off by " << off.weight << " units, states by " << off.state);
    CHECK(off.weight <= weight_units);
    CHECK(off.state <= state_units);
  }
}

}  // namespace pushpull::test
