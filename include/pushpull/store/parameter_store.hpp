/// @file
/// Whole models: mirrors and gradients of named parameters on every device of a store.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/store/parameter_list.hpp>
#include <pushpull/store/parameter_memory.hpp>
#include <pushpull/store/planned_parameters.hpp>
#include <pushpull/store/refusal.hpp>
#include <pushpull/store/wait_at_exit.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

template <class S>
inline constexpr bool is_typed_kv_store = false;
template <ElementType... Ts, Device D, class... Policies>
inline constexpr bool is_typed_kv_store<kv_store<type_list<Ts...>, D, Policies...>> = true;

}  // namespace detail

/// Parameters by name, with a mirror on every device of the store and a gradient for each that needs one. A trainer
/// registers its parameters once, reads mirrors, writes gradients (every device, every step), and calls `update_all`:
/// over a ResidentStore that is one pass per device for the whole model, and all mirrors of a parameter are
/// bit-identical after it.
/// @tparam S  The Store, borrowed: it must outlive this object, and its keys are the parameters' names. Or a kv_store of
///            several element types, see typed_parameter_store.hpp.
/// Mirrors and gradients stay where they are for the life of this object. `value` and `grad` may be called by several
/// threads; everything else by one at a time. After an exception it holds what it held before.
template <class S>
  requires(Store<S> || detail::is_typed_kv_store<S>)
class parameter_store : detail::planned_parameters<S> {
 public:
  using value_type = typename S::value_type;
  using device_type = typename S::device_type;
  using view_type = tensor_view<value_type, device_type>;
  static_assert(std::constructible_from<typename S::key_type, std::string>,
                "parameter_store: the Store must have string keys, the parameters' names");

  explicit parameter_store(S& store) : detail::planned_parameters<S>(store) {}
  parameter_store(parameter_store const&) = delete;
  parameter_store& operator=(parameter_store const&) = delete;

  std::vector<device_type> const& devices() const { return store_->devices(); }
  /// The store's rank, workers and barrier.
  int rank() const
    requires requires(S const& store) { store.rank(); }
  {
    return store_->rank();
  }
  int num_workers() const
    requires requires(S const& store) { store.num_workers(); }
  {
    return store_->num_workers();
  }
  void barrier() const
    requires requires(S const& store) { store.barrier(); }
  {
    store_->barrier();
  }
  /// The bytes of the store on this rank, and of the mirrors and gradients that lie outside of it. Waits.
  pushpull::memory_report memory_report() const
    requires requires(S const& store) { store.memory_report(); }
  {
    auto report = store_->memory_report();
    memory_.add_to(report);
    return report;
  }
  /// Number of parameters.
  std::size_t size() const { return parameters_.size(); }
  /// The store that holds them.
  S& store() const { return *store_; }
  /// The names of parameters that never required a gradient: their values are in the mirrors.
  std::vector<std::string> untrained() const {
    std::vector<std::string> names;
    for (auto const& p : parameters_)
      if (!p->trained) names.push_back(p->name);
    return names;
  }

  /// Registers a parameter with its initial value, which is copied when mirrors are first asked for. A tensor that can
  /// be written, and is no temporary, is also the parameter's master, which `sync_master` writes; it must then stay
  /// where it is. Any element type: over a store with float masters, float tensors lose nothing on the way in or out.
  /// @throws duplicate_key if the name was added before, or is a key of the store
  template <TensorLike V>
    requires InReachOf<V, device_type>
  void add(std::string_view name, V&& value, parameter_options options = {}) {
    detail::guard<std::lock_guard, std::mutex> const lock(mutex_);
    parameters_.expect_new(name);
    expect_free(name);
    auto const view = view_of(value);
    using constant = tensor_view<element_of<V> const, typename decltype(view_of(value))::device_type>;
    auto p = std::make_unique<parameter>();
    p->name = std::string(name);
    p->requires_grad = options.requires_grad;
    p->trained = options.requires_grad;
    p->initial = tensor<initial_type, device_type>(devices().front(), view.shape());
    copy(constant(view.data(), view.shape(), view.device()), p->initial->view());
    // A temporary that owns its elements is gone when this returns: its value counts, it is no master.
    if constexpr (OutputTensor<V&&>) {
      p->sync = [this, view](parameter const& self) {
        // What is trained may be kept in a finer type than its mirrors; what is not lives in the mirrors only.
        if constexpr (requires(S& store) { store.pull(self.name, view); }) {
          if (self.trained) {
            store_->pull(self.name, view);  // waited for by sync_master
            return;
          }
        }
        copy(memory_.mirror(self.name, 0), view);
      };
    }
    parameters_.add(std::move(p));
    ++pending_;
  }

