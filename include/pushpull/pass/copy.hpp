/// @file
/// Copies between any two tensors: devices and element types may differ.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/plan.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/tensor/copy_bytes.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// Reduces on one device: the pass with sources, one mirror and no stored value. The sources are in its memory.
template <class Reduction, Device D, class From, class To>
void reduce_on(D const& device, std::span<From const* const> sources, To* to, std::size_t size) {
  using common = std::common_type_t<accumulation_t<From>, accumulation_t<To>>;
  using types = pass::element_types<From, common, To, common, To>;
  pass::plan<D, types, 0> plan;
  typename decltype(plan)::run_type run{};
  run.size = static_cast<std::int64_t>(size);
  To* const mirror[] = {to};
  plan.add(run, sources, mirror);
  plan.commit(device);
  plan.template launch<pass::forward, Reduction, pass::memory::foreign>(device, nullptr, nullptr);
}

/// Converts on one device.
template <Device D, class From, class To>
void convert_on(D const& device, From const* from, To* to, std::size_t size) {
  From const* const source[] = {from};
  reduce_on<reduce::sum>(device, std::span<From const* const>(source), to, size);
}

template <class From, Device FromDevice, class To, Device ToDevice>
void copy_view(tensor_view<From, FromDevice> const& from, tensor_view<To, ToDevice> const& to) {
  using source = std::remove_const_t<From>;
  expects<shape_mismatch>(from.shape() == to.shape(), [&] {
    return "copy: shape " + to_string(to.shape()) + " expected, got " + to_string(from.shape());
  });
  if (from.size() == 0) return;
  if constexpr (std::same_as<source, To>) {
    copy_bytes(to.device(), to.data(), from.device(), from.data(), from.size() * sizeof(To));
  } else if constexpr (HostDevice<FromDevice> && HostDevice<ToDevice>) {
    convert_on(to.device(), from.data(), to.data(), from.size());
  } else if constexpr (HostDevice<FromDevice>) {
    tensor<To, FromDevice> converted(from.device(), from.shape());
    convert_on(from.device(), from.data(), converted.data(), from.size());
    copy_bytes(to.device(), to.data(), from.device(), converted.data(), from.size() * sizeof(To));
  } else {
    tensor<To, FromDevice> converted(from.device(), from.shape());
    convert_on(from.device(), from.data(), converted.data(), from.size());
    copy_bytes(to.device(), to.data(), from.device(), converted.data(), from.size() * sizeof(To));
  }
}

}  // namespace detail

/// to = from, elementwise, converted to to's element type: to nearest even; floats to integers as `convert` does, which
/// truncates, takes the nearest integer for what is out of range and 0 for NaN. Enqueued on
/// both devices; returns when done if just one of them is the host.
/// @throws shape_mismatch unless the shapes are equal.
/// Cost: one read and one write per element; one more of each if both the device and the element type change.
template <TensorLike From, TensorLike To>
  requires WritableTensorLikeOf<To, element_of<To>>
void copy(From const& from, To&& to) {
  detail::copy_view(view_of(from), view_of(to));
}

/// The elements of a tensor in host memory, when they are there.
template <TensorLike T>
std::vector<element_of<T const>> to_vector(T const& t) {
  auto const view = view_of(t);
  std::vector<element_of<T const>> elements(view.size());
  copy(view, tensor_view(elements.data(), view.shape()));
  return elements;
}

}  // namespace pushpull
