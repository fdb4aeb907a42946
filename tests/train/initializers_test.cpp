/// @file
/// Initial values of parameters: distributions, scales from shapes, choice by name.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <pushpull/train/initializers/by_name.hpp>

#include "support/catch.hpp"
#include "support/message_of.hpp"

using namespace pushpull;
using namespace pushpull::train;
using namespace pushpull::train::initializers;

namespace {

std::vector<float> values(initializer const& own, shape const& of, std::string const& name = "weight",
                          std::uint64_t seed = 1) {
  std::vector<float> filled(of.size(), -77.0F);
  own({name, of, seed}, filled);
  return filled;
}

struct moments {
  double mean = 0, deviation = 0, smallest = 0, largest = 0;
};
moments moments_of(std::vector<float> const& numbers) {
  double sum = 0, squares = 0;
  for (float const x : numbers) sum += static_cast<double>(x);
  double const n = static_cast<double>(numbers.size()), mean = sum / n;
  for (float const x : numbers) squares += (static_cast<double>(x) - mean) * (static_cast<double>(x) - mean);
  auto const [low, high] = std::minmax_element(numbers.begin(), numbers.end());
  return {mean, std::sqrt(squares / n), static_cast<double>(*low), static_cast<double>(*high)};
}

/// A sample mean of n numbers deviates by this at most, but once in a million times.
double bound(double deviation, std::size_t n) { return 5 * deviation / std::sqrt(static_cast<double>(n)); }

void check_uniform(std::vector<float> const& numbers, double scale) {
  auto const m = moments_of(numbers);
  CHECK(std::abs(m.mean) < bound(scale / std::sqrt(3), numbers.size()));
  CHECK(m.deviation == Approx(scale / std::sqrt(3)).epsilon(0.01));
  CHECK(m.smallest >= -scale * (1 + 1e-7));
  CHECK(m.largest <= scale * (1 + 1e-7));
  CHECK(m.smallest < -0.99 * scale);
  CHECK(m.largest > 0.99 * scale);
}

void check_normal(std::vector<float> const& numbers, double deviation) {
  auto const m = moments_of(numbers);
  CHECK(std::abs(m.mean) < bound(deviation, numbers.size()));
  CHECK(m.deviation == Approx(deviation).epsilon(0.01));
  auto const within = std::count_if(numbers.begin(), numbers.end(),
                                    [&](float x) { return std::abs(static_cast<double>(x)) < deviation; });
  CHECK(static_cast<double>(within) / static_cast<double>(numbers.size()) == Approx(0.6827).epsilon(0.01));
}

shape const large{300, 401};

}  // namespace

TEST_CASE("A1.2, C4.1: initializers have the distributions and scales of their formulas", "[train][initializers]") {
  check_uniform(values(uniform{}, large), 0.01);
  check_uniform(values(uniform{2}, large), 2);
  check_normal(values(normal{0.3}, large), 0.3);
  CHECK(values(constant{0.25}, shape{3}) == std::vector<float>(3, 0.25F));
  // Fan-in 401 * 2, fan-out 300 * 2.
  shape const kernel{300, 401, 1, 2};
  check_uniform(values(xavier{}, kernel), std::sqrt(3 / (0.5 * (802 + 600))));
  check_uniform(values(xavier{distribution::uniform, fan::in, 1}, kernel), std::sqrt(1.0 / 802));
  check_normal(values(xavier{distribution::gaussian, fan::out, 5}, kernel), std::sqrt(5.0 / 600));
  check_normal(values(msra{0.5, fan::in}, kernel), std::sqrt(2 / (1.25 * 802)));
  check_normal(values(msra{}, kernel), std::sqrt(2 / ((1 + 0.0625) * 701)));
}

TEST_CASE("A1.2: each kind of parameter has DJL's default", "[train][initializers]") {
  check_normal(values(default_of(parameter_kind::weight), large), std::sqrt(2.0 / 401));
  for (auto const kind : {parameter_kind::bias, parameter_kind::beta, parameter_kind::running_mean})
    CHECK(values(default_of(kind), shape{2}) == std::vector<float>(2, 0.0F));
  for (auto const kind : {parameter_kind::gamma, parameter_kind::running_variance})
    CHECK(values(default_of(kind), shape{2}) == std::vector<float>(2, 1.0F));
  CHECK_THROWS_AS(default_of(parameter_kind::other), invalid_argument);
}

