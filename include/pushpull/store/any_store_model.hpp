/// @file
/// What any_store calls without knowing the store's type, and the answer of a kv_store.
#pragma once

#include <cstddef>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <pushpull/compress/by_name.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/row_operands.hpp>
#include <pushpull/store/typed_kv_store.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/shape.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {
namespace detail {

/// A call that is being gathered, in a store of unknown type.
template <class T, Device D>
class erased_call {
 public:
  virtual void add_key(char const* name, any_key_view key) = 0;
  virtual void add_source(char const* name, any_key_view key, operand<T const, D> const& source, shape const& shape) = 0;
  virtual void expect_source(char const* name, any_key_view key) = 0;
  virtual void add_output(char const* name, any_key_view key, operand<T, D> const& output, shape const& shape) = 0;

 protected:
  ~erased_call() = default;
};

/// A reference to a function that gathers a call.
template <class T, Device D>
class gatherer {
 public:
  template <class F>
  explicit gatherer(F const& f)
      : function_(&f), run_([](void const* function, erased_call<T, D>& call) { (*static_cast<F const*>(function))(call); }) {}
  void operator()(erased_call<T, D>& call) const { run_(function_, call); }

 private:
  void const* function_;
  void (*run_)(void const*, erased_call<T, D>&);
};

/// A value for init: where it lies, and its shape.
template <class T, Device D>
struct initial_tensor {
  operand<T const, D> memory;
  pushpull::shape shape;
};

/// The calls of a store that name an element type.
template <class T, Device D>
class typed_calls {
 public:
  virtual void init(std::span<any_key_view const> keys, std::span<initial_tensor<T, D> const> values) = 0;
  virtual completion update(priority when, gatherer<T, D> gather) = 0;
  virtual completion pull(priority when, any_key_view first, gatherer<T, D> gather) = 0;
  virtual void set_function(std::function<void(any_key_view, tensor_view<T, D> const&, tensor_view<T, D> const&)> f) = 0;
  virtual completion push_rows(any_key_view key, std::span<row_sparse_view<T const, D> const> sources, row_updates rows,
                               priority when) = 0;
  /// Likewise rows in host memory, where the devices are others.
  virtual completion push_host_rows(any_key_view key, std::span<row_sparse_view<T const, cpu_device<>> const> sources,
                                    row_updates rows, priority when) = 0;
  virtual completion pull_rows(any_key_view key, std::span<row_sparse<T, D>* const> outputs,
                               std::span<std::int64_t const> ids, priority when) = 0;

 protected:
  ~typed_calls() = default;
};

}  // namespace detail

/// Compressors that a store may be asked for at run time. Each is one more pass per rule and element type.
template <class... Cs>
struct compressors {};

/// All that the library has.
using all_compressors =
    compressors<compress::two_bit, compress::one_bit, compress::cast<half>, compress::cast<bfloat16>,
                compress::cast<float8_e4m3>, compress::cast<float8_e5m2>, compress::top_k>;

namespace detail {

/// A store of unknown rule and compressor.
template <Device D, ElementType... Ts>
class erased_store : public typed_calls<Ts, D>... {
 public:
  using typed_calls<Ts, D>::init...;
  using typed_calls<Ts, D>::update...;
  using typed_calls<Ts, D>::pull...;
  using typed_calls<Ts, D>::set_function...;
  using typed_calls<Ts, D>::push_rows...;
  using typed_calls<Ts, D>::push_host_rows...;
  using typed_calls<Ts, D>::pull_rows...;
  virtual ~erased_store() = default;

