/// @file
/// Where a parameter_store's mirrors and gradients live: in a ResidentStore's arenas, or in tensors of their own.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/store/capture.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/store/step_buckets.hpp>
#include <pushpull/store/step_parts.hpp>
#include <pushpull/store/wait_at_exit.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The element type in which initial values travel: that of the masters where the store has such.
template <class S>
struct initial_value {
  using type = typename S::value_type;
};
template <ResidentStore S>
  requires requires { typename S::master_type; }
struct initial_value<S> {
  using type = typename S::master_type;
};

template <class Memory>
std::vector<std::size_t> bytes_of_gradients(Memory& memory, std::vector<std::string> const& names) {
  std::vector<std::size_t> bytes;
  for (std::string const& name : names) {
    auto const gradient = memory.gradient(name, 0);
    bytes.push_back(gradient.size() * sizeof(*gradient.data()));
  }
  return bytes;
}

/// Any Store: a tensor per parameter and device, and per step one pushpull of all keys where the store takes lists, else one
/// per key.
template <Store S>
class parameter_memory {
  using T = typename S::value_type;
  using D = typename S::device_type;

 public:
  using initial_type = T;

  explicit parameter_memory(S& store) : store_(&store), parts_(listed_parts<S, parameter_memory>(store, *this)) {}

