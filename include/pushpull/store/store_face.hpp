/// @file
/// The calls of every store that take tensors: each is declared here once.
#pragma once

#include <concepts>
#include <cstddef>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/call_arguments.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The calls of a store that take tensors, on top of what `Derived` does with their arguments.
/// @tparam Derived  Has, for these calls only: add_keys, add_rows_of_key, assign_values, update, fetch, push_rows,
///                  push_listed_rows, pushpull_rows, pull_rows, pull_listed_rows.
/// @tparam Traits   Types and constants of the store. For an element type E: has_type<E>, keys may have it; stored_as<E>, the
///                  type of a key that begins with a value of type E; converts<E>, assign of one key takes it; pulls<E>, pull
///                  of one key takes it; lists<E>, assign and pull of a list take it.
template <class Derived, class Traits>
class store_face : public Traits {
 public:
  using typename Traits::device_type;
  using typename Traits::key_type;
  using typename Traits::key_view;
  template <class E>
  using stored_as = typename Traits::template stored_as<E>;

  /// Stores a deep copy of `value`, a tensor of any element type on any device; states start at zero. Returns when `value`
  /// may change. In a store of several element types the key has that of the value, or `T`. @throws duplicate_key
  template <TensorLike V>
    requires(Traits::template has_type<stored_as<element_of<V>>>)
  void init(key_view key, V const& value, key_options options = {}) {
    init<stored_as<element_of<V>>>(key, value, options);
  }
  template <class T, TensorLike V>
    requires(Traits::template has_type<T>)
  void init(key_view key, V const& value, key_options options = {}) {
    auto const view = view_of(value);
    self().template add_keys<T>(std::span<key_view const>(&key, 1), std::span(&view, 1), "init", nullptr, options);
  }
  /// Stores the rows of a row-sparse value, and zero elsewhere. Rows listed more than once are added. The stored value is
  /// dense. @throws duplicate_key; invalid_argument if a row does not exist
  template <class V>
    requires(RowSparseTensor<V> && HeldBy<V, Traits>)
  void init(key_view key, V const& value, key_options options = {}) {
    self().template add_rows_of_key<element_in<V>>(key, value, options);
  }
  /// Stores a value per key of a list, in one arena: what a model's keys should use. All or none is stored.
  /// @throws duplicate_key; shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, ValueList Values>
    requires(Traits::template has_type<stored_as<element_in<Values>>>)
  void init(Keys&& keys, Values&& values, key_options options = {}) {
    std::vector<key_type> owned;  // a range may make its keys as it goes
    for (auto&& key : keys) owned.emplace_back(key_view(key));
    std::vector<key_view> const names(owned.begin(), owned.end());
    std::vector<decltype(view_of(*std::ranges::begin(values)))> views;
    for (auto&& value : values) views.push_back(view_of(value));
    expect_count("init", names.size(), views.size(), "value");
    expect_keys("init", !names.empty());
    self().template add_keys<stored_as<element_in<Values>>>(std::span<key_view const>(names),
                                                            std::span(std::as_const(views)), "init", nullptr, options);
  }

  /// Replaces the stored value by a copy of `value`, a tensor of the key's shape, of any element type and on any device: in
  /// the order of the key's operations. Masters and resident mirrors change. The rule's states and t stay unless `states`
  /// says otherwise; those that hold copies of weights (ema, lookahead, dcasgd) then keep copies of the old ones. Returns
  /// when `value` may change. @throws unknown_key, shape_mismatch
  /// Cost: per device one pass over its slice of the key.
  template <TensorLike V>
    requires(Traits::template converts<element_of<V>>)
  void assign(key_view key, V const& value, rule_states states = rule_states::keep) {
    self().template assign_values<element_of<V>>(with_key("assign", key, value, none_given), states);
  }
  /// Replaces the value of each key of a list, all or none. @throws also duplicate_key if a key is listed twice;
  /// shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, ValueList Values>
    requires(Traits::template lists<element_in<Values>>)
  void assign(Keys&& keys, Values&& values, rule_states states = rule_states::keep) {
    self().template assign_values<element_in<Values>>(with_list("assign", keys, values, none_listed, "value"), states);
  }

  /// Reduces the gradients of one source or of a range of sources, each of the key's shape, and applies the rule.
  /// @throws unknown_key, shape_mismatch; invalid_argument if there is no gradient, or the key has another element type
  /// Cost: per device one pass over its slice of the key.
  template <GradientsFor<Traits> Gradients>
  completion push(key_view key, Gradients&& gradients, priority when = {}) {
    return self().template update<element_in<Gradients>>(with_key("push", key, gradients, none_given), when, false);
  }
  /// Pushes to each key of a list: one pass per device for all of them. A key that is listed several times has its
  /// gradients reduced together, and is updated once.
  /// @throws also shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, GradientListFor<Traits> Gradients>
  completion push(Keys&& keys, Gradients&& gradients, priority when = {}) {
    return self().template update<element_in<Gradients>>(with_list("push", keys, gradients, none_listed), when, false);
  }

