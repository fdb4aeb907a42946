/// @file
/// A store whose rule and compression are chosen at run time.
#pragma once

#include <algorithm>
#include <atomic>
#include <cctype>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/compress/by_name.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/any_store_model.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/store/row_operands.hpp>
#include <pushpull/tensor/copy.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// A kv_store of keys of one kind, integers or strings as the first init has it, whose rule can be set and replaced.
/// Calls mean what they mean on kv_store; what is refused there at compile time for keys is an error here.
/// @tparam D            The devices.
/// @tparam Compressors  What set_gradient_compression may be asked for, a `compressors<...>`.
/// @tparam Ts           The element types that keys may have.
/// See `create`. Cost over kv_store: a virtual call per call and per tensor.
template <Device D, class Compressors, ElementType... Ts>
class any_store {
  template <class T>
  static constexpr bool has_type = (std::same_as<T, Ts> || ...);

 public:
  using device_type = D;
  using key_type = any_key;
  using key_view = any_key_view;

  /// Without a rule. @param type  What `type()` returns. @throws as kv_store
  any_store(std::string type, std::vector<D> const& devices)
      : type_(std::move(type)), store_(make(devices, no_updater{}, compress::none{})) {}
  any_store(any_store&& other) noexcept
      : type_(std::move(other.type_)),
        kind_(other.kind_.load()),
        compressor_(other.compressor_),
        store_(std::move(other.store_)) {}
  any_store& operator=(any_store&& other) noexcept {
    type_ = std::move(other.type_);
    kind_ = other.kind_.load();
    compressor_ = other.compressor_;
    store_ = std::move(other.store_);
    return *this;
  }

  std::string const& type() const { return type_; }
  std::vector<D> const& devices() const { return store_->devices(); }
  std::vector<any_key> keys() const { return store_->keys(); }
  std::size_t size() const { return store_->keys().size(); }
  bool contains(any_key_view key) const { return store_->contains(key); }
  pushpull::shape const& shape(any_key_view key) const { return store_->shape(checked("shape", key)); }
  /// The name of a key's element type: "float32". @throws unknown_key
  std::string_view dtype(any_key_view key) const { return store_->dtype(checked("dtype", key)); }
  int rank() const { return comm::single{}.rank(); }
  int num_workers() const { return comm::single{}.size(); }
  void barrier() const {}
  static bool is_capable(std::string_view capability) { return kv_store<float, D>::is_capable(capability); }

  /// The rule of the pushes that follow, in place of any other and of a function; states and step counts start again.
  /// Returns when all work is finished and the values have moved. @throws invalid_argument; what work failed with
  template <class Updater>
    requires(FloatingElement<Ts> && ...)
  void set_optimizer(Updater const& updater) {
    replace(make(devices(), updater, compressor_), false);
  }
  /// From now on gradients travel as the parameters say: see compress::by_name. Values, rule, states and step counts stay,
  /// residuals start at zero. Returns when all work is finished.
  /// @throws invalid_argument as by_name; for a store whose name says neither "device" nor "dist", as in MXNet; for a
  /// compressor that is not in `Compressors`
  void set_gradient_compression(compress::parameters const& given) {
    detail::expects<invalid_argument>(
        type_.find("device") != std::string::npos || type_.find("dist") != std::string::npos, [&] {
          return "set_gradient_compression: a store \"device\" or \"dist\" expected, this one is \"" + type_ + "\"";
        });
    compress::any_compressor compressor;
    ((compressor = compress::by_name<Ts>(given)), ...);
    auto next = store_->compressing(compressor);
    detail::expects<invalid_argument>(next != nullptr, [&] {
      return "set_gradient_compression: the store was not created with a compressor for \"" + given.find("type")->second +
             "\": name it in create(name, devices, compressors<...>())";
    });
    replace(std::move(next), true);
    compressor_ = compressor;
  }