  /// May be called again with the names of a call that has failed: keys that it has left in the store are then pulled.
  void init(std::vector<std::string> const& names, std::vector<tensor_view<T const, D>> const& values,
            std::vector<bool> const& needs_gradient) {
    std::map<std::string, memory, std::less<>> made;
    std::vector<std::string> left, missing;
    std::vector<tensor_view<T const, D>> initial;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (owns(names[i])) {
        left.push_back(names[i]);
        continue;
      }
      memory m;
      for (D const& device : store_->devices()) {
        m.mirrors.emplace_back(device, values[i].shape());
        if (needs_gradient[i]) m.gradients.emplace_back(device, values[i].shape());
      }
      made.emplace(names[i], std::move(m));
      missing.push_back(names[i]);
      initial.push_back(values[i]);
    }
    memory_.merge(made);
    try {
      wait_at_exit const finished(*store_);  // a call that fails leaves others that write what was made
      broadcast(missing, initial);
    } catch (...) {
      for (std::string const& name : missing)
        if (!store_has(name)) memory_.erase(name);
      throw;
    }
    finish();
    if (!left.empty()) pull(left);
    for (std::size_t i = 0; i < names.size(); ++i)
      if (needs_gradient[i]) require_gradient(names[i]);
  }
  /// Whether the store has a key of this name because `init` made it.
  bool owns(std::string_view name) const { return memory_.find(name) != memory_.end(); }

  tensor_view<T, D> mirror(std::string const& name, std::size_t n) {
    return memory_.find(name)->second.mirrors[n].view();
  }
  tensor_view<T, D> gradient(std::string const& name, std::size_t n) {
    return memory_.find(name)->second.gradients[n].view();
  }
  void require_gradient(std::string const& name) {
    memory& m = memory_.find(name)->second;
    if (m.gradients.empty())
      for (auto const& mirror : m.mirrors) m.gradients.emplace_back(mirror.device(), mirror.shape());
  }
  template <class V>
    requires requires(S& store, std::string const& name, V const& value) {
      store.assign(name, value, rule_states::keep);
    }
  void assign(std::string const& name, V const& value, rule_states states) {
    store_->assign(name, value, states);
    pull({name});
  }
  template <class Values>
    requires requires(S& store, std::vector<std::string> const& names, Values& values) {
      store.assign(names, values, rule_states::keep);
    }
  void assign(std::vector<std::string> const& names, Values& values, rule_states states) {
    if (names.empty()) return;
    store_->assign(names, values, states);
    pull(names);
  }
  void swap(std::vector<std::string> const& names, std::string_view state)
    requires requires(S& store) { store.swap(names, state); }
  {
    store_->swap(names, state);
    pull(names);
  }
  /// Adds the bytes that it holds itself.
  void add_to(memory_report& report) const {
    for (auto const& [name, m] : memory_)
      for (std::size_t n = 0; n < m.mirrors.size(); ++n) {
        report.devices[n].mirrors += m.mirrors[n].size() * sizeof(T);
        if (!m.gradients.empty()) report.devices[n].gradients += m.gradients[n].size() * sizeof(T);
      }
  }
  void plan(std::vector<std::string> const& names) {
    auto keys = list(names);
    parts_.set_keys(names, bytes_of_gradients(*this, names));
    keys_ = std::move(keys);
  }
  /// The step in parts.
  auto& parts() { return parts_; }
  void update() {
    wait_at_exit const finished(*store_);  // a call that fails leaves others that use this memory
    if constexpr (takes_lists) {
      if (!keys_.names.empty()) store_->pushpull(keys_.names, keys_.gradients, keys_.mirrors);
    } else {
      if constexpr (requires(std::string const& name) { store_->expect_weights("update_all", name); })
        for (std::string const& name : keys_.names)
          store_->expect_weights("update_all", name);  // before any is updated
      for (std::size_t i = 0; i < keys_.names.size(); ++i)
        store_->pushpull(keys_.names[i], keys_.gradients[i], keys_.mirrors[i]);
    }
    finish();
  }
  /// One step of a key, from gradients of the caller's. Returns when it is done.
  template <class Gradients>
    requires requires(S& store, std::string const& name, Gradients const& gradients,
                      std::vector<tensor_view<T, D>> const& mirrors) { store.pushpull(name, gradients, mirrors); }
  void update(std::string const& name, Gradients const& gradients) {
    run_step([&] { store_->pushpull(name, gradients, views(memory_.find(name)->second.mirrors)); });
  }
  /// One step of a list of keys, from gradients of the caller's. Returns when it is done.
  void update(std::vector<std::string> const& names, std::vector<std::vector<tensor_view<T const, D>>> const& gradients)
    requires(listed_keys_of<S>::takes_lists)
  {
    std::vector<std::vector<tensor_view<T, D>>> mirrors;
    for (std::string const& name : names) mirrors.push_back(views(memory_.find(name)->second.mirrors));
    run_step([&] { store_->pushpull(names, gradients, mirrors); });
  }
  /// The keys, and what each brings and receives: for parts of a step.
  listed_keys_of<S> list(std::span<std::string const> names) {
    listed_keys_of<S> keys;
    for (std::string const& name : names) {
      memory& m = memory_.find(name)->second;
      keys.names.push_back(name);
      keys.gradients.push_back(constant_views(m.gradients));
      keys.mirrors.push_back(views(m.mirrors));
    }
    return keys;
  }
  void accumulate()
    requires requires(S& store, std::vector<std::string> const& names,
                      std::vector<std::vector<tensor_view<T const, D>>> const& gradients) {
      store.accumulate(names, gradients);
    }
  {
    if (!keys_.names.empty()) store_->accumulate(keys_.names, keys_.gradients);
    finish();
  }

 private:
  struct memory {
    std::vector<tensor<T, D>> mirrors, gradients;
  };
  static constexpr bool takes_lists = listed_keys_of<S>::takes_lists;

  void broadcast(std::vector<std::string> const& names, std::vector<tensor_view<T const, D>> const& values) {
    if constexpr (takes_lists) {
      typename listed_keys_of<S>::outputs_list mirrors;
      for (std::string const& name : names) mirrors.push_back(views(memory_.find(name)->second.mirrors));
      if (!names.empty()) store_->broadcast(names, values, mirrors);
    } else {
      for (std::size_t i = 0; i < names.size(); ++i)
        store_->broadcast(names[i], values[i], views(memory_.find(names[i])->second.mirrors));
    }
  }
  /// False too for a store that does not say.
  bool store_has([[maybe_unused]] std::string const& name) const {
    if constexpr (requires { bool(store_->contains(name)); }) return store_->contains(name);
    return false;
  }
  void pull(std::vector<std::string> const& names) {
    wait_at_exit const finished(*store_);
    for (std::string const& name : names) store_->pull(name, views(memory_.find(name)->second.mirrors));
    finish();
  }
  /// Mirrors and gradients are read and written by whoever has their views: on the host nothing else orders that.
  void finish() {
    if constexpr (HostDevice<D>) store_->wait();
  }
  /// f(), and what it has begun is done, unless it is captured: then nothing runs that could be waited for.
  template <class F>
  void run_step(F const& f) {
    if (is_captured(store_->devices())) return f();
    wait_at_exit const finished(*store_);
    f();
    store_->wait();
  }
  static std::vector<tensor_view<T, D>> views(std::vector<tensor<T, D>>& tensors) {
    return {tensors.begin(), tensors.end()};
  }
  static std::vector<tensor_view<T const, D>> constant_views(std::vector<tensor<T, D>> const& tensors) {
    return {tensors.begin(), tensors.end()};
  }

  S* store_;
  std::map<std::string, memory, std::less<>> memory_;
  listed_keys_of<S> keys_;  // of the plan
  step_buckets<listed_parts<S, parameter_memory>> parts_;
};

