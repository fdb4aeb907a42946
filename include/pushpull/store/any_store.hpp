/// @file
/// A store whose rule and compression are chosen at run time.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ranges>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/any_store_base.hpp>
#include <pushpull/store/any_store_calls.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/refusal.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// any_store without the overloads that explain refused calls.
template <Device D, class Compressors, ElementType... Ts>
class any_store_calls : public detail::any_store_base<D, Compressors, Ts...> {
  using base = detail::any_store_base<D, Compressors, Ts...>;
  using base::checked;
  /// What a value with elements E is stored as: E, or the store's only type.
  template <class E>
  using stored_as = std::conditional_t<sizeof...(Ts) == 1 && !(std::same_as<E, Ts> || ...),
                                       std::tuple_element_t<0, std::tuple<Ts...>>, E>;

 public:
  template <class T>
  static constexpr bool has_type = (std::same_as<T, Ts> || ...);
  using base::base;
  using base::devices;

  /// As kv_store::init. The key's element type is that of the value, or `T`.
  template <TensorLike V>
    requires(has_type<stored_as<element_of<V>>>)
  void init(any_key_view key, V const& value) {
    init<stored_as<element_of<V>>>(key, value);
  }
  template <class T, TensorLike V>
    requires(has_type<T>)
  void init(any_key_view key, V const& value) {
    with_elements<T>(value, [&](auto const& view) {
      detail::erased_tensor<T const, D> const initial{detail::operand_of<T const, D>(view), view.shape()};
      init_list<T>(std::span(&key, 1), std::span(&initial, 1));
    });
  }
  template <class V>
    requires(RowSparseTensor<V> && has_type<detail::element_in<V>>)
  void init(any_key_view key, V const& rows) {
    using T = detail::element_in<V>;
    base::expect_kind(std::span(&key, 1));
    detail::erased_rows<T, D> value;
    add_rows(value, rows);
    calls<T>().init_rows(key, value);
    base::set_kind(key);
  }
  template <KeysOf<any_key_view> Keys, std::ranges::input_range Values>
    requires(LastingTensorLike<std::ranges::range_reference_t<Values>> &&
             has_type<stored_as<detail::element_in<Values>>>)
  void init(Keys&& keys, Values&& values) {
    using E = detail::element_in<Values>;
    using T = stored_as<E>;
    std::vector<any_key> owned;
    for (auto&& key : keys) owned.emplace_back(any_key_view(key));
    std::vector<any_key_view> const names(owned.begin(), owned.end());
    std::vector<tensor<T, D>> converted;
    std::vector<detail::erased_tensor<T const, D>> initial;
    for (auto&& value : values) {
      auto const view = view_of(value);
      if constexpr (std::same_as<E, T>) {
        initial.push_back({detail::operand_of<T const, D>(view), view.shape()});
      } else {
        copy(view, converted.emplace_back(devices().front(), view.shape()));
        initial.push_back({{converted.back().data(), devices().front(), view.size()}, view.shape()});
      }
    }
    detail::expect_count("init", names.size(), initial.size(), "value");
    detail::expect_keys("init", !names.empty());
    init_list<T>(std::span(names), std::span(std::as_const(initial)));
  }

  /// As kv_store::assign; values of a list have the keys' element type.
  template <TensorLike V>
    requires(has_type<stored_as<element_of<V>>>)
  void assign(any_key_view key, V const& value, rule_states states = rule_states::keep) {
    std::string_view const dtype = this->dtype(key);
    auto const assign_as = [&]<class T>(std::type_identity<T>) {
      with_elements<T>(value, [&](auto const& view) {
        auto call = calls<T>().new_assign(std::type_identity<T>(), states);
        call.lists.add(key, view, detail::no_tensors{});
        submit(call, {}).wait();
      });
    };
    ((dtype == dtype_traits<Ts>::name ? assign_as(std::type_identity<Ts>()) : void()), ...);
  }
  template <KeysOf<any_key_view> Keys, std::ranges::input_range Values>
    requires(LastingTensorLike<std::ranges::range_reference_t<Values>> && has_type<detail::element_in<Values>>)
  void assign(Keys&& keys, Values&& values, rule_states states = rule_states::keep) {
    using T = detail::element_in<Values>;
    auto call = calls<T>().new_assign(std::type_identity<T>(), states);
    call.lists.add_list(keys, values, detail::none_listed, "value");
    submit(call, {}).wait();
  }

