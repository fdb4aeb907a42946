/// @file
/// A host device that counts what a store asks of it, may pretend to reach no other device's memory, and may call hooks
/// before allocations and passes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <pushpull/pushpull.hpp>

namespace pushpull::test {

template <class F>
inline constexpr bool is_pass = false;
template <class Rule, class Reduction, class Types, class Execution, pass::memory Memory,
          template <class> class Schedule>
inline constexpr bool is_pass<pass::body<Rule, Reduction, Types, Execution, Memory, Schedule>> = true;

class counting_device {
 public:
  using memory_space = host_memory;
  using execution = pass::host_execution;

  struct counts {
    std::atomic<int> allocations = 0, passes = 0, copies = 0;
    std::atomic<std::size_t> held = 0;  // bytes
    std::function<void()> before_allocation, before_pass;
    void clear() { allocations = passes = copies = 0; }
  };

  explicit counting_device(int index, bool isolated = false)
      : device_(index), isolated_(isolated), counts_(std::make_shared<counts>()) {}

  counts& count() const { return *counts_; }
  int id() const { return device_.id(); }
  std::string name() const { return device_.name(); }
  void* allocate(std::size_t bytes) const {
    if (counts_->before_allocation) counts_->before_allocation();
    ++counts_->allocations;
    void* const p = device_.allocate(bytes);
    counts_->held += bytes;
    return p;
  }
  void deallocate(void* p, std::size_t bytes) const noexcept {
    device_.deallocate(p, bytes);
    if (p != nullptr) counts_->held -= bytes;
  }
  void copy(void* to, void const* from, std::size_t bytes) const {
    ++counts_->copies;
    device_.copy(to, from, bytes);
  }
  void fill_zero(void* p, std::size_t bytes) const { device_.fill_zero(p, bytes); }
  template <class F>
  void for_each(std::int64_t n, F const& f) const {
    if (is_pass<F> && counts_->before_pass) counts_->before_pass();
    counts_->passes += is_pass<F>;
    device_.for_each(n, f);
  }
  template <class F, class Sums>
  void for_each_leaf(std::int64_t n, F const& f, Sums* out) const {
    device_.for_each_leaf(n, f, out);
  }
  bool can_access(counting_device const& other) const { return !isolated_ || *this == other; }
  void wait_for(counting_device const&) const {}
  void synchronize() const {}
  finished_event record() const { return {}; }
  friend bool operator==(counting_device const& a, counting_device const& b) { return a.device_ == b.device_; }

 private:
  cpu_device<serial_system> device_;
  bool isolated_;
  std::shared_ptr<counts> counts_;
};

static_assert(Device<counting_device>);

}  // namespace pushpull::test
