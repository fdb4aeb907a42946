/// @file
/// The executors of a group: how they are made for the shapes of a batch, and what all of them do at once.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/executor_factory.hpp>
#include <pushpull/train/grad_request.hpp>
#include <pushpull/train/group/batch_layout.hpp>
#include <pushpull/train/group/bind_options.hpp>
#include <pushpull/train/group/group_memory.hpp>
#include <pushpull/train/group/replicas.hpp>
#include <pushpull/train/slicing.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The part of a group that makes executors.
template <train::ExecutorFactory F, train::SlicingPolicy Slicing>
class bound_group : public group_memory<F> {
  using base = group_memory<F>;

 public:
  using typename base::device_type;
  using typename base::executor_type;
  using typename base::value_type;
  using typename base::view_type;

  /// @throws bad_option if there is no device, or the work loads are not one per device; duplicate_device
  bound_group(F factory, std::vector<device_type> devices, train::group_options options = {})
      : base(std::move(factory), std::move(devices)), options_(std::move(options)) {
    if (options_.work_loads.empty()) options_.work_loads.assign(this->devices().size(), 1.0);
    expects<bad_option>(options_.work_loads.size() == this->devices().size(), [&] {
      return "executor_group: a work load for each of " + std::to_string(this->devices().size()) +
             " devices expected, got " + std::to_string(options_.work_loads.size());
    });
  }

  bool is_bound() const { return bound_.has_value(); }
  bool is_for_training() const { return bound_ && bound_->options.for_training; }
  /// @throws not_bound
  train::batch_layout const& layout() const {
    expect_bound("layout");
    return bound_->layout;
  }

  /// Whether all devices take equally many rows, as of batches that come in a list, whatever their work loads.
  bool is_even() const { return bound_ && bound_->even; }

  /// Makes the executors. New parameters, gradients and auxiliary states are zero.
  /// @throws bad_option, also if gradients of the data are wanted for inference, or the executor is no InputGradExecutor;
  /// batch_mismatch, shape_mismatch, empty_slice, dtype_mismatch; the errors of the factory
  void bind(train::input_descriptors inputs, train::bind_options options = {}) {
    bind_with(std::move(inputs), std::move(options), nullptr, [](train::inferred_shapes const&) {});
  }
  /// Same as bind, but before anything changes `check` gets the shapes of parameters and auxiliary states, and may refuse them by an
  /// exception.
  template <class Check>
  void bind(train::input_descriptors inputs, train::bind_options options, Check const& check)
    requires std::invocable<Check const&, train::inferred_shapes const&>
  {
    bind_with(std::move(inputs), std::move(options), nullptr, check);
  }
  /// Makes executors that use the parameters, gradients, auxiliary states and pools of another group of the same devices, of
  /// which one runs at a time. The model's names are among the other's.
  /// @throws also not_bound if the other is not; unknown_key if it lacks a name
  void bind(train::input_descriptors inputs, train::bind_options options, bound_group& shared) {
    shared.expect_bound("bind with a shared group");
    expects<unknown_device>(shared.devices() == this->devices(),
                            [] { return std::string("bind: the shared group has other devices"); });
    bind_with(std::move(inputs), std::move(options), &shared, [](train::inferred_shapes const&) {});
  }

  /// Other shapes of data and labels. Parameters, gradients and auxiliary states stay where they are. Nothing happens if the
  /// descriptors are the present ones. @throws as bind; shape_mismatch if a parameter would have another shape
  void reshape(train::input_descriptors inputs) { reshape(std::move(inputs), false); }
  /// Same as reshape, but all devices take equally many rows, whatever their work loads, if `even`.
  void reshape(train::input_descriptors inputs, bool even) {
    expect_bound("reshape");
    if (inputs == bound_->layout.whole && even == bound_->even) return;
    auto layout = lay_out(std::move(inputs), even);
    expect_inferred(layout);
    if constexpr (train::ReshapableExecutor<executor_type>) {
      if (version_ == this->arrays_->version && same_active(layout)) return reshape_all(std::move(layout), even);
    }
    auto executors = make_all(layout, bound_->requests);
    replace(std::move(executors));
    bound_->layout = std::move(layout);
    bound_->even = even;
  }