  virtual std::vector<D> const& devices() const = 0;
  virtual std::vector<any_key> keys() const = 0;
  virtual bool contains(any_key_view key) const = 0;
  virtual pushpull::shape const& shape(any_key_view key) const = 0;
  virtual std::string_view dtype(any_key_view key) const = 0;
  virtual void wait() const = 0;
  virtual void drain() const = 0;
  virtual void wait(any_key_view key) const = 0;
  virtual void device_waits_for(D const& device, any_key_view key) const = 0;
  virtual void key_waits_for(any_key_view key, D const& device) const = 0;
  virtual bool has_updater() const = 0;
  virtual std::int64_t steps(any_key_view key) const = 0;
  virtual void set_steps(any_key_view key, std::int64_t t) = 0;
  virtual std::vector<double> carried_numbers() const = 0;
  virtual void set_carried_numbers(std::span<double const> numbers) = 0;
  virtual std::vector<std::string> state_names() const = 0;
  virtual update::rule_description describe_rule() const = 0;
  virtual pushpull::shape state_shape(any_key_view key, std::string_view name) const = 0;
  virtual std::vector<std::byte> state(any_key_view key, std::string_view name) const = 0;
  virtual void set_state(any_key_view key, std::string_view name, std::span<std::byte const> bytes) = 0;
  virtual std::size_t bytes(std::size_t n) const = 0;
  /// An empty store with the same rule and another compressor. Null if that is none that the store may be asked for.
  virtual std::unique_ptr<erased_store> compressing(compress::any_compressor const& compressor) const = 0;
};

/// Forwards a gathered call to a store whose type is known.
template <class T, Device D, class Call, class Table>
class forwarded_call final : public erased_call<T, D> {
 public:
  forwarded_call(Call& call, Table const& table) : call_(call), table_(table) {}

  void add_key(char const* name, any_key_view key) override { call_.add_key(table_, name, key); }
  void add_source(char const* name, any_key_view key, operand<T const, D> const& source, shape const& shape) override {
    if constexpr (requires { call_.add_source(name, key, source, shape); })  // pulls of other types have none
      call_.add_source(name, key, source, shape);
  }
  void expect_source(char const* name, any_key_view key) override { call_.expect_source(name, key); }
  void add_output(char const* name, any_key_view key, operand<T, D> const& output, shape const& shape) override {
    call_.add_output(name, key, output, shape);
  }

 private:
  Call& call_;
  Table const& table_;
};

/// What add_to and add_list_to gather a call into that goes to an erased_call.
template <class T, Device D>
class call_proxy {
 public:
  explicit call_proxy(erased_call<T, D>& call) : call_(call) {}

  /// @param table  Knows which keys there may be.
  template <class Table>
  void add_key(Table const& table, char const* name, any_key_view key) {
    call_.add_key(name, table.checked(name, key));
  }
  template <class View>
  void add_source(char const* name, any_key_view key, View const& view) {
    call_.add_source(name, key, operand_of<T const, D>(view), view.shape());
  }
  void expect_source(char const* name, any_key_view key) { call_.expect_source(name, key); }
  template <class View>
  void add_output(char const* name, any_key_view key, View const& view) {
    call_.add_output(name, key, operand_of<T, D>(view), view.shape());
  }

 private:
  erased_call<T, D>& call_;
};

/// The part of a model that calls for element type T go to.
template <class Model, class Base, class T, Device D>
class typed_model : public Base {
 public:
  using Base::init;
  using Base::pull;
  using Base::pull_rows;
  using Base::push_host_rows;
  using Base::push_rows;
  using Base::set_function;
  using Base::update;

