/// @file
/// The concepts of stores.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Keys with one stored tensor each, spread over devices.
/// Needs:  value_type, device_type, key_type; devices() -> the store's devices, in order;
///         init(key, tensor): a deep copy becomes the stored value; a key twice is an error;
///         push(key, tensors): one gradient per source; reduces them, then updates or replaces the stored value;
///         pull(key, tensors): every output becomes the stored value;
///         pushpull(key, gradients, outputs): both in one pass;
///         broadcast(key, tensor, outputs): init, then pull;
///         wait(): returns when everything enqueued is finished.
/// Calls on one key run in the order in which they were made; the caller's tensors stay until wait(). Model: kv_store. See also ResidentStore.
template <class S>
concept Store =
    Device<typename S::device_type> && ElementType<typename S::value_type> &&
    requires(S& store, S const& constant, typename S::key_type const& key,
             tensor_view<typename S::value_type const, typename S::device_type> const& value,
             std::vector<tensor_view<typename S::value_type const, typename S::device_type>> const& gradients,
             std::vector<tensor_view<typename S::value_type, typename S::device_type>> const& outputs) {
      { constant.devices() } -> std::convertible_to<std::vector<typename S::device_type>>;
      store.init(key, value);
      store.push(key, gradients);
      store.pull(key, outputs);
      store.pushpull(key, gradients, outputs);
      store.broadcast(key, value, outputs);
      store.wait();
    };

/// A Store that keeps mirrors and gradients of keys in arenas of its own, so that a step over a whole model is one pass
/// per device.
/// Needs:  plan_type; init_resident(keys, values, needs_gradient): as init, for keys whose mirrors and gradients the
///         store holds; mirror(key, n) and gradient(key, n) -> views on device number n;
///         require_gradient(key): gives the key gradients if it has none;
///         make_plan(keys) -> plan_type; update(plan): pushpull from the resident gradients to the resident mirrors.
/// Model:  kv_store.
template <class S>
concept ResidentStore =
    Store<S> && requires(S& store, std::span<typename S::key_type const> keys,
                         std::span<tensor_view<typename S::value_type const, typename S::device_type> const> values,
                         std::vector<bool> const& needs_gradient, typename S::plan_type& plan, std::size_t n) {
      store.init_resident(keys, values, needs_gradient);
      { store.mirror(keys[0], n) } -> std::same_as<tensor_view<typename S::value_type, typename S::device_type>>;
      { store.gradient(keys[0], n) } -> std::same_as<tensor_view<typename S::value_type, typename S::device_type>>;
      store.require_gradient(keys[0]);
      { store.make_plan(keys) } -> std::same_as<typename S::plan_type>;
      store.update(plan);
    };

}  // namespace pushpull
