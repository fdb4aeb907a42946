/// @file
/// The steps of a parameter_store: over all parameters at once, or in parts that begin during the backward pass.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/parameter_gradients.hpp>
#include <pushpull/store/parameter_memory.hpp>
#include <pushpull/store/parameter_options.hpp>
#include <pushpull/store/parameter_part.hpp>
#include <pushpull/store/refusal.hpp>
#include <pushpull/store/step_parts.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The part of a parameter_store that makes steps.
template <class S>
class parameter_steps : public parameter_gradients<S> {
  using base = parameter_gradients<S>;

 protected:
  using typename base::parameter;

 public:
  /// One step over all parameters that require a gradient: reduce the devices' gradients, update, write all mirrors.
  /// Enqueued; on CPU devices finished when it returns. Where a function was given to the store's set_updater, it is called once
  /// per parameter. Of a step that `ready` has begun it makes the rest, and waits for all of it.
  /// Cost: over a ResidentStore one pass per device, no allocation in the steady state; else one pushpull of all keys, or
  /// of one after the other where the store takes no lists, so that a PreReduction sees one parameter at a time.
  void update_all() {
    prepare_step();
    weigh_gradients();
    if (forget_arrivals() && !memory_.parts().is_amid()) memory_.parts().end();  // they are of another step
    if (memory_.parts().has_begun()) {
      memory_.parts().update();
    } else {
      memory_.update();
    }
    this->mark_all_used();
  }

  /// Refuses what `update_all` would refuse, before anything changes: for a step of several such stores.
  void expect_step() {
    prepare_step();
    if constexpr (requires { memory_.expect_weights(); }) memory_.expect_weights();
  }

  /// The gradients are those of a micro-batch: they are added up for the next `update_all`, which takes their sum with the
  /// gradients that it finds. Over a store with the policy `accumulate`.
  void accumulate_all()
    requires requires(parameter_memory<S>& memory) { memory.accumulate(); }
  {
    prepare_step();
    weigh_gradients();
    memory_.accumulate();
    this->mark_all_used();
  }

