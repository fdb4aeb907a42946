/// @file
/// Copies of rows: from a batch to the devices, and from the devices together.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/copy_bytes.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/slicing.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Rows [begin, begin + rows) of one axis of an array: `count` strips of elements that follow each other.
struct row_strips {
  std::int64_t offset = 0;  ///< Of the first element.
  std::int64_t step = 0;    ///< Between the first elements of two strips.
  std::int64_t strip = 0;   ///< Elements of a strip.
  std::int64_t count = 0;

  row_strips() = default;
  /// Of axis -1 the whole array.
  row_strips(shape const& whole, int axis, train::row_range rows) {
    if (axis < 0) {
      step = strip = static_cast<std::int64_t>(whole.size());
      count = 1;
      return;
    }
    std::int64_t inner = 1;
    count = 1;
    auto const along = static_cast<std::size_t>(axis);
    for (std::size_t i = 0; i < along; ++i) count *= whole[i];
    for (std::size_t i = along + 1; i < whole.rank(); ++i) inner *= whole[i];
    step = whole[along] * inner;
    strip = rows.size() * inner;
    offset = rows.begin * inner;
  }
  bool is_contiguous() const { return count <= 1 || strip == step; }
  std::int64_t size() const { return strip * count; }
};

/// Copies strips between two arrays: one element, or one strip, per index.
template <class From, class To, bool Elements>
struct strip_copy {
  From const* from;
  To* to;
  std::int64_t from_step, to_step, strip;

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    if constexpr (Elements) {
      std::int64_t const n = i / strip, rest = i % strip;
      to[n * to_step + rest] = convert<To>(from[n * from_step + rest]);
    } else {
      for (std::int64_t j = 0; j < strip; ++j) to[i * to_step + j] = convert<To>(from[i * from_step + j]);
    }
  }
};

/// Copies strips between two arrays that the device reaches. Enqueued.
template <Device D, class From, class To>
void copy_strips(D const& device, From const* from, row_strips const& source, To* to, row_strips const& target) {
  if (source.size() == 0) return;
  from += source.offset;
  to += target.offset;
  if (source.is_contiguous() && target.is_contiguous()) {
    auto const size = static_cast<std::size_t>(source.size());
    if constexpr (std::same_as<From, To>) {
      device.copy(to, from, size * sizeof(To));
    } else {
      convert_on(device, from, to, size);
    }
    return;
  }
  constexpr bool elements = !HostDevice<D>;
  strip_copy<From, To, elements> const f{from, to, source.step, target.step, source.strip};
  device.for_each(elements ? source.size() : source.count, f);
}

/// Host memory on its way to a device that copies later.
template <Device D>
class load_staging {
 public:
  /// Memory that no copy reads any more.
  template <class T>
  T* take(std::size_t elements) {
    if (read_) read_->wait();
    read_.reset();
    if (memory_.bytes() < elements * sizeof(T)) memory_ = buffer<cpu_device<>>(cpu_device<>(), elements * sizeof(T));
    return static_cast<T*>(memory_.data());
  }
  /// What the device has been given so far reads the memory.
  void read_by(D const& device) { read_.emplace(device.record()); }

 private:
  buffer<cpu_device<>> memory_;
  std::optional<decltype(std::declval<D const&>().record())> read_;
};

/// Rows of an array in host memory to an array on a device, as a whole. Enqueued: `from` stays until the work is done.
template <class From, class To, Device D>
void scatter_rows(tensor_view<From const> const& from, int axis, train::row_range rows, tensor_view<To, D> const& to,
                  load_staging<D>& memory) {
  row_strips const source(from.shape(), axis, rows);
  row_strips target = source;
  target.offset = 0;
  target.step = source.strip;
  if constexpr (HostDevice<D>) {
    copy_strips(to.device(), from.data(), source, to.data(), target);
  } else {
    auto const bytes = static_cast<std::size_t>(source.size()) * sizeof(To);
    if constexpr (std::same_as<From, To>) {
      if (source.is_contiguous()) return to.device().copy(to.data(), from.data() + source.offset, bytes);
    }
    To* const packed = memory.template take<To>(static_cast<std::size_t>(source.size()));
    copy_strips(cpu_device<>(), from.data(), source, packed, target);
    to.device().copy(to.data(), packed, bytes);
    memory.read_by(to.device());
  }
}

/// All rows of `from` to the rows [begin, ...) of `to`, on perhaps another device. Enqueued on both.
/// @param middle  Memory on to's device, for strips of memory that it does not reach.
template <class T, Device D>
void gather_rows(tensor_view<T const, D> const& from, tensor_view<T, D> const& to, int axis, std::int64_t begin,
                 buffer<D>& middle) {
  std::int64_t const rows = axis < 0 ? 0 : from.shape()[static_cast<std::size_t>(axis)];
  row_strips const source(from.shape(), axis, {0, rows});
  row_strips const target(to.shape(), axis, {begin, begin + rows});
  auto const bytes = from.size() * sizeof(T);
  if (bytes == 0) return;
  if (source.is_contiguous() && target.is_contiguous())
    return copy_bytes(to.device(), to.data() + target.offset, from.device(), from.data(), bytes);
  T const* data = from.data();
  if (!to.device().can_access(from.device())) {
    if (middle.bytes() < bytes) middle = buffer<D>(to.device(), bytes);
    copy_bytes(to.device(), middle.data(), from.device(), data, bytes);
    data = static_cast<T const*>(middle.data());
  }
  to.device().wait_for(from.device());
  copy_strips(to.device(), data, source, to.data(), target);
  from.device().wait_for(to.device());
}

/// Rows of an array on one device to an array on another, as a whole. Enqueued on both.
/// @param middle  Memory on from's device, for strips of memory that it does not reach.
template <class T, Device D>
void slice_rows(tensor_view<T const, D> const& from, int axis, train::row_range rows, tensor_view<T, D> const& to,
                buffer<D>& middle) {
  row_strips const source(from.shape(), axis, rows);
  row_strips target = source;
  target.offset = 0;
  target.step = source.strip;
  auto const bytes = static_cast<std::size_t>(source.size()) * sizeof(T);
  if (bytes == 0) return;
  if (source.is_contiguous())
    return copy_bytes(to.device(), to.data(), from.device(), from.data() + source.offset, bytes);
  if (from.device().can_access(to.device())) {
    from.device().wait_for(to.device());
    copy_strips(from.device(), from.data(), source, to.data(), target);
    to.device().wait_for(from.device());
    return;
  }
  if (middle.bytes() < bytes) middle = buffer<D>(from.device(), bytes);
  copy_strips(from.device(), from.data(), source, static_cast<T*>(middle.data()), target);
  copy_bytes(to.device(), to.data(), from.device(), middle.data(), bytes);
}

}  // namespace pushpull::detail