  void init(std::span<any_key_view const> keys, std::span<initial_tensor<T, D> const> values) override {
    auto& engine = store_access::engine(self().store.template of<T>());
    bool const on_host = values.empty() || !values.front().memory.device;
    if (on_host) {
      init_from(engine, keys, values, [](auto const& v) {
        return tensor_view<T const, cpu_device<>>(v.memory.data, v.shape, cpu_device<>());
      });
    } else {
      init_from(engine, keys, values, [](auto const& v) {
        return tensor_view<T const, D>(v.memory.data, v.shape, *v.memory.device);
      });
    }
  }
  completion update(priority when, gatherer<T, D> gather) override {
    return store_access::engine(self().store.template of<T>()).update(when, [&](auto& call, auto const& table) {
      forwarded_call<T, D, std::remove_reference_t<decltype(call)>, std::remove_cvref_t<decltype(table)>> forwarded(call, table);
      gather(forwarded);
    });
  }
  completion pull(priority when, any_key_view first, gatherer<T, D> gather) override {
    return self().store.visit("pull", first, [&](auto& store) {
      return store_access::engine(store).template pull<T>(when, [&](auto& call, auto const& table) {
        forwarded_call<T, D, std::remove_reference_t<decltype(call)>, std::remove_cvref_t<decltype(table)>> forwarded(call, table);
        gather(forwarded);
      });
    });
  }
  void set_function(
      std::function<void(any_key_view, tensor_view<T, D> const&, tensor_view<T, D> const&)> function) override {
    if constexpr (!Model::store_type::has_updater)
      store_access::engine(self().store.template of<T>()).function().set(std::move(function));
  }
  completion push_rows(any_key_view key, std::span<row_sparse_view<T const, D> const> sources, row_updates rows,
                       priority when) override {
    return push_any_rows(key, sources, rows, when);
  }
  completion push_host_rows(any_key_view key, std::span<row_sparse_view<T const, cpu_device<>> const> sources,
                            row_updates rows, priority when) override {
    if constexpr (std::same_as<D, cpu_device<>> || !HostDevice<D>) return push_any_rows(key, sources, rows, when);
    return {};
  }
  completion pull_rows(any_key_view key, std::span<row_sparse<T, D>* const> outputs, std::span<std::int64_t const> ids,
                       priority when) override {
    static constexpr char const* call = "row_sparse_pull";
    auto& engine = store_access::engine(self().store.template of<T>());
    auto const gather = [&](auto& op, auto& record) {
      op.begin(record);
      op.add_ids(call, key, view_of(ids));
      for (row_sparse<T, D>* const output : outputs) op.add_output(call, key, *output);
    };
    return engine.submit_rows(engine.prepare_row_pull(call, key, gather), when);
  }

 private:
  Model& self() { return static_cast<Model&>(*this); }

  /// Rules with sums over whole tensors, and compressors, take no rows: what a kv_store refuses when it is compiled.
  template <class Sources>
  completion push_any_rows(any_key_view key, Sources const& sources, row_updates rows, priority when) {
    if constexpr (std::same_as<typename Model::compressor_type, compress::none> &&
                  !PreReduction<typename Model::updater_type>) {
      return self().store.template of<T>().push(key, sources, rows, when);
    } else {
      throw invalid_argument("push: " + key_text(key) +
                             ": row-sparse gradients came, the store's optimizer or compression takes dense ones");
    }
  }

