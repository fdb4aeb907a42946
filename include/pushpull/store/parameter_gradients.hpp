/// @file
/// Gradient requests: whether a backward pass writes over the gradients of a parameter_store or adds to them.
#pragma once

#include <cstddef>
#include <mutex>
#include <string_view>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/parameter_options.hpp>
#include <pushpull/store/planned_parameters.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The part of a parameter_store that knows which gradients hold a sum of the present step.
///
/// A step leaves the gradients as they are. Those with the request `add` then count as used: the next backward pass begins a
/// new sum, over zeros or over the old contents.
template <class S>
class parameter_gradients : public planned_parameters<S> {
 public:
  using planned_parameters<S>::materialize;

  /// What a backward pass does with the gradients of the parameter; none if it is frozen or needs no gradient.
  /// @throws unknown_key
  grad_request request(std::string_view name) const {
    auto const& p = find(name);
    return p.requires_grad ? p.options.request : grad_request::none;
  }
  /// From the next backward pass and step on; `none` freezes, the others unfreeze. Gradients are made where a parameter needs
  /// its first; states and t stay. Amid a step of several micro-batches see `unfreeze`. All ranks make it. @throws unknown_key
  void set_request(std::string_view name, grad_request request) {
    materialize();
    auto& p = find(name);
    set_requires_grad(p.name, request != grad_request::none);  // may throw: first
    if (request != grad_request::none && request != p.options.request) {
      p.options.request = request;
      mark_used(p);
    }
  }

  /// Zeros for all gradients with the request `add`, on all devices: for backward passes that add, through views of theirs,
  /// whatever the gradients hold. Gradients with the request `write` stay as they are, since the next backward pass overwrites
  /// them. Enqueued. Cost: a write of the gradients that are not known to be zero.
  void zero_grad() {
    materialize();
    for (auto const& p : parameters_)
      for (std::size_t n = 0; n < p->gradients.size(); ++n)
        if (adds(*p) && p->gradients[n] != gradient_contents::zeros) fill_zeros(*p, n);
  }
  /// Forgets the sums of all gradients with the request `add`, without touching memory: as after a step. The next `grad` fills
  /// zeros, and the next `begin_grad` says `write`.
  void discard_grad() {
    for (auto const& p : parameters_)
      if (adds(*p)) mark_used(*p);
  }
  /// What a backward pass that begins now has to do with the gradient on device number n: `write`, although the request is
  /// `add`, for the first micro-batch of a step, whose pass may overwrite. So nothing is ever filled with zeros. The gradient
  /// then counts as a part of the next step's. May be called by several threads. @throws unknown_key, unknown_device
  grad_request begin_grad(std::string_view name, std::size_t n) {
    auto& p = made(name, n);
    if (!p.has_gradient()) return grad_request::none;
    if (p.options.request == grad_request::write) return grad_request::write;
    bool const begins = p.gradients[n] != gradient_contents::sum;
    p.gradients[n] = gradient_contents::sum;
    return begins ? grad_request::write : grad_request::add;
  }

 protected:
  using base = planned_parameters<S>;
  using base::find, base::make_pending, base::set_requires_grad;
  using base::memory_, base::mutex_, base::parameters_, base::pending_, base::store_;
  using typename base::parameter;

  explicit parameter_gradients(S& store) : base(store) {}

  static bool adds(parameter const& p) { return p.has_gradient() && p.options.request == grad_request::add; }
  /// After a step, or a part of one, has used the parameter's gradients.
  static void mark_used(parameter& p) { p.gradients.assign(p.gradients.size(), gradient_contents::used); }
  /// After a step of all parameters of the plan.
  void mark_all_used() {
    for (auto const& p : parameters_)
      if (p->planned && p->options.request == grad_request::add) mark_used(*p);
  }

  /// The parameter, with its mirrors. @throws unknown_key, unknown_device
  parameter& made(std::string_view name, std::size_t n) {
    expect_device(n);
    guard<std::lock_guard, std::mutex> const lock(mutex_);
    parameter& p = find(name);
    if (pending_ > 0) make_pending();
    return p;
  }
  void expect_device(std::size_t n) const {
    expects<unknown_device>(n < store_->devices().size(), [&] {
      return "parameter_store: the store has " + std::to_string(store_->devices().size()) + " devices, number " +
             std::to_string(n) + " was asked for";
    });
  }

  /// The gradient for a backward pass that adds to it, or writes over it.
  tensor_view<typename S::value_type, typename S::device_type> gradient(parameter& p, std::size_t n) {
    if (adds(p)) {
      if (p.gradients[n] == gradient_contents::used) fill_zeros(p, n);
      p.gradients[n] = gradient_contents::sum;
    }
    return memory_.gradient(p.name, n);
  }

 private:
  void fill_zeros(parameter& p, std::size_t n) {
    {
      std::lock_guard const lock(this->steps_mutex_);
      memory_.parts().wait(p.name);  // a part of a step may be reading
    }
    auto const view = memory_.gradient(p.name, n);
    view.device().fill_zero(view.data(), view.size() * sizeof(typename S::value_type));
    p.gradients[n] = gradient_contents::zeros;
  }
};

}  // namespace pushpull::detail