  /// From now on the executors read the mirrors of a parameter_store, or of what has its `value` and `grad`, and write its
  /// gradients. It has the model's parameters by their names, on the group's devices in their order.
  /// @throws not_bound; unknown_key; shape_mismatch
  template <class Parameters>
  void attach(Parameters& parameters) {
    auto& all = this->arrays("attach");
    auto params = all.params.views;
    auto grads = all.grads.views;
    for (std::size_t i = 0; i < params.size(); ++i)
      for (std::size_t k = 0; k < this->devices().size(); ++k) {
        std::string const& name = all.params.names[i];
        view_type const value = parameters.value(name, k);
        expects<shape_mismatch>(value.shape() == params[i][k].shape(), [&] {
          return "attach: parameter \"" + name + "\" of shape " + to_string(params[i][k].shape()) + " expected, got " +
                 to_string(value.shape());
        });
        params[i][k] = value;
        if (!grads[i].empty()) grads[i][k] = parameters.grad(name, k);
      }
    params.swap(all.params.views);
    grads.swap(all.grads.views);
    ++all.version;
    try {
      refresh();
    } catch (...) {
      params.swap(all.params.views);
      grads.swap(all.grads.views);
      --all.version;
      throw;
    }
    all.params.owned.clear();
    all.grads.owned.clear();
    all.identical = true;
  }

  /// The next backward overwrites gradients whose request is `add`. Nothing else zeroes them.
  void zero_grad() {
    expect_bound("zero_grad");
    this->arrays_->zero_first = true;
  }
  /// Whether a backward pass of this group computes all gradients of the groups that share memory. @throws not_bound
  bool computes_all() const {
    auto const& all = this->arrays("computes_all").grads.views;
    std::size_t own = 0, count = 0;
    for (std::size_t i = 0; i < this->param_names_.size(); ++i)
      own += request(i) != train::grad_request::none ? 1U : 0U;
    for (auto const& views : all) count += views.empty() ? 0U : 1U;
    return own == count;
  }
  /// The request of parameter i.
  train::grad_request request(std::size_t i) const {
    expect_bound("request");
    return bound_->requests.params[i];
  }

  /// @throws not_bound
  void expect_bound(char const* call) const {
    expects<not_bound>(is_bound(), [&] { return std::string(call) + ": bind first"; });
  }

 protected:
  ~bound_group() = default;

  executor_type& executor(std::size_t k) { return *bound_->executors[k]; }
  /// The first executor that has rows.
  executor_type& first() {
    for (auto const& e : bound_->executors)
      if (e != nullptr) return *e;
    raise<empty_slice>(std::string("executor_group: no device has rows"));
  }
  /// -1 also if no array has samples: all devices then compute the same.
  int output_axis(std::size_t i) const {
    return bound_->layout.rows ? static_cast<int>(this->factory_.output_axis(i)) : -1;
  }
  std::size_t output_count() { return std::ranges::size(this->factory_.output_names()); }

  template <class G>
  void for_each_active(G const& f) {
    for_each_replica(this->devices(), [&](std::size_t k) {
      if (bound_->executors[k] != nullptr) f(k);
    });
  }

  /// Makes the executors again if their memory has moved.
  void refresh() {
    if (version_ == this->arrays_->version) return;
    replace(make_all(bound_->layout, bound_->requests));
  }

  void begin_backward() {
    expect_bound("backward");
    expects<not_training>(bound_->options.for_training,
                          [] { return std::string("backward: the group was bound for inference"); });
    refresh();
    this->arrays_->begin_backward(this->param_index_, bound_->requests.params);
    int active = 0;
    for (std::size_t k = 0; k < this->devices().size(); ++k) {
      bool const idle = bound_->executors[k] == nullptr;
      active += idle ? 0 : 1;
      for (std::size_t i = 0; i < this->param_names_.size(); ++i)
        if (bound_->requests.params[i] == train::grad_request::write && idle) {
          auto const view = this->grad(i, k);
          view.device().fill_zero(view.data(), view.size() * sizeof(value_type));
        }
    }
    if (hook_) counter_.begin(this->param_names_.size(), active);
  }

