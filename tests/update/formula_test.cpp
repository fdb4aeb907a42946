/// @file
/// Every rule over 50 steps against its formula in double, and a rule of each number of states in all element types, cut
/// into any number of slices.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <map>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "support/sanitized.hpp"
#include "update/formula_runner.hpp"
#include "update/formulas.hpp"

namespace {

namespace update = pushpull::update;
using pushpull::bfloat16;
using pushpull::half;
using pushpull::test::random_values;
using pushpull::test::rule_runner;

/// A rule of each number of states. Rules compute in float whatever the 16-bit types of gradients, weights and states: these
/// differ in the pass alone, which counts states.
template <class Rule>
constexpr bool is_chosen = std::is_same_v<Rule, update::sgd> || std::is_same_v<Rule, update::momentum> ||
                           std::is_same_v<Rule, update::adam> || std::is_same_v<Rule, update::amsgrad>;

template <class T, class Stored>
void every_rule() {
  pushpull::test::for_each_rule([](char const* name, auto const& rule, auto const& formula) {
    pushpull::test::follows_formula<T, Stored>(name, rule, formula);
  });
}
template <class T, class Stored>
void chosen_rules() {
  pushpull::test::for_each_rule([]<class Rule>(char const* name, Rule const& rule, auto const& formula) {
    if constexpr (is_chosen<Rule>) pushpull::test::follows_formula<T, Stored>(name, rule, formula);
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

#if !PUSHPULL_TEST_SANITIZED
TEST_CASE("rules equal their formulas in double", "[update]") { every_rule<double, double>(); }
#endif

TEST_CASE("rules of each number of states equal their formulas in 16-bit types", "[update]") {
  chosen_rules<half, half>();
  chosen_rules<bfloat16, bfloat16>();
}

TEST_CASE("rules of each number of states with 16-bit gradients over float masters equal their formulas", "[update]") {
  chosen_rules<bfloat16, float>();
  chosen_rules<half, float>();
}

TEST_CASE("table of the largest deviation per rule and type", "[.deviation]") {
  std::map<std::string, std::string> rows;
  auto const column = [&]<class T, class Stored>(std::type_identity<T>, std::type_identity<Stored>) {
    pushpull::test::for_each_rule([&]<class Rule>(char const* name, Rule const& rule, auto const& formula) {
      char text[64] = " |";
      if constexpr (sizeof(T) > 2 || is_chosen<Rule>) {
        auto const off = pushpull::test::formula_deviations<T, Stored>(name, rule, formula, 20011);
        std::snprintf(text, sizeof text, " | %.2g", off.weight);
      }
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