  /// As kv_store::set_updater, in place of any rule, for keys of element type T.
  template <class T, class F>
    requires(has_type<T> && std::invocable<F&, any_key_view, tensor_view<T, D>, tensor_view<T, D>>)
  void set_updater(F f) {
    std::function<void(any_key_view, tensor_view<T, D> const&, tensor_view<T, D> const&)> function(std::move(f));
    detail::expects<invalid_argument>(bool{function}, [] { return std::string("set_updater: the function is empty"); });
    if (store_->has_updater()) {
      auto next = make(devices(), no_updater{}, compressor_);
      static_cast<detail::typed_calls<T, D>&>(*next).set_function(std::move(function));
      replace(std::move(next), false);
    } else {
      calls<T>().set_function(std::move(function));
    }
  }
  /// For keys of every element type.
  template <class F>
    requires(std::invocable<F&, any_key_view, tensor_view<Ts, D>, tensor_view<Ts, D>> && ...)
  void set_updater(F f) {
    (set_updater<Ts>(f), ...);
  }
  /// Whether a rule was set.
  bool has_updater() const { return store_->has_updater(); }

  template <TensorLike V>
    requires(has_type<element_of<V>>)
  void init(any_key_view key, V const& value) {
    using T = element_of<V>;
    auto const view = view_of(value);
    detail::initial_tensor<T, D> const initial{detail::operand_of<T const, D>(view), view.shape()};
    init<T>(std::span(&key, 1), std::span(&initial, 1));
  }
  template <KeysOf<any_key_view> Keys, std::ranges::input_range Values>
    requires(LastingTensorLike<std::ranges::range_reference_t<Values>> && has_type<detail::element_in<Values>>)
  void init(Keys&& keys, Values&& values) {
    using T = detail::element_in<Values>;
    std::vector<any_key> owned;
    for (auto&& key : keys) owned.emplace_back(any_key_view(key));
    std::vector<any_key_view> const names(owned.begin(), owned.end());
    std::vector<detail::initial_tensor<T, D>> initial;
    for (auto&& value : values) {
      auto const view = view_of(value);
      initial.push_back({detail::operand_of<T const, D>(view), view.shape()});
    }
    detail::expect_count("init", names.size(), initial.size(), "value");
    detail::expect_keys("init", !names.empty());
    init<T>(std::span(names), std::span(std::as_const(initial)));
  }

  template <class Gradients>
    requires(has_type<detail::element_in<Gradients>> && TensorsOf<Gradients, detail::element_in<Gradients>> &&
             OutlivesCall<Gradients, false>)
  completion push(any_key_view key, Gradients&& gradients, priority when = {}) {
    return update("push", key, gradients, detail::no_tensors{}, when);
  }
  template <KeysOf<any_key_view> Keys, class Gradients>
    requires(has_type<detail::element_in<Gradients>> && TensorListOf<Gradients, detail::element_in<Gradients>> &&
             OutlivesCall<Gradients, false>)
  completion push(Keys&& keys, Gradients&& gradients, priority when = {}) {
    return update_list("push", keys, gradients, detail::none_listed, when);
  }

  template <OutputTensors Outputs>
    requires(has_type<detail::element_in<Outputs>> && OutlivesCall<Outputs, false>)
  completion pull(any_key_view key, Outputs&& outputs, priority when = {}) {
    using T = detail::element_in<Outputs>;
    auto const gather = [&](detail::erased_call<T, D>& call) {
      detail::call_proxy<T, D> proxy(call);
      detail::add_to(proxy, kind_of_keys{*this}, "pull", key, detail::no_tensors{}, outputs);
    };
    return calls<T>().pull(when, checked("pull", key), detail::gatherer<T, D>(gather));
  }
  template <KeysOf<any_key_view> Keys, OutputTensorList Outputs>
    requires(has_type<detail::element_in<Outputs>> && OutlivesCall<Outputs, false> && detail::Repeatable<Keys>)
  completion pull(Keys&& keys, Outputs&& outputs, priority when = {}) {
    using T = detail::element_in<Outputs>;
    detail::expect_keys("pull", std::ranges::begin(keys) != std::ranges::end(keys));
    auto const gather = [&](detail::erased_call<T, D>& call) {
      detail::call_proxy<T, D> proxy(call);
      detail::add_list_to(proxy, kind_of_keys{*this}, "pull", keys, detail::none_listed, outputs);
    };
    any_key const first{any_key_view(*std::ranges::begin(keys))};
    return calls<T>().pull(when, checked("pull", first), detail::gatherer<T, D>(gather));
  }