  void expect_input_grads() {
    expect_bound("input_grads");
    expects<not_training>(bound_->options.inputs_need_grad,
                          [] { return std::string("input_grads: bind with inputs_need_grad first"); });
    refresh();
  }

  /// f(executor) for all executors, now and when they are made again.
  void on_build(std::function<void(executor_type&)> f) {
    builders_.push_back(std::move(f));
    for (auto const& e : bound_->executors)
      if (e != nullptr) builders_.back()(*e);
  }
  void set_hook(std::function<void(std::size_t)> f) {
    hook_ = std::move(f);
    install_hooks();
  }
  void set_needed_hook(std::function<void(std::size_t)> f) {
    needed_ = std::move(f);
    install_hooks();
  }

 private:
  using executors_type = std::vector<std::unique_ptr<executor_type>>;
  struct binding {
    train::batch_layout layout;
    train::bind_options options;
    train::replica_requests requests;
    executors_type executors{};
    bool even = false;
  };

  train::batch_layout lay_out(train::input_descriptors inputs, bool even) const {
    std::vector<double> const equal(even ? this->devices().size() : 0, 1.0);
    return train::lay_out<Slicing>(std::move(inputs), even ? std::span(equal) : std::span(options_.work_loads),
                                   {.allow_empty = options_.allow_idle, .even = even});
  }

  /// @throws shape_mismatch if the parameters in use have other shapes
  void expect_inferred(train::batch_layout const& layout) const {
    auto const shapes = inferred_of(this->factory_, this->param_names_, this->aux_names_, layout);
    expect_shapes(this->param_names_, shapes.params, this->param_index_, this->arrays_->params);
    expect_shapes(this->aux_names_, shapes.aux, this->aux_index_, this->arrays_->aux);
  }

  template <class Check>
  void bind_with(train::input_descriptors inputs, train::bind_options options, bound_group* shared,
                 Check const& check) {
    expect_options<executor_type>(inputs, options, this->param_names_);
    auto requests = train::resolve(options.requests, inputs, this->param_names_, options.fixed, options.for_training,
                                   options.inputs_need_grad);
    binding next{lay_out(std::move(inputs), false), std::move(options), std::move(requests)};
    auto const shapes = inferred_of(this->factory_, this->param_names_, this->aux_names_, next.layout);
    check(shapes);
    auto arrays = shared != nullptr ? shared->arrays_ : this->arrays_;
    auto pools = shared != nullptr ? shared->pools_ : this->pools_;
    std::vector<std::size_t> params, aux;
    bool const known = arrays != nullptr && arrays->params.find_all(this->param_names_, shapes.params, params) &&
                       arrays->aux.find_all(this->aux_names_, shapes.aux, aux);
    if (!known) {
      expects<shape_mismatch>(shared == nullptr, [&] {
        return std::string("bind: the shared group lacks a parameter of this one, or has another shape of it");
      });
      arrays = std::make_shared<typename base::arrays_type>();
      arrays->params.allocate(this->param_names_, shapes.params, this->devices());
      arrays->aux.allocate(this->aux_names_, shapes.aux, this->devices());
      arrays->grads.views.resize(shapes.params.size());
      params.resize(this->param_names_.size());
      aux.resize(this->aux_names_.size());
      std::iota(params.begin(), params.end(), std::size_t{0});
      std::iota(aux.begin(), aux.end(), std::size_t{0});
    }
    if (pools == nullptr) {
      pools = std::make_shared<typename base::pools_type>();
      for (auto const& device : this->devices())
        pools->push_back(std::make_unique<train::buffer_pool<device_type>>(device));
    }
    auto const added = arrays->require_gradients(params, next.requests.params);
    try {
      next.executors = make_all(next.layout, next.requests, *arrays, params, aux, *pools);
      if (bound_) move_all_states(next.executors);
      prepare(next.executors);
    } catch (...) {
      arrays->drop_gradients(added);
      throw;
    }
    bound_ = std::move(next);
    this->arrays_ = std::move(arrays);
    this->pools_ = std::move(pools);
    this->param_index_ = std::move(params);
    this->aux_index_ = std::move(aux);
    version_ = this->arrays_->version;
  }

