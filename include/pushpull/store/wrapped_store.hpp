/// @file
/// The type-erased interface of a store on top of any Store, one that a user wrote for instance.
#pragma once

#include <any>
#include <atomic>
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

#include <pushpull/comm/single.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/any_store_calls.hpp>
#include <pushpull/store/any_store_model.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/wrapped_calls.hpp>

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
  identity const& id() const { return id_; }
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
  int rank() const override {
    if constexpr (requires { store_->rank(); }) return store_->rank();
    return comm::single{}.rank();
  }
  int num_workers() const override {
    if constexpr (requires { store_->num_workers(); }) return store_->num_workers();
    return comm::single{}.size();
  }
  void barrier() const override {
    if constexpr (requires { store_->barrier(); }) store_->barrier();
  }
  std::optional<double> join(double weight) override {
    if constexpr (requires { std::optional<double>(store_->join(weight)); }) return store_->join(weight);
    refuse("join");
  }
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
  bool is_mirrored(any_key_view) const override { return false; }
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
  pushpull::memory_report memory_report() const override {
    if constexpr (requires { pushpull::memory_report(store_->memory_report()); }) return store_->memory_report();
    refuse("memory_report");
  }
  profile::statistics statistics() const override {
    if constexpr (requires { profile::statistics(store_->statistics()); }) return store_->statistics();
    refuse("statistics");
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
  bool steps_in_parts() const override { return true; }  // it is called key by key anyway
  std::any updater(std::size_t group) const override {
    if constexpr (requires { store_->updater(group); }) return std::any(store_->updater(group));
    return {};
  }
  void expect_rule(char const* call, std::any const& rule) const override {
    if constexpr (requires { store_->updater(std::size_t{}); }) {
      if (std::any_cast<std::remove_cvref_t<decltype(store_->updater(std::size_t{}))>>(&rule) == nullptr)
        refuse_call(call, "a rule of another type than the store's came");
    }
  }
  void set_hyperparameters(std::any const& rule, std::size_t group) override {
    if constexpr (requires { store_->set_hyperparameters(store_->updater(group), group); }) {
      store_->set_hyperparameters(std::any_cast<decltype(store_->updater(group)) const&>(rule), group);
    } else {
      refuse("set_hyperparameters");
    }
  }
  std::size_t add_group(std::function<bool(any_key_view)>, std::any const&) override { refuse("add_group"); }
  std::size_t groups() const override { return 1; }
  /// Another number each time where the store does not say: its rule may have changed.
  std::uint64_t rule_changes() const override {
    if constexpr (requires { store_->rule_changes(); }) {
      return store_->rule_changes();
    } else {
      return ++asked_;
    }
  }
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
  bool has_captures() const override { return false; }
  void discard_captures() override {
    if constexpr (requires { store_->discard_captures(); }) store_->discard_captures();
  }
  double const* loss_scale(std::size_t) const override { refuse("loss_scale"); }
  std::vector<double> carried_numbers() const override { return {}; }
  void set_carried_numbers(std::span<double const> numbers) override {
    if (!numbers.empty()) refuse("set_carried_numbers");
  }
  detail::owning_ranks owning_ranks() const override { return {}; }
  array_part local_part(any_key_view, saved_array, std::string_view, bool) const override { refuse("local_part"); }
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
  void add_groups_to(base&) const override {}
  bool compresses_itself([[maybe_unused]] compress::parameters const& given) override {
    if constexpr (requires { store_->set_gradient_compression(given); }) {
      store_->set_gradient_compression(given);
      return true;
    } else {
      return false;
    }
  }
  bool sets_optimizer_itself([[maybe_unused]] std::function<std::string()> const& text) override {
    if constexpr (requires { store_->set_optimizer_text(text()); }) {
      store_->set_optimizer_text(text());
      return true;
    } else {
      return false;
    }
  }
  bool replaceable() const override { return false; }
  void* target(void const* tag) override { return tag == &type_tag<S> ? store_.get() : nullptr; }

 private:
  [[noreturn]] static void refuse(char const* call) {
    refuse_call(call, "the store that any_store was made of has no such call");
  }

  std::unique_ptr<S> store_;
  identity id_;
  std::vector<D> devices_;
  mutable std::atomic<std::uint64_t> asked_ = 0;  // how often rule_changes was
  mutable std::mutex mutex_;                      // what follows
  std::vector<any_key> order_;
  std::map<std::string, pushpull::shape, std::less<>> shapes_;  // by the text of a key
};

}  // namespace pushpull::detail
