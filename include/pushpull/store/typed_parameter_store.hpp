/// @file
/// Whole models whose parameters have several element types.
#pragma once

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/store/parameter_options.hpp>
#include <pushpull/store/parameter_store.hpp>
#include <pushpull/store/partitioned_store.hpp>
#include <pushpull/store/refusal.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// As parameter_store over a store of one type. A parameter has the element type of the value that `add` was given, or the
/// one that it was told; `value<T>` and `grad<T>` say it again. A step is one pass per device and element type.
template <ElementType... Ts, Device D, class... Policies>
class parameter_store<kv_store<type_list<Ts...>, D, Policies...>> {
  using store_type = kv_store<type_list<Ts...>, D, Policies...>;
  template <class T>
  using part_type = parameter_store<kv_store<T, D, Policies...>>;

 public:
  using device_type = D;

  explicit parameter_store(store_type& store)
      : store_(&store), parts_(std::make_unique<part_type<Ts>>(store.template of<Ts>())...) {}
  parameter_store(parameter_store const&) = delete;
  parameter_store& operator=(parameter_store const&) = delete;

  std::vector<D> const& devices() const { return std::get<0>(parts_)->devices(); }
  int rank() const { return std::get<0>(parts_)->rank(); }
  int num_workers() const { return std::get<0>(parts_)->num_workers(); }
  void barrier() const { std::get<0>(parts_)->barrier(); }
  pushpull::memory_report memory_report() const { return store_->memory_report(); }
  std::size_t size() const { return names_.size(); }
  /// Parameter number i in the order of `add`, whatever its element type.
  parameter_info operator[](std::size_t i) const { return info(names_[i]); }
  parameter_info info(std::string_view name) const {
    parameter_info result;
    visit(name, [&](auto const& part) { result = part.info(name); });
    return result;
  }
  detail::index_iterator<parameter_store> begin() const { return {*this, 0}; }
  detail::index_iterator<parameter_store> end() const { return {*this, size()}; }
  store_type& store() const { return *store_; }
  std::vector<std::string> untrained() const {
    std::vector<std::string> names;
    auto const add = [&](std::vector<std::string> const& more) { names.insert(names.end(), more.begin(), more.end()); };
    (add(of<Ts>().untrained()), ...);
    return names;
  }

  /// @throws duplicate_key
  template <TensorLike V>
  void add(std::string_view name, V&& value, parameter_options options = {}) {
    add<element_of<V>>(name, std::forward<V>(value), options);
  }
  /// With mirrors and gradients of element type T.
  template <class T, TensorLike V>
  void add(std::string_view name, V&& value, parameter_options options = {}) {
    detail::expects<duplicate_key>(places_.find(name) == places_.end(), [&] {
      return "parameter_store: parameter \"" + std::string(name) + "\" was added before";
    });
    std::string owned(name);
    names_.push_back(owned);
    auto place = places_.end();
    try {
      place = places_.emplace(std::move(owned), index<T>).first;
      of<T>().add(name, std::forward<V>(value), options);
    } catch (...) {
      if (place != places_.end()) places_.erase(place);
      names_.pop_back();
      throw;
    }
  }

  /// @throws unknown_key, also if the parameter has another element type; unknown_device
  template <class T>
  tensor_view<T, D> value(std::string_view name, D const& device) {
    return of<T>().value(name, device);
  }
  template <class T>
  tensor_view<T, D> value(std::string_view name, std::size_t n) {
    return of<T>().value(name, n);
  }
  template <class T>
  tensor_view<T, D> grad(std::string_view name, D const& device) {
    return of<T>().grad(name, device);
  }
  template <class T>
  tensor_view<T, D> grad(std::string_view name, std::size_t n) {
    return of<T>().grad(name, n);
  }

  template <class Name, class V, class... Options, detail::refusal Why = detail::why_no_value<D, Name, V>,
            class Because = typename detail::refused<Why>::type>
  void add(Name&&, V&&, Options&&...) PUSHPULL_REFUSED;