TEST_CASE("A1.2: xavier refuses shapes without a fan, and scales that are none", "[train][initializers]") {
  using test::message_of;
  CHECK(message_of([] { values(xavier{}, shape{5}, "fc.weight"); }) ==
        "xavier: parameter \"fc.weight\" of shape (5): a rank of at least 2 expected");
  CHECK(message_of([] { values(xavier{distribution::uniform, fan::in, 3}, shape{5, 0}); }) ==
        "xavier: parameter \"weight\" of shape (5, 0): extents above 0 expected");
  CHECK_THROWS_AS(values(xavier{distribution::uniform, fan::in, -1}, shape{2, 2}), invalid_argument);
  CHECK_THROWS_AS(values(uniform{-1}, shape{2}), invalid_argument);
  CHECK_THROWS_AS(values(normal{std::nan("")}, shape{2}), invalid_argument);
}

TEST_CASE("initial values depend on seed, name and element alone", "[train][initializers]") {
  for (initializer const& own : {initializer(uniform{1}), initializer(normal{1})}) {
    auto const all = values(own, shape{40'000});
    CHECK(values(own, shape{40'000}) == all);
    CHECK(values(own, shape{200, 200}) == all);
    for (std::int64_t const n : {0, 1, 2, 3, 5, 16'383, 16'384, 16'385}) {
      auto const head = values(own, shape{n});
      CHECK(std::equal(head.begin(), head.end(), all.begin()));
    }
    CHECK(values(own, shape{40'000}, "weight", 2) != all);
    CHECK(values(own, shape{40'000}, "weighu") != all);
    std::set<float> firsts;  // neither names nor seeds that differ little are related
    for (int i = 0; i < 100; ++i) {
      firsts.insert(values(own, shape{1}, "fc" + std::to_string(i))[0]);
      firsts.insert(values(own, shape{1}, "fc", static_cast<std::uint64_t>(i))[0]);
    }
    CHECK(firsts.size() == 200);
    double product = 0;
    auto const other = values(own, shape{40'000}, "weight", 2);
    for (std::size_t i = 0; i < all.size(); ++i) product += static_cast<double>(all[i]) * static_cast<double>(other[i]);
    CHECK(std::abs(product / 40'000) < bound(1, 40'000));
  }
}

TEST_CASE("C4.4: by_suffix chooses by the name's ending, a name's own initializer wins", "[train][initializers]") {
  by_suffix chosen(constant{7});
  auto const first = [&](std::string const& name) { return values(chosen, shape{2, 2}, name)[0]; };
  auto const is = [](float x) { return Approx(x); };
  CHECK(first("fc1.weight") == is(7));
  for (std::string const name : {"bias", "fc_bias", "bn.beta", "q_min", "bn.running_mean", "bn_moving_mean"})
    CHECK(first(name) == is(0));
  for (std::string const name : {"bn.gamma", "q_max", "bn.running_var", "bn_moving_var"}) CHECK(first(name) == is(1));
  CHECK(test::message_of([&] {
          first("lstm.state");
        }).find("by_suffix: parameter \"lstm.state\": a name that ends in weight bias") == 0);
  chosen.set("lstm.state", constant{3}).set("fc_bias", constant{4}).set_ending("bias", constant{5});
  CHECK(first("lstm.state") == is(3));
  CHECK(first("fc_bias") == is(4));
  CHECK(first("bias") == is(5));
  CHECK(first("fc1.weight") == is(7));
  check_uniform(values(by_suffix{}, large), 0.01);
  chosen.set_otherwise(constant{6});
  CHECK(first("other") == is(6));
  CHECK(first("bias") == is(5));
  CHECK(values(by_suffix_or_uniform(), large, "bias") == std::vector<float>(large.size(), 0));
  check_uniform(values(by_suffix_or_uniform(), large, "other"), 0.01);
}

TEST_CASE("mixed takes the first pattern that has the name, from its start", "[train][initializers]") {
  mixed const chosen{{"fc", constant{1}},
                     {".*bias", constant{2}},
                     {[](std::string_view name) { return name.size() == 3; }, constant{3}}};
  auto const first = [&](std::string const& name) { return values(chosen, shape{1}, name)[0]; };
  CHECK(first("fc1.bias") == Approx(1));
  CHECK(first("conv.bias") == Approx(2));
  CHECK(first("abc") == Approx(3));
  CHECK(test::message_of([&] { first("a.fc"); }) ==
        "mixed: none of 3 patterns has parameter \"a.fc\": add a last pattern \".*\"");
  CHECK(test::message_of([] { mixed{{"(", constant{}}}; }).find("name_pattern: \"(\" is no regular expression") == 0);
}

TEST_CASE("an initializer of the user is a function of name, shape and values", "[train][initializers]") {
  auto const identity = [](parameter_target const& target, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = i % (static_cast<std::size_t>(target.shape[1]) + 1) == 0 ? 1.0F : 0.0F;
  };
  CHECK(values(by_suffix(identity), shape{2, 2}) == std::vector<float>{1, 0, 0, 1});
}