  template <class Gradients, class Outputs>
    requires(has_type<detail::element_in<Gradients>> && TensorsOf<Gradients, detail::element_in<Gradients>> &&
             OutputTensorsOf<Outputs, detail::element_in<Gradients>> && OutlivesCall<Gradients, false> &&
             OutlivesCall<Outputs, false>)
  completion pushpull(any_key_view key, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    return update("pushpull", key, gradients, outputs, when);
  }
  template <class Tensors>
    requires(has_type<detail::element_in<Tensors>> && OutputTensorsOf<Tensors, detail::element_in<Tensors>> &&
             detail::Repeatable<Tensors> && OutlivesCall<Tensors, false>)
  completion pushpull(any_key_view key, Tensors&& tensors, priority when = {}) {
    return update("pushpull", key, tensors, tensors, when);
  }
  template <KeysOf<any_key_view> Keys, class Gradients, OutputTensorList Outputs>
    requires(has_type<detail::element_in<Gradients>> && TensorListOf<Gradients, detail::element_in<Gradients>> &&
             TensorListOf<Outputs, detail::element_in<Gradients>> && OutlivesCall<Gradients, false> &&
             OutlivesCall<Outputs, false>)
  completion pushpull(Keys&& keys, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    return update_list("pushpull", keys, gradients, outputs, when);
  }
  template <KeysOf<any_key_view> Keys, OutputTensorList Tensors>
    requires(has_type<detail::element_in<Tensors>> && detail::Repeatable<Tensors> && OutlivesCall<Tensors, false>)
  completion pushpull(Keys&& keys, Tensors&& tensors, priority when = {}) {
    return update_list("pushpull", keys, tensors, tensors, when);
  }

  /// Row-sparse gradients of one source or of a range of sources, as on kv_store.
  /// @throws as kv_store::push; invalid_argument also where the rule or the compression takes dense gradients
  template <class Gradients>
    requires(has_type<detail::element_in<Gradients>> && RowSparseTensorsOf<Gradients, detail::element_in<Gradients>> &&
             RowsOutliveCall<Gradients, false>)
  completion push(any_key_view key, Gradients&& gradients, row_updates rows = row_updates::lazy, priority when = {}) {
    using T = detail::element_in<Gradients>;
    using rows_type = std::remove_cvref_t<decltype(detail::first_rows(gradients))>;
    checked("push", key);
    if constexpr (HostDevice<D> || std::same_as<typename rows_type::device_type, D>) {
      std::vector<row_sparse_view<T const, D>> sources;
      detail::for_each_row_sparse(gradients, [&](auto const& s) {
        if constexpr (std::same_as<typename rows_type::device_type, D>) {
          sources.emplace_back(s.values(), s.row_ids(), s.rows(), s.shape(), s.device());
        } else {
          sources.emplace_back(s.values(), s.row_ids(), s.rows(), s.shape(), devices().front());
        }
      });
      return calls<T>().push_rows(key, sources, rows, when);
    } else {
      std::vector<row_sparse_view<T const, cpu_device<>>> sources;
      detail::for_each_row_sparse(gradients, [&](auto const& s) {
        sources.emplace_back(s.values(), s.row_ids(), s.rows(), s.shape(), cpu_device<>());
      });
      return calls<T>().push_host_rows(key, sources, rows, when);
    }
  }
  /// One or a range of `row_sparse` receive the rows that `row_ids` names, one host tensor of numbers for all, as on
  /// kv_store. The key has the outputs' element type.
  template <class Outputs, TensorLike Ids>
    requires RowSparseOutputs<Outputs&, detail::element_in<Outputs>, D>
  completion row_sparse_pull(any_key_view key, Outputs& outputs, Ids const& row_ids, priority when = {}) {
    using T = detail::element_in<Outputs>;
    std::vector<row_sparse<T, D>*> filled;
    detail::for_each_row_sparse(outputs, [&](auto& output) { filled.push_back(&output); });
    auto const view = view_of(row_ids);
    static constexpr char const* call = "row_sparse_pull";
    detail::expect_countable(call, detail::key_text(key), static_cast<std::int64_t>(view.size()));
    std::vector<std::int64_t> ids(view.size());
    std::transform(view.data(), view.data() + view.size(), ids.begin(),
                   [&](auto id) { return detail::row_id(call, key, id); });
    return calls<T>().pull_rows(checked(call, key), filled, ids, when);
  }

