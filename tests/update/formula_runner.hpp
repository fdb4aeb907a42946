/// @file
/// A rule beside its formula: how far 50 steps of one are from 50 of the other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <pushpull/pushpull.hpp>
#include <random>
#include <vector>

#include "support/catch.hpp"
#include "support/deviation.hpp"
#include "update/rule_runner.hpp"

namespace pushpull::test {

constexpr int formula_steps = 50;

/// Values of T in [-1, 1], in magnitude above 1/8: squares of smaller ones vanish in 16-bit states.
template <class T>
std::vector<double> random_values(std::mt19937& random, std::size_t size) {
  std::uniform_real_distribution<double> uniform(0.125, 1);
  std::vector<double> values(size);
  for (double& x : values) x = rounded<T>(random() % 2 == 0 ? uniform(random) : -uniform(random));
  return values;
}

struct deviations {
  double weight = 0;  ///< Largest |difference| / (1 + |expected|), in units of the stored type.
  double state = 0;   ///< Largest |difference| / largest |expected| of the same state, in units of the stored type.
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
  auto const weight = one.values(0);
  for (std::size_t i = 0; i < size; ++i) {
    result.weight = larger_deviation(result.weight, deviation<Stored>(weight[i], w[i]));
    REQUIRE(convert<double>(one.mirror()[i]) == rounded<T>(weight[i]));
  }
  for (std::size_t s = 0; s < states; ++s) {
    auto const values = one.values(s + 1);
    double largest = 0, difference = 0;
    for (std::size_t i = 0; i < size; ++i) {
      double const expected = state[i * states + s];
      largest = larger_deviation(largest, std::abs(expected));
      difference = larger_deviation(difference, std::abs(values[i] - expected));
    }
    if (difference > 0) result.state = larger_deviation(result.state, difference / largest / unit<Stored>());
  }
  for (std::size_t s = 0; s <= states; ++s) REQUIRE(one.values(s) == three.values(s));
  return result;
}

/// Rounding flips where the formula and the rule are on two sides of a tie, and a flip lives on in a state. Rules compute in
/// float at least: sides of ties of 16-bit types rarely differ.
template <class Stored>
constexpr double most_units = sizeof(Stored) == 2 ? 2 : 24;

/// The rule equals its formula for sizes below, at and above those of registers, and none.
template <class T, class Stored, class Rule, class Formula>
void follows_formula(char const* name, Rule const& rule, Formula const& formula) {
  for (std::size_t const size : {0U, 1U, 3U, 64U, 131U, 3001U}) {
    auto const off = formula_deviations<T, Stored>(name, rule, formula, size);
    INFO(name << ", " << size << " elements: weights off by " << off.weight << " units, states by " << off.state);
    CHECK(off.weight <= most_units<Stored>);
    CHECK(off.state <= most_units<Stored>);
  }
}

}  // namespace pushpull::test
