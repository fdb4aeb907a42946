/// @file
/// LibTorch's tensors as tensors of ours and the other way round, without copies.
/// Opt-in: needs LibTorch 1.13 or newer (pushpull::torch; Debian: libtorch-dev). See docs/interop.md.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <torch/types.h>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/interop/adopted_tensor.hpp>
#include <pushpull/interop/detail/row_major.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::interop {

namespace detail {

template <class T>
struct torch_type {};
// clang-format off
template <> struct torch_type<float>        { static constexpr auto value = c10::ScalarType::Float; };
template <> struct torch_type<double>       { static constexpr auto value = c10::ScalarType::Double; };
template <> struct torch_type<half>         { static constexpr auto value = c10::ScalarType::Half; };
template <> struct torch_type<bfloat16>     { static constexpr auto value = c10::ScalarType::BFloat16; };
template <> struct torch_type<std::int32_t> { static constexpr auto value = c10::ScalarType::Int; };
template <> struct torch_type<std::int64_t> { static constexpr auto value = c10::ScalarType::Long; };
template <> struct torch_type<std::uint8_t> { static constexpr auto value = c10::ScalarType::Byte; };
// clang-format on

}  // namespace detail

/// An element type of LibTorch's tensors, const or not: float, double, half, bfloat16, int32, int64, uint8. The types of eight
/// bits travel through DLPack.
template <class T>
concept TorchElement = requires { detail::torch_type<std::remove_const_t<T>>::value; };

namespace detail {

/// Where tensors that `device` uses in place are.
template <Device D>
c10::Device torch_device(D const& device) {
  if constexpr (std::same_as<typename D::memory_space, host_memory>)
    return c10::Device(c10::DeviceType::CPU);
  else
    return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device.id())};
}

/// The view of a tensor, which messages call `name()`. @throws as torch_view
template <TorchElement T, class Name, Device D>
tensor_view<T, D> view_of_torch(Name const& name, at::Tensor const& tensor, D const& device) {
  using E = std::remove_const_t<T>;
  using pushpull::detail::expects;
  expects<invalid_argument>(tensor.defined(), [&] {
    return name() +
           ": a defined tensor expected; a gradient is undefined before the first backward pass that reaches it";
  });
  expects<invalid_argument>(tensor.layout() == c10::kStrided, [&] {
    return name() + ": a dense tensor expected, got layout " + c10::str(tensor.layout()) + "; call to_dense()";
  });
  expects<dtype_mismatch>(tensor.scalar_type() == torch_type<E>::value, [&] {
    return name() + ": elements of type " + c10::toString(torch_type<E>::value) + " expected, got " +
           c10::toString(tensor.scalar_type()) + "; convert them with to(), or see visit_torch";
  });
  c10::Device const expected = torch_device(device), found = tensor.device();
  expects<unknown_device>(found.type() == expected.type() && (found.is_cpu() || found.index() == expected.index()),
                          [&] {
                            return name() + ": a tensor on " + expected.str() + " expected, got one on " + found.str() +
                                   "; move the tensor with to(), or pass its device";
                          });
  expects<invalid_argument>(!tensor.is_neg() && !tensor.is_conj(), [&] {
    return name() + ": values in memory expected, got a tensor that negates or conjugates later; call resolve_neg()";
  });
  expects<invalid_argument>(std::is_const_v<T> || !tensor.requires_grad() || !c10::GradMode::is_enabled(), [&] {
    return name() + ": the " + (tensor.is_leaf() ? "leaf" : "result") +
           " requires a gradient, and would be written in place while autograd records; make a torch::NoGradGuard, "
           "or view the elements as const";
  });
  auto const sizes = tensor.sizes(), strides = tensor.strides();
  pushpull::shape const extents(std::span<std::int64_t const>(sizes.data(), sizes.size()));
  if (!tensor.is_contiguous())
    expect_row_major(name().c_str(), extents, [&](std::size_t axis) { return strides[axis]; });
  return {static_cast<T*>(extents.size() == 0 ? nullptr : tensor.data_ptr()), extents, device};
}

/// Keeps a tensor's memory until the tensor over it ends.
struct keep_torch {
  at::Tensor tensor;
  void operator()(void const*) const noexcept {}
};