/// A ResidentStore: its arenas, and one pass per device and step.
template <ResidentStore S>
class parameter_memory<S> {
  using T = typename S::value_type;
  using D = typename S::device_type;

 public:
  using initial_type = typename initial_value<S>::type;

  explicit parameter_memory(S& store) : store_(&store), parts_(resident_parts<S>(store)) {}

  void init(std::vector<std::string> const& names, std::vector<tensor_view<initial_type const, D>> const& values,
            std::vector<bool> const& needs_gradient) {
    store_->init_resident(std::span<std::string const>(names), std::span(values), needs_gradient);
  }
  tensor_view<T, D> mirror(std::string const& name, std::size_t n) { return store_->mirror(name, n); }
  tensor_view<T, D> gradient(std::string const& name, std::size_t n) { return store_->gradient(name, n); }
  void require_gradient(std::string const& name) { store_->require_gradient(name); }
  /// Adds the bytes that it holds itself: none.
  void add_to(memory_report&) const {}
  void plan(std::vector<std::string> const& names) {
    parts_.set_keys(names, bytes_of_gradients(*this, names));
    plan_.emplace(store_->make_plan(names));
  }
  /// The step in parts.
  auto& parts() { return parts_; }
  template <class V>
    requires requires(S& store, std::string const& name, V const& value) {
      store.assign(name, value, rule_states::keep);
    }
  void assign(std::string const& name, V const& value, rule_states states) {
    store_->assign(name, value, states);
  }
  template <class Values>
    requires requires(S& store, std::vector<std::string> const& names, Values& values) {
      store.assign(names, values, rule_states::keep);
    }
  void assign(std::vector<std::string> const& names, Values& values, rule_states states) {
    if (!names.empty()) store_->assign(names, values, states);
  }
  void swap(std::vector<std::string> const& names, std::string_view state)
    requires requires(S& store) { store.swap(names, state); }
  {
    store_->swap(names, state);
  }
  void update() { store_->update(*plan_); }
  /// One step of a key, or of a list of keys, from gradients of the caller's; mirrors follow. Returns when it is done.
  template <class Keys, class Gradients>
    requires requires(S& store, Keys const& name, Gradients const& gradients) { store.push(name, gradients); }
  void update(Keys const& name, Gradients const& gradients) {
    if (is_captured(store_->devices())) {
      store_->push(name, gradients);
    } else if constexpr (requires { store_->push(name, gradients).wait(); }) {
      store_->push(name, gradients).wait();
    } else {
      store_->push(name, gradients);
      store_->wait();
    }
  }
  void expect_weights() const {
    if constexpr (requires { store_->expect_weights("update_all", *plan_); })
      store_->expect_weights("update_all", *plan_);
  }
  void accumulate()
    requires requires(S& store, typename S::plan_type& plan) { store.accumulate(plan); }
  {
    store_->accumulate(*plan_);
  }

 private:
  S* store_;
  std::optional<typename S::plan_type> plan_;
  step_buckets<resident_parts<S>> parts_;
};

}  // namespace pushpull::detail
