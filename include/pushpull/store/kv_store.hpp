/// @file
/// The key-value store of one process: push gradients, pull weights.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/engine.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/kv_store_base.hpp>
#include <pushpull/store/kv_store_types.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/store/refusal.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Element types of one store.
template <ElementType... Ts>
struct type_list {};

template <class T, Device D, class... Policies>
class kv_store {
  static_assert(ElementType<T>, "kv_store: the first argument is neither an ElementType nor a type_list of such");
};

namespace detail {

/// kv_store<T, D, Policies...> without the overloads that explain refused calls.
template <ElementType T, Device D, class... Policies>
class kv_store_calls : public kv_store_base<T, D, Policies...> {
  using resolved = kv_store_types<T, D, Policies...>;
  using base = kv_store_base<T, D, Policies...>;
  using engine_type = typename base::engine_type;
  using base::engine_;

 public:
  using base::accumulate;
  using base::has_updater;
  using base::is_synchronous;
  using typename base::compressor_type;
  using typename base::key_type;
  using typename base::key_view;
  using typename base::updater_type;

  /// @throws invalid_argument if there is no device or the rule refuses its hyperparameters; duplicate_device
  explicit kv_store_calls(std::vector<D> const& devices)
    requires std::default_initializable<updater_type>
      : kv_store_calls(devices, updater_type{}) {}
  /// Policies that are given as values name themselves in the type; a Compressor, an accumulation policy and a Communicator
  /// keep their values: kv_store store{devices, rule, reduce::mean{}, compress::two_bit{0.1F}}.
  /// @throws as above; invalid_argument if the communicator has several ranks that are not independent
  template <detail::HasPolicyKind... P>
  kv_store_calls(std::vector<D> const& devices, updater_type const& updater, P const&... policies)
      : kv_store_calls({}, 0, devices, updater, policies...) {}

  /// Same as the constructor with a rule, but without one: kv_store store{devices, synchronous{}}.
  template <detail::HasPolicyKind First, detail::HasPolicyKind... P>
    requires std::default_initializable<updater_type>
  kv_store_calls(std::vector<D> const& devices, First const& first, P const&... policies)
      : kv_store_calls({}, 0, devices, updater_type{}, first, policies...) {}

  kv_store_calls(kv_store_calls&&) noexcept = default;
  /// Work under way is finished first.
  kv_store_calls& operator=(kv_store_calls&&) noexcept = default;
  /// Finishes what is under way. Errors that nobody waited for are lost.
  ~kv_store_calls() = default;

  /// Stores a deep copy of `value`, a tensor of any element type on any device; states start at zero. Returns when `value`
  /// may change. @throws duplicate_key
  template <TensorLike V>
  void init(key_view key, V const& value) {
    auto const view = view_of(value);
    engine_->init(std::span<key_view const>(&key, 1), std::span(&view, 1), false, {});
  }

  /// Initialises the key from a row-sparse value. Rows listed more than once are summed; unlisted rows are zero. The
  /// stored value is dense.
  /// @throws duplicate_key; invalid_argument if a row does not exist
  template <RowSparseTensorOf<T> V>
  void init(key_view key, V const& value) {
    engine_->init_rows(key, value);
  }

  /// As init for each key of a list, and in one arena: what a model's keys should use. All or none is stored.
  /// @throws duplicate_key; shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, std::ranges::input_range Values>
    requires LastingTensorLike<std::ranges::range_reference_t<Values>>
  void init(Keys&& keys, Values&& values) {
    std::vector<key_type> owned;  // a range may make its keys as it goes
    for (auto&& key : keys) owned.emplace_back(key_view(key));
    std::vector<key_view> const names(owned.begin(), owned.end());
    std::vector<decltype(view_of(*std::ranges::begin(values)))> views;
    for (auto&& value : values) views.push_back(view_of(value));
    detail::expect_count("init", names.size(), views.size(), "value");
    detail::expect_keys("init", !names.empty());
    engine_->init(std::span<key_view const>(names), std::span(std::as_const(views)), false, {});
  }