  /// The parameter's mirror on a device. The first call after `add` makes the mirrors of all parameters on all devices.
  /// @throws unknown_key, unknown_device
  view_type value(std::string_view name, device_type const& device) { return value(name, index_of(device)); }
  /// Same as value of a device, but on device number n.
  view_type value(std::string_view name, std::size_t n) {
    parameter const& p = ready(name, n);
    return memory_.mirror(p.name, n);
  }

  /// The gradient that `update_all` reads on a device: overwrite it every step.
  /// @throws as value; invalid_argument if the parameter needs no gradient, or is frozen
  view_type grad(std::string_view name, device_type const& device) { return grad(name, index_of(device)); }
  /// Same as grad of a device, but on device number n.
  view_type grad(std::string_view name, std::size_t n) {
    parameter const& p = ready(name, n);
    detail::expects<invalid_argument>(p.requires_grad, [&] {
      return "parameter_store: parameter \"" + p.name + "\" is frozen or needs no gradient";
    });
    return memory_.gradient(p.name, n);
  }

  using detail::planned_parameters<S>::materialize;
  using detail::planned_parameters<S>::weigh_next_step;

  /// Whether `update_all` updates the parameter. @throws unknown_key
  bool requires_grad(std::string_view name) const { return find(name).requires_grad; }
  /// From the next step on the parameter keeps its value; its state and step count stay. What it has gathered of a step of
  /// several micro-batches is forgotten. @throws unknown_key
  void freeze(std::string_view name) { set_requires_grad(name, false); }
  /// From the next step on it is updated again; it gets gradients if it never had any. Amid a step of several micro-batches
  /// it waits for the first of the next, and so does a parameter that is added there. @throws unknown_key
  void unfreeze(std::string_view name) { set_requires_grad(name, true); }

  /// Says how much of the next step's data this rank has, where ranks have more and less of it, or none any more: samples of
  /// its batch, for instance. The gradients of a rank without data, weight 0, are not read; a mean is that of the ranks'
  /// gradients, each with its weight. All ranks call it before each step, and then make the calls of the step alike:
  /// `while (parameters.join(batch.size())) { ...; parameters.update_all(); }`. It changes this rank's gradients. Waits for all
  /// ranks. @returns whether any rank has data: if none has, no step follows. @throws as kv_store::join
  bool join(double weight)
    requires requires(S& store) { store.join(1.0).value(); }
  {
    auto const factor = store_->join(weight);
    weigh_next_step(factor.value_or(1));
    return factor.has_value();
  }
  /// Makes steps without data of this rank's until no rank has data. The other ranks call `join` and `update_all`.
  void finish()
    requires requires(S& store) { store.join(1.0).value(); }
  {
    while (join(0)) update_all();
  }

  /// One step over all parameters that require a gradient: reduce the devices' gradients, update, write all mirrors.
  /// Enqueued; on CPU devices finished when it returns. Where a function was given to the store's set_updater, it is called once
  /// per parameter.
  /// Cost: over a ResidentStore one pass per device, no allocation in the steady state; else one pushpull of all keys, or
  /// of one after the other where the store takes no lists, so that a PreReduction sees one parameter at a time.
  void update_all() {
    prepare_step();
    weigh_gradients();
    memory_.update();
  }

  /// The parameter's gradients are complete on all devices. Its part of the next step begins, with others in a bucket, beside
  /// the backward pass: parameters that were added last come first. `update_all` begins the rest and waits for all; or `wait`
  /// for each parameter before it is read. A PreReduction makes one step of all parameters. All ranks call it, in one order.
  /// @throws unknown_key; invalid_argument if it was called twice in one step
  void ready(std::string_view name)
    requires requires(detail::parameter_memory<S>& memory, std::string const& key) { memory.ready(key, std::size_t{}); }
  {
    prepare_step();
    parameter& p = find(name);
    weigh_gradient(p);
    memory_.ready(p.name, bucket_bytes_);
  }
  /// Returns when the part of a step that has begun for the parameter, if any, is done. @throws unknown_key, and its errors
  void wait(std::string_view name)
    requires requires(detail::parameter_memory<S>& memory, std::string const& key) { memory.wait(key); }
  {
    memory_.wait(find(name).name);
  }
  /// Bytes of gradients in a part that `ready` begins: 2 MiB. Smaller parts overlap better, larger ones make fewer messages.
  /// Before the first `ready`; a bucket holds one parameter at least.
  void set_bucket_bytes(std::size_t bytes) { bucket_bytes_ = bytes; }

  /// Refuses what `update_all` would refuse, before anything changes: for a step of several such stores.
  void expect_step() {
    prepare_step();
    if constexpr (requires { memory_.expect_weights(); }) memory_.expect_weights();
  }