struct visit_torch_name {
  std::string operator()() const { return "visit_torch"; }
};

template <class First, class... Rest, class F, class D>
decltype(auto) visit_torch_types(at::Tensor const& tensor, F& f, D const& device) {
  if constexpr (sizeof...(Rest) > 0)
    if (!tensor.defined() || tensor.scalar_type() != torch_type<std::remove_const_t<First>>::value)
      return visit_torch_types<Rest...>(tensor, f, device);
  return f(view_of_torch<First>(visit_torch_name(), tensor, device));
}

/// @throws dtype_mismatch unless the tensor is undefined or has one of the types
template <class... T>
void expect_torch_types(at::Tensor const& tensor) {
  bool const found = !tensor.defined() || ((tensor.scalar_type() == torch_type<std::remove_const_t<T>>::value) || ...);
  pushpull::detail::expects<dtype_mismatch>(found, [&] {
    std::string types;
    ((types += (types.empty() ? "" : ", ") + std::string(c10::toString(torch_type<std::remove_const_t<T>>::value))),
     ...);
    return "visit_torch: elements of one of the types " + types + " expected, got " +
           c10::toString(tensor.scalar_type());
  });
}

}  // namespace detail

/// The elements of a LibTorch tensor, in its memory. The tensor, or another one with its memory, must outlive the view.
/// @tparam T      Its element type, const where it is only read.
/// @param device  That will use it. On GPUs the work of the tensor's stream comes first if it is the device's stream too:
///                cuda_device(ordinal, c10::cuda::getCurrentCUDAStream()).
/// @throws dtype_mismatch; unknown_device if the memory is not the device's; shape_mismatch if elements are not row-major or have
///         gaps; invalid_argument if it is undefined or sparse, and if it requires a gradient and would be written while
///         autograd records
template <TorchElement T, Device D = cpu_device<>>
tensor_view<T, D> torch_view(at::Tensor const& tensor, D const& device = D()) {
  return detail::view_of_torch<T>([] { return std::string("torch_view"); }, tensor, device);
}

/// A Tensor over the memory of a LibTorch tensor, which it keeps alive.
template <TorchElement T, Device D = cpu_device<>>
using torch_import = adopted_tensor<T, D, detail::keep_torch>;

/// Same as torch_view, but the result keeps the memory alive. It does not wait when it ends.
template <TorchElement T, Device D = cpu_device<>>
torch_import<T, D> from_torch(at::Tensor tensor, D const& device = D()) {
  auto const view = detail::view_of_torch<T>([] { return std::string("from_torch"); }, tensor, device);
  return {view.data(), view.shape(), device, {std::move(tensor)}};
}

/// Calls f(view) with the torch_view of the tensor's own element type: one of T..., or float, double, half and bfloat16 if none is
/// given. `visit_torch<float const, half const>` takes tensors that are only read. @returns what f returns, of one type
/// @throws as torch_view; dtype_mismatch if the tensor has none of them
template <TorchElement... T, class F, Device D = cpu_device<>>
decltype(auto) visit_torch(at::Tensor const& tensor, F&& f, D const& device = D()) {
  if constexpr (sizeof...(T) > 0) {
    detail::expect_torch_types<T...>(tensor);
    return detail::visit_torch_types<T...>(tensor, f, device);
  } else {
    return visit_torch<float, double, half, bfloat16>(tensor, f, device);
  }
}

/// A LibTorch tensor over the elements of a view. It keeps `owner`, such as a std::shared_ptr, until the last tensor with this
/// memory ends; without one the memory must outlive them. Requires no gradient.
template <TorchElement T, Device D, std::copy_constructible Owner = std::nullptr_t>
  requires(!std::is_const_v<T>)
at::Tensor to_torch(tensor_view<T, D> const& view, Owner owner = {}) {
  return torch::from_blob(
      view.data(), at::IntArrayRef(view.shape().begin(), view.shape().rank()), [owner](void*) {},
      at::TensorOptions().dtype(detail::torch_type<T>::value).device(detail::torch_device(view.device())));
}

}  // namespace pushpull::interop
