/// @file
/// The least types that model each concept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

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

struct communicator {
  using policy_kind = communicator_tag;
  int rank() const { return 0; }
  int size() const { return 1; }
  void barrier() const {}
};

struct communication_request {
  communication_request() = default;
  communication_request(communication_request&&) = default;
  communication_request& operator=(communication_request&&) = default;
  bool ready() { return true; }
  void wait() {}
};

struct groups_calls : communicator {
  struct group_type {
    group_type() = default;
    group_type(group_type const&) = delete;
    void end() {}
  };
  template <class D>
  static constexpr bool moves_memory_of = HostDevice<D>;
  group_type group() const { return {}; }
  void fail(std::string_view) const noexcept {}
};

struct exchanges_slices : groups_calls {
  communication_request exchange(group_type&, std::span<comm::transfer const>, std::span<comm::transfer const>) const {
    return {};
  }
};

struct gathers_slices : groups_calls {
  communication_request gather(group_type&, void*, std::span<comm::byte_range const>) const { return {}; }
};

struct moves_memory_of_each_device : exchanges_slices {
  communication_request gather(group_type&, void*, std::span<comm::byte_range const>, std::size_t = 0) const {
    return {};
  }
};

struct sums_doubles : groups_calls {
  communication_request sum(group_type&, double*, std::size_t) const { return {}; }
};

struct broadcasts_bytes : communicator {
  void broadcast(std::span<std::byte>, int) const {}
};

struct gathers_bytes : communicator {
  std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const {
    return {{bytes.begin(), bytes.end()}};
  }
};

struct shares_memory : groups_calls {
  struct shared_memory {
    void* at(int) const { return nullptr; }
  };
  int node_of(int) const { return 0; }
  shared_memory allocate_shared(std::size_t) const { return {}; }
  communication_request arrive(group_type&) const { return {}; }
};

/// All of what a store over several ranks asks for.
struct collective_communicator : groups_calls {
  communication_request exchange(group_type&, std::span<comm::transfer const>, std::span<comm::transfer const>) const {
    return {};
  }
  communication_request gather(group_type&, void*, std::span<comm::byte_range const>) const { return {}; }
  communication_request sum(group_type&, double*, std::size_t) const { return {}; }
  void broadcast(std::span<std::byte>, int) const {}
  std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const {
    return {{bytes.begin(), bytes.end()}};
  }
};

}  // namespace pushpull::test::archetype
