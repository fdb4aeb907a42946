/// @file
/// Initializers that choose by the parameter's name or kind.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/initializers/distributions.hpp>
#include <pushpull/train/initializers/initializer.hpp>
#include <pushpull/train/initializers/xavier.hpp>
#include <pushpull/train/name_pattern.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::initializers {

/// The names' endings choose: "weight" takes the given initializer; "bias", "beta", "min", "mean" are 0; "gamma", "max",
/// "var" are 1, where mean and var are running statistics. `set` gives one name an initializer of its own, which wins.
class by_suffix {
 public:
  explicit by_suffix(initializer weight = uniform{}) {
    auto const zero = constant{0}, one = constant{1};
    endings_ = {{"weight", std::move(weight)},
                {"bias", zero},
                {"gamma", one},
                {"beta", zero},
                {"min", zero},
                {"max", one},
                {"running_mean", zero},
                {"running_var", one},
                {"moving_mean", zero},
                {"moving_var", one}};
  }
  /// The initializer of the parameter `name`, whatever its ending.
  by_suffix& set(std::string name, initializer own) {
    names_.emplace_back(std::move(name), std::move(own));
    return *this;
  }
  /// The initializer of an ending, new or not. The ending that was set last wins.
  by_suffix& set_ending(std::string ending, initializer own) {
    endings_.emplace(endings_.begin(), std::move(ending), std::move(own));
    return *this;
  }

  /// The initializer of names that have none of the endings, which are errors otherwise.
  by_suffix& set_otherwise(initializer own) {
    endings_.emplace_back("", std::move(own));
    return *this;
  }

  /// @throws invalid_argument if the name has none of the endings, and there was no `set_otherwise`
  void operator()(parameter_target const& target, std::span<float> values) const {
    auto found = std::find_if(names_.rbegin(), names_.rend(), [&](auto const& n) { return n.first == target.name; });
    if (found != names_.rend()) return found->second(target, values);
    auto const ending =
        std::find_if(endings_.begin(), endings_.end(), [&](auto const& e) { return target.name.ends_with(e.first); });
    detail::expects<invalid_argument>(ending != endings_.end(), [&] {
      std::string text = "by_suffix: parameter \"" + std::string(target.name) + "\": a name that ends in";
      for (auto const& e : endings_) text += " " + e.first;
      return text + " expected, or an initializer of its own";
    });
    ending->second(target, values);
  }

 private:
  std::vector<std::pair<std::string, initializer>> names_, endings_;
};

/// The initializer of a module that is given none: `by_suffix`, and uniform in (-0.01, 0.01) for names without such an ending.
inline by_suffix by_suffix_or_uniform() {
  by_suffix chosen;
  chosen.set_otherwise(uniform{});
  return chosen;
}

/// The first pattern that has the parameter's name chooses: `mixed{{".*bias", constant{0}}, {".*", uniform{0.1}}}`.
class mixed {
 public:
  mixed(std::initializer_list<std::pair<name_pattern, initializer>> choices) : choices_(choices) {}

  /// @throws invalid_argument if no pattern has the name
  void operator()(parameter_target const& target, std::span<float> values) const {
    auto const found = std::find_if(choices_.begin(), choices_.end(),
                                    [&](auto const& choice) { return choice.first.contains(target.name); });
    detail::expects<invalid_argument>(found != choices_.end(), [&] {
      return "mixed: none of " + std::to_string(choices_.size()) + " patterns has parameter \"" +
             std::string(target.name) + "\": add a last pattern \".*\"";
    });
    found->second(target, values);
  }

 private:
  std::vector<std::pair<name_pattern, initializer>> choices_;
};

/// The kinds of parameters that DJL knows.
enum class parameter_kind { weight, bias, gamma, beta, running_mean, running_variance, other };

/// DJL's initializer of a kind: weights are normal of standard deviation sqrt(2 / fan-in), gamma and running variances 1, all others 0.
/// @throws invalid_argument for `other`, which has none
inline initializer default_of(parameter_kind kind) {
  detail::expects<invalid_argument>(kind != parameter_kind::other, [] {
    return std::string("default_of: a parameter of kind \"other\" needs an initializer of its own");
  });
  switch (kind) {
    case parameter_kind::weight: return xavier{distribution::gaussian, fan::in, 2};
    case parameter_kind::gamma:
    case parameter_kind::running_variance: return constant{1};
    default: return constant{0};
  }
}

static_assert(Initializer<by_suffix> && Initializer<mixed>);

}  // namespace pushpull::train::initializers
