/// @file
/// DLPack tensors, in and out, without copies: PyTorch, JAX, CuPy, NumPy and TensorFlow exchange tensors so.
/// Opt-in: needs a dlpack.h, of DLPack 0.6 or newer. Where a program has included one, such as LibTorch's ATen/dlpack.h, that is
/// used; else <dlpack/dlpack.h> (Debian: libdlpack-dev). See https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/tensor.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/interop/adopted_tensor.hpp>
#include <pushpull/interop/detail/dlpack_header.hpp>
#include <pushpull/interop/detail/row_major.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::interop {

namespace detail {

using pushpull::detail::expects;

/// DLPack's code and bits of T.
template <ElementType T>
constexpr DLDataType dlpack_type() {
  constexpr std::uint8_t of_int = 0, of_uint = 1, of_float = 2, of_bfloat = 4, of_e4m3 = 10, of_e5m2 = 12;
  constexpr std::uint8_t code = std::same_as<T, std::uint8_t>  ? of_uint
                                : std::integral<T>             ? of_int
                                : std::same_as<T, bfloat16>    ? of_bfloat
                                : std::same_as<T, float8_e4m3> ? of_e4m3
                                : std::same_as<T, float8_e5m2> ? of_e5m2
                                                               : of_float;
  return {code, static_cast<std::uint8_t>(8 * sizeof(T)), 1};
}

inline bool same_type(DLDataType const& a, DLDataType const& b) {
  return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

inline std::string to_string(DLDataType const& type) {
  static constexpr std::array<char const*, 6> names{"int", "uint", "float", "opaque", "bfloat", "complex"};
  std::string const code =
      type.code < names.size() ? names[type.code] : "code " + std::to_string(int{type.code}) + " of ";
  return code + std::to_string(int{type.bits}) + (type.lanes == 1 ? "" : "x" + std::to_string(type.lanes));
}

inline std::string to_string(DLDevice const& device) {
  auto const type = static_cast<int>(device.device_type);
  std::string const name = type == 1    ? "cpu"
                           : type == 2  ? "cuda"
                           : type == 3  ? "cuda_host"
                           : type == 13 ? "cuda_managed"
                                        : "device type " + std::to_string(type);
  return name + ":" + std::to_string(device.device_id);
}

/// Whether `device` can use the tensor's memory in place: the host that of CPUs and pinned memory, a GPU its own and managed memory.
template <Device D>
bool holds(D const& device, DLDevice const& where) {
  auto const type = static_cast<int>(where.device_type);
  if constexpr (std::same_as<typename D::memory_space, host_memory>)
    return type == 1 || type == 3;
  else
    return type == 13 || (type == 2 && where.device_id == device.id());
}

/// Where the memory of `device` is.
template <Device D>
DLDevice where(D const& device) {
  if constexpr (std::same_as<typename D::memory_space, host_memory>)
    return {static_cast<DLDeviceType>(1), 0};
  else
    return {static_cast<DLDeviceType>(2), device.id()};
}

/// @throws shape_mismatch if the elements are not row-major and without gaps
inline shape compact_shape(DLTensor const& t) {
  expects<shape_mismatch>(t.ndim >= 0 && (t.ndim == 0 || t.shape != nullptr), [&] {
    return "from_dlpack: a shape expected, got " + std::to_string(t.ndim) + " dimensions without extents";
  });
  shape const result(std::span<std::int64_t const>(t.shape, static_cast<std::size_t>(t.ndim)));
  if (t.strides != nullptr) expect_row_major("from_dlpack", result, [&](std::size_t axis) { return t.strides[axis]; });
  return result;
}

/// The view of a DLPack tensor. @throws as from_dlpack
template <class T, Device D>
tensor_view<T, D> view_of_dlpack(DLTensor const& t, D const& device, bool read_only) {
  using E = std::remove_const_t<T>;
  expects<dtype_mismatch>(same_type(t.dtype, dlpack_type<E>()), [&] {
    return "from_dlpack: elements of type " + to_string(dlpack_type<E>()) + " expected, got " + to_string(t.dtype);
  });
  expects<unknown_device>(holds(device, t.device), [&] {
    return "from_dlpack: a tensor in memory of " + to_string(where(device)) + " expected, got one in " +
           to_string(t.device);
  });
  expects<invalid_argument>(std::is_const_v<T> || !read_only, [] {
    return std::string("from_dlpack: a tensor that can be written expected, got a read-only one; import it as const");
  });
  shape const extents = compact_shape(t);
  auto* const bytes = static_cast<std::byte*>(t.data);
  if (extents.size() == 0) return {nullptr, extents, device};
  expects<invalid_argument>(bytes != nullptr, [] { return std::string("from_dlpack: a tensor without memory"); });
  std::byte* const first = bytes + t.byte_offset;
  expects<invalid_argument>(reinterpret_cast<std::uintptr_t>(first) % sizeof(E) == 0, [&] {
    return "from_dlpack: an address that is a multiple of " + std::to_string(sizeof(E)) + " bytes expected";
  });
  return {reinterpret_cast<T*>(first), extents, device};
}

struct call_deleter {
  template <class Managed>
  void operator()(Managed* managed) const noexcept {
    if (managed->deleter != nullptr) managed->deleter(managed);
  }
};

inline bool is_read_only(DLManagedTensor const&) { return false; }
inline bool is_read_only(DLManagedTensorVersioned const& managed) { return (managed.flags & 1U) != 0; }
inline void expect_readable(DLManagedTensor const&) {}
inline void expect_readable(DLManagedTensorVersioned const& managed) {
  expects<invalid_argument>(managed.version.major == 1, [&] {
    return "from_dlpack: DLPack 1 expected, got version " + std::to_string(managed.version.major) + "." +
           std::to_string(managed.version.minor);
  });
}

}  // namespace detail

/// A DLPack tensor of either layout.
template <class M>
concept DlpackTensor = std::same_as<M, DLManagedTensor> || std::same_as<M, DLManagedTensorVersioned>;

/// A DLPack tensor that is not ours: calls its deleter when it is destroyed.
template <DlpackTensor M>
using dlpack_pointer = std::unique_ptr<M, detail::call_deleter>;

namespace detail {

/// Keeps a DLPack tensor until the tensor over its memory ends. Empty tensors have no memory to free, but an owner too.
template <DlpackTensor M>
struct keep_producer {
  dlpack_pointer<M> producer;
  void operator()(void const*) const noexcept {}
};

/// @throws as from_dlpack
template <class T, class M, Device D>
tensor_view<T, D> readable_view(M const& managed, D const& device) {
  expect_readable(managed);
  return view_of_dlpack<T>(managed.dl_tensor, device, is_read_only(managed));
}

}  // namespace detail

/// An imported tensor: a Tensor over the producer's memory, which it keeps alive. Its destructor calls the producer's deleter,
/// once, on the thread that destroys it, and does not wait: synchronize the device first if it still uses the memory.
template <class T, Device D, DlpackTensor M>
using dlpack_import = adopted_tensor<T, D, detail::keep_producer<M>>;

/// Takes a tensor that another library exports. No copy: data() is the producer's address plus its offset.
/// @tparam T   The element type, const for a read-only tensor.
/// @param managed  Not null. From now on the result's; after an exception still the caller's, who calls its deleter.
/// @param device   The device that will use it. It does not wait for the producer: see the overload with a stream.
/// @throws dtype_mismatch; unknown_device if the memory is not the device's; shape_mismatch if elements are not contiguous;
///         invalid_argument if a read-only tensor would be written, and for a DLPack version other than 1
template <class T, Device D = cpu_device<>, DlpackTensor M>
  requires ElementType<std::remove_const_t<T>>
dlpack_import<T, D, M> from_dlpack(M* managed, D const& device = D()) {
  auto const view = detail::readable_view<T>(*managed, device);
  return {view.data(), view.shape(), device, {dlpack_pointer<M>(managed)}};
}
/// The same; work on `device` begins after what `producer`, a device of the producer's stream, has enqueued.
template <class T, Device D, DlpackTensor M>
  requires ElementType<std::remove_const_t<T>>
dlpack_import<T, D, M> from_dlpack(M* managed, D const& device, std::type_identity_t<D> const& producer) {
  static_cast<void>(detail::readable_view<T>(*managed, device));
  device.wait_for(producer);
  return from_dlpack<T>(managed, device);
}

namespace detail {

template <class First, class... Rest, class M, class F, class D>
decltype(auto) visit_types(dlpack_pointer<M> owner, F& f, D const& device) {
  if constexpr (sizeof...(Rest) > 0)
    if (!same_type(owner->dl_tensor.dtype, dlpack_type<std::remove_const_t<First>>()))
      return visit_types<Rest...>(std::move(owner), f, device);
  auto imported = from_dlpack<First>(owner.get(), device);
  static_cast<void>(owner.release());
  return f(std::move(imported));
}

}  // namespace detail

/// Calls f(imported) with a tensor of the element type that the producer chose: of each of T..., all types of the library if none
/// is given. `visit_dlpack<float const, half const>` takes read-only tensors too. @returns what f returns, of one type
/// @param managed  Not null. From the call on no longer the caller's: f's, and freed if an exception comes before f or from it.
/// @throws as from_dlpack; dtype_mismatch if the type is none of them; as f
template <class... T, DlpackTensor M, class F, Device D = cpu_device<>>
decltype(auto) visit_dlpack(M* managed, F&& f, D const& device = D()) {
  if constexpr (sizeof...(T) > 0)
    return detail::visit_types<T...>(dlpack_pointer<M>(managed), f, device);
  else
    return detail::visit_types<double, half, bfloat16, float8_e4m3, float8_e5m2, std::int32_t, std::int64_t,
                               std::uint8_t, float>(dlpack_pointer<M>(managed), f, device);
}

namespace detail {

/// The block of an exported tensor: its extents and strides. `Owner` keeps the elements alive.
template <class M, class Owner>
struct exported {
  M managed{};
  std::array<std::int64_t, shape::max_rank> extents{}, strides{};
  Owner owner;

