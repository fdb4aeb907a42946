/// @file
/// The parameters of a parameter_store: their memory, and which of them the plan of its step updates.
#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/exchange/rank_weights.hpp>
#include <pushpull/store/parameter_list.hpp>
#include <pushpull/store/parameter_memory.hpp>
#include <pushpull/store/parameter_options.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The contents of a gradient with the request `add`, on one device.
enum class gradient_contents : char {
  zeros,  ///< In memory.
  sum,    ///< Of the backward passes of the next step.
  used    ///< What a step has used: a new sum begins over it.
};

/// The part of a parameter_store over the Store S that knows its parameters.
template <class S>
class planned_parameters {
 public:
  /// Makes all mirrors and gradients now.
  void materialize() {
    guard<std::lock_guard, std::mutex> const lock(mutex_);
    if (pending_ > 0) make_pending();
  }
  /// The gradients of the next step are multiplied by a factor, which kv_store::join has returned.
  void weigh_next_step(double factor) {
    factor_ = factor;
    for (auto const& p : parameters_) p->weighed = false;
  }

  /// Number of parameters.
  std::size_t size() const { return parameters_.size(); }
  /// Parameter number i in the order of `add`. This object is a range of all of them.
  parameter_info operator[](std::size_t i) const { return info_of(*parameters_[i]); }
  /// @throws unknown_key
  parameter_info info(std::string_view name) const { return info_of(find(name)); }

 protected:
  using device_type = typename S::device_type;
  using initial_type = typename parameter_memory<S>::initial_type;

  struct parameter {
    std::string name;
    pushpull::shape shape;
    parameter_options options;
    bool requires_grad = true;
    bool trained = true;                                       // it required a gradient at some time
    bool planned = false;                                      // the plan updates it
    bool weighed = false;                                      // its gradient has the factor of the step
    std::vector<gradient_contents> gradients;                  // per device
    std::vector<bool> arrived;                                 // per device: its gradient of the step is complete
    std::optional<tensor<initial_type, device_type>> initial;  // until the mirrors are made
    std::function<void(parameter const&)> sync;

    /// Whether steps read a gradient that the store holds.
    bool has_gradient() const { return requires_grad && options.keeps_gradient; }
  };

  explicit planned_parameters(S& store) : store_(&store), memory_(store) {}
  planned_parameters(planned_parameters const&) = delete;
  planned_parameters& operator=(planned_parameters const&) = delete;
  ~planned_parameters() = default;

  parameter& find(std::string_view name) const { return parameters_.find(name); }
  parameter_info info_of(parameter const& p) const {
    parameter_info info{p.name, p.shape, dtype_traits<typename S::value_type>::name, p.options};
    info.options.requires_grad = p.requires_grad;
    if (!p.requires_grad) info.options.request = grad_request::none;
    if constexpr (requires { static_cast<std::size_t>(store_->group(p.name)); })
      if (!p.initial) info.group = store_->group(p.name);
    return info;
  }

  void expect_free(std::string_view name) const {
    if constexpr (requires { memory_.owns(name); })
      if (memory_.owns(name)) return;
    if constexpr (requires { store_->contains(std::string(name)); })
      expects<duplicate_key>(!store_->contains(std::string(name)), [&] {
        return "parameter_store: the store has a key \"" + std::string(name) + "\" of its own";
      });
  }

  void make_pending() {
    drop_taken_names();
    std::size_t const first = parameters_.size() - pending_;
    std::vector<std::string> names;
    std::vector<tensor_view<initial_type const, device_type>> values;
    std::vector<bool> needs_gradient;
    for (std::size_t i = first; i < parameters_.size(); ++i) {
      names.push_back(parameters_[i]->name);
      values.push_back(std::as_const(*parameters_[i]->initial).view());
      needs_gradient.push_back(parameters_[i]->has_gradient());
    }
    memory_.init(names, values, needs_gradient);
    for (std::size_t i = first; i < parameters_.size(); ++i) parameters_[i]->initial.reset();
    pending_ = 0;
    stale_ = true;
  }

  /// Lays the plan of the step out, if other parameters require a gradient than those that it updates: before the first part of
  /// a step.
  void prepare_step() {
    materialize();
    if (!stale_ || memory_.parts().is_amid()) return;
    bool const joins = begins_a_step();
    std::vector<std::string> names;
    bool same = planned_, complete = true;
    for (auto const& p : parameters_) {
      bool const takes_part = p->has_gradient() && (joins || p->planned);
      if (takes_part) names.push_back(p->name);
      same = same && takes_part == p->planned;
      complete = complete && takes_part == p->has_gradient();
    }
    if (!same) {
      planned_ = false;
      memory_.plan(names);
      for (auto const& p : parameters_) p->planned = p->has_gradient() && (joins || p->planned);
      planned_ = true;
    }
    stale_ = !complete;
  }

  bool is_weighted() const { return !std::equal_to<>()(factor_, 1.0); }
  void weigh_gradient(parameter& p) {
    if (!is_weighted() || !p.planned || std::exchange(p.weighed, true)) return;
    for (std::size_t n = 0; n < store_->devices().size(); ++n) weigh(memory_.gradient(p.name, n), factor_);
  }
  void weigh_gradients() {
    if (!is_weighted()) return;
    for (auto const& p : parameters_) weigh_gradient(*p);
    factor_ = 1;
  }

  void set_requires_grad(std::string_view name, bool required) {
    materialize();
    parameter& p = find(name);
    if (required == p.requires_grad) return;
    if (required && p.options.keeps_gradient) memory_.require_gradient(p.name);
    if constexpr (requires(S& store, std::string const& key) { store.discard_micro_batches(key); })
      if (!required) store_->discard_micro_batches(p.name);
    p.requires_grad = required;
    p.gradients.assign(p.gradients.size(), gradient_contents::used);
    p.trained = p.trained || required;
    if (!required) planned_ = p.planned = false;
    stale_ = true;
  }

  S* store_;
  parameter_memory<S> memory_;
  parameter_list<parameter> parameters_;
  std::size_t pending_ = 0;  // parameters at the end whose mirrors are not made yet
  guarded_mutex<std::mutex> mutex_;
  std::mutex steps_mutex_;  // of steps in parts, whose gradients several threads report

 private:
  /// Forgets pending parameters whose names became keys of the store since they were added, and says so: what is left
  /// still works.
  void drop_taken_names() {
    for (std::size_t i = parameters_.size() - pending_; i < parameters_.size(); ++i) {
      try {
        expect_free(parameters_[i]->name);
      } catch (duplicate_key const&) {
        parameters_.erase(i);
        --pending_;
        throw;
      }
    }
  }

  /// Whether parameters may join those of the plan: not amid a step of several micro-batches, of which they would miss some.
  bool begins_a_step() const {
    if constexpr (requires(S& store, std::string const& key) { store.micro_batches(key); }) {
      bool any = false;
      for (auto const& p : parameters_) {
        if (!p->planned || !p->requires_grad) continue;
        if (store_->micro_batches(p->name) == 0) return true;
        any = true;
      }
      return !any;
    }
    return true;
  }

  double factor_ = 1;     // of this rank's gradients in the next step
  bool stale_ = true;     // the plan covers other parameters than those that require a gradient
  bool planned_ = false;  // there is a plan, of the parameters that say so
};

}  // namespace pushpull::detail
