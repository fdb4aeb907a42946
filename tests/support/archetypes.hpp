/// @file
/// The least types that model each concept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include <pushpull/pushpull.hpp>

namespace pushpull::test::archetype {

struct device {
  using memory_space = host_memory;
  using execution = pass::host_execution;
  int id() const { return 0; }
  char const* name() const { return "archetype"; }
  void* allocate(std::size_t bytes) const { return std::aligned_alloc(64, (bytes + 64) / 64 * 64); }
  void deallocate(void* p, std::size_t) const noexcept { std::free(p); }
  void copy(void* to, void const* from, std::size_t bytes) const {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void fill_zero(void* p, std::size_t bytes) const { std::memset(p, 0, bytes); }
  void for_each(std::int64_t n, auto const& f) const {
    for (std::int64_t i = 0; i < n; ++i) f(i);
  }
  void for_each_leaf(std::int64_t n, auto const& f, auto* out) const {
    for (std::int64_t i = 0; i < n; ++i) out[f.slot(i)] = f(i, 0, 1);
  }
  bool can_access(device const&) const { return true; }
  void wait_for(device const&) const {}
  void synchronize() const {}
  finished_event record() const { return {}; }
  bool operator==(device const&) const = default;
};

struct tensor {
  using value_type = float;
  using device_type = archetype::device;
  float const* data() const {
    static float const zero = 0;
    return &zero;
  }
  pushpull::shape shape() const { return pushpull::shape{1}; }
  archetype::device device() const { return {}; }
};

struct updater {
  static constexpr auto state_names = states("a");
  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V& w, V g, V& a) const noexcept {
    a += g;
    w -= a;
  }
};

struct transform {
  static constexpr auto state_names = states();
  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V const&, V& g) const noexcept {
    g *= 2;
  }
};

struct learning_rate_schedule {
  PUSHPULL_HOST_DEVICE double operator()(std::int64_t t) const { return 1 / static_cast<double>(t); }
};

struct reduction {
  using policy_kind = reduction_tag;
  template <class V>
  PUSHPULL_HOST_DEVICE V operator()(V a, V b) const noexcept {
    return a + b;
  }
  template <class V>
  PUSHPULL_HOST_DEVICE V finish(V total, int) const noexcept {
    return total;
  }
};

}  // namespace pushpull::test::archetype
