/// @file
/// Steps of some of a model's parameters.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/store/parameter_store.hpp>
#include <pushpull/store/step_parts.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Makes steps of chosen parameters of a parameter_store: those of a bucket's model that has fewer than the default bucket's. Each
/// choice is laid out once. With a rule that sums over all gradients, which no part of a step can be made of, the others are
/// frozen during the step, so their gradients are in no sum: such a step is laid out each time.
template <class S>
class chosen_steps {
 public:
  /// The next step is of the names for which `chosen` holds; of all if it is empty.
  void choose(std::vector<std::string> const& names, std::vector<char> const& chosen) {
    current_ = nullptr;
    if (chosen.empty()) return;
    auto found = choices_.find(chosen);
    if (found == choices_.end()) {
      found = choices_.emplace(chosen, choice()).first;
      for (std::size_t i = 0; i < chosen.size(); ++i)
        (chosen[i] != 0 ? found->second.names : found->second.others).push_back(names[i]);
    }
    current_ = &found->second;
  }
  /// Makes the step. All parameters are the choice again afterwards.
  void update(parameter_store<S>& parameters) {
    choice* const of = std::exchange(current_, nullptr);
    if (of == nullptr) return parameters.update_all();
    if constexpr (may_step_in_parts<S>) {
      if (parameters.can_make_parts()) {
        if (!of->part) of->part.emplace(parameters.make_part(of->names));
        return parameters.update(*of->part);
      }
    }
    update_without(parameters, of->others);
  }

 private:
  template <class P>
  static auto part_of() {
    if constexpr (may_step_in_parts<S>) {
      return std::optional<decltype(std::declval<P&>().make_part(std::vector<std::string>()))>();
    } else {
      return std::optional<char>();
    }
  }
  struct choice {
    std::vector<std::string> names{}, others{};
    decltype(part_of<parameter_store<S>>()) part{};
  };
  /// The others are frozen during the step, and not after it, whether it throws or not.
  static void update_without(parameter_store<S>& parameters, std::vector<std::string> const& others) {
    std::vector<std::string const*> frozen;
    auto const unfreeze = [&] {
      for (; !frozen.empty(); frozen.pop_back()) parameters.unfreeze(*frozen.back());
    };
    frozen.reserve(others.size());
    try {
      for (std::string const& name : others) {
        if (!parameters.requires_grad(name)) continue;
        parameters.freeze(name);
        frozen.push_back(&name);
      }
      parameters.update_all();
    } catch (...) {
      unfreeze();
      throw;
    }
    unfreeze();
  }

  std::map<std::vector<char>, choice> choices_;
  choice* current_ = nullptr;
};

}  // namespace pushpull::detail
