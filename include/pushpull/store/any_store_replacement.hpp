/// @file
/// How an any_store replaces the store that it holds.
#pragma once

#include <span>
#include <string>
#include <type_traits>

#include <pushpull/compress/by_name.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/any_store_calls.hpp>
#include <pushpull/store/call_arguments.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/update/rule_description.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// An optimizer in words, without its hyperparameters: "adam with accumulate 4".
template <class Updater, class... Policies>
std::string text_of_optimizer(Policies const&... policies) {
  std::string text = update::describe<Updater>().name;
  [[maybe_unused]] auto const add = [&]<class P>(P const& policy) {
    text.append(" with ").append(update::detail::identifier<P>());
    if constexpr (requires { policy.micro_batches; }) text += " " + std::to_string(policy.micro_batches);
    if constexpr (requires { policy.bound; }) text += " of bound " + std::to_string(policy.bound);
  };
  (add(policies), ...);
  return text;
}

/// "threshold 0.5, type 2bit"
inline std::string text_of_parameters(compress::parameters const& given) {
  std::string text;
  for (auto const& [name, value] : given) text += (text.empty() ? "" : ", ") + name + " " + value;
  return text;
}

/// Waits for all work. @throws what it failed with; invalid_argument if another store could not go on with the contents;
/// capture_error if graphs refer to the store's memory
template <Device D, ElementType... Ts>
void expect_movable(char const* call, erased_store<D, Ts...> const& store) {
  store.wait();
  expects<capture_error>(!store.has_captures(), [&] {
    return std::string(call) +
           ": graphs with captured calls refer to the memory of the store, which another one takes the place of: call "
           "discard_captures when they are not launched any more";
  });
  for (any_key const& key : store.keys()) {
    expects<invalid_argument>(store.swapped(key).empty(), [&] {
      return std::string(call) + ": " + key_text(key) + ": its state \"" + store.swapped(key) +
             "\" stands in the place of the weights: swap it back first";
    });
    expects<invalid_argument>(store.micro_batches(key) == 0, [&] {
      return std::string(call) + ": " + key_text(key) +
             " is amid a step of several micro-batches: push the rest, or call discard_micro_batches";
    });
  }
}

/// @param to  An empty store.
template <class T, Device D, ElementType... Ts>
void move_key(any_key_view key, erased_store<D, Ts...>& from, erased_store<D, Ts...>& to) {
  if (from.dtype(key) != dtype_traits<T>::name) return;
  tensor<T, D> value(from.devices().front(), from.shape(key));
  typed_calls<T, D>& source = from;
  auto pull = source.new_pull(std::type_identity<T>(), key);
  pull.lists.add(key, no_tensors{}, value);
  source.submit(pull, {}).wait();
  erased_tensor<T const, D> const initial{{value.data(), from.devices().front(), value.size()}, value.shape()};
  static_cast<typed_calls<T, D>&>(to).init(std::span(&key, 1), std::span(&initial, 1),
                                           {.mirrored = from.is_mirrored(key)});
}

/// Copies all values to an empty store and, if its rule is the same, also states, step counts and persistent values.
template <Device D, ElementType... Ts>
void move_contents(erased_store<D, Ts...>& from, erased_store<D, Ts...>& to, bool same_rule) {
  for (any_key const& key : from.keys()) {
    (move_key<Ts>(key, from, to), ...);
    if (!same_rule || !from.has_updater()) continue;
    for (std::string const& name : from.state_names()) to.set_state(key, name, from.state(key, name));
    to.set_steps(key, from.steps(key));
  }
  if (same_rule && from.has_updater()) to.set_carried_numbers(from.carried_numbers());
  to.wait();
}

}  // namespace pushpull::detail
