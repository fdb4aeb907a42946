/// @file
/// CPUs as devices: one or several logical ones on one machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/host_memory.hpp>
#include <pushpull/device/serial_system.hpp>
#include <pushpull/device/tbb_system.hpp>
#include <pushpull/error.hpp>
#include <pushpull/registers/block.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// A reference to a task, so that a scheduler's templates are compiled once and not for every pass.
class erased_task {
 public:
  template <class F>
  explicit erased_task(F const& f)
      : task_(&f), call_([](void const* task, std::int64_t i) { (*static_cast<F const*>(task))(i); }) {}

  void operator()(std::int64_t i) const { call_(task_, i); }

 private:
  void const* task_;
  void (*call_)(void const*, std::int64_t);
};

}  // namespace detail

/// The machine's processors as one device. Several with distinct indexes are several logical devices: each owns its
/// slices and mirrors, all use all cores in turn.
/// @tparam System  Thrust's parallel system that runs the work: tbb_system (default), openmp_system, serial_system.
/// Work is finished when the call that enqueues it returns.
template <class System = tbb_system>
class cpu_device {
 public:
  using memory_space = host_memory;
  using execution = pass::host_execution;

  explicit cpu_device(int index = 0) : index_(index) {
    detail::expects<invalid_argument>(
        index >= 0, [&] { return "cpu_device: an index of at least 0 expected, got " + std::to_string(index); });
  }

  int id() const noexcept { return index_; }
  std::string name() const { return "cpu:" + std::to_string(index_); }

  void* allocate(std::size_t bytes) const { return detail::allocate_host_memory(bytes); }
  void deallocate(void* p, std::size_t) const noexcept { detail::deallocate_host_memory(p); }

  void copy(void* to, void const* from, std::size_t bytes) const {
    if (bytes != 0) std::memcpy(to, from, bytes);
  }
  void fill_zero(void* p, std::size_t bytes) const {
    if (bytes != 0) std::memset(p, 0, bytes);
  }

  template <class F>
  void for_each(std::int64_t n, F const& f) const {
    if (n == 1) return f(0);  // small work is not worth a scheduler
    if (n > 1) System::for_each(n, detail::erased_task(f));
  }

  template <class F, class Sums>
  void for_each_leaf(std::int64_t n, F const& f, Sums* out) const {
    constexpr std::int64_t grain = 32;  // a leaf alone is too short a task
    for_each((n + grain - 1) / grain, [&f, out, n](std::int64_t task) {
      for (std::int64_t leaf = task * grain; leaf < n && leaf < (task + 1) * grain; ++leaf)
        out[f.slot(leaf)] = f(leaf, 0, 1);
    });
  }

  bool can_access(cpu_device const&) const noexcept { return true; }
  void wait_for(cpu_device const&) const noexcept {}
  void synchronize() const noexcept {}
  finished_event record() const noexcept { return {}; }

  friend bool operator==(cpu_device const&, cpu_device const&) = default;

 private:
  int index_;
};

/// `count` logical devices with indexes 0 to count - 1.
template <class System = tbb_system>
std::vector<cpu_device<System>> cpu_devices(int count) {
  detail::expects<invalid_argument>(
      count >= 1, [&] { return "cpu_devices: at least 1 device expected, got " + std::to_string(count); });
  std::vector<cpu_device<System>> devices;
  for (int index = 0; index < count; ++index) devices.emplace_back(index);
  return devices;
}

static_assert(HostDevice<cpu_device<>> && HostDevice<cpu_device<serial_system>>);

}  // namespace pushpull
