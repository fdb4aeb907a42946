/// @file
/// The concepts of devices: each allocates memory and runs work.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

struct host_memory {};  ///< Memory that every CPU of this process reads.
struct cuda_memory {};  ///< Memory of one GPU.

/// The event of a device whose work is finished when it has been enqueued.
struct finished_event {
  bool ready() const noexcept { return true; }
  void wait() const noexcept {}
};

namespace detail {

/// The least functions that a device must be able to run.
struct index_probe {
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t) const {}
};
struct index_predicate_probe {
  PUSHPULL_HOST_DEVICE bool operator()(std::int32_t) const { return true; }
};
struct leaf_probe {
  PUSHPULL_HOST_DEVICE double operator()(std::int64_t, std::int32_t, std::int32_t) const { return 0; }
  PUSHPULL_HOST_DEVICE std::int64_t slot(std::int64_t i) const { return i; }
};

}  // namespace detail

/// A place where parameters live and elementwise work runs, in the order in which it is enqueued. A cheap handle:
/// copies name the same device.
/// Needs:  memory_space: host_memory or cuda_memory; execution: pass::host_execution or pass::cuda_execution;
///         id() -> int, for messages; name() -> string;
///         allocate(bytes) -> void*, aligned to 64 bytes or more, throws out_of_memory; deallocate(p, bytes) noexcept;
///         copy(to, from, bytes): enqueue; each pointer into host memory or memory of a device of this kind;
///         fill_zero(p, bytes): enqueue;
///         for_each(n, f): enqueue f(i) for every 0 <= i < n, in any order and in parallel;
///         for_each_leaf(n, f, out): enqueue out[f.slot(i)] = sum over t < T of f(i, t, T), in a fixed order, for a
///         T of its own; sums are doubles or cuda::std::array<double, N>;
///         can_access(other): whether work here may read and write memory of `other`, from the first answer on; cheap;
///         wait_for(other): what is enqueued here from now on runs after what `other` has been given so far;
///         synchronize(): return when everything enqueued here is finished;
///         record() -> an event for what was enqueued here so far: copyable, with ready() -> bool, whether that is
///         finished, and wait(), which returns when it is.
/// Models: cpu_device<System>, cuda_device. See also Store.
template <class D>
concept Device = std::copyable<D> && std::equality_comparable<D> &&
                 requires(D const& device, D const& other, void* to, void const* from, double* out, std::size_t bytes,
                          std::int64_t n) {
                   typename D::memory_space;
                   typename D::execution;
                   { device.id() } -> std::convertible_to<int>;
                   { device.name() } -> std::convertible_to<std::string>;
                   { device.allocate(bytes) } -> std::same_as<void*>;
                   { device.deallocate(to, bytes) } noexcept;
                   { device.copy(to, from, bytes) } -> std::same_as<void>;
                   { device.fill_zero(to, bytes) } -> std::same_as<void>;
                   { device.for_each(n, detail::index_probe{}) } -> std::same_as<void>;
                   { device.for_each_leaf(n, detail::leaf_probe{}, out) } -> std::same_as<void>;
                   { device.can_access(other) } -> std::convertible_to<bool>;
                   { device.wait_for(other) } -> std::same_as<void>;
                   { device.synchronize() } -> std::same_as<void>;
                   { device.record().ready() } -> std::convertible_to<bool>;
                   { device.record().wait() } -> std::same_as<void>;
                 };

namespace detail {

/// Where a device's algorithms get memory for temporaries.
struct scratch_probe {
  void* take(std::size_t) { return nullptr; }
};

}  // namespace detail

/// A device that sorts by itself, which row-sparse tensors need where the host does not read its memory.
/// Needs:  sort_by_key(keys, sorted_keys, values, sorted_values, n, bits, scratch): enqueue a stable sort of n pairs by
///         their keys, of which `bits` bits count;
///         select(n, f, out, count, scratch): enqueue out[0], out[1], ... = the 0 <= i < n with f(i), ascending, and
///         *count = how many;
///         both take memory by scratch.take(bytes), which stays theirs, and neither waits.
/// Model:  cuda_device.
template <class D>
concept SortingDevice = Device<D> && requires(D const& device, std::int64_t const* keys, std::int64_t* sorted_keys,
                                              std::int32_t const* values, std::int32_t* out, std::int64_t n, int bits,
                                              detail::scratch_probe& scratch) {
  { device.sort_by_key(keys, sorted_keys, values, out, n, bits, scratch) } -> std::same_as<void>;
  { device.select(n, detail::index_predicate_probe{}, out, out, scratch) } -> std::same_as<void>;
};

/// A device whose work can be captured in a graph, in the place of being run.
/// Needs:  is_captured() -> bool: whether what is enqueued here is being captured; throws capture_error if the capture is void;
///         allocate, synchronize and record throw capture_error meanwhile, and change nothing;
///         step_aside(devices) -> an object: while it lives, what these devices are given runs at once and is not captured;
///         its finish() returns when all of that is done;
///         capture_guard: an object that lives while this thread captures.
/// Model:  cuda_device.
template <class D>
concept CapturingDevice = Device<D> && requires(D const& device, std::vector<D> const& devices) {
  { device.is_captured() } -> std::same_as<bool>;
  { D::step_aside(devices).finish() } -> std::same_as<void>;
  typename D::capture_guard;
};

/// A device whose memory the calling thread reads and writes directly.
template <class D>
concept HostDevice = Device<D> && std::same_as<typename D::memory_space, host_memory>;

namespace detail {

/// A HostDevice to ask concepts about. It is never called.
struct host_device_probe {
  using memory_space = host_memory;
  using execution = void;
  int id() const;
  std::string name() const;
  void* allocate(std::size_t) const;
  void deallocate(void*, std::size_t) const noexcept;
  void copy(void*, void const*, std::size_t) const;
  void fill_zero(void*, std::size_t) const;
  template <class F>
  void for_each(std::int64_t, F const&) const;
  template <class F>
  void for_each_leaf(std::int64_t, F const&, double*) const;
  bool can_access(host_device_probe const&) const;
  void wait_for(host_device_probe const&) const;
  void synchronize() const;
  finished_event record() const;
  bool operator==(host_device_probe const&) const = default;
};
static_assert(HostDevice<host_device_probe>);

}  // namespace detail

}  // namespace pushpull
