/// @file
/// Which gradients a backward pass computes, and whether it overwrites or adds.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/parameter_options.hpp>
#include <pushpull/train/executor.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

using pushpull::grad_request;  // with `add` nothing but `zero_grad` ends a sum

/// One request for all; one per argument, which are the data, the labels and the parameters in this order; or requests by
/// name, where arguments without a name in the map have `write`.
using grad_requests =
    std::variant<grad_request, std::vector<grad_request>, std::map<std::string, grad_request, std::less<>>>;

/// The requests of one replica's data and of its parameters.
struct replica_requests {
  std::vector<grad_request> inputs, params;
};

/// The request of every argument. Defaults come first: parameters have the one of `given`, data too if their gradients are
/// wanted; fixed parameters and labels none. A list or a map then has the last word, also for fixed parameters.
/// @throws bad_option if a list has another length than the arguments; unknown_key if a map names no argument
inline replica_requests resolve(grad_requests const& given, input_descriptors const& inputs,
                                std::vector<std::string> const& params, std::set<std::string> const& fixed,
                                bool for_training, bool inputs_need_grad) {
  auto const* const one = std::get_if<grad_request>(&given);
  grad_request const standard = !for_training ? grad_request::none : one != nullptr ? *one : grad_request::write;
  replica_requests result;
  result.inputs.assign(inputs.data.size(), inputs_need_grad ? standard : grad_request::none);
  for (std::string const& name : params) result.params.push_back(fixed.contains(name) ? grad_request::none : standard);
  if (auto const* const list = std::get_if<std::vector<grad_request>>(&given)) {
    std::size_t const before = inputs.data.size() + inputs.labels.size();
    pushpull::detail::expects<bad_option>(list->size() == before + params.size(), [&] {
      return "bind: a gradient request for each of " + std::to_string(before + params.size()) +
             " arguments (data, labels, parameters) expected, got " + std::to_string(list->size());
    });
    if (!for_training) return result;
    for (std::size_t i = 0; i < inputs.data.size(); ++i) result.inputs[i] = (*list)[i];
    for (std::size_t i = 0; i < params.size(); ++i) result.params[i] = (*list)[before + i];
  } else if (auto const* const map = std::get_if<std::map<std::string, grad_request, std::less<>>>(&given)) {
    for (auto const& entry : *map) {  // clang 14 captures no structured bindings
      std::string const& name = entry.first;
      grad_request const request = entry.second;
      bool known = false;
      auto const give = [&](bool is_named, grad_request& to) {
        known = known || is_named;
        if (is_named && for_training) to = request;
      };
      for (std::size_t i = 0; i < params.size(); ++i) give(params[i] == name, result.params[i]);
      for (std::size_t i = 0; i < inputs.data.size(); ++i) give(inputs.data[i].name == name, result.inputs[i]);
      for (descriptor const& label : inputs.labels) known = known || label.name == name;
      pushpull::detail::expects<unknown_key>(
          known, [&] { return "bind: a gradient request names \"" + name + "\", which is no argument of the model"; });
    }
  }
  return result;
}

}  // namespace pushpull::train