  /// Replaces the stored value by a copy of `value`, a tensor of the key's shape, of any element type and on any device: in
  /// the order of the key's operations. Masters and resident mirrors change. The rule's states and t stay unless `states`
  /// says otherwise; those that hold copies of weights (ema, lookahead, dcasgd) then keep copies of the old ones. Returns
  /// when `value` may change. @throws unknown_key, shape_mismatch
  /// Cost: per device one pass over its slice of the key.
  template <TensorLike V>
  void assign(key_view key, V const& value, rule_states states = rule_states::keep) {
    auto call = engine_->template new_assign<element_of<V>>("assign", states);
    call.lists.add(key, value, detail::no_tensors{});
    engine_->run(call);
  }
  /// As above for each key of a list, all or none. @throws as above; duplicate_key if a key stands twice; shape_mismatch if
  /// the ranges differ in length
  template <KeysOf<key_view> Keys, std::ranges::input_range Values>
    requires LastingTensorLike<std::ranges::range_reference_t<Values>>
  void assign(Keys&& keys, Values&& values, rule_states states = rule_states::keep) {
    auto call = engine_->template new_assign<detail::element_in<Values>>("assign", states);
    call.lists.add_list(keys, values, detail::none_listed, "value");
    engine_->run(call);
  }

  /// Reduces the gradients of one source or of a range of sources, each of the key's shape, and applies the rule.
  /// @throws unknown_key, shape_mismatch; invalid_argument if there is no gradient
  /// Cost: per device one pass over its slice of the key.
  template <TensorsOf<T> Gradients>
    requires OutlivesCall<Gradients, is_synchronous, D>
  completion push(key_view key, Gradients&& gradients, priority when = {}) {
    auto call = engine_->new_push("push");
    call.lists.add(key, gradients, detail::no_tensors{});
    return engine_->submit(call, when);
  }

  /// As above for each key of a list: one pass per device for all of them. A key that stands in it several times has its
  /// gradients reduced together, and is updated once.
  /// @throws as above; shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, TensorListOf<T> Gradients>
    requires OutlivesCall<Gradients, is_synchronous, D>
  completion push(Keys&& keys, Gradients&& gradients, priority when = {}) {
    auto call = engine_->new_push("push");
    call.lists.add_list(keys, gradients, detail::none_listed);
    return engine_->submit(call, when);
  }

  /// Adds the gradients of a micro-batch to what the key's next step takes: no weight, state or step count changes. In
  /// stores with the policy `accumulate`. @throws as push
  /// Cost: per device one pass that reads its slice of every gradient and writes the sum; but for the first reads it too.
  template <TensorsOf<T> Gradients>
    requires(OutlivesCall<Gradients, is_synchronous, D> && resolved::accumulates)
  completion accumulate(key_view key, Gradients&& gradients, priority when = {}) {
    auto call = engine_->new_push("accumulate", true);
    call.lists.add(key, gradients, detail::no_tensors{});
    return engine_->submit(call, when);
  }
  /// As above for each key of a list.
  template <KeysOf<key_view> Keys, TensorListOf<T> Gradients>
    requires(OutlivesCall<Gradients, is_synchronous, D> && resolved::accumulates)
  completion accumulate(Keys&& keys, Gradients&& gradients, priority when = {}) {
    auto call = engine_->new_push("accumulate", true);
    call.lists.add_list(keys, gradients, detail::none_listed);
    return engine_->submit(call, when);
  }

  /// Row-sparse gradients of one source or of a range of sources, each of the key's shape: rows in any order, repeated ones
  /// are added. A row that is listed is reduced over all sources, those that do not list it counting as zero. The rule
  /// is applied to the rows that came, or with row_updates::standard to all; t of the key counts once. Without a rule the
  /// stored value becomes the reduced rows, and zero elsewhere. For an AdditiveReduction and no Compressor. Ids in GPU
  /// memory are not checked: rows that do not exist are ignored.
  /// @throws unknown_key, shape_mismatch; invalid_argument if there is no gradient or a row does not exist
  /// Cost: a sort of the ids, and per device one pass over its part of the rows.
  template <RowSparseTensorsOf<T> Gradients>
    requires RowsOutliveCall<Gradients, is_synchronous, D>
  completion push(key_view key, Gradients&& gradients, row_updates rows, priority when = {}) {
    auto call = engine_->new_push_rows("push", key, updates_all(rows));
    add_rows(call.operation, "push", key, gradients);
    return engine_->submit(call, when);
  }
  /// Same as push with row_updates, but always lazy.
  template <RowSparseTensorsOf<T> Gradients>
    requires RowsOutliveCall<Gradients, is_synchronous, D>
  completion push(key_view key, Gradients&& gradients, priority when = {}) {
    return push(key, std::forward<Gradients>(gradients), row_updates::lazy, when);
  }