  template <class Gradients>
    requires(has_type<detail::element_in<Gradients>> && TensorsOf<Gradients, detail::element_in<Gradients>> &&
             OutlivesCall<Gradients, false, D>)
  completion push(any_key_view key, Gradients&& gradients, priority when = {}) {
    return update("push", key, gradients, detail::no_tensors{}, when);
  }
  template <KeysOf<any_key_view> Keys, class Gradients>
    requires(has_type<detail::element_in<Gradients>> && TensorListOf<Gradients, detail::element_in<Gradients>> &&
             OutlivesCall<Gradients, false, D>)
  completion push(Keys&& keys, Gradients&& gradients, priority when = {}) {
    return update_list("push", keys, gradients, detail::none_listed, when);
  }

  /// As kv_store::accumulate, where set_optimizer was given the policy `accumulate`. @throws invalid_argument elsewhere
  template <class Gradients>
    requires(has_type<detail::element_in<Gradients>> && TensorsOf<Gradients, detail::element_in<Gradients>> &&
             OutlivesCall<Gradients, false, D>)
  completion accumulate(any_key_view key, Gradients&& gradients, priority when = {}) {
    base::expect_accumulates("accumulate");
    return update("accumulate", key, gradients, detail::no_tensors{}, when, true);
  }
  template <KeysOf<any_key_view> Keys, class Gradients>
    requires(has_type<detail::element_in<Gradients>> && TensorListOf<Gradients, detail::element_in<Gradients>> &&
             OutlivesCall<Gradients, false, D>)
  completion accumulate(Keys&& keys, Gradients&& gradients, priority when = {}) {
    base::expect_accumulates("accumulate");
    return update_list("accumulate", keys, gradients, detail::none_listed, when, true);
  }

  template <OutputTensors Outputs>
    requires(has_type<detail::element_in<Outputs>> && OutlivesCall<Outputs, false, D>)
  completion pull(any_key_view key, Outputs&& outputs, priority when = {}) {
    using T = detail::element_in<Outputs>;
    auto call = calls<T>().new_pull(std::type_identity<T>(), checked("pull", key));
    call.lists.add(key, detail::no_tensors{}, outputs);
    return submit(call, when);
  }
  template <KeysOf<any_key_view> Keys, OutputTensorList Outputs>
    requires(has_type<detail::element_in<Outputs>> && OutlivesCall<Outputs, false, D> && detail::Repeatable<Keys>)
  completion pull(Keys&& keys, Outputs&& outputs, priority when = {}) {
    using T = detail::element_in<Outputs>;
    detail::expect_keys("pull", std::ranges::begin(keys) != std::ranges::end(keys));
    any_key const first{any_key_view(*std::ranges::begin(keys))};
    auto call = calls<T>().new_pull(std::type_identity<T>(), checked("pull", first));
    call.lists.add_list(keys, detail::none_listed, outputs);
    return submit(call, when);
  }