  void materialize() { (of<Ts>().materialize(), ...); }
  template <TensorLike V>
  void assign(std::string_view name, V const& value, rule_states states = rule_states::keep) {
    visit(name, [&](auto& part) { part.assign(name, value, states); });
  }
  template <TensorLike V>
  void set_value(std::string_view name, V const& value, rule_states states = rule_states::keep) {
    assign(name, value, states);
  }
  bool requires_grad(std::string_view name) const {
    bool result = false;
    visit(name, [&](auto const& part) { result = part.requires_grad(name); });
    return result;
  }
  void freeze(std::string_view name) {
    visit(name, [&](auto& part) { part.freeze(name); });
  }
  void unfreeze(std::string_view name) {
    visit(name, [&](auto& part) { part.unfreeze(name); });
  }
  grad_request request(std::string_view name) const {
    auto result = grad_request::none;
    visit(name, [&](auto const& part) { result = part.request(name); });
    return result;
  }
  void set_request(std::string_view name, grad_request request) {
    visit(name, [&](auto& part) { part.set_request(name, request); });
  }
  void zero_grad() { (of<Ts>().zero_grad(), ...); }
  void discard_grad() { (of<Ts>().discard_grad(), ...); }
  grad_request begin_grad(std::string_view name, std::size_t n) {
    auto result = grad_request::none;
    visit(name, [&](auto& part) { result = part.begin_grad(name, n); });
    return result;
  }
  bool join(double weight) {
    auto const factor = store_->join(weight);
    (of<Ts>().weigh_next_step(factor.value_or(1)), ...);
    return factor.has_value();
  }
  void finish() {
    while (join(0)) update_all();
  }
  void update_all() {
    (of<Ts>().expect_step(), ...);
    (of<Ts>().update_all(), ...);
  }
  void accumulate_all()
    requires store_type::accumulates
  {
    (of<Ts>().expect_step(), ...);
    (of<Ts>().accumulate_all(), ...);
  }
  /// As those of parameter_store. Of ranks that train together one thread makes the calls.
  void ready(std::string_view name) {
    visit(name, [&](auto& part) { part.ready(name); });
  }
  void ready(std::string_view name, std::size_t n) {
    visit(name, [&](auto& part) { part.ready(name, n); });
  }
  void wait(std::string_view name) {
    visit(name, [&](auto& part) { part.wait(name); });
  }
  void set_bucket_bytes(std::size_t bytes) { (of<Ts>().set_bucket_bytes(bytes), ...); }
  void update_in_backward(bool on = true) { (of<Ts>().update_in_backward(on), ...); }
  /// Same as that of parameter_store, of all element types or of none.
  void swap(std::string_view state) {
    std::size_t swapped = 0;  // element types
    try {
      ((of<Ts>().swap(state), ++swapped), ...);
    } catch (...) {
      ((index<Ts> < swapped ? of<Ts>().swap(state) : void()), ...);
      throw;
    }
  }
  void sync_master() {
    (of<Ts>().expect_values(), ...);
    (of<Ts>().sync_master(), ...);
  }
  void close() { (of<Ts>().close(), ...); }

 private:
  template <class T>
  static constexpr std::size_t index = [] {
    std::size_t n = 0;
    (void)((std::same_as<T, Ts> || (++n, false)) || ...);
    return n;
  }();
  template <class T>
  part_type<T>& of() const {
    static_assert(index<T> < sizeof...(Ts), "parameter_store: the store's type_list has no such element type");
    return *std::get<index<T>>(parts_);
  }

  /// f(the part with the parameter). @throws unknown_key
  template <class F>
  void visit(std::string_view name, F const& f) const {
    auto const found = places_.find(name);
    detail::expects<unknown_key>(found != places_.end(), [&] {
      return "parameter_store: parameter \"" + std::string(name) + "\" was never added";
    });
    (void)((found->second == index<Ts> && (f(of<Ts>()), true)) || ...);
  }

  store_type* store_;
  std::tuple<std::unique_ptr<part_type<Ts>>...> parts_;
  std::vector<std::string> names_;  // in the order of `add`
  std::unordered_map<std::string, std::size_t, detail::key_hash<std::string>, std::equal_to<>> places_;
};

}  // namespace pushpull
