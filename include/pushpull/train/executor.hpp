/// @file
/// The concepts of executors: one replica of a user's model on one device.
#pragma once

#include <concepts>
#include <cstddef>
#include <ranges>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/tensor.hpp>
#include <pushpull/config.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/descriptor.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace train {

/// The purpose of a forward pass: dropout and running statistics differ.
enum class mode { inference, training };

/// The data and the labels of one replica, or of a whole batch.
struct input_descriptors {
  std::vector<descriptor> data, labels;

  friend bool operator==(input_descriptors const&, input_descriptors const&) = default;
};

}  // namespace train

namespace detail {

/// A range of tensors on devices D, in an order that stays.
template <class R, class D>
concept TensorsOn =
    std::ranges::random_access_range<R> && std::ranges::sized_range<R> && Tensor<std::ranges::range_value_t<R>> &&
    std::same_as<typename std::ranges::range_value_t<R>::device_type, D>;

template <class R>
using element_of_range = std::remove_const_t<typename std::ranges::range_value_t<R>::value_type>;

/// The least hook, and the least tap.
struct index_hook {
  void operator()(std::size_t) const {}
};
struct tap_probe {
  template <Tensor V>
  void operator()(std::string_view, V const&) const {}
};

}  // namespace detail

namespace train {

/// The element type of an executor's parameters.
template <class E>
using param_element = pushpull::detail::element_of_range<decltype(std::declval<E&>().params())>;
/// That of its inputs.
template <class E>
using input_element = pushpull::detail::element_of_range<decltype(std::declval<E&>().inputs())>;
/// That of its labels.
template <class E>
using label_element = pushpull::detail::element_of_range<decltype(std::declval<E&>().labels())>;
/// That of its outputs.
template <class E>
using output_element = pushpull::detail::element_of_range<decltype(std::declval<E&>().outputs())>;

/// One replica of a model: on one device, of fixed shapes.
/// Needs:  device_type: a Device; device() -> where it runs;
///         inputs(), labels(), outputs(), params(), grads(), aux() -> ranges of tensors on that device, each in an order
///         that stays; those of params, grads and aux are the factory's names; a gradient that nobody wants is an empty
///         tensor; aux are running statistics and the like, without gradients;
///         forward(mode): reads inputs, labels, params and aux, writes outputs, and in training aux;
///         backward(head_grads): writes, or adds to, the gradients of the last forward. head_grads has one tensor per output, or
///         none if the outputs are losses.
/// forward and backward enqueue work on the device and do not wait. Of CPU devices several replicas run at the same time.
/// An exception of either is rethrown by the group.
template <class E>
concept Executor = Device<typename E::device_type> && requires(E& e, E const& constant, mode run) {
  { constant.device() } -> std::convertible_to<typename E::device_type>;
  { e.inputs() } -> pushpull::detail::TensorsOn<typename E::device_type>;
  { e.labels() } -> pushpull::detail::TensorsOn<typename E::device_type>;
  { e.outputs() } -> pushpull::detail::TensorsOn<typename E::device_type>;
  { e.params() } -> pushpull::detail::TensorsOn<typename E::device_type>;
  { e.grads() } -> pushpull::detail::TensorsOn<typename E::device_type>;
  { e.aux() } -> pushpull::detail::TensorsOn<typename E::device_type>;
  e.forward(run);
} && requires(E& e, std::span<tensor_view<output_element<E> const, typename E::device_type> const> head_grads) {
  e.backward(head_grads);
};

/// An Executor that takes other shapes of inputs, and keeps the addresses of its parameters, gradients and aux.
/// Needs:  reshape(descs): inputs, labels and outputs have new shapes and may have new addresses. If it throws, the executor is
///         as it was. Others are made anew by their factory.
template <class E>
concept ReshapableExecutor = Executor<E> && requires(E& e, input_descriptors const& descs) { e.reshape(descs); };

/// An Executor that says when a gradient is complete, so that a step begins beside the backward pass.
/// Needs:  on_grad_ready(f): from now on backward calls f(i) for each gradient i, once its work is enqueued and will not be
///         changed by the rest of the pass: in the order of the backward pass, from any thread. An empty std::function ends it.
template <class E>
concept HookedExecutor = Executor<E> && requires(E& e) { e.on_grad_ready(pushpull::detail::index_hook()); };

/// An Executor that says which parameter it is about to read, so that the next forward pass begins while steps are still made.
/// Needs:  on_param_needed(f): from now on forward calls f(i) before it reads parameter i on the host; f waits for the step of
///         that parameter. From any thread. An empty std::function ends it.
template <class E>
concept WaitingExecutor = HookedExecutor<E> && requires(E& e) { e.on_param_needed(pushpull::detail::index_hook()); };

/// An Executor that also computes the gradients of its inputs, if the group was bound so.
/// Needs:  input_grads() -> tensors of the inputs' shapes.
template <class E>
concept InputGradExecutor = Executor<E> && requires(E& e) {
  { e.input_grads() } -> pushpull::detail::TensorsOn<typename E::device_type>;
};

/// An Executor with states that no batch feeds and no step updates: those of a recurrent cell.
/// Needs:  states() -> tensors, 0 at first, that forward reads and may write.
template <class E>
concept StatefulExecutor = Executor<E> && requires(E& e) {
  { e.states() } -> pushpull::detail::TensorsOn<typename E::device_type>;
};

/// An Executor that shows what it computes on the way.
/// Needs:  tap(f): from now on forward and backward call f(name, view) for each intermediate tensor, when its work is
///         enqueued. A function of any type.
template <class E>
concept MonitoredExecutor = Executor<E> && requires(E& e) { e.tap(pushpull::detail::tap_probe()); };

}  // namespace train
}  // namespace pushpull