  /// As above for each key of a list. A key that stands in it several times has its gradients reduced together, and is
  /// updated once. @throws as above; shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, RowSparseListOf<T> Gradients>
    requires RowsOutliveCall<Gradients, is_synchronous, D>
  completion push(Keys&& keys, Gradients&& gradients, row_updates rows = row_updates::lazy, priority when = {}) {
    auto const groups = detail::group_keys("push", "gradient", keys, gradients,
                                           [&](key_view key) -> auto& { return engine_->find("push", key); });
    std::vector<detail::prepared_call> all;
    for (auto const& group : groups) {
      auto call = engine_->new_push_rows("push", group.key->key, updates_all(rows));
      for (auto const& entry : group.entries) add_rows(call.operation, "push", group.key->key, *entry);
      all.push_back(engine_->prepare(call));
    }
    return engine_->submit_jointly(all, when);
  }

  /// Sets one output or a range of outputs, each of the key's shape and of any element type, to the stored value.
  /// @throws unknown_key, shape_mismatch
  /// Cost: per device one pass that reads its slice once and writes it once per output.
  template <OutputTensors Outputs>
    requires OutlivesCall<Outputs, is_synchronous, D>
  completion pull(key_view key, Outputs&& outputs, priority when = {}) {
    auto call = engine_->template new_pull<detail::element_in<Outputs>>("pull");
    call.lists.add(key, detail::no_tensors{}, outputs);
    return engine_->submit(call, when);
  }

  /// As above for each key of a list. @throws as above; shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, OutputTensorList Outputs>
    requires OutlivesCall<Outputs, is_synchronous, D>
  completion pull(Keys&& keys, Outputs&& outputs, priority when = {}) {
    auto call = engine_->template new_pull<detail::element_in<Outputs>>("pull");
    call.lists.add_list(keys, detail::none_listed, outputs);
    return engine_->submit(call, when);
  }

  /// push, then pull, in one pass: the new values go to the outputs while they are in registers.
  /// @throws as push and pull
  template <TensorsOf<T> Gradients, OutputTensorsOf<T> Outputs>
    requires(OutlivesCall<Gradients, is_synchronous, D> && OutlivesCall<Outputs, is_synchronous, D>)
  completion pushpull(key_view key, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    auto call = engine_->new_push("pushpull");
    call.lists.add(key, gradients, outputs);
    return engine_->submit(call, when);
  }
  /// Same as pushpull with outputs, but the gradients' own memory receives the new values. Without a rule that is an
  /// all-reduce in place.
  template <OutputTensorsOf<T> Tensors>
    requires(detail::Repeatable<Tensors> && OutlivesCall<Tensors, is_synchronous, D>)
  completion pushpull(key_view key, Tensors&& tensors, priority when = {}) {
    return pushpull(key, tensors, tensors, when);
  }

  /// As above for each key of a list: one pass per device for all of them.
  template <KeysOf<key_view> Keys, TensorListOf<T> Gradients, OutputTensorList Outputs>
    requires(TensorListOf<Outputs, T> && OutlivesCall<Gradients, is_synchronous, D> &&
             OutlivesCall<Outputs, is_synchronous, D>)
  completion pushpull(Keys&& keys, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    auto call = engine_->new_push("pushpull");
    call.lists.add_list(keys, gradients, outputs);
    return engine_->submit(call, when);
  }
  /// Same as pushpull of a list with outputs, but the gradients' own memory receives the new values.
  template <KeysOf<key_view> Keys, OutputTensorList Tensors>
    requires(TensorListOf<Tensors, T> && detail::Repeatable<Tensors> && OutlivesCall<Tensors, is_synchronous, D>)
  completion pushpull(Keys&& keys, Tensors&& tensors, priority when = {}) {
    return pushpull(keys, tensors, tensors, when);
  }