  /// The gradients are those of a micro-batch: they are added up for the next `update_all`, which takes their sum with the
  /// gradients that it finds. Over a store with the policy `accumulate`.
  void accumulate_all()
    requires requires(detail::parameter_memory<S>& memory) { memory.accumulate(); }
  {
    prepare_step();
    weigh_gradients();
    memory_.accumulate();
  }

  /// Replaces a parameter's value by a copy of `value`, a tensor of its shape and of any element type; all mirrors follow.
  /// States and t stay unless `states` says otherwise: see kv_store::assign. Returns when done.
  /// @throws unknown_key, shape_mismatch
  template <TensorLike V>
    requires requires(detail::parameter_memory<S>& memory, std::string const& name, V const& value,
                      rule_states states) { memory.assign(name, value, states); }
  void assign(std::string_view name, V const& value, rule_states states = rule_states::keep) {
    parameter const& p = find(name);
    materialize();
    memory_.assign(p.name, value, states);
  }

  /// Exchanges the trained values of all parameters and a state of the store's rule, by its name, mirrors included: see
  /// kv_store::swap. A parameter that was never updated stays as it is. @throws invalid_argument if there is no such state
  void swap(std::string_view state)
    requires requires(detail::parameter_memory<S>& memory, std::vector<std::string> const& names) {
      memory.swap(names, state);
    }
  {
    materialize();
    std::vector<std::string> names;
    for (auto const& p : parameters_) names.push_back(p->name);
    memory_.swap(names, state);
  }

  /// Copies the trained values into the masters that `add` was given. Returns when done.
  /// @throws invalid_argument, before any is written, where a swap has put a state in the place of the values
  void sync_master() {
    materialize();
    if constexpr (requires(S& store, std::string const& key) {
                    { store.swapped(key) } -> std::same_as<std::string>;
                  })
      for (auto const& p : parameters_) {
        std::string const state = store_->swapped(p->name);
        detail::expects<invalid_argument>(!p->sync || state.empty(), [&] {
          return "sync_master: parameter \"" + p->name + "\": its state \"" + state +
                 "\" stands in the place of the trained values: swap it back first";
        });
      }
    wait_at_exit const finished(*store_);  // a pull that fails leaves others that write masters
    for (auto const& p : parameters_)
      if (p->sync) p->sync(*p);
    store_->wait();
  }

  /// sync_master, and wait; errors of either are thrown here. The destructor does neither.
  void close() {
    sync_master();
    store_->wait();
  }

  /// `freeze` for each parameter for whose name `chosen` holds.
  void freeze_if(std::function<bool(std::string_view)> const& chosen) {
    for (auto const& p : parameters_)
      if (chosen(p->name)) freeze(p->name);
  }

  /// What the calls above refuse, and why.
  template <class Name, class V, class... Options, detail::refusal Why = detail::why_no_value<device_type, Name, V>,
            class Because = typename detail::refused<Why>::type>
  void add(Name&&, V&&, Options&&...) PUSHPULL_REFUSED;
  template <class Name, class V, class... Options, detail::refusal Why = detail::why_no_value<device_type, Name, V>,
            class Because = typename detail::refused<Why>::type>
  void assign(Name&&, V&&, Options&&...) PUSHPULL_REFUSED;
  template <class Name, class Where, detail::refusal Why = detail::why_no_place<device_type, Name, Where>,
            class Because = typename detail::refused<Why>::type>
  view_type value(Name&&, Where&&) PUSHPULL_REFUSED;
  template <class Name, class Where, detail::refusal Why = detail::why_no_place<device_type, Name, Where>,
            class Because = typename detail::refused<Why>::type>
  view_type grad(Name&&, Where&&) PUSHPULL_REFUSED;

 private:
  using base = detail::planned_parameters<S>;
  using base::expect_free, base::find, base::make_pending, base::prepare_step, base::set_requires_grad;
  using base::memory_, base::mutex_, base::parameters_, base::pending_, base::store_;
  using base::weigh_gradient, base::weigh_gradients;
  using typename base::initial_type;
  using typename base::parameter;

  std::size_t index_of(device_type const& device) const {
    auto const found = std::find(devices().begin(), devices().end(), device);
    detail::expects<unknown_device>(found != devices().end(), [&] {
      return "parameter_store: the store has no device " + std::string(device.name());
    });
    return static_cast<std::size_t>(found - devices().begin());
  }

  parameter const& ready(std::string_view name, std::size_t n) {
    detail::expects<unknown_device>(n < devices().size(), [&] {
      return "parameter_store: the store has " + std::to_string(devices().size()) + " devices, number " +
             std::to_string(n) + " was asked for";
    });
    detail::guard<std::lock_guard, std::mutex> const lock(mutex_);
    parameter const& p = find(name);
    if (pending_ > 0) make_pending();
    return p;
  }

  std::size_t bucket_bytes_ = std::size_t{2} << 20U;
};

}  // namespace pushpull
