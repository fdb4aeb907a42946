/// @file
/// The options of a module and of its calls.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/train/executor_factory.hpp>
#include <pushpull/train/grad_request.hpp>
#include <pushpull/train/group/group_memory.hpp>
#include <pushpull/train/optimizer/rescaled.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// The options of a module.
struct module_options {
  std::vector<double> work_loads{};  ///< One per device; equal if there are none.
  bool allow_idle = false;           ///< Devices may get no rows of a batch: they contribute zero.
  std::set<std::string> fixed{};     ///< Parameters that keep their values.
  std::uint64_t seed = 0;            ///< Of the initializers.
  /// Gets the text of each warning; by default stderr does.
  std::function<void(std::string const&)> warn = [](std::string const& text) {
    std::fputs(("pushpull: " + text + "\n").c_str(), stderr);
  };
};

/// The options of module::bind.
struct module_bind_options {
  bool for_training = true;
  bool inputs_need_grad = false;
  grad_requests requests = grad_request::write;
  bool force_rebind = false;  ///< Of a module that is bound: makes its executors again. Parameters stay.
};

/// The options of module::init_params.
struct init_options {
  bool allow_missing = false;  ///< Names without a value are initialized.
  bool allow_extra = false;    ///< Values that no name of the model has are ignored.
  bool force = false;          ///< Also if the parameters have values.
};

/// The options of module::set_params.
struct param_options {
  bool allow_missing = false;  ///< Names without a value keep what they hold.
  bool allow_extra = false;    ///< Values that no name of the model has are ignored.
  bool force = true;           ///< Also if the parameters have values.
};

/// When the steps of single parameters begin, if the executor is a HookedExecutor and the store applies the rule.
enum class overlap {
  automatic,  ///< During the backward pass if there are several ranks, whose messages it hides; or else after it.
  on,         ///< During the backward pass, beside it.
  off         ///< After the backward pass, in one pass over all parameters.
};

/// Makes each step in the backward pass itself, on the processors that have just written the gradient, while it is in their
/// caches. A tag, because a rule that sums over all parameters does not compile with it.
struct in_backward_t {};
/// The tag.
inline constexpr in_backward_t in_backward{};

/// A store adds gradients up, and each device applies the rule to all parameters, with all of the states. A tag, because most
/// modules step in their store, and should not compile both.
struct on_each_device_t {};
/// The tag.
inline constexpr on_each_device_t on_each_device{};

/// Parameters that are tables of rows, of which a batch needs some: see table_optimizer.hpp.
struct tables {
  std::set<std::string> names{};
};

/// Multipliers of the learning rate and of the weight decay of a parameter.
using name_multipliers = std::function<std::pair<double, double>(std::string_view)>;

/// MXNet's: only parameters whose names end in "weight" or "gamma" decay.
inline std::pair<double, double> decay_weights_only(std::string_view name) {
  return {1, name.ends_with("weight") || name.ends_with("gamma") ? 1 : 0};
}

/// The options of module::init_optimizer.
struct optimizer_options {
  rescale_policy rescale = rescale_policy::current_batch;
  bool update_on_store = true;     ///< Of a store given by name or as an any_store; false: as with `on_each_device`.
  name_multipliers multipliers{};  ///< By name; parameters with equal ones make a parameter group. None: 1 for all.
  train::overlap overlap = train::overlap::automatic;
  bool force = false;  ///< Also if the module has an optimizer.
};

/// The options of a checkpoint.
struct checkpoint_options {
  bool states = true;          ///< Also the optimizer's states, in a file of their own.
  bool allow_missing = false;  ///< A load leaves parameters alone that the file does not have.
  bool allow_extra = false;    ///< A load ignores tensors that the model does not have.
};

/// The parameters and auxiliary states of a model by name, in host memory.
template <ElementType P>
struct model_params {
  tensor_map<P> args{}, aux{};
};

}  // namespace pushpull::train