  /// init, then pull.
  template <class Value, OutputTensors Outputs>
    requires(TensorLike<Value> && detail::Repeatable<Outputs> && OutlivesCall<Outputs, false>)
  completion broadcast(any_key_view key, Value const& value, Outputs&& outputs, priority when = {}) {
    detail::expect_outputs_like(key, value, outputs);
    init(key, value);
    return pull(key, outputs, when);
  }
  template <KeysOf<any_key_view> Keys, std::ranges::input_range Values, OutputTensorList Outputs>
    requires(detail::Repeatable<Keys> && detail::Repeatable<Values> && detail::Repeatable<Outputs> &&
             OutlivesCall<Outputs, false>)
  completion broadcast(Keys&& keys, Values&& values, Outputs&& outputs, priority when = {}) {
    detail::expect_outputs_like_each<any_key_view>(keys, values, outputs);
    init(keys, values);
    return pull(keys, outputs, when);
  }

  void wait() const { store_->wait(); }
  /// As kv_store's.
  void drain() const { store_->drain(); }
  void wait(any_key_view key) const { store_->wait(checked("wait", key)); }
  void device_waits_for(D const& device, any_key_view key) const {
    store_->device_waits_for(device, checked("device_waits_for", key));
  }
  void key_waits_for(any_key_view key, D const& device) const {
    store_->key_waits_for(checked("key_waits_for", key), device);
  }

  /// 0 where there is no rule. @throws unknown_key
  std::int64_t steps(any_key_view key) const { return store_->steps(checked("steps", key)); }
  /// @throws unknown_key, invalid_argument; also where there is no rule
  void set_steps(any_key_view key, std::int64_t t) {
    expect_updater("set_steps");
    store_->set_steps(checked("set_steps", key), t);
  }
  /// As kv_store's: what the rule keeps from step to step.
  std::vector<double> carried_numbers() const { return store_->carried_numbers(); }
  void set_carried_numbers(std::span<double const> numbers) { store_->set_carried_numbers(numbers); }
  std::vector<std::string> state_names() const { return store_->state_names(); }
  /// As kv_store's; empty where there is no rule.
  update::rule_description describe_rule() const { return store_->describe_rule(); }
  /// As kv_store's.
  pushpull::shape state_shape(any_key_view key, std::string_view name) const {
    return store_->state_shape(checked("state_shape", key), name);
  }
  /// The bytes of a state tensor, elements of the key's type. @throws as kv_store::state
  std::vector<std::byte> state(any_key_view key, std::string_view name) const {
    return store_->state(checked("state", key), name);
  }
  void set_state(any_key_view key, std::string_view name, std::span<std::byte const> bytes) {
    store_->set_state(checked("set_state", key), name, bytes);
  }
  std::size_t bytes(std::size_t n) const { return store_->bytes(n); }

 private:
  using erased = detail::erased_store<D, Ts...>;
  enum class key_kind { none, integers, strings };

  template <class Updater>
  static std::unique_ptr<erased> make(std::vector<D> const& devices, Updater const& updater,
                                      compress::any_compressor const& compressor) {
    return detail::make_model<D, Ts...>(Compressors(), devices, updater, compressor);
  }