  /// The parameter's gradients are complete on all devices. Its part of the next step begins, with others in a bucket, beside
  /// the backward pass: parameters that were added last come first, and of parts that could run the one that the next forward
  /// pass reads first. `update_all` begins the rest and waits for all; or `wait` for each parameter before it is read. The
  /// results are those of update_all, bit for bit; each parameter is updated once in a step. A PreReduction makes one step of all
  /// parameters. All ranks call it, in one order. @throws unknown_key; invalid_argument if it was called twice in one step
  /// Cost: no allocation in the steady state over a ResidentStore.
  void ready(std::string_view name) {
    std::lock_guard const lock(steps_mutex_);
    begin_part(find(name));
  }
  /// The parameter's gradient is complete on device number n. Its part of the step begins when those of all devices are: so
  /// executors of several devices may each report their own, from several threads at once. Of ranks that train together one
  /// thread makes the calls. @throws as ready; unknown_device
  void ready(std::string_view name, std::size_t n) {
    this->expect_device(n);
    parameter& p = find(name);
    {
      std::lock_guard const lock(arrivals_mutex_);
      expects<invalid_argument>(!p.arrived[n], [&] {
        return "parameter_store: ready was called twice for parameter \"" + p.name + "\" on device number " +
               std::to_string(n) + " in one step";
      });
      p.arrived[n] = true;
      any_arrived_ = true;
      if (std::find(p.arrived.begin(), p.arrived.end(), false) != p.arrived.end()) return;
      p.arrived.assign(p.arrived.size(), false);
    }
    std::lock_guard const lock(steps_mutex_);
    begin_part(p);
  }
  /// Returns when the part of a step that has begun for the parameter, if any, is done. A step of which all parts have been
  /// waited for has ended, as after update_all. @throws unknown_key, and its errors
  void wait(std::string_view name) {
    std::lock_guard const lock(steps_mutex_);
    memory_.parts().wait(find(name).name);
  }
  /// Forgets which gradients are complete, because the backward pass of the step failed: all are to come again. Parts of the step
  /// that have begun are finished first, and their parameters have made the step. Does nothing if all parts have begun.
  void abandon_step() {
    forget_arrivals();
    std::lock_guard const lock(steps_mutex_);
    if (memory_.parts().is_amid()) memory_.parts().end();
  }
  /// Bytes of gradients in a part that `ready` begins: 2 MiB, or 8 MiB over several ranks, which agree before and after each.
  /// Smaller parts overlap better, larger ones make fewer messages.
  /// A bucket holds one parameter at least. Steps in parts that have begun are finished.
  void set_bucket_bytes(std::size_t bytes) {
    memory_.parts().forget();
    bucket_bytes_ = bytes;
  }
  /// Whether `ready` makes its part of the step itself, in its call, instead of beside the backward pass: the pass then reads
  /// gradients that are still in the cache. For executors on the processors of the store, which no work beside them could
  /// use. Buckets should fit the cache: see set_bucket_bytes. Does not compile if the rule sums over the gradients of all
  /// parameters, as clip_global_norm does. @throws invalid_argument if an any_store has such a rule
  void update_in_backward(bool on = true)
    requires(may_step_in_parts<S>)
  {
    if (on) expect_parts("update_in_backward");
    memory_.parts().forget();
    memory_.parts().step_at_once(on);
  }
  /// Whether `make_part` and steps in the backward pass are possible: the rule sums over no other parameters' gradients.
  bool can_make_parts() { return memory_.parts().parts().step_in_parts(); }
  /// Some parameters, by their names, that `update` steps apart from the others: those of one of two models that are trained in
  /// turns, for instance. Their step is laid out once. Does not compile if the rule sums over the gradients of all parameters.
  /// @throws unknown_key
  template <KeysOf<std::string_view> Names>
    requires(may_step_in_parts<S> && !std::convertible_to<Names, std::string_view>)
  auto make_part(Names&& names) {
    expect_parts("make_part");
    this->materialize();
    std::vector<parameter*> members;
    for (auto&& name : names) members.push_back(&find(name));
    return parameter_part<typename std::remove_cvref_t<decltype(memory_.parts())>::parts_type, parameter>(
        std::move(members));
  }
  /// One step of the parameters of a part that require a gradient. Returns as update_all. All ranks call it.
  /// Cost: over a ResidentStore one pass per device, no allocation in the steady state.
  template <class Parts>
  void update(parameter_part<Parts, parameter>& part) {
    std::lock_guard const lock(steps_mutex_);
    prepare_step();
    for (parameter* const p : part.members()) this->weigh_gradient(*p);
    part.update(memory_.parts().parts());
    for (parameter* const p : part.members())
      if (p->planned && this->adds(*p)) this->mark_used(*p);
  }
  /// One step of a parameter from gradients of the caller's, a tensor or one per device: those of one backward pass through its
  /// layer, in memory that the caller uses again for the next layer, so that they never leave the cache. Made in the call; does
  /// nothing if the parameter is frozen. With {.keeps_gradient = false} the store has no memory for its gradients. The weights
  /// are those of update_all, bit for bit. Over ranks all make the call. Not after a `join` with another weight than the others.
  /// @throws unknown_key, shape_mismatch; invalid_argument if an any_store has a rule that sums over all parameters
  template <class Gradients>
    requires(may_step_in_parts<S> && requires(parameter_memory<S>& memory, std::string const& name,
                                              Gradients const& gradients) { memory.update(name, gradients); })
  void update(std::string_view name, Gradients const& gradients) {
    expect_parts("update");
    std::lock_guard const lock(steps_mutex_);
    prepare_step();
    parameter& p = find(name);
    expects<invalid_argument>(!this->is_weighted(), [&] {
      return "update: parameter \"" + p.name +
             "\": its gradients are the caller's, and this step has a weight of join: update_all";
    });
    if (p.requires_grad) memory_.update(p.name, gradients);
  }
  /// One step of a list of parameters, each listed once, from gradients of the caller's: for each name one per device. One pass
  /// per device for all of them, in which a rule that sums over the gradients of all parameters sums over those of the list.
  /// Frozen parameters are left out. The rest is as for one parameter.
  /// @throws also invalid_argument if the lists differ in length
  void update(
      std::vector<std::string> const& names,
      std::vector<std::vector<tensor_view<typename S::value_type const, typename S::device_type>>> const& gradients)
    requires requires(parameter_memory<S>& memory) { memory.update(names, gradients); }
  {
    std::lock_guard const lock(steps_mutex_);
    prepare_step();
    expects<invalid_argument>(names.size() == gradients.size(), [&] {
      return "update: a list of gradients for each of " + std::to_string(names.size()) + " parameters expected, got " +
             std::to_string(gradients.size());
    });
    expects<invalid_argument>(!this->is_weighted(), [] {
      return std::string("update: its gradients are the caller's, and this step has a weight of join: update_all");
    });
    bool all = true;
    for (auto const& name : names) all = find(name).requires_grad && all;
    if (all && !names.empty()) return memory_.update(names, gradients);
    std::vector<std::string> chosen;
    std::remove_cvref_t<decltype(gradients)> chosen_gradients;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!find(names[i]).requires_grad) continue;
      chosen.push_back(names[i]);
      chosen_gradients.push_back(gradients[i]);
    }
    if (!chosen.empty()) memory_.update(chosen, chosen_gradients);
  }
  template <class... A, refusal Why = may_step_in_parts<S> ? refusal::none : refusal::pre_reduction,
            class Because = typename refused<Why>::type>
  void update_in_backward(A&&...) PUSHPULL_REFUSED;
  template <class... A, refusal Why = may_step_in_parts<S> ? refusal::none : refusal::pre_reduction,
            class Because = typename refused<Why>::type>
  void make_part(A&&...) PUSHPULL_REFUSED;

 protected:
  using base::find, base::prepare_step, base::weigh_gradient, base::weigh_gradients;
  using base::memory_, base::parameters_, base::steps_mutex_;

  explicit parameter_steps(S& store) : base(store) {}

 private:
  /// @throws invalid_argument if an any_store has a rule that sums over all parameters
  void expect_parts(char const* call) {
    expects<invalid_argument>(memory_.parts().parts().step_in_parts(), [&] {
      return std::string(call) +
             ": the store's rule sums over the gradients of all parameters, which are complete only after the backward "
             "pass";
    });
  }
  void begin_part(parameter& p) {
    prepare_step();
    this->weigh_gradient(p);
    memory_.parts().ready(p.name, bucket_bytes());
    if (p.planned && this->adds(p)) this->mark_used(p);
  }
  /// @returns whether some devices have reported a gradient that others have not
  bool forget_arrivals() {
    std::lock_guard const lock(arrivals_mutex_);
    if (!std::exchange(any_arrived_, false)) return false;
    bool any = false;
    for (auto const& p : parameters_) {
      any = any || std::find(p->arrived.begin(), p->arrived.end(), true) != p->arrived.end();
      p->arrived.assign(p->arrived.size(), false);
    }
    return any;
  }

  std::size_t bucket_bytes() {
    return bucket_bytes_.value_or(std::size_t{memory_.parts().parts().has_ranks() ? 8U : 2U} << 20U);
  }

  std::optional<std::size_t> bucket_bytes_;
  std::mutex arrivals_mutex_;
  bool any_arrived_ = false;  // since the last update_all
};

}  // namespace pushpull::detail
