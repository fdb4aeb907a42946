/// @file
/// The store of a worker: its keys are on servers.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/remote/key_entry.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/piece_flags.hpp>
#include <pushpull/remote/prepared_operation.hpp>
#include <pushpull/remote/remote_base.hpp>
#include <pushpull/remote/remote_keys.hpp>
#include <pushpull/remote/remote_operation.hpp>
#include <pushpull/remote/row_requests.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/call_arguments.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/refusal.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/store/store_face.hpp>
#include <pushpull/tensor/tensor.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace remote::detail {

/// The calls of a remote_store, without the overloads that explain refused ones.
template <ElementType T, Device D>
class remote_calls : public pushpull::detail::store_face<remote_calls<T, D>, remote_base<T, D>> {
  using base = remote_base<T, D>;
  using face = pushpull::detail::store_face<remote_calls, base>;
  friend face;
  using base::enter_keys, base::make_key, base::prepare;
  using base::operations_, base::parts_, base::schedule_;
  using operation_type = remote_operation<T, D>;

 public:
  using face::face;

 private:
  template <class E, class View>
  void add_keys(std::span<any_key_view const> names, std::span<View const> values, char const* = "init",
                std::vector<bool> const* = nullptr, key_options = {}) {
    std::vector<std::unique_ptr<remote_key>> added;
    std::set<std::string> once;
    for (std::size_t i = 0; i < names.size(); ++i) {
      added.push_back(make_key(names[i], values[i].shape(), false));
      pushpull::detail::expects<duplicate_key>(once.insert(name_of(names[i])).second, [&] {
        return "init: " + pushpull::detail::key_text(names[i]) + " stands twice in one call";
      });
    }
    enter_keys(std::move(added), [&](std::size_t i) -> typename base::host_value {
      if constexpr (std::same_as<pushpull::element_of<View const&>, T> && HostDevice<typename View::device_type>) {
        return {values[i].data()};
      } else {
        tensor<T, cpu_device<>> converted(cpu_device<>(), values[i].shape());
        copy(values[i], converted);
        return {converted.data(), std::move(converted)};
      }
    });
  }

  /// The whole value, by a store of this process: rows with the same id are added, others are zero.
  template <class E, class Rows>
  void add_rows_of_key(any_key_view name, Rows const& rows, key_options) {
    using local_store = kv_store<T, D, integer_keys, synchronous>;
    local_store local(parts_->devices);
    local.init(0, rows);
    tensor<T, cpu_device<>> value(cpu_device<>(), rows.shape());
    local.pull(0, value);
    std::vector<std::unique_ptr<remote_key>> added;
    added.push_back(make_key(name, rows.shape(), true));
    enter_keys(std::move(added), [&](std::size_t) { return typename base::host_value{value.data()}; });
  }

  template <class E, class Arguments>
  void assign_values(Arguments const& arguments, rule_states states) {
    std::vector<std::pair<remote_key*, tensor<T, cpu_device<>>>> values;
    auto const add = [&](any_key_view name, auto const& value) {
      auto const view = view_of(value);
      remote_key& key = parts_->keys.find("assign", name);
      pushpull::detail::expect_shape("assign", name, key.shape, view.shape());
      copy(view, values.emplace_back(&key, tensor<T, cpu_device<>>(cpu_device<>(), view.shape())).second);
    };
    if constexpr (Arguments::is_list) {
      pushpull::detail::for_each_entry(
          "assign", arguments.keys, [&](auto&& name, auto const& value) { add(name, *value); },
          pushpull::detail::companion<std::remove_reference_t<decltype(arguments.sources)>>("value",
                                                                                            arguments.sources));
    } else {
      add(arguments.keys, arguments.sources);
    }
    std::uint8_t const flags = states == rule_states::reset ? resets_states : std::uint8_t{0};
    auto& op = prepare("assign");
    completion const handle(op);
    for (auto const& [key, value] : values) {
      add_value(op.group, *key, message_kind::assign, value.data(), flags);
      op.writes(key->order);
      op.keys.push_back(key);
    }
    schedule_->submit(op, 0, true);
    handle.wait();
  }