  /// Adds the gradients of a micro-batch to what the key's next step takes: no weight, state or step count changes. In
  /// stores with the policy `accumulate`. @throws as push
  /// Cost: per device one pass over its slice: it reads every gradient and writes the sum. Every micro-batch but the first
  /// also reads the sum.
  template <GradientsFor<Traits> Gradients>
    requires(Traits::may_accumulate)
  completion accumulate(key_view key, Gradients&& gradients, priority when = {}) {
    return self().template update<element_in<Gradients>>(with_key("accumulate", key, gradients, none_given), when,
                                                         true);
  }
  /// Adds the gradients of a micro-batch to each key of a list. @throws as push of a list
  template <KeysOf<key_view> Keys, GradientListFor<Traits> Gradients>
    requires(Traits::may_accumulate)
  completion accumulate(Keys&& keys, Gradients&& gradients, priority when = {}) {
    return self().template update<element_in<Gradients>>(with_list("accumulate", keys, gradients, none_listed), when,
                                                         true);
  }

  /// Pushes row-sparse gradients of one source or of a range of sources, each of the key's shape: rows in any order,
  /// repeated ones are added. A row that is listed is reduced over all sources, those that do not list it counting as zero.
  /// The rule is applied to the rows that came, or with row_updates::standard to all; t of the key counts once. Without a
  /// rule the stored value becomes the reduced rows, and zero elsewhere. For an AdditiveReduction and no Compressor. Ids in
  /// GPU memory are not checked: rows that do not exist are ignored.
  /// @throws unknown_key, shape_mismatch; invalid_argument if there is no gradient or a row does not exist
  /// Cost: a sort of the ids, and per device one pass over its part of the rows.
  template <RowsFor<Traits> Gradients>
  completion push(key_view key, Gradients&& gradients, row_updates rows, priority when = {}) {
    return self().template push_rows<element_in<Gradients>>(key, gradients, rows, when);
  }
  /// Pushes to the rows that came only.
  template <RowsFor<Traits> Gradients>
  completion push(key_view key, Gradients&& gradients, priority when = {}) {
    return self().template push_rows<element_in<Gradients>>(key, gradients, row_updates::lazy, when);
  }
  /// Pushes row-sparse gradients to each key of a list. A key that is listed several times has its gradients reduced
  /// together, and is updated once. @throws also shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, RowListFor<Traits> Gradients>
  completion push(Keys&& keys, Gradients&& gradients, row_updates rows = row_updates::lazy, priority when = {}) {
    return self().template push_listed_rows<element_in<Gradients>>(keys, gradients, rows, when);
  }

  /// Sets one output or a range of outputs, each of the key's shape and of any element type, to the stored value.
  /// @throws unknown_key, shape_mismatch
  /// Cost: per device one pass that reads its slice once and writes it once per output.
  template <OutputsFor<Traits> Outputs>
    requires(Traits::template pulls<element_in<Outputs>>)
  completion pull(key_view key, Outputs&& outputs, priority when = {}) {
    using U = element_in<Outputs>;
    return self().template fetch<U, U>(with_key("pull", key, none_given, outputs), when);
  }
  /// Pulls each key of a list; in a store of several element types, keys of the outputs' type.
  /// @throws also shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, OutputListFor<Traits> Outputs>
    requires(Traits::template lists<element_in<Outputs>>)
  completion pull(Keys&& keys, Outputs&& outputs, priority when = {}) {
    using U = element_in<Outputs>;
    return self().template fetch<U, U>(with_list("pull", keys, none_listed, outputs), when);
  }

