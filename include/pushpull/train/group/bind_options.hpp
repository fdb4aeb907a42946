/// @file
/// The options of a bind, and the checks of options and shapes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/executor_factory.hpp>
#include <pushpull/train/grad_request.hpp>
#include <pushpull/train/group/batch_layout.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace train {

/// The options of a group's bind.
struct bind_options {
  bool for_training = true;       ///< False: no gradients.
  bool inputs_need_grad = false;  ///< The gradients of the data are computed too.
  grad_requests requests = grad_request::write;
  std::set<std::string> fixed{};  ///< Parameters that keep their values.
};

/// The options of a group.
struct group_options {
  std::vector<double> work_loads{};  ///< One per device; equal if there are none.
  bool allow_idle = false;           ///< Devices may get no rows of a batch: they contribute zero.
};

}  // namespace train

namespace detail {

/// @throws shape_mismatch, with the name, unless the shapes are these
inline void expect_same(std::vector<std::string> const& names, std::vector<shape> const& shapes,
                        std::vector<shape> const& expected) {
  for (std::size_t i = 0; i < names.size(); ++i)
    expects<shape_mismatch>(shapes[i] == expected[i], [&] {
      return "bind: \"" + names[i] + "\" of shape " + to_string(expected[i]) + " expected, these data need " +
             to_string(shapes[i]);
    });
}
/// The shapes of parameters and auxiliary states, which do not depend on a device.
/// @throws shape_mismatch if the devices' parts need parameters of different shapes
template <train::ModelSpec M>
train::inferred_shapes inferred_of(M const& model, std::vector<std::string> const& params,
                                   std::vector<std::string> const& aux, train::batch_layout const& layout) {
  std::optional<train::inferred_shapes> result;
  for (std::size_t k = 0; k < layout.slices.size(); ++k) {
    if (layout.is_idle(k)) continue;
    train::inferred_shapes own = model.infer_shapes(layout.of(k));
    expects<shape_mismatch>(own.params.size() == params.size() && own.aux.size() == aux.size(), [&] {
      return "bind: infer_shapes: " + std::to_string(params.size()) + " parameters and " + std::to_string(aux.size()) +
             " auxiliary states expected, got " + std::to_string(own.params.size()) + " and " +
             std::to_string(own.aux.size());
    });
    if (!result) {
      result = std::move(own);
      continue;
    }
    expect_same(params, own.params, result->params);
    expect_same(aux, own.aux, result->aux);
  }
  expects<empty_slice>(result.has_value(), [] { return std::string("bind: a device with rows expected"); });
  return *std::move(result);
}

/// @throws shape_mismatch if arrays in use have other shapes. @param index  Of the names in the arrays.
template <class Arrays>
void expect_shapes(std::vector<std::string> const& names, std::vector<shape> const& shapes,
                   std::vector<std::size_t> const& index, Arrays const& arrays) {
  std::vector<shape> present;
  for (std::size_t const i : index) present.push_back(arrays.views[i][0].shape());
  expect_same(names, shapes, present);
}

/// @throws dtype_mismatch unless all arrays have elements T
template <class T>
void expect_dtypes(std::vector<train::descriptor> const& descs) {
  for (auto const& d : descs)
    expects<dtype_mismatch>(d.dtype == dtype_traits<T>::name, [&] {
      return "bind: \"" + d.name + "\" has elements " + d.dtype + ", the executor takes " +
             std::string(dtype_traits<T>::name);
    });
}

/// @throws bad_option, unknown_key, dtype_mismatch
template <train::Executor E>
void expect_options(train::input_descriptors const& inputs, train::bind_options const& options,
                    std::vector<std::string> const& params) {
  expects<bad_option>(options.for_training || !options.inputs_need_grad,
                      [] { return std::string("bind: inputs_need_grad is for groups that are bound for training"); });
  if constexpr (!train::InputGradExecutor<E>)
    expects<bad_option>(!options.inputs_need_grad, [] {
      return std::string("bind: inputs_need_grad needs an InputGradExecutor, this one has no input_grads()");
    });
  for (std::string const& name : options.fixed)
    expects<unknown_key>(std::find(params.begin(), params.end(), name) != params.end(),
                         [&] { return "bind: the model has no parameter \"" + name + "\" to fix"; });
  expect_dtypes<train::input_element<E>>(inputs.data);
  expect_dtypes<train::label_element<E>>(inputs.labels);
}

}  // namespace detail
}  // namespace pushpull