  template <class E, class Gradients>
  completion push_rows(any_key_view name, Gradients& gradients, row_updates rows, priority when) {
    auto& op = prepare("push");
    completion handle(op);
    add_rows(op, parts_->keys.find("push", name), "push", gradients, rows);
    schedule_->submit(op, when.value, true);
    return handle;
  }
  template <class E, class Keys, class Gradients>
  completion push_listed_rows(Keys& names, Gradients& gradients, row_updates rows, priority when) {
    auto& op = prepare("push");
    completion handle(op);
    std::vector<std::pair<remote_key*, std::vector<row_list>>> of_keys;
    pushpull::detail::for_each_entry(
        "push", names,
        [&](auto&& name, auto const& gradient) {
          remote_key& key = parts_->keys.find("push", any_key_view(name));
          auto const at = std::find_if(of_keys.begin(), of_keys.end(), [&](auto const& l) { return l.first == &key; });
          auto& list = at != of_keys.end() ? at->second : of_keys.emplace_back(&key, std::vector<row_list>()).second;
          list_rows(list, key, "push", *gradient);
        },
        pushpull::detail::companion<Gradients>("gradient", gradients));
    for (auto const& [key, list] : of_keys) add_list(op, *key, list, rows);
    schedule_->submit(op, when.value, true);
    return handle;
  }
  template <class E, class Gradients, class Outputs>
  completion pushpull_rows(any_key_view name, Gradients& gradients, Outputs& outputs, row_updates rows, priority when) {
    remote_key const& key = parts_->keys.find("pushpull", name);
    pushpull::detail::for_each_tensor(outputs, [&](auto const& output) {
      pushpull::detail::expect_shape("pushpull", name, key.shape, output.shape());
    });
    completion pushed = push_rows<E>(name, gradients, rows, when);
    completion pulled =
        fetch<T, T>(pushpull::detail::with_key("pull", name, pushpull::detail::none_given, outputs), when);
    return completion(std::vector<completion>{std::move(pushed), std::move(pulled)});
  }
  template <class E, class Outputs, class Ids>
  completion pull_rows(any_key_view name, Outputs& outputs, Ids const& row_ids, priority when) {
    auto& op = prepare("row_sparse_pull");
    completion handle(op);
    add_row_outputs(op, name, outputs, row_ids);
    schedule_->submit(op, when.value, true);
    return handle;
  }
  template <class E, class Keys, class Outputs, class Ids>
  completion pull_listed_rows(Keys& names, Outputs& outputs, Ids const& row_ids, priority when) {
    auto& op = prepare("row_sparse_pull");
    completion handle(op);
    pushpull::detail::for_each_entry(
        "row_sparse_pull", names,
        [&](auto&& name, auto const& output, auto const& ids) {
          auto&& filled = *output;
          add_row_outputs(op, any_key_view(name), filled, *ids);
        },
        pushpull::detail::companion<Outputs>("output", outputs),
        pushpull::detail::companion<Ids const>("tensor of row ids", row_ids));
    schedule_->submit(op, when.value, true);
    return handle;
  }