  /// push, then pull, in one pass: the new values go to the outputs while they are in registers.
  /// @throws as push and pull
  template <GradientsFor<Traits> Gradients, OutputsLike<Gradients, Traits> Outputs>
  completion pushpull(key_view key, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    return self().template update<element_in<Gradients>>(with_key("pushpull", key, gradients, outputs), when, false);
  }
  /// pushpull in place: the gradients' own memory receives the new values. Without a rule that is an all-reduce.
  template <GradientsFor<Traits> Tensors>
    requires(OutputsLike<Tensors, Tensors, Traits> && Repeatable<Tensors>)
  completion pushpull(key_view key, Tensors&& tensors, priority when = {}) {
    return self().template update<element_in<Tensors>>(with_key("pushpull", key, tensors, tensors), when, false);
  }
  /// pushpull of each key of a list: one pass per device for all of them.
  template <KeysOf<key_view> Keys, GradientListFor<Traits> Gradients, OutputListLike<Gradients, Traits> Outputs>
  completion pushpull(Keys&& keys, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    return self().template update<element_in<Gradients>>(with_list("pushpull", keys, gradients, outputs), when, false);
  }
  /// pushpull of each key of a list, in place.
  template <KeysOf<key_view> Keys, GradientListFor<Traits> Tensors>
    requires(OutputListLike<Tensors, Tensors, Traits> && Repeatable<Tensors>)
  completion pushpull(Keys&& keys, Tensors&& tensors, priority when = {}) {
    return self().template update<element_in<Tensors>>(with_list("pushpull", keys, tensors, tensors), when, false);
  }
  /// push of row-sparse gradients, then pull of the whole value into dense outputs. @throws as push and pull
  template <RowsFor<Traits> Gradients, OutputsLike<Gradients, Traits> Outputs>
  completion pushpull(key_view key, Gradients&& gradients, Outputs&& outputs, row_updates rows, priority when = {}) {
    return self().template pushpull_rows<element_in<Gradients>>(key, gradients, outputs, rows, when);
  }
  /// pushpull that updates the rows that came only.
  template <RowsFor<Traits> Gradients, OutputsLike<Gradients, Traits> Outputs>
  completion pushpull(key_view key, Gradients&& gradients, Outputs&& outputs, priority when = {}) {
    return self().template pushpull_rows<element_in<Gradients>>(key, gradients, outputs, row_updates::lazy, when);
  }

  /// Fills each output with the rows of the stored value that `row_ids` names: ids ascending, each once. `row_ids` is one
  /// tensor of numbers of any shape, in any order, repeated or empty, for all outputs, or a range of as many tensors as
  /// there are outputs; those in host memory may change when the call returns. The outputs stay where they are until the
  /// work is finished. Ids in GPU memory are not checked: rows that do not exist are skipped.
  /// @throws unknown_key; shape_mismatch also if there are not as many tensors of ids as outputs; invalid_argument if a
  /// row does not exist; unknown_device if a device cannot write an output's memory
  /// Cost: a sort of the ids, and per device one pass over its part of the rows.
  template <class Outputs, RowIds Ids>
    requires RowOutputsFor<Outputs&, Traits>
  completion row_sparse_pull(key_view key, Outputs& outputs, Ids const& row_ids, priority when = {}) {
    return self().template pull_rows<element_in<Outputs&>>(key, outputs, row_ids, when);
  }
  /// row_sparse_pull of each key of a list: of outputs, and of ids, one range element per key.
  /// @throws also shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, std::ranges::forward_range Outputs, std::ranges::forward_range Ids>
    requires(RowOutputsFor<std::ranges::range_reference_t<Outputs>, Traits> &&
             RowIds<std::ranges::range_reference_t<Ids>>)
  completion row_sparse_pull(Keys&& keys, Outputs& outputs, Ids const& row_ids, priority when = {}) {
    return self().template pull_listed_rows<element_in<Outputs>>(keys, outputs, row_ids, when);
  }

  /// init, then pull. @throws as both
  template <TensorLike V, OutputsFor<Traits> Outputs>
    requires(Traits::template has_type<stored_as<element_of<V>>> && Traits::template pulls<element_in<Outputs>> &&
             Repeatable<Outputs>)
  completion broadcast(key_view key, V const& value, Outputs&& outputs, priority when = {}) {
    expect_outputs_like(key, value, outputs);
    init(key, value);
    return pull(key, outputs, when);
  }
  /// init, then pull, of each key of a list. @throws as both
  template <KeysOf<key_view> Keys, ValueList Values, OutputListFor<Traits> Outputs>
    requires(Traits::template has_type<stored_as<element_in<Values>>> && Traits::template pulls<element_in<Outputs>> &&
             Repeatable<Keys> && Repeatable<Values> && Repeatable<Outputs>)
  completion broadcast(Keys&& keys, Values&& values, Outputs&& outputs, priority when = {}) {
    expect_outputs_like_each<key_view>(keys, values, outputs);
    init(keys, values);
    return self().template fetch<stored_as<element_in<Values>>, element_in<Outputs>>(
        with_list("pull", keys, none_listed, outputs), when);
  }

 protected:
  using Traits::Traits;
  store_face() = default;
  store_face(store_face&&) noexcept = default;
  store_face& operator=(store_face&&) noexcept = default;
  ~store_face() = default;

 private:
  Derived& self() { return static_cast<Derived&>(*this); }
};

}  // namespace pushpull::detail