  /// push of row-sparse gradients, then pull of the whole value into dense outputs. @throws as push and pull
  template <RowSparseTensorsOf<T> Gradients, OutputTensorsOf<T> Outputs>
    requires(RowsOutliveCall<Gradients, is_synchronous, D> && OutlivesCall<Outputs, is_synchronous, D>)
  completion pushpull(key_view key, Gradients&& gradients, Outputs&& outputs, row_updates rows, priority when = {}) {
    auto call = engine_->new_push_rows("pushpull", key, updates_all(rows));
    add_rows(call.operation, "pushpull", key, gradients);
    detail::for_each_tensor(outputs, [&](auto const& view) { call.operation.add_output("pushpull", key, view); });
    return engine_->submit(call, when);
  }
  /// Same as pushpull with row_updates, but always lazy.
  template <RowSparseTensorsOf<T> Gradients, OutputTensorsOf<T> Outputs>
    requires(RowsOutliveCall<Gradients, is_synchronous, D> && OutlivesCall<Outputs, is_synchronous, D>)
  completion pushpull(key_view key, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    return pushpull(key, std::forward<Gradients>(gradients), std::forward<Outputs>(outputs), row_updates::lazy, when);
  }

  /// Fills each output with the rows of the stored value that `row_ids` names: ids ascending, each once. `row_ids` is one
  /// tensor of numbers of any shape, in any order, repeated or empty, for all outputs, or a range of as many tensors as
  /// there are outputs; those in host memory may change when the call returns. The outputs stay where they are until the
  /// work is finished. Ids in GPU memory are not checked: rows that do not exist are left out.
  /// @throws unknown_key; shape_mismatch also if there are not as many tensors of ids as outputs; invalid_argument if a
  /// row does not exist; unknown_device if a device cannot write an output's memory
  /// Cost: a sort of the ids, and per device one pass over its part of the rows.
  template <class Outputs, RowIds Ids>
    requires RowSparseOutputs<Outputs&, T, D>
  completion row_sparse_pull(key_view key, Outputs& outputs, Ids const& row_ids, priority when = {}) {
    return engine_->submit(prepare_row_pull(key, outputs, row_ids), when);
  }

  /// As above for each key of a list: of outputs, and of ids, one range element per key.
  /// @throws as above; shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, std::ranges::forward_range Outputs, std::ranges::forward_range Ids>
    requires(RowSparseOutputs<std::ranges::range_reference_t<Outputs>, T, D> &&
             RowIds<std::ranges::range_reference_t<Ids>>)
  completion row_sparse_pull(Keys&& keys, Outputs& outputs, Ids const& row_ids, priority when = {}) {
    static constexpr char const* call = "row_sparse_pull";
    std::vector<detail::prepared_call> all;
    detail::for_each_entry(
        call, keys,
        [&](auto&& key, auto const& output, auto const& ids) {
          auto&& filled = *output;
          all.push_back(prepare_row_pull(key_view(key), filled, *ids));
        },
        detail::companion<Outputs>("output", outputs), detail::companion<Ids const>("tensor of row ids", row_ids));
    return engine_->submit_jointly(all, when);
  }

  /// init, then pull. @throws as both
  template <TensorLike V, OutputTensors Outputs>
    requires(detail::Repeatable<Outputs> && OutlivesCall<Outputs, is_synchronous, D>)
  completion broadcast(key_view key, V const& value, Outputs&& outputs, priority when = {}) {
    detail::expect_outputs_like(key, value, outputs);
    init(key, value);
    return pull(key, outputs, when);
  }

  /// As above for each key of a list. @throws as both
  template <KeysOf<key_view> Keys, std::ranges::input_range Values, OutputTensorList Outputs>
    requires(LastingTensorLike<std::ranges::range_reference_t<Values>> && detail::Repeatable<Keys> &&
             detail::Repeatable<Values> && detail::Repeatable<Outputs> && OutlivesCall<Outputs, is_synchronous, D>)
  completion broadcast(Keys&& keys, Values&& values, Outputs&& outputs, priority when = {}) {
    detail::expect_outputs_like_each<key_view>(keys, values, outputs);
    init(keys, values);
    return pull(keys, outputs, when);
  }

 private:
  template <class, Device, class...>
  friend class typed_store_calls;
  template <ElementType, Device, class, class...>
  friend class ruled_store_calls;