  template <class Engine, class ViewOf>
  static void init_from(Engine& engine, std::span<any_key_view const> keys,
                        std::span<initial_tensor<T, D> const> values, ViewOf const& view_of_value) {
    std::vector<decltype(view_of_value(values.front()))> views;
    for (auto const& value : values) views.push_back(view_of_value(value));
    engine.init(keys, std::span(std::as_const(views)), false, {});
  }
};

template <class Updater, class Compressor, class Compressors, Device D, ElementType... Ts>
class store_model;

/// erased_store with a typed_model on top of it for each element type.
template <class Model, class Base, Device D, class... Ts>
struct stacked_models {
  using type = Base;
};
template <class Model, class Base, Device D, class T, class... Rest>
struct stacked_models<Model, Base, D, T, Rest...> {
  using type = typename stacked_models<Model, typed_model<Model, Base, T, D>, D, Rest...>::type;
};

/// A store of `updater` that compresses as it is told; null if it is told something that is not in the list.
template <Device D, ElementType... Ts, class... Cs, class Updater>
std::unique_ptr<erased_store<D, Ts...>> make_model(compressors<Cs...>, std::vector<D> const& devices,
                                                   Updater const& updater, compress::any_compressor const& compressor) {
  return std::visit(
      [&]<class C>(C const& chosen) -> std::unique_ptr<erased_store<D, Ts...>> {
        if constexpr (std::same_as<C, compress::none> || (std::same_as<C, Cs> || ...)) {
          return std::make_unique<store_model<Updater, C, compressors<Cs...>, D, Ts...>>(devices, updater, chosen);
        } else {
          return nullptr;
        }
      },
      compressor);
}

/// A kv_store behind an erased_store.
/// @tparam Compressors  What the store may be asked for, a `compressors<...>`.
template <class Updater, class Compressor, class Compressors, Device D, ElementType... Ts>
class store_model final : public stacked_models<store_model<Updater, Compressor, Compressors, D, Ts...>,
                                                erased_store<D, Ts...>, D, Ts...>::type {
 public:
  using updater_type = Updater;
  using compressor_type = Compressor;
  using store_type = std::conditional_t<std::same_as<Updater, no_updater>,
                                        kv_store<type_list<Ts...>, D, any_keys, Compressor>,
                                        kv_store<type_list<Ts...>, D, Updater, any_keys, Compressor>>;

  store_model(std::vector<D> const& devices, Updater const& updater, Compressor const& compressor)
      : store(devices, updater, compressor) {}

  std::vector<D> const& devices() const override { return store.devices(); }
  std::vector<any_key> keys() const override { return store.keys(); }
  bool contains(any_key_view key) const override { return store.contains(key); }
  pushpull::shape const& shape(any_key_view key) const override { return store.shape(key); }
  std::string_view dtype(any_key_view key) const override { return store.dtype(key); }
  void wait() const override { store.wait(); }
  void drain() const override { store.drain(); }
  void wait(any_key_view key) const override { store.wait(key); }
  void device_waits_for(D const& device, any_key_view key) const override { store.device_waits_for(device, key); }
  void key_waits_for(any_key_view key, D const& device) const override { store.key_waits_for(key, device); }
  bool has_updater() const override { return store_type::has_updater; }
  std::int64_t steps(any_key_view key) const override {
    if constexpr (store_type::has_updater) {
      return store.steps(key);
    } else {
      return 0;
    }
  }
  void set_steps(any_key_view key, std::int64_t t) override {
    if constexpr (store_type::has_updater) store.set_steps(key, t);
  }
  std::vector<double> carried_numbers() const override { return store.carried_numbers(); }
  void set_carried_numbers(std::span<double const> numbers) override { store.set_carried_numbers(numbers); }
  std::vector<std::string> state_names() const override { return store_type::state_names(); }
  update::rule_description describe_rule() const override {
    if constexpr (store_type::has_updater) {
      return store_type::describe_rule();
    } else {
      return {};
    }
  }
  pushpull::shape state_shape(any_key_view key, std::string_view name) const override {
    return store.state_shape(key, name);
  }
  std::vector<std::byte> state(any_key_view key, std::string_view name) const override {
    return store.visit("state", key, [&](auto const& typed) {
      auto const elements = typed.state(key, name);
      auto const bytes = std::as_bytes(std::span(elements));
      return std::vector<std::byte>(bytes.begin(), bytes.end());
    });
  }
  void set_state(any_key_view key, std::string_view name, std::span<std::byte const> bytes) override {
    store.visit("set_state", key, [&](auto& typed) {
      using S = typename std::remove_reference_t<decltype(typed)>::state_type;
      std::vector<S> elements(bytes.size() / sizeof(S));
      if (!bytes.empty()) std::memcpy(static_cast<void*>(elements.data()), bytes.data(), elements.size() * sizeof(S));
      typed.set_state(key, name, std::span<S const>(elements));
    });
  }
  std::size_t bytes(std::size_t n) const override { return store.bytes(n); }
  std::unique_ptr<erased_store<D, Ts...>> compressing(compress::any_compressor const& compressor) const override {
    return make_model<D, Ts...>(Compressors(), store.devices(), store.updater(), compressor);
  }

  store_type store;
};

}  // namespace detail
}  // namespace pushpull
