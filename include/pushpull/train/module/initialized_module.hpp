/// @file
/// The part of a module that binds it, and that gives values to its parameters.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/initializers/by_name.hpp>
#include <pushpull/train/initializers/initializer.hpp>
#include <pushpull/train/module/bound_module.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A copy in host memory, in another element type.
template <class P, class V>
tensor<P> host_copy(V const& value) {
  auto const from = view_of(value);
  tensor<P> result(cpu_device<>(), from.shape());
  auto const to = result.view();
  copy(from, to);
  return result;
}

/// bind and the parameters of a module.
template <train::ExecutorFactory F, train::SlicingPolicy Slicing>
class initialized_module : public bound_module<F, Slicing> {
  using base = bound_module<F, Slicing>;

 public:
  using typename base::master_type;
  using params_type = train::model_params<master_type>;
  using base::base;

  /// Makes the executors for these data and labels. Of a module that is bound it does nothing but a warning, unless forced.
  /// Parameters that have values keep them: data for which one would have another shape are refused. After an error the module is
  /// as it was. The values of a checkpoint that was loaded before are taken; names that it lacks, if its options allow that, get
  /// values as init_params gives them.
  /// @throws bad_option if the names of the data are not those of the model, or the optimizer trains no parameter of which a
  /// gradient is requested now; shape_mismatch, which names the parameter; as
  /// executor_group::bind
  void bind(std::vector<train::descriptor> data, std::vector<train::descriptor> labels = {},
            train::module_bind_options options = {}) {
    bind_with({std::move(data), std::move(labels)}, options, nullptr);
  }
  /// Makes executors that share parameters, gradients, auxiliary states and memory with another module, and its optimizer if it has
  /// one: for another bucket. One of the two runs at a time. The other outlives this one.
  /// @throws also not_bound, not_initialized if the other is not
  void bind(std::vector<train::descriptor> data, std::vector<train::descriptor> labels,
            train::module_bind_options options, initialized_module& shared) {
    shared.expect_ready("bind with a shared module");
    bind_with({std::move(data), std::move(labels)}, options, &shared);
  }

  /// Gives all parameters and auxiliary states values, in the order of their names. If the parameters have values it does
  /// nothing but a warning, unless forced.
  /// @throws not_bound; the initializer's errors. Nothing has changed then.
  void init_params(train::initializer const& initializer = train::initializers::by_suffix_or_uniform(),
                   train::init_options options = {}) {
    if (!expect_uninitialized("init_params", options.force)) return;
    write(initial(params_type{}, false, &initializer, options));
  }
  /// From given values, of any element type, by name; names without a value get the initializer's if `allow_missing`.
  /// @throws also missing_param, extra_param, each with all names; shape_mismatch
  template <class Args, class Aux>
  void init_params(train::initializer const& initializer, Args const& args, Aux const& aux,
                   train::init_options options = {}) {
    if (!expect_uninitialized("init_params", options.force)) return;
    expect_names("init_params", args, aux, {options.allow_missing, options.allow_extra});
    write(initial(given(args, aux), true, &initializer, options));
  }
  /// Replaces values, of any element type, by name: on all devices, in the store and its mirrors. The rule's states stay.
  /// @throws not_bound; missing_param, which lists all names without a value, unless `allow_missing`: they then keep their
  /// values; extra_param, which lists all names that the model does not have, unless `allow_extra`; shape_mismatch
  template <class Args, class Aux>
  void set_params(Args const& args, Aux const& aux, train::param_options options = {}) {
    this->group_.expect_bound("set_params");
    if (this->initialized_ && !options.force)
      return this->options_.warn("set_params: the parameters have values, the call is ignored: set force");
    expect_names("set_params", args, aux, options);
    write(given(args, aux));
  }
  /// A copy of all trained values and auxiliary states, of these the mean over the devices. Waits. @throws not_initialized
  params_type params() const {
    expects<not_initialized>(this->initialized_, [] { return std::string("params: init_params first"); });
    if (!this->is_bound()) return copied(preloaded_);
    params_type result;
    auto& group = this->group_;
    for (std::size_t i = 0; i < group.param_names().size(); ++i)
      result.args.emplace(group.param_names()[i], tensor<master_type>(cpu_device<>(), group.param(i, 0).shape()));
    result.aux = mean_aux();
    if (this->optimizer_ != nullptr) {
      this->optimizer_->wait();
      for (auto& [name, value] : result.args) this->optimizer_->read(name, value.view());
    } else {
      train::tensor_map<master_type> none;
      group.get_params(result.args, none);
    }
    return result;
  }
  /// Gives the mean of each auxiliary state to all devices: what an epoch ends with.
  void spread_aux() {
    this->expect_ready("spread_aux");
    this->group_.set_params(train::tensor_map<master_type>(), mean_aux());
  }