  template <class... P>
  kv_store_calls(typename engine_type::shared_parts shared, std::size_t number, std::vector<D> const& devices,
                 updater_type const& updater, P const&... policies)
      : base(std::make_unique<engine_type>(devices, updater, detail::pick_value<compressor_type>(policies...),
                                           detail::pick_value<typename resolved::accumulation_policy>(policies...),
                                           detail::pick_value<typename resolved::communicator_type>(policies...),
                                           std::move(shared), number)) {}

  /// Without a rule the rows that did not come become zero.
  static constexpr bool updates_all(row_updates rows) { return !has_updater || rows == row_updates::standard; }

  /// Nothing is written before the calls for all keys of a list have been checked.
  template <class Outputs, class Ids>
  detail::prepared_call prepare_row_pull(key_view key, Outputs&& outputs, Ids const& row_ids) {
    static constexpr char const* call = "row_sparse_pull";
    auto draft = engine_->new_pull_rows(call, key);
    auto& op = draft.operation;
    if constexpr (TensorLike<Ids const&>) {
      op.add_ids(call, key, view_of(row_ids));
      detail::for_each_row_sparse(outputs, [&](auto& output) { op.add_output(call, key, output); });
    } else {
      auto ids = std::ranges::begin(row_ids);
      std::size_t filled = 0, named = 0;
      detail::for_each_row_sparse(outputs, [&](auto& output) {
        ++filled;
        if (ids == std::ranges::end(row_ids)) return;
        op.add_ids(call, key, view_of(*ids));
        op.add_output(call, key, output);
        ++ids;
        ++named;
      });
      detail::expects<shape_mismatch>(filled == named && ids == std::ranges::end(row_ids), [&] {
        return std::string(call) + ": " + detail::key_text(key) + ": " + detail::counted(filled, "output") + ", " +
               detail::counted(row_ids, named, ids != std::ranges::end(row_ids), "tensor of row ids");
      });
    }
    return engine_->prepare(draft);
  }

  template <class Operation, class Gradients>
  static void add_rows(Operation& op, char const* call, key_view key, Gradients&& gradients) {
    detail::for_each_row_sparse(gradients, [&](auto const& source) { op.add_source(call, key, source); });
    op.expect_source(call, key);
  }
};

}  // namespace detail

/// Keys with one stored tensor each, cut into slices that the devices own. A push reduces the gradients of all sources
/// and applies the rule in one pass per device; without a rule it replaces the stored value by the reduced gradients.
/// @tparam T         Element type of gradients and outputs; for several see kv_store<type_list<Ts...>, D, Policies...>.
/// @tparam D         The devices.
/// @tparam Policies  In any order, at most one of each: an Updater (default: none), a Reduction (reduce::sum), an element
///                   policy (element::uniform), string_keys, integer_keys or any_keys (string_keys), a Compressor
///                   (compress::none), a Communicator (comm::single), asynchronous or synchronous (asynchronous),
///                   placement::slices or owners (slices), accumulate (every push is a step).
/// Calls check what they are given, and return when their work is enqueued: until it is finished the caller's tensors must
/// stay, and are read and written (see `completion`, `wait`), so temporaries are refused. With `synchronous` calls return
/// when their work is finished. Work on one key takes effect in the order of the calls, pulls of
/// it run concurrently; work on different keys is independent. Several threads may call. Tensors in host memory work with
/// every device, by a copy. After an error the store holds what it held before the call that failed.
template <ElementType T, Device D, class... Policies>
class kv_store<T, D, Policies...> : public detail::explained_rows<detail::kv_store_calls<T, D, Policies...>> {
 public:
  using detail::explained_rows<detail::kv_store_calls<T, D, Policies...>>::explained_rows;
};

static_assert(ResidentStore<kv_store<float, cpu_device<>>>);

/// Types from arguments: floats, the rule or pipeline that was given, and the other policies.
template <Device D, class U, class... P>
kv_store(std::vector<D>, U, P...) -> kv_store<float, D, U, P...>;
template <Device D>
kv_store(std::vector<D>) -> kv_store<float, D>;

/// The same for another element type, or a type_list of several, where the rule's type is better deduced than written:
/// auto store = make_kv_store<bfloat16>(cpu_devices(2), rule, element::master<float>{}, accumulate{4}). @throws as kv_store
template <class T, Device D, class... P>
kv_store<T, D, P...> make_kv_store(std::vector<D> const& devices, P const&... policies) {
  return kv_store<T, D, P...>(devices, policies...);
}

}  // namespace pushpull