  template <class Gradients>
  void list_rows(std::vector<row_list>& list, remote_key const& key, char const* call, Gradients&& gradients) const {
    std::size_t const before = list.size();
    pushpull::detail::for_each_row_sparse(gradients, [&](auto const& s) {
      static_assert(HostDevice<typename std::remove_cvref_t<decltype(s)>::device_type>,
                    "remote_store: row-sparse tensors in host memory expected");
      pushpull::detail::expect_shape(call, any_key_view(key.key), key.shape, s.shape());
      list.push_back({s.row_ids(), reinterpret_cast<std::byte const*>(s.values()), s.rows()});
    });
    pushpull::detail::expects<invalid_argument>(list.size() > before, [&] {
      return std::string(call) + ": " + pushpull::detail::key_text(key.key) + " came with no gradient";
    });
  }
  void add_list(prepared_operation& op, remote_key& key, std::vector<row_list> const& list, row_updates rows) const {
    pushpull::detail::expects<invalid_argument>(parts_->compressor.index() == 0, [&] {
      return "push: " + pushpull::detail::key_text(key.key) +
             ": row-sparse gradients came, compression takes dense ones";
    });
    auto const row_bytes = static_cast<std::size_t>(pushpull::detail::row_length_of(key.shape)) * sizeof(T);
    op.rows.push(op.group, key, list, row_bytes, element_code<T>,
                 rows == row_updates::standard ? standard_rows : std::uint8_t{0});
    op.writes(key.order);
    op.keys.push_back(&key);
  }
  template <class Gradients>
  void add_rows(prepared_operation& op, remote_key& key, char const* call, Gradients&& gradients,
                row_updates rows) const {
    std::vector<row_list> list;
    list_rows(list, key, call, gradients);
    add_list(op, key, list, rows);
  }
  template <class Outputs, class Ids>
  void add_row_outputs(prepared_operation& op, any_key_view name, Outputs& outputs, Ids const& row_ids) const {
    static constexpr char const* call = "row_sparse_pull";
    static_assert(HostDevice<D>, "remote_store: row_sparse_pull fills tensors in host memory");
    remote_key& key = parts_->keys.find(call, name);
    std::vector<std::vector<std::int64_t>> ids_of;
    auto const add = [&](auto const& view) {
      auto& ids = ids_of.emplace_back();
      for (std::size_t i = 0; i < view.size(); ++i) ids.push_back(pushpull::detail::row_id(call, name, view.data()[i]));
      std::sort(ids.begin(), ids.end());
      ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    };
    if constexpr (TensorLike<Ids const&>) {
      add(view_of(row_ids));
    } else {
      for (auto&& ids : row_ids) add(view_of(ids));
    }
    std::vector<row_sparse<T, D>*> filled;
    pushpull::detail::for_each_row_sparse(outputs, [&](auto& output) { filled.push_back(&output); });
    if constexpr (TensorLike<Ids const&>) {
      ids_of.resize(filled.size(), ids_of.front());
    }
    pushpull::detail::expects<shape_mismatch>(filled.size() == ids_of.size(), [&] {
      return std::string(call) + ": " + pushpull::detail::counted(filled.size(), "output") + ", " +
             pushpull::detail::counted(ids_of.size(), "tensor of row ids");
    });
    for (row_sparse<T, D>* const output : filled)
      pushpull::detail::expect_shape(call, name, key.shape, output->shape());
    for (std::size_t i = 0; i < filled.size(); ++i) {
      auto const& ids = ids_of[i];
      filled[i]->resize(static_cast<std::int64_t>(ids.size()));
      std::copy(ids.begin(), ids.end(), filled[i]->row_ids());
      op.rows.pull(op.group, key, ids, reinterpret_cast<std::byte*>(filled[i]->values()),
                   static_cast<std::size_t>(filled[i]->row_length()) * sizeof(T), element_code<T>);
    }
    op.reads(key.order);
    op.keys.push_back(&key);
  }

  template <class E, class Arguments>
  completion update(Arguments const& arguments, priority when, bool) {
    return submit(arguments, message_kind::push, when);
  }
  template <class E, class U, class Arguments>
  completion fetch(Arguments const& arguments, priority when) {
    return submit(arguments, message_kind::pull, when);
  }
  template <class Arguments>
  completion submit(Arguments const& arguments, message_kind kind, priority when) {
    auto& op = operations_->take([&] { return std::make_unique<operation_type>(*parts_); });
    op.kind = kind;
    op.flags = 0;
    op.gathered.begin(arguments.caller);
    pushpull::detail::call_draft<any_key_view, D, T> draft(op, *schedule_);
    arguments.add_to(draft);
    auto [operation, handle] = draft.close();
    operation->find_keys();
    schedule_->submit(*operation, when.value, true);
    return handle;
  }
};

}  // namespace remote::detail

/// The store of one of several workers, whose keys are in pieces on servers: see remote::server. It models Store. Further calls of a
/// kv_store are assign, row_sparse_pull, those that list keys and shapes, and statistics. All mean what they mean there, but for
/// the servers' consistency, and that push and pushpull send the sum of a call's sources. States, step counts and parameter groups
/// are the servers' own. Keys are strings or integers.
/// @tparam T  Element type of the servers' store.
/// @tparam D  Devices of this worker's tensors. Tensors in host memory are sent from where they are.
/// Calls are asynchronous as those of kv_store. After an error of a server the keys of the call may be updated in parts: those
/// of servers that answered.
template <ElementType T, Device D>
class remote_store : public pushpull::detail::explained<remote::detail::remote_calls<T, D>> {
 public:
  using pushpull::detail::explained<remote::detail::remote_calls<T, D>>::explained;
};

static_assert(Store<remote_store<float, cpu_device<>>>);

}  // namespace pushpull
