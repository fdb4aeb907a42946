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
#include <pushpull/store/call_arguments.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/store/parameter_list.hpp>
#include <pushpull/store/parameter_memory.hpp>
#include <pushpull/store/parameter_options.hpp>
#include <pushpull/store/parameter_steps.hpp>
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
class parameter_store : detail::parameter_steps<S> {
  using base = detail::parameter_steps<S>;

 public:
  using value_type = typename S::value_type;
  using device_type = typename S::device_type;
  using view_type = tensor_view<value_type, device_type>;
  static_assert(std::constructible_from<typename S::key_type, std::string>,
                "parameter_store: the Store must have string keys, the parameters' names");

  explicit parameter_store(S& store) : detail::parameter_steps<S>(store) {}
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
  using base::size, base::operator[], base::info;
  detail::index_iterator<parameter_store> begin() const { return {*this, 0}; }
  detail::index_iterator<parameter_store> end() const { return {*this, size()}; }
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
    p->shape = view.shape();
    p->requires_grad = options.requires_grad && options.request != grad_request::none;
    p->trained = p->requires_grad;
    p->options = options;
    p->gradients.assign(devices().size(), detail::gradient_contents::zeros);
    p->arrived.assign(devices().size(), false);
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
  view_type value(std::string_view name, std::size_t n) { return memory_.mirror(base::made(name, n).name, n); }

  /// The gradient that `update_all` reads on a device. With the request `write` overwrite it every step. With `add` ask for it
  /// before every backward pass, and add to it: after a step it is zero again when it is first asked for.
  /// @throws as value; invalid_argument if the parameter needs no gradient, or is frozen
  view_type grad(std::string_view name, device_type const& device) { return grad(name, index_of(device)); }
  /// Same as grad of a device, but on device number n.
  view_type grad(std::string_view name, std::size_t n) {
    parameter& p = base::made(name, n);
    detail::expects<invalid_argument>(p.has_gradient(), [&] {
      return "parameter_store: parameter \"" + p.name +
             (p.requires_grad ? "\" keeps no gradient: see update(name, gradients)"
                              : "\" is frozen or needs no gradient");
    });
    return base::gradient(p, n);
  }

  using base::make_part, base::can_make_parts, base::update;
  using base::materialize, base::weigh_next_step;
  using base::ready, base::wait, base::abandon_step, base::set_bucket_bytes, base::update_in_backward;
  using base::request, base::set_request, base::zero_grad, base::discard_grad, base::begin_grad;
  using base::update_all, base::expect_step, base::accumulate_all;

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

  /// Writes a parameter's value at any time: an initial, restored or averaged one. Same as assign: masters and all mirrors
  /// become a copy of it; states, t and the sum of micro-batches stay, or start again with rule_states::reset; a frozen
  /// parameter is written too. The master that `add` was given changes at sync_master. Steps that began before are finished
  /// first. Over ranks all make the call, and the value of rank 0 counts. Returns when done.
  /// @throws unknown_key, shape_mismatch; invalid_argument, which names the state, while a swap has put one in the place of
  /// the value
  template <TensorLike V>
    requires requires(detail::parameter_memory<S>& memory, std::string const& name, V const& value,
                      rule_states states) { memory.assign(name, value, states); }
  void set_value(std::string_view name, V const& value, rule_states states = rule_states::keep) {
    assign(name, value, states);
  }
  /// Writes the values of a list of parameters, one tensor per name: all or none, as one operation of the store.
  /// @throws as for one parameter; also duplicate_key if one is listed twice, shape_mismatch if the ranges differ in length
  template <KeysOf<std::string_view> Names, detail::ValueList Values>
    requires(!std::convertible_to<Names, std::string_view> &&
             requires(detail::parameter_memory<S>& memory, std::vector<std::string> const& names, Values& values,
                      rule_states states) { memory.assign(names, values, states); })
  void set_value(Names&& names, Values&& values, rule_states states = rule_states::keep) {
    std::vector<std::string> owned;
    for (auto&& name : names) owned.push_back(find(name).name);
    materialize();
    memory_.assign(owned, values, states);
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
    expect_values();
    wait_at_exit const finished(*store_);  // a pull that fails leaves others that write masters
    for (auto const& p : parameters_)
      if (p->sync) p->sync(*p);
    store_->wait();
  }
  /// Refuses what `sync_master` would refuse, before anything changes: for several such stores.
  void expect_values() {
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
  template <class Name, class V, class... Options,
            detail::refusal Why = KeysOf<Name, std::string_view> ? detail::refusal::none
                                                                 : detail::why_no_value<device_type, Name, V>,
            class Because = typename detail::refused<Why>::type>
  void set_value(Name&&, V&&, Options&&...) PUSHPULL_REFUSED;
  template <class Name, class Where, detail::refusal Why = detail::why_no_place<device_type, Name, Where>,
            class Because = typename detail::refused<Why>::type>
  view_type value(Name&&, Where&&) PUSHPULL_REFUSED;
  template <class Name, class Where, detail::refusal Why = detail::why_no_place<device_type, Name, Where>,
            class Because = typename detail::refused<Why>::type>
  view_type grad(Name&&, Where&&) PUSHPULL_REFUSED;

 private:
  using base::expect_free, base::find, base::set_requires_grad;
  using base::memory_, base::mutex_, base::parameters_, base::pending_, base::store_;
  using typename base::initial_type;
  using typename base::parameter;

  std::size_t index_of(device_type const& device) const {
    auto const found = std::find(devices().begin(), devices().end(), device);
    detail::expects<unknown_device>(found != devices().end(), [&] {
      return "parameter_store: the store has no device " + std::string(device.name());
    });
    return static_cast<std::size_t>(found - devices().begin());
  }
};

}  // namespace pushpull
