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
#include <pushpull/store/call_arguments.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/refusal.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/store/store_face.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// The calls of any_store, without the overloads that explain refused ones: how their arguments reach the erased store.
template <Device D, class Compressors, ElementType... Ts>
class any_store_calls
    : public store_face<any_store_calls<D, Compressors, Ts...>, any_store_base<D, Compressors, Ts...>> {
  using base = any_store_base<D, Compressors, Ts...>;
  using face = store_face<any_store_calls, base>;
  friend face;
  using base::checked;

 public:
  using base::devices;
  using face::face;

 private:
  template <class T, class View>
  void add_keys(std::span<any_key_view const> keys, std::span<View const> values, char const*, std::vector<bool> const*,
                key_options options) {
    std::vector<tensor<T, D>> converted;
    std::vector<erased_tensor<T const, D>> initial;
    for (View const& view : values) {
      if constexpr (std::same_as<element_of<View const&>, T>) {
        initial.push_back({operand_of<T const, D>(view), view.shape()});
      } else {
        copy(view, converted.emplace_back(devices().front(), view.shape()));
        initial.push_back({{converted.back().data(), devices().front(), view.size()}, view.shape()});
      }
    }
    base::expect_kind(keys);
    calls<T>().init(keys, std::span(std::as_const(initial)), options);
    base::set_kind(keys.front());
  }
  template <class T, class Rows>
  void add_rows_of_key(any_key_view key, Rows const& rows, key_options options) {
    base::expect_kind(std::span(&key, 1));
    erased_rows<T, D> value;
    add_rows(value, rows);
    calls<T>().init_rows(key, value, options);
    base::set_kind(key);
  }

  template <class E, class Arguments>
  void assign_values(Arguments const& arguments, rule_states states) {
    auto const assign = [&]<class T>(std::type_identity<T> type, auto const& given) {
      submit<T>(calls<T>().new_assign(type, states), given, {}).wait();
    };
    if constexpr (Arguments::is_list) {
      assign(std::type_identity<E>(), arguments);
    } else {
      any_key_view const key = arguments.keys;
      std::string_view const dtype = this->dtype(key);
      auto const assign_as = [&]<class T>(std::type_identity<T> type) {
        with_elements<T>(arguments.sources,
                         [&](auto const& view) { assign(type, with_key("assign", key, view, none_given)); });
      };
      ((dtype == dtype_traits<Ts>::name ? assign_as(std::type_identity<Ts>()) : void()), ...);
    }
  }
  template <class T, class Arguments>
  completion update(Arguments const& arguments, priority when, bool only_accumulates) {
    if (only_accumulates) base::expect_accumulates("accumulate");
    return submit<T>(calls<T>().new_push(std::type_identity<T>(), arguments.caller, only_accumulates), arguments, when);
  }
  /// A list's first key says which part of the store pulls, whatever the type E of its keys.
  template <class E, class T, class Arguments>
  completion fetch(Arguments const& arguments, priority when) {
    auto const pull = [&](any_key_view first, auto const& given) {
      return submit<T>(calls<T>().new_pull(std::type_identity<T>(), checked("pull", first)), given, when);
    };
    if constexpr (!Arguments::is_list) {
      return pull(arguments.keys, arguments);
    } else if constexpr (Repeatable<decltype(arguments.keys)>) {
      expect_keys("pull", std::ranges::begin(arguments.keys) != std::ranges::end(arguments.keys));
      any_key const first{any_key_view(*std::ranges::begin(arguments.keys))};
      return pull(first, arguments);
    } else {
      std::vector<any_key> owned;
      for (auto&& key : arguments.keys) owned.emplace_back(any_key_view(key));
      expect_keys("pull", !owned.empty());
      return pull(owned.front(), with_list("pull", owned, none_listed, arguments.outputs));
    }
  }

  template <class T, class Gradients>
  completion push_rows(any_key_view key, Gradients& gradients, row_updates rows, priority when) {
    any_key const owned(checked("push", key));
    erased_rows<T, D> sources;
    add_rows(sources, gradients);
    return calls<T>().push_rows(std::span(&owned, 1), sources, rows, when);
  }
  template <class T, class Keys, class Gradients>
  completion push_listed_rows(Keys& keys, Gradients& gradients, row_updates rows, priority when) {
    std::vector<any_key> owned;
    erased_rows<T, D> sources;
    for_each_entry(
        "push", keys,
        [&](auto&& key, auto const& gradient) {
          owned.emplace_back(checked("push", key));
          add_rows(sources, *gradient);
        },
        companion<Gradients>("gradient", gradients));
    return calls<T>().push_rows(owned, sources, rows, when);
  }
  template <class T, class Gradients, class Outputs>
  completion pushpull_rows(any_key_view key, Gradients& gradients, Outputs& outputs, row_updates rows, priority when) {
    erased_rows<T, D> sources;
    add_rows(sources, gradients);
    std::vector<erased_tensor<T, D>> filled;
    for_each_tensor(outputs, [&](auto const& view) { filled.push_back({operand_of<T, D>(view), view.shape()}); });
    return calls<T>().pushpull_rows(checked("pushpull", key), sources, filled, rows, when);
  }
  template <class T, class Outputs, class Ids>
  completion pull_rows(any_key_view key, Outputs& outputs, Ids const& row_ids, priority when) {
    any_key const owned(checked("row_sparse_pull", key));
    erased_row_requests<T, D> requests;
    add_request(requests, key, outputs, row_ids);
    return calls<T>().pull_rows(std::span(&owned, 1), requests, when);
  }
  template <class T, class Keys, class Outputs, class Ids>
  completion pull_listed_rows(Keys& keys, Outputs& outputs, Ids const& row_ids, priority when) {
    std::vector<any_key> owned;
    erased_row_requests<T, D> requests;
    for_each_entry(
        "row_sparse_pull", keys,
        [&](auto&& key, auto const& output, auto const& ids) {
          owned.emplace_back(checked("row_sparse_pull", key));
          auto&& filled = *output;
          add_request(requests, owned.back(), filled, *ids);
        },
        companion<Outputs>("output", outputs), companion<Ids const>("tensor of row ids", row_ids));
    return calls<T>().pull_rows(owned, requests, when);
  }

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

  /// Fills the draft, refuses keys of the other kind, and hands the call to the store.
  template <class T, class Arguments>
  completion submit(erased_draft<T, D> call, Arguments const& arguments, priority when) {
    arguments.add_to(call);
    for (auto const& entry : call.lists.keys()) checked(call.lists.caller(), entry.key);
    return calls<T>().submit(call, when);
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

}  // namespace pushpull
