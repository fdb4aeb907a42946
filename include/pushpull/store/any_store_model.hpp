/// @file
/// The type-erased interface of a store on top of kv_store.
#pragma once

#include <any>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <pushpull/compress/by_name.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/pass/row_numbers.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/any_store_calls.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/partitioned_store.hpp>
#include <pushpull/store/pointed_to.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/update/loss_scale.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Compressors that a store may be asked for at run time. Each is one more pass per rule and element type.
template <class... Cs>
struct compressors {};
/// Same, of a store whose devices are not the host and whose communicator may have several ranks: its operations are also
/// compiled with messages.
template <class... Cs>
struct compressors_over_ranks : compressors<Cs...> {};

/// All that the library has.
using all_compressors =
    compressors<compress::two_bit, compress::one_bit, compress::cast<half>, compress::cast<bfloat16>,
                compress::cast<float8_e4m3>, compress::cast<float8_e5m2>, compress::top_k>;

namespace detail {

/// f(view) for the tensor, on its device or in host memory.
template <class T, Device D, class F>
decltype(auto) visit_tensor(erased_tensor<T, D> const& x, F const& f) {
  if (x.memory.device) return f(tensor_view<T, D>(x.memory.data, x.shape, *x.memory.device));
  return f(tensor_view<T, cpu_device<>>(x.memory.data, x.shape, cpu_device<>()));
}

/// The part of a model that calls for element type T go to.
template <class Model, class Base, class T, class D>
class typed_model : public Base {
 public:
  using Base::init;
  using Base::init_rows;
  using Base::new_assign;
  using Base::new_pull;
  using Base::new_push;
  using Base::pull_rows;
  using Base::push_rows;
  using Base::pushpull_rows;
  using Base::set_function;
  using Base::submit;

  void init(std::span<any_key_view const> keys, std::span<erased_tensor<T const, D> const> values,
            key_options options) override {
    auto const add = [&]<class View>(std::type_identity<View>, auto const& device_of) {
      std::vector<View> views;
      for (auto const& value : values) views.emplace_back(value.memory.data, value.shape, device_of(value));
      engine().init(keys, std::span(std::as_const(views)), false, {}, options);
    };
    if (values.empty() || !values.front().memory.device) {
      add(std::type_identity<tensor_view<T const, cpu_device<>>>(), [](auto const&) { return cpu_device<>(); });
    } else {
      add(std::type_identity<tensor_view<T const, D>>(), [](auto const& value) { return *value.memory.device; });
    }
  }
  void init_rows(any_key_view key, erased_rows<T, D> const& value, [[maybe_unused]] key_options options) override {
    if constexpr (takes_rows) {
      if (value.in_host_memory) return typed().init(key, value.on_host.front().front(), options);
      typed().init(key, value.on_devices.front().front(), options);
    } else {
      refuse_rows("init", key);
    }
  }
  erased_draft<T, D> new_push(std::type_identity<T>, char const* caller, bool only_accumulates) override {
    return engine().new_push(caller, only_accumulates);
  }
  erased_draft<T, D> new_pull(std::type_identity<T>, any_key_view first) override {
    return self().store.visit("pull", first,
                              [&](auto& store) { return store_access::engine(store).template new_pull<T>("pull"); });
  }
  erased_draft<T, D> new_assign(std::type_identity<T>, rule_states states) override {
    return engine().template new_assign<T>("assign", states);
  }
  completion submit(erased_draft<T, D>& call, priority when) override { return engine().submit(call, when); }
  void set_function(
      std::function<void(any_key_view, tensor_view<T, D> const&, tensor_view<T, D> const&)> function) override {
    if constexpr (!Model::store_type::has_updater) engine().function().set(std::move(function));
  }
  completion push_rows(std::span<any_key const> keys, erased_rows<T, D> const& sources, row_updates rows,
                       priority when) override {
    if constexpr (takes_rows) {
      if (sources.in_host_memory) return typed().push(keys, sources.on_host, rows, when);
      return typed().push(keys, sources.on_devices, rows, when);
    } else {
      refuse_rows("push", keys.front());
    }
  }
  completion pushpull_rows(any_key_view key, erased_rows<T, D> const& sources,
                           std::span<erased_tensor<T, D> const> outputs, row_updates rows, priority when) override {
    if constexpr (takes_rows) {
      auto const push = [&]<class View>(std::type_identity<View>) {
        std::vector<View> views;
        for (auto const& output : outputs)
          visit_tensor(output, [&](auto const& view) {
            if constexpr (std::same_as<std::remove_cvref_t<decltype(view)>, View>) views.push_back(view);
          });
        if (sources.in_host_memory) return typed().pushpull(key, sources.on_host.front(), views, rows, when);
        return typed().pushpull(key, sources.on_devices.front(), views, rows, when);
      };
      if (!outputs.empty() && !outputs.front().memory.device)
        return push(std::type_identity<tensor_view<T, cpu_device<>>>());
      return push(std::type_identity<tensor_view<T, D>>());
    } else {
      refuse_rows("pushpull", key);
    }
  }
  completion pull_rows(std::span<any_key const> keys, erased_row_requests<T, D> const& requests,
                       priority when) override {
    std::vector<pointed_to<row_sparse<T, D>>> outputs;
    for (auto const& of_key : requests.outputs) outputs.emplace_back(of_key);
    auto const pull = [&](auto const& ids) {
      if (!requests.shared) return typed().row_sparse_pull(keys, outputs, ids, when);
      std::vector<decltype(view_of(ids.front().front()))> shared;
      for (auto const& of_key : ids) shared.push_back(view_of(of_key.front()));
      return typed().row_sparse_pull(keys, outputs, shared, when);
    };
    if constexpr (!HostDevice<D>)
      if (!requests.ids_on_devices.empty() && !requests.ids_on_devices.front().empty())
        return pull(requests.ids_on_devices);
    return pull(requests.ids);
  }