 protected:
  ~initialized_module() = default;

  /// Values for a module that is not bound: the next bind takes them.
  void preload(params_type values) {
    preloaded_ = std::move(values);
    this->initialized_ = true;
  }

  /// @throws missing_param, extra_param; shape_mismatch
  template <class Args, class Aux>
  void expect_names(char const* call, Args const& args, Aux const& aux, train::param_options options) const {
    compare_names(call, args, aux, options);
    this->group_.expect_values(call, args, aux, true);
  }
  /// The checks of expect_names that need no bind. @throws missing_param, extra_param
  template <class Args, class Aux>
  void compare_names(char const* call, Args const& args, Aux const& aux, train::param_options options) const {
    std::vector<std::string> missing, extra;
    auto const compare = [&](auto const& values, std::vector<std::string> const& names) {
      for (std::string const& name : names)
        if (values.find(name) == values.end()) missing.push_back(name);
      for (auto const& [name, value] : values)
        if (std::find(names.begin(), names.end(), name) == names.end()) extra.push_back(name);
    };
    compare(args, this->group_.param_names());
    compare(aux, this->group_.aux_names());
    auto const text = [&] {
      return std::string(call) + ": no value for " + (missing.empty() ? "none" : listed(missing)) +
             ", no parameter of the model for " + (extra.empty() ? "none" : listed(extra));
    };
    expects<missing_param>(missing.empty() || options.allow_missing, text);
    expects<extra_param>(extra.empty() || options.allow_extra, text);
  }
  template <class Args, class Aux>
  static params_type given(Args const& args, Aux const& aux) {
    params_type result;
    for (auto const& [name, value] : args) result.args.emplace(name, host_copy<master_type>(value));
    for (auto const& [name, value] : aux) result.aux.emplace(name, host_copy<master_type>(value));
    return result;
  }
  static params_type copied(params_type const& values) { return given(values.args, values.aux); }

  /// The values of a checkpoint, of a module that has none: names that it lacks get values as init_params gives them.
  void write_first(params_type values) {
    train::initializer const others = train::initializers::by_suffix_or_uniform();
    write(initial(std::move(values), true, &others, {.allow_missing = true}));
  }
  /// To every place that holds the values: all or none.
  void write(params_type const& values) {
    if (this->optimizer_ != nullptr) {
      std::vector<std::string> names;
      std::vector<tensor_view<master_type const>> views;
      auto const& known = this->group_.param_names();
      for (auto const& [name, value] : values.args) {
        if (std::find(known.begin(), known.end(), name) == known.end()) continue;
        names.push_back(name);
        views.push_back(value.view());
      }
      this->optimizer_->assign(names, views, rule_states::keep);
      this->optimizer_->wait();
      this->group_.set_params(train::tensor_map<master_type>(), values.aux, true);
    } else {
      this->group_.set_params(values.args, values.aux, true);
      this->group_.set_identical(true);
    }
    this->initialized_ = true;
  }

 private:
  train::tensor_map<master_type> mean_aux() const {
    train::tensor_map<master_type> result, none;
    for (std::size_t i = 0; i < this->group_.aux_names().size(); ++i)
      result.emplace(this->group_.aux_names()[i], tensor<master_type>(cpu_device<>(), this->group_.aux(i, 0).shape()));
    this->group_.get_params(none, result);
    return result;
  }
  bool expect_uninitialized(char const* call, bool force) const {
    this->group_.expect_bound(call);
    if (!this->initialized_ || force) return true;
    this->options_.warn(std::string(call) + ": the parameters have values, the call is ignored: set force");
    return false;
  }