  template <class T>
  detail::typed_calls<T, D>& calls() {
    return *store_;
  }
  /// In the place of a table of keys: refuses those of the other kind.
  struct kind_of_keys {
    using key_view = any_key_view;
    any_store const& store;
    any_key_view checked(char const* call, any_key_view key) const { return store.checked(call, key); }
  };

  /// Every key of a store is of one kind. @throws invalid_argument
  any_key_view checked(char const* call, any_key_view key) const {
    key_kind const kind = kind_.load(std::memory_order_relaxed);
    detail::expects<invalid_argument>(kind == key_kind::none || key.is_string() == (kind == key_kind::strings), [&] {
      return std::string(call) + ": this store's keys are " + (kind == key_kind::strings ? "strings" : "integers") +
             ", " + detail::key_text(key) + " came";
    });
    return key;
  }

  template <class T>
  void init(std::span<any_key_view const> keys, std::span<detail::initial_tensor<T, D> const> values) {
    for (any_key_view const key : keys) {
      checked("init", key);
      detail::expects<invalid_argument>(key.is_string() == keys.front().is_string(), [&] {
        return "init: keys of one kind expected, " + detail::key_text(keys.front()) + " and " + detail::key_text(key) +
               " came";
      });
    }
    calls<T>().init(keys, values);
    if (!keys.empty()) kind_ = keys.front().is_string() ? key_kind::strings : key_kind::integers;
  }

  template <class Gradients, class Outputs>
  completion update(char const* name, any_key_view key, Gradients& gradients, Outputs&& outputs, priority when) {
    using T = detail::element_in<Gradients>;
    auto const gather = [&](detail::erased_call<T, D>& call) {
      detail::call_proxy<T, D> proxy(call);
      detail::add_to(proxy, kind_of_keys{*this}, name, key, gradients, outputs);
    };
    return calls<T>().update(when, detail::gatherer<T, D>(gather));
  }
  template <class Keys, class Gradients, class Outputs>
  completion update_list(char const* name, Keys& keys, Gradients& gradients, Outputs& outputs, priority when) {
    using T = detail::element_in<Gradients>;
    auto const gather = [&](detail::erased_call<T, D>& call) {
      detail::call_proxy<T, D> proxy(call);
      detail::add_list_to(proxy, kind_of_keys{*this}, name, keys, gradients, outputs);
    };
    return calls<T>().update(when, detail::gatherer<T, D>(gather));
  }

  void expect_updater(char const* call) const {
    detail::expects<invalid_argument>(has_updater(),
                                      [&] { return std::string(call) + ": the store has no optimizer"; });
  }

  /// Moves all values to another store, of the same rule also states and step counts.
  void replace(std::unique_ptr<erased> next, bool same_rule) {
    store_->wait();
    for (any_key const& key : keys()) {
      (move_key<Ts>(key, *next), ...);
      if (!same_rule || !has_updater()) continue;
      for (std::string const& name : state_names()) next->set_state(key, name, store_->state(key, name));
      next->set_steps(key, store_->steps(key));
    }
    if (same_rule && has_updater()) next->set_carried_numbers(store_->carried_numbers());
    next->wait();
    store_ = std::move(next);
  }
  template <class T>
  void move_key(any_key_view key, erased& next) {
    if (store_->dtype(key) != dtype_traits<T>::name) return;
    tensor<T, D> value(devices().front(), store_->shape(key));
    pull(key, value).wait();
    detail::initial_tensor<T, D> const initial{{value.data(), devices().front(), value.size()}, value.shape()};
    static_cast<detail::typed_calls<T, D>&>(next).init(std::span(&key, 1), std::span(&initial, 1));
  }

  std::string type_;
  std::atomic<key_kind> kind_{key_kind::none};
  compress::any_compressor compressor_;
  std::unique_ptr<erased> store_;
};

}  // namespace pushpull