  template <class Gradients, class Outputs>
    requires(has_type<detail::element_in<Gradients>> && TensorsOf<Gradients, detail::element_in<Gradients>> &&
             OutputTensorsOf<Outputs, detail::element_in<Gradients>> && OutlivesCall<Gradients, false, D> &&
             OutlivesCall<Outputs, false, D>)
  completion pushpull(any_key_view key, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    return update("pushpull", key, gradients, outputs, when);
  }
  template <class Tensors>
    requires(has_type<detail::element_in<Tensors>> && OutputTensorsOf<Tensors, detail::element_in<Tensors>> &&
             detail::Repeatable<Tensors> && OutlivesCall<Tensors, false, D>)
  completion pushpull(any_key_view key, Tensors&& tensors, priority when = {}) {
    return update("pushpull", key, tensors, tensors, when);
  }
  template <KeysOf<any_key_view> Keys, class Gradients, OutputTensorList Outputs>
    requires(has_type<detail::element_in<Gradients>> && TensorListOf<Gradients, detail::element_in<Gradients>> &&
             TensorListOf<Outputs, detail::element_in<Gradients>> && OutlivesCall<Gradients, false, D> &&
             OutlivesCall<Outputs, false, D>)
  completion pushpull(Keys&& keys, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    return update_list("pushpull", keys, gradients, outputs, when);
  }
  template <KeysOf<any_key_view> Keys, OutputTensorList Tensors>
    requires(has_type<detail::element_in<Tensors>> && detail::Repeatable<Tensors> && OutlivesCall<Tensors, false, D>)
  completion pushpull(Keys&& keys, Tensors&& tensors, priority when = {}) {
    return update_list("pushpull", keys, tensors, tensors, when);
  }

  /// Row-sparse gradients of one source or of a range of sources, or for each key of a list, as on kv_store.
  /// @throws as kv_store::push; invalid_argument also where the rule, its policies or the compression take dense gradients
  template <class Gradients>
    requires(has_type<detail::element_in<Gradients>> && RowSparseTensorsOf<Gradients, detail::element_in<Gradients>> &&
             RowsOutliveCall<Gradients, false, D>)
  completion push(any_key_view key, Gradients&& gradients, row_updates rows = row_updates::lazy, priority when = {}) {
    using T = detail::element_in<Gradients>;
    any_key const owned(checked("push", key));
    detail::erased_rows<T, D> sources;
    add_rows(sources, gradients);
    return calls<T>().push_rows(std::span(&owned, 1), sources, rows, when);
  }
  template <class Gradients>
    requires(has_type<detail::element_in<Gradients>> && RowSparseTensorsOf<Gradients, detail::element_in<Gradients>> &&
             RowsOutliveCall<Gradients, false, D>)
  completion push(any_key_view key, Gradients&& gradients, priority when) {
    return push(key, std::forward<Gradients>(gradients), row_updates::lazy, when);
  }
  template <KeysOf<any_key_view> Keys, class Gradients>
    requires(has_type<detail::element_in<Gradients>> && RowSparseListOf<Gradients, detail::element_in<Gradients>> &&
             RowsOutliveCall<Gradients, false, D>)
  completion push(Keys&& keys, Gradients&& gradients, row_updates rows = row_updates::lazy, priority when = {}) {
    using T = detail::element_in<Gradients>;
    std::vector<any_key> owned;
    detail::erased_rows<T, D> sources;
    detail::for_each_entry(
        "push", keys,
        [&](auto&& key, auto const& gradient) {
          owned.emplace_back(checked("push", key));
          add_rows(sources, *gradient);
        },
        detail::companion<std::remove_reference_t<Gradients>>("gradient", gradients));
    return calls<T>().push_rows(owned, sources, rows, when);
  }
  /// push of row-sparse gradients, then pull of the whole value into dense outputs.
  template <class Gradients, class Outputs>
    requires(has_type<detail::element_in<Gradients>> && RowSparseTensorsOf<Gradients, detail::element_in<Gradients>> &&
             OutputTensorsOf<Outputs, detail::element_in<Gradients>> && RowsOutliveCall<Gradients, false, D> &&
             OutlivesCall<Outputs, false, D>)
  completion pushpull(any_key_view key, Gradients&& gradients, Outputs&& outputs, row_updates rows = row_updates::lazy,
                      priority when = {}) {
    using T = detail::element_in<Gradients>;
    detail::erased_rows<T, D> sources;
    add_rows(sources, gradients);
    std::vector<detail::erased_tensor<T, D>> filled;
    detail::for_each_tensor(
        outputs, [&](auto const& view) { filled.push_back({detail::operand_of<T, D>(view), view.shape()}); });
    return calls<T>().pushpull_rows(checked("pushpull", key), sources, filled, rows, when);
  }