  executors_type make_all(train::batch_layout const& layout, train::replica_requests const& requests) {
    return make_all(layout, requests, *this->arrays_, this->param_index_, this->aux_index_, *this->pools_);
  }
  executors_type make_all(train::batch_layout const& layout, train::replica_requests const& requests,
                          typename base::arrays_type const& arrays, std::vector<std::size_t> const& params,
                          std::vector<std::size_t> const& aux, typename base::pools_type const& pools) {
    executors_type result(this->devices().size());
    for (std::size_t k = 0; k < result.size(); ++k) {
      if (layout.is_idle(k)) continue;
      train::replica_memory<value_type, device_type> memory;
      for (std::size_t i = 0; i < params.size(); ++i) {
        memory.params.push_back(arrays.params.views[params[i]][k]);
        bool const none = requests.params[i] == train::grad_request::none;
        memory.grads.push_back(none ? view_type(nullptr, shape{0}, this->devices()[k])
                                    : arrays.grads.views[params[i]][k]);
      }
      for (std::size_t const i : aux) memory.aux.push_back(arrays.aux.views[i][k]);
      result[k].reset(
          new executor_type(this->factory_.make(this->devices()[k], layout.of(k), requests, *pools[k], memory)));
      bool fits = std::ranges::size(result[k]->params()) == memory.params.size() &&
                  std::ranges::size(result[k]->inputs()) == layout.whole.data.size();
      for (std::size_t i = 0; fits && i < memory.params.size(); ++i)
        fits = result[k]->params()[i].data() == memory.params[i].data();
      expects<bad_option>(fits, [&] {
        return "bind: the factory's executor for device " + std::string(this->devices()[k].name()) +
               " does not use the memory of the parameters that make was given, or has another number of inputs";
      });
    }
    return result;
  }

  void move_all_states(executors_type& next) {
    for (std::size_t k = 0; k < next.size(); ++k)
      if (bound_->executors[k] != nullptr && next[k] != nullptr) move_states(*bound_->executors[k], *next[k]);
  }
  void prepare(executors_type& executors) {
    for (auto const& e : executors) {
      if (e == nullptr) continue;
      for (auto const& build : builders_) build(*e);
      install_hook(*e);
    }
  }
  void replace(executors_type next) {
    move_all_states(next);
    prepare(next);
    bound_->executors = std::move(next);
    version_ = this->arrays_->version;
  }
  void install_hook([[maybe_unused]] executor_type& e) {
    if constexpr (train::HookedExecutor<executor_type>) {
      std::function<void(std::size_t)> ready;
      if (hook_)
        ready = [this](std::size_t i) {
          if (counter_.is_last(i)) hook_(i);
        };
      e.on_grad_ready(std::move(ready));
    }
    if constexpr (train::WaitingExecutor<executor_type>) e.on_param_needed(needed_);
  }
  void install_hooks() {
    if (!bound_) return;
    for (auto const& e : bound_->executors)
      if (e != nullptr) install_hook(*e);
  }

  bool same_active(train::batch_layout const& layout) const {
    for (std::size_t k = 0; k < this->devices().size(); ++k)
      if (layout.is_idle(k) != (bound_->executors[k] == nullptr)) return false;
    return true;
  }
  void reshape_all(train::batch_layout layout, bool even) {
    std::size_t k = 0;
    try {
      for (; k < this->devices().size(); ++k)
        if (bound_->executors[k] != nullptr) bound_->executors[k]->reshape(layout.of(k));
    } catch (...) {
      while (k-- > 0)
        if (bound_->executors[k] != nullptr) bound_->executors[k]->reshape(bound_->layout.of(k));
      throw;
    }
    bound_->layout = std::move(layout);
    bound_->even = even;
  }

  train::group_options options_;
  std::optional<binding> bound_;
  std::uint64_t version_ = 0;
  std::vector<std::function<void(executor_type&)>> builders_;
  std::function<void(std::size_t)> hook_, needed_;
  ready_counter counter_;
};

}  // namespace pushpull::detail