  explicit exported(Owner keeps) : owner(std::move(keeps)) {}
};

/// @throws std::bad_alloc
template <class M, class T, class D, class Owner>
dlpack_pointer<M> export_view(tensor_view<T, D> const& view, Owner keeps) {
  using E = std::remove_const_t<T>;
  using block = exported<M, Owner>;
  auto made = std::make_unique<block>(std::move(keeps));
  DLTensor& t = made->managed.dl_tensor;
  shape const& extents = view.shape();
  std::copy(extents.begin(), extents.end(), made->extents.begin());
  std::int64_t stride = 1;
  for (std::size_t axis = extents.rank(); axis-- > 0; stride *= extents[axis]) made->strides[axis] = stride;
  t.data = extents.size() == 0 ? nullptr : const_cast<E*>(view.data());
  t.device = where(view.device());
  t.ndim = static_cast<std::int32_t>(extents.rank());
  t.dtype = dlpack_type<E>();
  t.shape = made->extents.data();
  t.strides = made->strides.data();
  if constexpr (std::same_as<M, DLManagedTensorVersioned>) {
    made->managed.version = {1, 0};
    made->managed.flags = std::is_const_v<T> ? 1U : 0U;
  }
  made->managed.manager_ctx = made.get();
  made->managed.deleter = [](M* managed) { delete static_cast<block*>(managed->manager_ctx); };
  return dlpack_pointer<M>(&made.release()->managed);
}

struct no_owner {};

}  // namespace detail

/// Exports a view without a copy. `owner`, such as a std::shared_ptr, lives until the consumer calls the deleter; without one the
/// memory must outlive the consumer. The consumer orders its work after `view.device()`.
/// @tparam M  The layout: DLManagedTensorVersioned of DLPack 1, or DLManagedTensor, which cannot say that a tensor is read-only.
/// @returns   A pointer to `release()` to the consumer, such as a PyCapsule.
template <DlpackTensor M = DLManagedTensorVersioned, class T, Device D, class Owner = detail::no_owner>
dlpack_pointer<M> to_dlpack(tensor_view<T, D> const& view, Owner owner = {}) {
  static_assert(std::same_as<M, DLManagedTensorVersioned> || !std::is_const_v<T>,
                "to_dlpack: a DLManagedTensor cannot say that it is read-only: export a DLManagedTensorVersioned");
  return detail::export_view<M>(view, std::move(owner));
}
/// Exports a tensor with its memory.
template <DlpackTensor M = DLManagedTensorVersioned, class T, Device D>
dlpack_pointer<M> to_dlpack(tensor<T, D>&& owned) {
  auto const view = owned.view();
  return detail::export_view<M>(view, std::move(owned));
}

}  // namespace pushpull::interop