  /// As kv_store::row_sparse_pull. The keys have the outputs' element type.
  template <class Outputs, RowIds Ids>
    requires RowSparseOutputs<Outputs&, detail::element_in<Outputs>, D>
  completion row_sparse_pull(any_key_view key, Outputs& outputs, Ids const& row_ids, priority when = {}) {
    using T = detail::element_in<Outputs>;
    any_key const owned(checked("row_sparse_pull", key));
    detail::erased_row_requests<T, D> requests;
    add_request(requests, key, outputs, row_ids);
    return calls<T>().pull_rows(std::span(&owned, 1), requests, when);
  }
  template <KeysOf<any_key_view> Keys, std::ranges::forward_range Outputs, std::ranges::forward_range Ids>
    requires(RowSparseOutputs<std::ranges::range_reference_t<Outputs>, detail::element_in<Outputs>, D> &&
             RowIds<std::ranges::range_reference_t<Ids>>)
  completion row_sparse_pull(Keys&& keys, Outputs& outputs, Ids const& row_ids, priority when = {}) {
    using T = detail::element_in<Outputs>;
    std::vector<any_key> owned;
    detail::erased_row_requests<T, D> requests;
    detail::for_each_entry(
        "row_sparse_pull", keys,
        [&](auto&& key, auto const& output, auto const& ids) {
          owned.emplace_back(checked("row_sparse_pull", key));
          auto&& filled = *output;
          add_request(requests, owned.back(), filled, *ids);
        },
        detail::companion<Outputs>("output", outputs), detail::companion<Ids const>("tensor of row ids", row_ids));
    return calls<T>().pull_rows(owned, requests, when);
  }

  /// init, then pull.
  template <class Value, OutputTensors Outputs>
    requires(TensorLike<Value> && detail::Repeatable<Outputs> && OutlivesCall<Outputs, false, D>)
  completion broadcast(any_key_view key, Value const& value, Outputs&& outputs, priority when = {}) {
    detail::expect_outputs_like(key, value, outputs);
    init(key, value);
    return pull(key, outputs, when);
  }
  template <KeysOf<any_key_view> Keys, std::ranges::input_range Values, OutputTensorList Outputs>
    requires(detail::Repeatable<Keys> && detail::Repeatable<Values> && detail::Repeatable<Outputs> &&
             OutlivesCall<Outputs, false, D>)
  completion broadcast(Keys&& keys, Values&& values, Outputs&& outputs, priority when = {}) {
    detail::expect_outputs_like_each<any_key_view>(keys, values, outputs);
    init(keys, values);
    return pull(keys, outputs, when);
  }

 private:
  template <class T>
  detail::typed_calls<T, D>& calls() {
    return base::template calls<T>();
  }

  /// f(view of the value), or of a copy with elements T.
  template <class T, class V, class F>
  void with_elements(V const& value, F const& f) const {
    if constexpr (std::same_as<element_of<V const>, T>) {
      f(view_of(value));
    } else {
      tensor<T, D> converted(devices().front(), view_of(value).shape());
      copy(value, converted);
      f(converted.view());
    }
  }

  template <class T>
  void init_list(std::span<any_key_view const> keys, std::span<detail::erased_tensor<T const, D> const> values) {
    base::expect_kind(keys);
    calls<T>().init(keys, values);
    base::set_kind(keys.front());
  }

  /// Refuses keys of the other kind, and hands the call to the store.
  template <class T>
  completion submit(detail::erased_draft<T, D>& call, priority when) {
    for (auto const& entry : call.lists.keys()) checked(call.lists.caller(), entry.key);
    return calls<T>().submit(call, when);
  }
  template <class Gradients, class Outputs>
  completion update(char const* name, any_key_view key, Gradients& gradients, Outputs&& outputs, priority when,
                    bool only_accumulates = false) {
    using T = detail::element_in<Gradients>;
    auto call = calls<T>().new_push(std::type_identity<T>(), name, only_accumulates);
    call.lists.add(key, gradients, outputs);
    return submit(call, when);
  }
  template <class Keys, class Gradients, class Outputs>
  completion update_list(char const* name, Keys& keys, Gradients& gradients, Outputs& outputs, priority when,
                         bool only_accumulates = false) {
    using T = detail::element_in<Gradients>;
    auto call = calls<T>().new_push(std::type_identity<T>(), name, only_accumulates);
    call.lists.add_list(keys, gradients, outputs);
    return submit(call, when);
  }

