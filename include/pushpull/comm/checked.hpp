/// @file
/// A communicator that compares the calls of all ranks: for tests, and to find out why a program hangs.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <pushpull/comm/any_request.hpp>
#include <pushpull/comm/call_record.hpp>
#include <pushpull/comm/checked_calls.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// The type of shared memory, if there is one.
template <class C>
struct shared_memory_of {};
template <class C>
  requires requires { typename C::shared_memory; }
struct shared_memory_of<C> {
  using shared_memory = typename C::shared_memory;
};

}  // namespace detail

namespace comm {

/// Compares every call of all ranks before it makes it: ranks that make different calls get comm_error, which names the
/// first difference, where they would wait for each other. Calls with a group and those without are compared separately.
/// @tparam C  a CollectiveCommunicator for host memory. Each of its calls costs one or two more, and allocates.
template <CollectiveCommunicator<detail::host_device_probe> C>
class checked : public detail::shared_memory_of<C> {
  using calls_type = detail::checked_calls<C>;
  using call_type = detail::checked_call<C>;

 public:
  using policy_kind = communicator_tag;
  template <class D>
  static constexpr bool moves_memory_of = MovesMemoryOf<C, D>;

  /// The calls of a group are made when all ranks have described theirs, after `end`.
  class group_type {
   public:
    void end() { calls_->end(group_); }

   private:
    friend checked;
    explicit group_type(std::shared_ptr<calls_type> calls) : calls_(std::move(calls)) {}

    std::shared_ptr<calls_type> calls_;
    detail::checked_group<C> group_;
  };

  /// A call that is made when all ranks have described theirs.
  class request {
   public:
    request(request&&) noexcept = default;
    request& operator=(request&& other) noexcept {
      request taken(std::move(other));
      calls_.swap(taken.calls_);
      call_.swap(taken.call_);
      return *this;
    }
    ~request() {
      if (call_ != nullptr) calls_->drop(*call_);
    }

    bool ready() { return calls_->started(*call_) && call_->request.ready(); }
    void wait() {
      while (!calls_->started(*call_)) std::this_thread::sleep_for(std::chrono::microseconds(50));
      call_->request.wait();
    }

   private:
    friend checked;
    request(std::shared_ptr<calls_type> calls, std::shared_ptr<call_type> call)
        : calls_(std::move(calls)), call_(std::move(call)) {}

    std::shared_ptr<calls_type> calls_;
    std::shared_ptr<call_type> call_;
  };

  explicit checked(C communicator) : calls_(std::make_shared<calls_type>(std::move(communicator))) {}

  int rank() const { return inner().rank(); }
  int size() const { return inner().size(); }
  bool ranks_are_independent() const { return detail::has_independent_ranks(inner()); }
  void barrier() const {
    compare(detail::call_kind::barrier, {});
    inner().barrier();
  }

  group_type group() const { return group_type(calls_); }
  void fail(std::string_view reason) const noexcept { inner().fail(reason); }

  request exchange(group_type& group, std::span<transfer const> out, std::span<transfer const> in) const {
    std::vector<transfer> const outs(out.begin(), out.end()), ins(in.begin(), in.end());
    detail::call_record record{detail::call_kind::exchange, {}, ends_of(outs), ends_of(ins)};
    return add(group, std::move(record), [this_inner = inner(), outs, ins](auto& inner_group) {
      return any_request(this_inner.exchange(inner_group, outs, ins));
    });
  }
  request gather(group_type& group, void* whole, std::span<byte_range const> of_rank) const {
    std::vector<byte_range> const ranges(of_rank.begin(), of_rank.end());
    detail::call_record record{detail::call_kind::gather, {}, {}, {}};
    for (byte_range const& range : ranges) record.agreed.insert(record.agreed.end(), {range.begin, range.end});
    return add(group, std::move(record), [this_inner = inner(), whole, ranges](auto& inner_group) {
      return any_request(this_inner.gather(inner_group, whole, ranges));
    });
  }
  request sum(group_type& group, double* numbers, std::size_t count) const {
    return add(group, {detail::call_kind::sum, {count}, {}, {}},
               [this_inner = inner(), numbers, count](auto& in_group) {
                 return any_request(this_inner.sum(in_group, numbers, count));
               });
  }

  void broadcast(std::span<std::byte> bytes, int root) const {
    compare(detail::call_kind::broadcast, {bytes.size(), static_cast<std::uint64_t>(root)});
    inner().broadcast(bytes, root);
  }
  std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const {
    compare(detail::call_kind::gather_all, {});
    return inner().gather_all(bytes);
  }

  int node_of(int rank) const
    requires SharesMemory<C, detail::host_device_probe>
  {
    return inner().node_of(rank);
  }
  auto allocate_shared(std::size_t bytes) const
    requires SharesMemory<C, detail::host_device_probe>
  {
    compare(detail::call_kind::allocate_shared, {});
    return inner().allocate_shared(bytes);
  }
  request arrive(group_type& group) const
    requires SharesMemory<C, detail::host_device_probe>
  {
    return add(group, {detail::call_kind::arrive, {}, {}, {}},
               [this_inner = inner()](auto& inner_group) { return any_request(this_inner.arrive(inner_group)); });
  }

 private:
  C const& inner() const { return calls_->inner; }

  void compare(detail::call_kind kind, std::vector<std::uint64_t> agreed) const {
    calls_->compare({kind, std::move(agreed), {}, {}});
  }
  template <class F>
  request add(group_type& group, detail::call_record record, F start) const {
    auto call = std::make_shared<call_type>(call_type{std::move(record), std::move(start), false, false, {}});
    group.group_.calls.push_back(call);
    return request(calls_, std::move(call));
  }
  std::vector<detail::call_record::end> ends_of(std::span<transfer const> transfers) const {
    std::vector<detail::call_record::end> ends;
    for (transfer const& t : transfers) {
      detail::expects<invalid_argument>(t.peer >= 0 && t.peer < size() && t.peer != rank(), [&] {
        return "exchange on rank " + std::to_string(rank()) + ": expected another rank of " + std::to_string(size()) +
               ", got " + std::to_string(t.peer);
      });
      ends.push_back({static_cast<std::uint64_t>(t.peer), t.bytes});
    }
    return ends;
  }

  std::shared_ptr<calls_type> calls_;
};

}  // namespace comm
}  // namespace pushpull
