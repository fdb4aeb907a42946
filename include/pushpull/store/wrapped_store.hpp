/// @file
/// The type-erased interface of a store on top of any Store, one that a user wrote for instance.
#pragma once

#include <algorithm>
#include <any>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/store.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/any_store_calls.hpp>
#include <pushpull/store/any_store_model.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/tensor/dtype.hpp>
#include <pushpull/tensor/shape.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A key of a store whose keys are strings, integers or either.
template <class Key>
Key key_as(any_key_view key) {
  if constexpr (std::constructible_from<Key, any_key_view>) {
    return Key(key);
  } else if constexpr (std::integral<Key>) {
    return static_cast<Key>(key.integer());
  } else {
    return Key(std::string(key.string()));
  }
}

/// Gathers a call key by key: views of the tensors that came with each.
template <class Model, class T, Device D>
class collected_call final : public erased_call<T, D> {
 public:
  struct entry {
    any_key key;
    std::vector<tensor_view<T const, D>> sources;
    std::vector<tensor_view<T, D>> outputs;
  };
  std::vector<entry> entries;

  explicit collected_call(Model const& model) : model_(model) {}

  void add_key(char const* name, any_key_view key) override {
    model_.expect_key(name, key);
    entries.push_back({any_key(key), {}, {}});
  }
  void add_source(char const* name, any_key_view key, operand<T const, D> const& source, shape const& shape) override {
    expect_shape(name, key, model_.shape(key), shape);
    entries.back().sources.emplace_back(source.data, shape, device_of(name, key, source));
  }
  void expect_source(char const* name, any_key_view key) override {
    expects<invalid_argument>(!entries.back().sources.empty(),
                              [&] { return std::string(name) + ": " + key_text(key) + " came with no gradient"; });
  }
  void add_output(char const* name, any_key_view key, operand<T, D> const& output, shape const& shape) override {
    expect_shape(name, key, model_.shape(key), shape);
    entries.back().outputs.emplace_back(output.data, shape, device_of(name, key, output));
  }

 private:
  template <class U>
  D const& device_of(char const* name, any_key_view key, operand<U, D> const& x) const {
    expects<invalid_argument>(x.device || HostDevice<D>, [&] {
      return std::string(name) + ": " + key_text(key) +
             ": tensors on the store's devices expected, one in host memory came";
    });
    return x.device ? *x.device : model_.devices().front();
  }

  Model const& model_;
};

template <Store S, ElementType... Ts>
class wrapped_store;
template <class Model>
struct stored_in;
template <class S, class... Ts>
struct stored_in<wrapped_store<S, Ts...>> {
  using type = S;
};

/// The part of a wrapped store that calls for element type T go to.
template <class Model, class Base, class T, class D>
class wrapped_calls : public Base {
 public:
  using Base::assign;
  using Base::init;
  using Base::init_rows;
  using Base::pull;
  using Base::pull_rows;
  using Base::push_rows;
  using Base::pushpull_rows;
  using Base::set_function;
  using Base::update;