  /// The row-sparse tensors of one more key.
  template <class T, class Rows>
  void add_rows(detail::erased_rows<T, D>& to, Rows&& rows) const {
    using rows_device = typename std::remove_cvref_t<decltype(detail::first_rows(rows))>::device_type;
    if constexpr (HostDevice<D> || std::same_as<rows_device, D>) {
      auto& views = to.on_devices.emplace_back();
      detail::for_each_row_sparse(rows, [&](auto const& s) {
        if constexpr (std::same_as<rows_device, D>) {
          views.emplace_back(s.values(), s.row_ids(), s.rows(), s.shape(), s.device());
        } else {
          views.emplace_back(s.values(), s.row_ids(), s.rows(), s.shape(), devices().front());
        }
      });
    } else {
      to.in_host_memory = true;
      auto& views = to.on_host.emplace_back();
      detail::for_each_row_sparse(rows, [&](auto const& s) {
        views.emplace_back(s.values(), s.row_ids(), s.rows(), s.shape(), cpu_device<>());
      });
    }
  }

  /// The outputs of one more key and its tensors of ids, which are read here where they lie in host memory.
  template <class T, class Outputs, class Ids>
  void add_request(detail::erased_row_requests<T, D>& to, any_key_view key, Outputs& outputs,
                   Ids const& row_ids) const {
    auto& filled = to.outputs.emplace_back();
    detail::for_each_row_sparse(outputs, [&](auto& output) { filled.push_back(&output); });
    auto const add = [&]<class View>(auto& hosts, auto& on_devices, View const& view) {
      static constexpr char const* call = "row_sparse_pull";
      if constexpr (HostDevice<typename View::device_type>) {
        detail::expect_countable(call, detail::key_text(key), static_cast<std::int64_t>(view.size()));
        auto& ids = hosts.emplace_back();
        for (std::size_t i = 0; i < view.size(); ++i) ids.push_back(detail::row_id(call, key, view.data()[i]));
      } else {
        static_assert(
            std::same_as<View, tensor_view<std::int64_t const, D>>,
            "row_sparse_pull: row ids are 64-bit integers on a device of the store's kind, or in host memory");
        on_devices.push_back(view);
      }
    };
    if constexpr (TensorLike<Ids const&>) {
      to.shared = true;
      add(to.ids.emplace_back(), to.ids_on_devices.emplace_back(), view_of(row_ids));
    } else {
      auto& hosts = to.ids.emplace_back();
      auto& on_devices = to.ids_on_devices.emplace_back();
      for (auto&& ids : row_ids) {
        if (!std::ranges::sized_range<Ids> && hosts.size() + on_devices.size() > filled.size()) break;
        add(hosts, on_devices, view_of(ids));
      }
    }
  }
};

}  // namespace detail

/// A kv_store of keys of one kind, integers or strings as the first init has it, whose rule can be set and replaced; or a
/// user's store behind the same calls. Calls mean what they mean on kv_store; what is refused there at compile time for keys
/// is an error here.
/// @tparam D            The devices.
/// @tparam Compressors  What set_gradient_compression may be asked for, a `compressors<...>`.
/// @tparam Ts           The element types that keys may have.
/// See `create`. Cost over kv_store: a virtual call per call and per tensor.
template <Device D, class Compressors, ElementType... Ts>
class any_store : public detail::explained_rows<detail::any_store_calls<D, Compressors, Ts...>> {
 public:
  using detail::explained_rows<detail::any_store_calls<D, Compressors, Ts...>>::explained_rows;
};

static_assert(Store<any_store<cpu_device<>, compressors<>, float>>);

}  // namespace pushpull
