/// @file
/// The tensors of one call, gathered from whatever ranges the caller gave, and reachable memory for each owner.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <ranges>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/row_sparse_tensor.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// A range of tensors: several devices' gradients of one key, or their outputs.
template <class R, class T>
concept TensorRangeOf =
    !TensorLike<R> && std::ranges::input_range<R> && LastingTensorLike<std::ranges::range_reference_t<R>> &&
    TensorLikeOf<std::ranges::range_reference_t<R>, T>;

/// One tensor or a range of tensors, of element type `T`.
template <class R, class T>
concept TensorsOf = TensorLikeOf<R, T> || TensorRangeOf<R, T>;

/// One output or a range of outputs, of any element type.
template <class R>
concept OutputTensors = OutputTensor<R> || (!TensorLike<R> && std::ranges::input_range<R> &&
                                            OutputTensor<std::ranges::range_reference_t<R>>);

/// One output or a range of outputs, of element type `T`.
template <class R, class T>
concept OutputTensorsOf = OutputTensors<R> && TensorsOf<R, T>;

namespace detail {

/// Whether an expression of type `R` names tensors that outlive it: no temporary that owns their elements.
template <class R>
consteval bool lasting() {
  if constexpr (TensorLike<R>) {
    return LastingTensorLike<R>;
  } else if constexpr (std::is_lvalue_reference_v<R> || std::ranges::borrowed_range<R>) {
    return true;
  } else if constexpr (std::ranges::view<std::remove_cvref_t<R>>) {  // yields what others own, or makes it
    return lasting<std::ranges::range_reference_t<R>>();
  } else {
    return lasting<std::ranges::range_value_t<R>>();
  }
}

/// Whether a store on devices D reaches tensors of an expression of type `R`: they are on a D or in host memory.
template <class R, class D>
consteval bool is_in_reach() {
  if constexpr (TensorLike<R>) {
    using device_type = typename decltype(view_of(std::declval<R&>()))::device_type;
    return std::same_as<device_type, D> || HostDevice<device_type>;
  } else if constexpr (RowSparseTensor<std::remove_cvref_t<R>>) {
    using device_type = typename std::remove_cvref_t<R>::device_type;
    return std::same_as<device_type, D> || HostDevice<device_type>;
  } else {
    return is_in_reach<std::ranges::range_reference_t<R>, D>();
  }
}

/// An element that a list may yield per key: one that does not end before the call has gathered all of its tensors.
template <class R>
concept Lasting = lasting<R>();

}  // namespace detail

/// Tensors that a store on devices D reaches.
template <class R, class D>
concept InReachOf = detail::is_in_reach<R, D>();

/// Tensors that are still there when a call has returned whose work may go on, and that the store's devices D reach. What a
/// synchronous call is given may be temporary.
template <class R, bool Synchronous, class D>
concept OutlivesCall = (Synchronous || detail::Lasting<R>) && InReachOf<R, D>;

/// For each key of a list, one tensor or a range of tensors.
template <class R, class T>
concept TensorListOf =
    !TensorLike<R> && std::ranges::input_range<R> && detail::Lasting<std::ranges::range_reference_t<R>> &&
    TensorsOf<std::ranges::range_reference_t<R>, T>;

/// For each key of a list, one output or a range of outputs.
template <class R>
concept OutputTensorList =
    !TensorLike<R> && std::ranges::input_range<R> && detail::Lasting<std::ranges::range_reference_t<R>> &&
    OutputTensors<std::ranges::range_reference_t<R>>;

/// Keys of a list.
template <class R, class Key>
concept KeysOf = std::ranges::input_range<R> && std::convertible_to<std::ranges::range_reference_t<R>, Key>;

namespace detail {

/// Elements of one tensor of a call. No device: host memory, while the store's devices are others.
template <class T, Device D>
struct operand {
  T* data;
  std::optional<D> device;
  std::size_t size;
  std::int64_t begin =
      0;  ///< Elements of the tensor before `data`: of one that came from another rank, a part is there.
};

/// Whether the operand is in the device's own memory, whoever else reaches it.
template <class T, Device D>
bool lies_on(D const& device, operand<T, D> const& x) {
  return x.device ? x.device->id() == device.id() : HostDevice<D>;
}

template <class T, Device D, class View>
operand<T, D> operand_of(View const& view) {
  using device_type = typename View::device_type;
  static_assert(std::same_as<device_type, D> || HostDevice<device_type>,
                "store: a tensor lives on a device of another kind than the store's, and not on the host");
  std::optional<D> device;
  if constexpr (std::same_as<device_type, D>) device = view.device();
  return {view.data(), device, view.size()};
}

/// Whether work on `owner` may touch the operand's memory directly.
template <class T, Device D>
bool reaches(D const& owner, operand<T, D> const& x) {
  return x.device ? owner.can_access(*x.device) : HostDevice<D>;
}

template <class R>
struct element_in_type {};
template <class R>
  requires(!TensorLike<R> && !RowSparseTensor<std::remove_cvref_t<R>> && std::ranges::input_range<R>)
struct element_in_type<R> : element_in_type<std::ranges::range_reference_t<R>> {};
template <TensorLike R>
struct element_in_type<R> {
  using type = element_of<R>;
};
template <class R>
  requires RowSparseTensor<std::remove_cvref_t<R>>
struct element_in_type<R> {
  using type = std::remove_const_t<typename std::remove_cvref_t<R>::value_type>;
};
/// The element type of one tensor, row-sparse or not, of those in a range, or of those in a range of ranges.
template <class R>
using element_in = typename element_in_type<R>::type;

/// Calls f(view) for one tensor or for each of a range.
template <class R, class F>
void for_each_tensor(R&& tensors, F const& f) {
  if constexpr (is_tensor_view<std::remove_cvref_t<R>>) {
    f(std::as_const(tensors));
  } else if constexpr (TensorLike<R>) {
    f(view_of(tensors));
  } else {
    for (auto&& tensor : tensors) for_each_tensor(tensor, f);
  }
}

}  // namespace detail
}  // namespace pushpull