 private:
  /// Rules with sums over whole tensors, and compressors, take no rows: what a kv_store refuses when it is compiled.
  static constexpr bool takes_rows = [] {
    using types = typename Model::template types_of<T>;
    return !types::compressed && !types::accumulates && AdditiveReduction<typename types::reduction_type> &&
           (!PreReduction<typename types::rule_type> ||
            pass::takes_rows<typename types::rule_type, typename types::types>);
  }();

  Model& self() { return static_cast<Model&>(*this); }
  auto& typed() { return self().store.template of<T>(); }
  auto& engine() { return store_access::engine(typed()); }

  [[noreturn]] static void refuse_rows(char const* call, any_key_view key) {
    throw invalid_argument(std::string(call) + ": " + key_text(key) +
                           ": row-sparse gradients came, the store's optimizer or compression takes dense ones");
  }
};

/// Policies of a store beside its rule and compressor.
template <class... Policies>
struct policy_list {
  std::tuple<Policies...> values;
};

template <class Updater, class Compressor, class Compressors, class Policies, Device D, ElementType... Ts>
class store_model;

/// A store of `updater` that compresses as it is told; null if it is told something that is not in the list.
template <Device D, ElementType... Ts, class... Cs, class Updater, class... Policies>
std::unique_ptr<erased_store<D, Ts...>> make_model(compressors<Cs...>, std::vector<D> const& devices,
                                                   Updater const& updater, compress::any_compressor const& compressor,
                                                   policy_list<Policies...> const& policies) {
  return std::visit(
      [&]<class C>(C const& chosen) -> std::unique_ptr<erased_store<D, Ts...>> {
        if constexpr (std::same_as<C, compress::none> || (std::same_as<C, Cs> || ...)) {
          return std::make_unique<store_model<Updater, C, compressors<Cs...>, policy_list<Policies...>, D, Ts...>>(
              devices, updater, chosen, policies);
        } else {
          return nullptr;
        }
      },
      compressor);
}

/// A kv_store behind an erased_store.
/// @tparam Compressors  What the store may be asked for, a `compressors<...>`.
template <class Updater, class Compressor, class Compressors, class... Policies, Device D, ElementType... Ts>
class store_model<Updater, Compressor, Compressors, policy_list<Policies...>, D, Ts...> final
    : public stacked_layers<typed_model,
                            store_model<Updater, Compressor, Compressors, policy_list<Policies...>, D, Ts...>,
                            erased_store<D, Ts...>, D, Ts...>::type {
  template <class... Rule>
  using store_of = kv_store<type_list<Ts...>, D, Rule..., any_keys, Compressor, Policies...>;

 public:
  static constexpr bool has_rule = !std::same_as<Updater, no_updater>;
  using store_type = typename std::conditional_t<has_rule, std::type_identity<store_of<Updater>>,
                                                 std::type_identity<store_of<>>>::type;
  template <class T>
  using types_of =
      typename std::conditional_t<has_rule,
                                  std::type_identity<kv_store_types<T, D, Updater, any_keys, Compressor, Policies...>>,
                                  std::type_identity<kv_store_types<T, D, any_keys, Compressor, Policies...>>>::type;

  store_model(std::vector<D> const& devices, Updater const& updater, Compressor const& compressor,
              policy_list<Policies...> const& policies)
      : store(std::apply([&](auto const&... p) { return store_type(devices, updater, compressor, p...); },
                         policies.values)),
        policies_(policies) {}

  std::vector<D> const& devices() const override { return store.devices(); }
  int rank() const override { return store.rank(); }
  int num_workers() const override { return store.num_workers(); }
  void barrier() const override { store.barrier(); }
  std::optional<double> join(double weight) override {
    if constexpr (AdditiveReduction<typename types_of<std::tuple_element_t<0, std::tuple<Ts...>>>::reduction_type>)
      return store.join(weight);
    refuse_call("join", "the store's reduction does not add gradients");
  }
  std::vector<any_key> keys() const override { return store.keys(); }
  bool contains(any_key_view key) const override { return store.contains(key); }
  pushpull::shape const& shape(any_key_view key) const override { return store.shape(key); }
  std::string_view dtype(any_key_view key) const override { return store.dtype(key); }
  bool is_mirrored(any_key_view key) const override { return store.is_mirrored(key); }
  void wait() const override { store.wait(); }
  void drain() const override { store.drain(); }
  void wait(any_key_view key) const override { store.wait(key); }
  void device_waits_for(D const& device, any_key_view key) const override { store.device_waits_for(device, key); }
  void key_waits_for(any_key_view key, D const& device) const override { store.key_waits_for(key, device); }
  pushpull::memory_report memory_report() const override { return store.memory_report(); }
  profile::statistics statistics() const override { return store.statistics(); }

  bool has_updater() const override { return has_rule; }
  bool accumulates() const override { return store_type::accumulates; }
  bool steps_in_parts() const override { return store_type::steps_in_parts; }
  std::any updater(std::size_t group) const override {
    if constexpr (has_rule) return store.updater(group);
    return {};
  }
  void expect_rule(char const* call, std::any const& rule) const override {
    if (std::any_cast<Updater>(&rule) == nullptr)
      refuse_call(call, "a rule of another type than the store's optimizer came; set_optimizer takes any");
  }
  void set_hyperparameters(std::any const& rule, std::size_t group) override {
    if constexpr (has_rule) store.set_hyperparameters(std::any_cast<Updater const&>(rule), group);
  }
  std::size_t add_group(std::function<bool(any_key_view)> belongs, std::any const& rule) override {
    if constexpr (has_rule) {
      belongs_.push_back(belongs);
      try {
        return store.add_group(std::move(belongs), std::any_cast<Updater const&>(rule));
      } catch (...) {
        belongs_.pop_back();
        throw;
      }
    }
    return 0;
  }
  std::size_t groups() const override { return store.groups(); }
  std::uint64_t rule_changes() const override { return store.rule_changes(); }
  std::size_t group(any_key_view key) const override { return store.group(key); }
  std::int64_t steps(any_key_view key) const override {
    if constexpr (has_rule) return store.steps(key);
    return store.visit("steps", key, [](auto const&) { return std::int64_t{0}; });
  }
  void set_steps(any_key_view key, std::int64_t t) override {
    if constexpr (has_rule) store.set_steps(key, t);
  }
  std::int64_t micro_batches(any_key_view key) const override {
    if constexpr (store_type::accumulates) return store.micro_batches(key);
    return store.visit("micro_batches", key, [](auto const&) { return std::int64_t{0}; });
  }
  std::vector<std::byte> gradient_sum(any_key_view key) const override {
    if constexpr (store_type::accumulates)
      return store.visit("gradient_sum", key, [&](auto const& typed) { return bytes_of(typed.gradient_sum(key)); });
    refuse_call("gradient_sum", "the store's optimizer was set without the policy accumulate");
  }
  void set_micro_batches(any_key_view key, std::int64_t count, std::span<std::byte const> sum) override {
    if constexpr (store_type::accumulates) {
      store.visit("set_micro_batches", key, [&](auto& typed) {
        using A = typename std::remove_reference_t<decltype(typed)>::accumulation_type;
        typed.set_micro_batches(key, count, std::span<A const>(elements_of<A>(sum)));
      });
    } else {
      refuse_call("set_micro_batches", "the store's optimizer was set without the policy accumulate");
    }
  }
  void discard_micro_batches(any_key_view key) override {
    if constexpr (store_type::accumulates) store.discard_micro_batches(key);
  }
  bool has_captures() const override { return store.has_captures(); }
  void discard_captures() override { store.discard_captures(); }
  double const* loss_scale(std::size_t n) const override {
    using first = std::tuple_element_t<0, std::tuple<Ts...>>;
    if constexpr (requires { store.template of<first>().loss_scale(n); }) {
      return store.template of<first>().loss_scale(n);
    } else {
      refuse_call("loss_scale", "the store's optimizer has no dynamic_loss_scale");
    }
  }
  std::vector<double> carried_numbers() const override { return store.carried_numbers(); }
  void set_carried_numbers(std::span<double const> numbers) override { store.set_carried_numbers(numbers); }
  detail::owning_ranks owning_ranks() const override { return store.owning_ranks(); }
  array_part local_part(any_key_view key, saved_array what, std::string_view state, bool copies) const override {
    return store.local_part(key, what, state, copies);
  }
  void prepare_values(prepared_changes& changes, any_key_view key, saved_values const& values) override {
    store.prepare_values(changes, key, values);
  }
  void prepare_carried_numbers(prepared_changes& changes, std::span<double const> numbers) override {
    store.prepare_carried_numbers(changes, numbers);
  }
  update::rule_description describe_rule() const override {
    if constexpr (has_rule) return store_type::describe_rule();
    return {};
  }
  std::vector<std::string> state_names() const override { return store_type::state_names(); }
  pushpull::shape state_shape(any_key_view key, std::string_view name) const override {
    return store.state_shape(key, name);
  }
  std::vector<std::byte> state(any_key_view key, std::string_view name) const override {
    return store.visit("state", key, [&](auto const& typed) { return bytes_of(typed.state(key, name)); });
  }
  void set_state(any_key_view key, std::string_view name, std::span<std::byte const> bytes) override {
    store.visit("set_state", key, [&](auto& typed) {
      using S = typename std::remove_reference_t<decltype(typed)>::state_type;
      typed.set_state(key, name, std::span<S const>(elements_of<S>(bytes)));
    });
  }
  void swap(std::span<any_key const> keys, std::string_view name) override {
    if constexpr (has_rule) store.swap(keys, name);
  }
  std::string swapped(any_key_view key) const override { return store.swapped(key); }

  std::unique_ptr<erased_store<D, Ts...>> compressing(compress::any_compressor const& compressor) const override {
    return make_model<D, Ts...>(Compressors(), store.devices(), store.updater(), compressor, policies_);
  }
  void add_groups_to(erased_store<D, Ts...>& next) const override {
    if constexpr (has_rule)
      for (std::size_t n = 0; n < belongs_.size(); ++n) next.add_group(belongs_[n], store.updater(n + 1));
  }
  bool replaceable() const override { return true; }
  void* target(void const* tag) override { return tag == &type_tag<store_type> ? &store : nullptr; }

  store_type store;

 private:
  template <class E>
  static std::vector<std::byte> bytes_of(std::vector<E> const& elements) {
    auto const bytes = std::as_bytes(std::span(elements));
    return {bytes.begin(), bytes.end()};
  }
  template <class E>
  static std::vector<E> elements_of(std::span<std::byte const> bytes) {
    std::vector<E> elements(bytes.size() / sizeof(E));
    if (!bytes.empty()) std::memcpy(static_cast<void*>(elements.data()), bytes.data(), elements.size() * sizeof(E));
    return elements;
  }

  policy_list<Policies...> policies_;
  std::vector<std::function<bool(any_key_view)>> belongs_;  // of parameter group 1, 2, ...
};

}  // namespace detail
}  // namespace pushpull