  /// A value for each of the model's names: the given one, or else the initializer's.
  params_type initial(params_type values, bool any_given, train::initializer const* initializer,
                      train::init_options options) const {
    params_type result;
    auto const fill = [&](std::vector<std::string> names, auto const& shape_of, auto& from, auto& to) {
      auto const unsorted = names;
      std::sort(names.begin(), names.end());
      for (std::string const& name : names) {
        if (auto const found = from.find(name); found != from.end()) {
          to.emplace(name, std::move(found->second));
          continue;
        }
        if (any_given && !options.allow_missing) continue;
        auto const i = static_cast<std::size_t>(std::find(unsorted.begin(), unsorted.end(), name) - unsorted.begin());
        shape const extents = shape_of(i);
        std::vector<float> numbers(extents.size());
        (*initializer)({.name = name, .shape = extents, .seed = this->options_.seed}, numbers);
        to.emplace(name, host_copy<master_type>(tensor_view(numbers.data(), extents)));
      }
    };
    fill(
        this->group_.param_names(), [&](std::size_t i) { return this->group_.param(i, 0).shape(); }, values.args,
        result.args);
    fill(
        this->group_.aux_names(), [&](std::size_t i) { return this->group_.aux(i, 0).shape(); }, values.aux,
        result.aux);
    return result;
  }

  void bind_with(train::input_descriptors inputs, train::module_bind_options const& options,
                 initialized_module* shared) {
    if (this->is_bound() && !options.force_rebind)
      return this->options_.warn("bind: the module is bound, the call is ignored: set force_rebind");
    expect_declared(this->group_.factory(), inputs, this->options_.warn);
    train::bind_options const chosen{options.for_training, options.inputs_need_grad, options.requests,
                                     this->options_.fixed};
    if (shared != nullptr) {
      this->group_.bind(std::move(inputs), chosen, shared->group_);
      this->initialized_ = true;
      this->optimizer_ = shared->optimizer_;
      return;
    }
    if (this->optimizer_ != nullptr) expect_trained(inputs, chosen);
    bool const waiting = !this->is_bound() && this->initialized_;
    this->group_.bind(std::move(inputs), chosen,
                      [&](train::inferred_shapes const& shapes) { expect_shapes_kept(shapes, waiting); });
    if (this->optimizer_ != nullptr) this->group_.attach(*this->optimizer_);
    if (!waiting) return;
    write_first(copied(preloaded_));
    preloaded_ = {};
  }
  /// @throws bad_option if a gradient is requested of a parameter that the optimizer was not made to train
  void expect_trained(train::input_descriptors const& inputs, train::bind_options const& chosen) const {
    auto const& names = this->group_.param_names();
    auto const requests =
        train::resolve(chosen.requests, inputs, names, chosen.fixed, chosen.for_training, chosen.inputs_need_grad);
    for (std::size_t i = 0; i < names.size(); ++i)
      expects<bad_option>(requests.params[i] == train::grad_request::none || this->group_.has_gradient(i), [&] {
        return "bind: a gradient of \"" + names[i] +
               "\" is requested, which the optimizer does not train: request it before init_optimizer";
      });
  }
  /// @throws shape_mismatch if a value, of a checkpoint or of a parameter, has another shape
  void expect_shapes_kept(train::inferred_shapes const& shapes, bool waiting) const {
    if (!this->initialized_) return;
    auto const compare = [&](std::vector<std::string> const& names, std::vector<shape> const& wanted,
                             auto const& loaded, auto const& own) {
      for (std::size_t i = 0; i < names.size(); ++i) {
        shape present = wanted[i];
        if (!waiting) {
          present = own(i).shape();
        } else if (auto const found = loaded.find(names[i]); found != loaded.end()) {
          present = found->second.shape();
        }
        expects<shape_mismatch>(present == wanted[i], [&] {
          return "bind: \"" + names[i] + "\" has a value of shape " + to_string(present) + ", these data need " +
                 to_string(wanted[i]);
        });
      }
    };
    compare(this->group_.param_names(), shapes.params, preloaded_.args,
            [&](std::size_t i) { return this->group_.param(i, 0); });
    compare(this->group_.aux_names(), shapes.aux, preloaded_.aux,
            [&](std::size_t i) { return this->group_.aux(i, 0); });
  }

  params_type preloaded_;
};

}  // namespace pushpull::detail