  void init(std::span<any_key_view const> keys, std::span<erased_tensor<T const, D> const> values) override {
    if constexpr (is_stored) {
      for (any_key_view const key : keys)
        expects<duplicate_key>(!self().contains(key),
                               [&] { return "init: " + key_text(key) + " was given to init before"; });
      for (std::size_t i = 0; i < keys.size(); ++i) {
        D const device = values[i].memory.device ? *values[i].memory.device : self().devices().front();
        expects<invalid_argument>(values[i].memory.device || HostDevice<D>, [&] {
          return "init: " + key_text(keys[i]) + ": a tensor on the store's devices expected, one in host memory came";
        });
        self().store().init(self().key(keys[i]),
                            tensor_view<T const, D>(values[i].memory.data, values[i].shape, device));
        self().remember(keys[i], values[i].shape);
      }
    } else {
      refuse_type("init");
    }
  }
  void assign(rule_states states, gatherer<T, D> gather) override {
    if constexpr (!is_stored) {
      refuse_type("assign");
    } else if constexpr (requires(stored& s, key_type const& k, tensor_view<T const, D> v) {
                           s.assign(k, v, states);
                         }) {
      for (auto const& e : collect(gather)) self().store().assign(self().key(e.key), e.sources.front(), states);
    } else if constexpr (requires(stored& s, key_type const& k, tensor_view<T const, D> v) { s.assign(k, v); }) {
      if (states == rule_states::reset) refuse_call("assign", "the store has no assign that resets states");
      for (auto const& e : collect(gather)) self().store().assign(self().key(e.key), e.sources.front());
    } else {
      refuse_call("assign", no_such_call);
    }
  }
  completion update(priority, gatherer<T, D> gather, bool only_accumulates) override {
    if constexpr (is_stored) {
      auto const entries = collect(gather);
      if (!only_accumulates)
        return run(entries, [](auto& handles, stored& s, key_type const& key, auto const& e) {
          if (e.outputs.empty()) {
            add(handles, [&] { return s.push(key, e.sources); });
          } else {
            add(handles, [&] { return s.pushpull(key, e.sources, e.outputs); });
          }
        });
      if constexpr (requires(stored& s, key_type const& k, std::vector<tensor_view<T const, D>> const& v) {
                      s.accumulate(k, v);
                    })
        return run(entries, [](auto& handles, stored& s, key_type const& key, auto const& e) {
          add(handles, [&] { return s.accumulate(key, e.sources); });
        });
      refuse_call("accumulate", no_such_call);
    } else {
      refuse_type("push");
    }
  }
  completion pull(priority, any_key_view, gatherer<T, D> gather) override {
    if constexpr (requires(stored& s, key_type const& k, std::vector<tensor_view<T, D>> const& v) { s.pull(k, v); }) {
      return run(collect(gather), [](auto& handles, stored& s, key_type const& key, auto const& e) {
        add(handles, [&] { return s.pull(key, e.outputs); });
      });
    } else {
      refuse_type("pull");
    }
  }
  void set_function(std::function<void(any_key_view, tensor_view<T, D> const&, tensor_view<T, D> const&)>) override {
    refuse_call("set_updater", no_such_call);
  }
  void init_rows(any_key_view, erased_rows<T, D> const&) override { refuse_call("init", takes_no_rows); }
  completion push_rows(std::span<any_key const> keys, erased_rows<T, D> const& sources, row_updates rows,
                       priority) override {
    if constexpr (is_stored && requires(stored& s, key_type const& k,
                                        std::vector<row_sparse_view<T const, D>> const& v) { s.push(k, v, rows); }) {
      expects<invalid_argument>(!sources.in_host_memory, [] {
        return std::string("push: rows on the store's devices expected, rows in host memory came");
      });
      expect_count("push", keys.size(), sources.on_devices.size(), "gradient");
      for (any_key_view const key : keys) self().expect_key("push", key);
      for (std::size_t i = 0; i < keys.size(); ++i)
        self().store().push(self().key(keys[i]), sources.on_devices[i], rows);
      self().store().wait();
      return {};
    } else {
      refuse_call("push", takes_no_rows);
    }
  }
  completion pushpull_rows(any_key_view, erased_rows<T, D> const&, std::span<erased_tensor<T, D> const>, row_updates,
                           priority) override {
    refuse_call("pushpull", takes_no_rows);
  }
  completion pull_rows(std::span<any_key const>, erased_row_requests<T, D> const&, priority) override {
    refuse_call("row_sparse_pull", takes_no_rows);
  }

 private:
  using stored = typename stored_in<Model>::type;
  using key_type = typename stored::key_type;
  static constexpr bool is_stored = std::same_as<T, typename stored::value_type>;
  static constexpr char const* no_such_call = "the store that any_store was made of has no such call";
  static constexpr char const* takes_no_rows = "the store that any_store was made of takes no row-sparse tensors";

  Model& self() { return static_cast<Model&>(*this); }
  [[noreturn]] static void refuse_type(char const* call) {
    throw invalid_argument(std::string(call) + ": the store has elements of type " +
                           std::string(dtype_traits<typename stored::value_type>::name) + ", " +
                           std::string(dtype_traits<T>::name) + " came");
  }

