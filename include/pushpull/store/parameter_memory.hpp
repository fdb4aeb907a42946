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
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/store/step_buckets.hpp>
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

/// Any Store: a tensor per parameter and device, and per step one pushpull of all keys where the store takes lists, else one
/// per key.
template <Store S>
class parameter_memory {
  using T = typename S::value_type;
  using D = typename S::device_type;

 public:
  using initial_type = T;

  explicit parameter_memory(S& store) : store_(&store) {}

  void init(std::vector<std::string> const& names, std::vector<tensor_view<T const, D>> const& values,
            std::vector<bool> const& needs_gradient) {
    std::map<std::string, memory, std::less<>> made;
    for (std::size_t i = 0; i < names.size(); ++i) {
      memory m;
      for (D const& device : store_->devices()) m.mirrors.emplace_back(device, values[i].shape());
      made.emplace(names[i], std::move(m));
    }
    wait_at_exit const finished(*store_);  // a call that fails leaves others that write what was made
    if constexpr (takes_lists) {
      outputs_list mirrors;
      for (std::string const& name : names) mirrors.push_back(views(made.find(name)->second.mirrors));
      store_->broadcast(names, values, mirrors);
    } else {
      for (std::size_t i = 0; i < names.size(); ++i)
        store_->broadcast(names[i], values[i], views(made.find(names[i])->second.mirrors));
    }
    finish();
    memory_.merge(made);
    for (std::size_t i = 0; i < names.size(); ++i)
      if (needs_gradient[i]) require_gradient(names[i]);
  }

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
  void plan(std::vector<std::string> names) {
    gradients_list gradients;
    outputs_list mirrors;
    for (std::string const& name : names) {
      memory& m = memory_.find(name)->second;
      gradients.push_back(constant_views(m.gradients));
      mirrors.push_back(views(m.mirrors));
    }
    names_ = std::move(names);
    gradients_ = std::move(gradients);
    mirrors_ = std::move(mirrors);
  }
  void update() {
    wait_at_exit const finished(*store_);  // a call that fails leaves others that use this memory
    if constexpr (takes_lists) {
      if (!names_.empty()) store_->pushpull(names_, gradients_, mirrors_);
    } else {
      if constexpr (requires(std::string const& name) { store_->expect_weights("update_all", name); })
        for (std::string const& name : names_) store_->expect_weights("update_all", name);  // before any key is updated
      for (std::size_t i = 0; i < names_.size(); ++i) store_->pushpull(names_[i], gradients_[i], mirrors_[i]);
    }
    finish();
  }
  void accumulate()
    requires requires(S& store, std::vector<std::string> const& names,
                      std::vector<std::vector<tensor_view<T const, D>>> const& gradients) {
      store.accumulate(names, gradients);
    }
  {
    if (!names_.empty()) store_->accumulate(names_, gradients_);
    finish();
  }

 private:
  struct memory {
    std::vector<tensor<T, D>> mirrors, gradients;
  };
  using gradients_list = std::vector<std::vector<tensor_view<T const, D>>>;
  using outputs_list = std::vector<std::vector<tensor_view<T, D>>>;
  static constexpr bool takes_lists =
      requires(S& store, std::vector<std::string> const& names, std::vector<tensor_view<T const, D>> const& values,
               gradients_list const& gradients, outputs_list const& mirrors) {
        store.broadcast(names, values, mirrors);
        store.pushpull(names, gradients, mirrors);
      };

  void pull(std::vector<std::string> const& names) {
    wait_at_exit const finished(*store_);
    for (std::string const& name : names) store_->pull(name, views(memory_.find(name)->second.mirrors));
    finish();
  }
  /// Mirrors and gradients are read and written by whoever has their views: on the host nothing else orders that.
  void finish() {
    if constexpr (HostDevice<D>) store_->wait();
  }
  static std::vector<tensor_view<T, D>> views(std::vector<tensor<T, D>>& tensors) {
    return {tensors.begin(), tensors.end()};
  }
  static std::vector<tensor_view<T const, D>> constant_views(std::vector<tensor<T, D>> const& tensors) {
    return {tensors.begin(), tensors.end()};
  }

  S* store_;
  std::map<std::string, memory, std::less<>> memory_;
  std::vector<std::string> names_;  // of the plan, and what each brings and receives
  gradients_list gradients_;
  outputs_list mirrors_;
};

/// A ResidentStore: its arenas, and one pass per device and step.
template <ResidentStore S>
class parameter_memory<S> {
  using T = typename S::value_type;
  using D = typename S::device_type;

 public:
  using initial_type = typename initial_value<S>::type;

  explicit parameter_memory(S& store) : store_(&store), buckets_(store) {}

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
    buckets_.clear();
    plan_.emplace(store_->make_plan(names));
    names_ = names;
  }
  template <class V>
    requires requires(S& store, std::string const& name, V const& value) {
      store.assign(name, value, rule_states::keep);
    }
  void assign(std::string const& name, V const& value, rule_states states) {
    store_->assign(name, value, states);
  }
  void swap(std::vector<std::string> const& names, std::string_view state)
    requires requires(S& store) { store.swap(names, state); }
  {
    store_->swap(names, state);
  }
  void update() {
    if (buckets_.is_under_way()) return buckets_.update();
    store_->update(*plan_);
  }
  /// @param bucket_bytes  See step_buckets. @throws invalid_argument in a store that cannot begin steps in parts
  void ready(std::string const& name, std::size_t bucket_bytes)
    requires requires(S& store, typename S::plan_type& plan) { store.start(plan); }
  {
    if (buckets_.empty() && !names_.empty()) {
      std::vector<std::size_t> bytes;
      for (std::string const& each : names_) bytes.push_back(store_->gradient(each, 0).size() * sizeof(T));
      buckets_.make(names_, bytes, bucket_bytes);
    }
    buckets_.ready(name);
  }
  void wait(std::string const& name)
    requires requires(S& store, typename S::plan_type& plan) { store.start(plan); }
  {
    buckets_.wait(name);
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
  struct no_buckets {
    explicit no_buckets(S&) {}
    static bool is_under_way() { return false; }
    static void update() {}
    static void clear() {}
  };
  template <class Any>
  static auto buckets_for() {
    if constexpr (requires(Any& store, typename Any::plan_type& plan) { store.start(plan); }) {
      return std::type_identity<step_buckets<Any>>();
    } else {
      return std::type_identity<no_buckets>();
    }
  }

  S* store_;
  std::optional<typename S::plan_type> plan_;
  std::vector<std::string> names_;  // of the plan
  typename decltype(buckets_for<S>())::type buckets_;
};

}  // namespace pushpull::detail