  auto collect(gatherer<T, D> const& gather) {
    collected_call<Model, T, D> call(self());
    gather(call);
    return std::move(call.entries);
  }

  template <class F>
  static void add(std::vector<completion>& handles, F const& call) {
    if constexpr (std::convertible_to<decltype(call()), completion>) {
      handles.push_back(call());
    } else {
      call();
    }
  }
  /// f(handles, store, key, entry) for each entry. Waits where the store hands out no completion: the work may go on.
  template <class Entries, class F>
  completion run(Entries const& entries, F const& f) {
    std::vector<completion> handles;
    for (auto const& e : entries) f(handles, self().store(), self().key(e.key), e);
    if (handles.size() != entries.size()) self().store().wait();
    return handles.size() == 1 ? handles.front() : completion(std::move(handles));
  }
};

/// A user's Store behind an erased_store. What the concept does not ask for is forwarded where the store has it, and else
/// refused at run time.
template <Store S, ElementType... Ts>
class wrapped_store final
    : public stacked_layers<wrapped_calls, wrapped_store<S, Ts...>, erased_store<typename S::device_type, Ts...>,
                            typename S::device_type, Ts...>::type {
  using D = typename S::device_type;
  using T = typename S::value_type;
  using base = erased_store<D, Ts...>;
  static_assert((std::same_as<T, Ts> || ...),
                "any_store: the Store's value_type is none of the element types that the any_store was made for");

 public:
  using store_type = S;
  using key_type = typename S::key_type;

  explicit wrapped_store(std::unique_ptr<S> store) : store_(std::move(store)), devices_(store_->devices()) {
    if constexpr (requires(key_type const& k) { store_->shape(k), store_->keys(); })  // it may have keys already
      for (key_type const& k : store_->keys()) remember(any_key_view(k), store_->shape(k));
  }

  S& store() const { return *store_; }
  key_type key(any_key_view key) const { return key_as<key_type>(key); }
  void expect_key(char const* call, any_key_view key) const {
    expects<unknown_key>(contains(key),
                         [&] { return std::string(call) + ": " + key_text(key) + " was never given to init"; });
  }
  void remember(any_key_view key, pushpull::shape const& shape) {
    std::lock_guard const lock(mutex_);
    order_.emplace_back(key);
    shapes_.emplace(key_text(key), shape);
  }

  std::vector<D> const& devices() const override { return devices_; }
  std::vector<any_key> keys() const override {
    std::lock_guard const lock(mutex_);
    return order_;
  }
  bool contains(any_key_view key) const override {
    std::lock_guard const lock(mutex_);
    return shapes_.contains(key_text(key));
  }
  pushpull::shape const& shape(any_key_view key) const override {
    std::lock_guard const lock(mutex_);
    auto const found = shapes_.find(key_text(key));
    expects<unknown_key>(found != shapes_.end(),
                         [&] { return "shape: " + key_text(key) + " was never given to init"; });
    return found->second;
  }
  std::string_view dtype(any_key_view key) const override {
    expect_key("dtype", key);
    return dtype_traits<T>::name;
  }
  void wait() const override { store_->wait(); }
  void drain() const override {
    if constexpr (requires { store_->drain(); }) {
      store_->drain();
    } else {
      store_->wait();
    }
  }
  void wait(any_key_view key) const override {
    expect_key("wait", key);
    if constexpr (requires { store_->wait(this->key(key)); }) {
      store_->wait(this->key(key));
    } else {
      store_->wait();
    }
  }
  void device_waits_for(D const& device, any_key_view key) const override {
    wait(key);
    device.synchronize();
  }
  void key_waits_for(any_key_view key, D const& device) const override {
    expect_key("key_waits_for", key);
    device.synchronize();
  }
  std::size_t bytes(std::size_t n) const override {
    if constexpr (requires { store_->bytes(n); }) return store_->bytes(n);
    refuse("bytes");
  }

  bool has_updater() const override {
    if constexpr (requires { store_->has_updater(); }) {
      return store_->has_updater();
    } else if constexpr (requires { S::has_updater ? 1 : 0; }) {
      return S::has_updater;
    }
    return false;
  }
  bool accumulates() const override {
    if constexpr (requires { S::accumulates ? 1 : 0; }) return S::accumulates;
    return false;
  }
  std::any updater(std::size_t group) const override {
    if constexpr (requires { store_->updater(group); }) return std::any(store_->updater(group));
    return {};
  }
  void set_hyperparameters(std::any const& rule, std::size_t group) override {
    if constexpr (requires { store_->set_hyperparameters(store_->updater(group), group); }) {
      auto const* const same = std::any_cast<decltype(store_->updater(group))>(&rule);
      if (same == nullptr) refuse_call("set_hyperparameters", "a rule of another type than the store's came");
      store_->set_hyperparameters(*same, group);
    } else {
      refuse("set_hyperparameters");
    }
  }
  std::size_t add_group(std::function<bool(any_key_view)>, std::any const&) override { refuse("add_group"); }
  std::size_t groups() const override { return 1; }
  std::size_t group(any_key_view key) const override {
    expect_key("group", key);
    return 0;
  }
  std::int64_t steps(any_key_view key) const override {
    expect_key("steps", key);
    if constexpr (requires { store_->steps(this->key(key)); }) return store_->steps(this->key(key));
    return 0;
  }
  void set_steps(any_key_view key, std::int64_t t) override {
    if constexpr (requires { store_->set_steps(this->key(key), t); }) return store_->set_steps(this->key(key), t);
    refuse("set_steps");
  }
  std::int64_t micro_batches(any_key_view key) const override {
    expect_key("micro_batches", key);
    if constexpr (requires { store_->micro_batches(this->key(key)); }) return store_->micro_batches(this->key(key));
    return 0;
  }
  std::vector<std::byte> gradient_sum(any_key_view) const override { refuse("gradient_sum"); }
  void set_micro_batches(any_key_view, std::int64_t, std::span<std::byte const>) override {
    refuse("set_micro_batches");
  }
  void discard_micro_batches(any_key_view) override { refuse("discard_micro_batches"); }
  double const* loss_scale(std::size_t) const override { refuse("loss_scale"); }
  std::vector<double> carried_numbers() const override { return {}; }
  void set_carried_numbers(std::span<double const> numbers) override {
    if (!numbers.empty()) refuse("set_carried_numbers");
  }
  void prepare_values(prepared_changes& changes, any_key_view key, saved_values const& values) override {
    changes.add([this, key, &values] { set_steps(key, values.steps); });
  }
  void prepare_carried_numbers(prepared_changes&, std::span<double const> numbers) override {
    set_carried_numbers(numbers);
  }
  update::rule_description describe_rule() const override { return {}; }
  std::vector<std::string> state_names() const override { return {}; }
  pushpull::shape state_shape(any_key_view, std::string_view) const override { refuse("state_shape"); }
  std::vector<std::byte> state(any_key_view, std::string_view) const override { refuse("state"); }
  void set_state(any_key_view, std::string_view, std::span<std::byte const>) override { refuse("set_state"); }
  void swap(std::span<any_key const>, std::string_view) override { refuse("swap"); }
  std::string swapped(any_key_view key) const override {
    expect_key("swapped", key);
    return {};
  }

  std::unique_ptr<base> compressing(compress::any_compressor const&) const override { return nullptr; }
  bool replaceable() const override { return false; }
  void* target(void const* tag) override { return tag == &type_tag<S> ? store_.get() : nullptr; }

 private:
  [[noreturn]] static void refuse(char const* call) {
    refuse_call(call, "the store that any_store was made of has no such call");
  }

  std::unique_ptr<S> store_;
  std::vector<D> devices_;
  mutable std::mutex mutex_;  // what follows
  std::vector<any_key> order_;
  std::map<std::string, pushpull::shape, std::less<>> shapes_;  // by the text of a key
};

}  // namespace pushpull::detail
