/// @file
/// The communicator over NCCL: ranks with a GPU each.
#pragma once

#include <nccl.h>

#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/comm/any_communicator.hpp>
#include <pushpull/comm/nccl_handle.hpp>
#include <pushpull/comm/nccl_options.hpp>
#include <pushpull/comm/nccl_watchdog.hpp>
#include <pushpull/comm/threads.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// A device that NCCL can work on.
/// Needs:  stream() -> cudaStream_t; activate() -> an object during whose life the device is the thread's current one.
/// Model:  cuda_device.
template <class D>
concept StreamDevice = Device<D> && requires(D const& device) {
  { device.stream() } -> std::same_as<cudaStream_t>;
  device.activate();
};

/// Calls of comm::nccl that are submitted together: one group of NCCL, which belongs to its thread. A second one of the same
/// rank waits for its end. Dropped before `end` it fails the communicator.
template <StreamDevice D>
class nccl_group {
 public:
  /// @throws comm_error, comm_timeout: of calls before
  nccl_group(std::shared_ptr<pushpull::detail::nccl_handle> handle,
             std::shared_ptr<pushpull::detail::nccl_watchdog<D>> watchdog)
      : handle_(std::move(handle)), watchdog_(std::move(watchdog)) {
    for (;;) {  // a group of another thread may have come between
      handle_->wait_until_settled();
      lock_ = handle_->lock("group");
      if (handle_->settled(lock_)) break;
      lock_.unlock();
    }
    handle_->check("ncclGroupStart", ncclGroupStart());
    is_open_ = true;
  }
  nccl_group(nccl_group&& other) noexcept
      : handle_(std::move(other.handle_)),
        watchdog_(std::move(other.watchdog_)),
        lock_(std::move(other.lock_)),
        is_open_(std::exchange(other.is_open_, false)) {}
  nccl_group& operator=(nccl_group&&) = delete;
  ~nccl_group() {
    if (!is_open_) return;
    handle_->fail(handle_->rank(), "a group was dropped before its end");
    static_cast<void>(ncclGroupEnd());
  }

  void end() {
    is_open_ = false;
    ncclResult_t const result = ncclGroupEnd();
    handle_->waits_for("ncclGroupEnd");
    handle_->check("ncclGroupEnd", result);
    lock_.unlock();
    watchdog_->watch();
  }

  pushpull::detail::nccl_handle& handle() const noexcept { return *handle_; }

 private:
  std::shared_ptr<pushpull::detail::nccl_handle> handle_;
  std::shared_ptr<pushpull::detail::nccl_watchdog<D>> watchdog_;
  pushpull::detail::nccl_handle::lock_type lock_;
  bool is_open_ = false;
};

/// A call of comm::nccl. Ready when NCCL has put its work on the device's stream: what is enqueued there afterwards comes
/// after it. The host sees the memory when the device has been synchronized. Dropped before it is ready, it waits.
class nccl_request {
 public:
  explicit nccl_request(std::shared_ptr<pushpull::detail::nccl_handle> handle) : handle_(std::move(handle)) {}
  nccl_request(nccl_request&& other) noexcept
      : handle_(std::move(other.handle_)), is_ready_(std::exchange(other.is_ready_, true)) {}
  nccl_request& operator=(nccl_request&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(is_ready_, other.is_ready_);
    return *this;
  }
  ~nccl_request() {
    try {
      wait();
    } catch (...) {  // noted, and the communicator is aborted
    }
  }

  /// @throws comm_error, comm_timeout
  bool ready() {
    is_ready_ = is_ready_ || handle_->settled();
    return is_ready_;
  }
  /// @throws comm_error, comm_timeout
  void wait() {
    if (!is_ready_) handle_->wait_until_settled();
    is_ready_ = true;
  }

 private:
  std::shared_ptr<pushpull::detail::nccl_handle> handle_;
  bool is_ready_ = false;
};

/// Ranks with a device each. NCCL moves memory of the device, on its stream and in the order of its work; bytes of the host
/// travel by the communicator that the ranks are introduced by. Copies refer to the same rank. A call that fails, work that
/// does not end before the deadline, and `fail` abort the communicator: peers see an error of NCCL, or their deadline.
template <StreamDevice D>
class nccl {
  using handle_type = pushpull::detail::nccl_handle;
  using watchdog_type = pushpull::detail::nccl_watchdog<D>;

 public:
  using policy_kind = communicator_tag;
  using group_type = nccl_group<D>;
  template <class Other>
  static constexpr bool moves_memory_of = std::same_as<Other, D>;

  /// Collective over `host`, whose ranks these are: comm::mpi for processes, comm::threads for threads. The call returns when
  /// all ranks are connected. @throws comm_error, comm_timeout; invalid_argument
  nccl(D const& device, any_communicator host, nccl_options const& options = {})
      : nccl(device, std::move(host), options, nullptr) {
    state_->handle->wait_until_settled();
  }

  /// A communicator for each device, all in this process; each is to be used by a thread of its own.
  /// @throws comm_error, comm_timeout; invalid_argument
  static std::vector<nccl> make(std::vector<D> const& devices, nccl_options const& options = {}) {
    threads_options host_options;
    host_options.deadline = options.deadline;
    auto const hosts = threads::make(static_cast<int>(devices.size()), host_options);
    ncclUniqueId const id = new_id();
    std::vector<nccl> all;
    expect_success("ncclGroupStart", ncclGroupStart());
    try {
      for (std::size_t n = 0; n < devices.size(); ++n) all.push_back(nccl(devices[n], hosts[n], options, &id));
    } catch (...) {
      static_cast<void>(ncclGroupEnd());
      throw;
    }
    expect_success("ncclGroupEnd", ncclGroupEnd());
    for (nccl const& each : all) each.state_->handle->wait_until_settled();
    return all;
  }

  int rank() const noexcept { return state_->handle->rank(); }
  int size() const noexcept { return state_->handle->size(); }
  D const& device() const noexcept { return state_->device; }
  /// The communicator that moves memory of the host.
  any_communicator const& host() const noexcept { return state_->host; }

  /// @throws comm_error, comm_timeout if a call or work on the device's stream has failed: what it should have written is undefined
  void expect_alive() const { state_->handle->throw_if_failed(); }

  void barrier() const { state_->host.barrier(); }
  void broadcast(std::span<std::byte> bytes, int root) const { state_->host.broadcast(bytes, root); }
  std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const {
    return state_->host.gather_all(bytes);
  }

  group_type group() const { return group_type(state_->handle, state_->watchdog); }
  void fail(std::string_view reason) const noexcept {
    state_->handle->fail(rank(), reason);
    state_->host.fail(reason);
  }

  nccl_request exchange(group_type& group, std::span<transfer const> out, std::span<transfer const> in) const {
    for (std::span<transfer const> const transfers : {out, in})
      for (transfer const& t : transfers) expect_peer(t.peer);
    handle_type& h = group.handle();
    for (transfer const& t : in)
      h.check("ncclRecv", ncclRecv(t.memory, t.bytes, ncclUint8, t.peer, h.communicator(), device().stream()));
    for (transfer const& t : out)
      h.check("ncclSend", ncclSend(t.memory, t.bytes, ncclUint8, t.peer, h.communicator(), device().stream()));
    return nccl_request(state_->handle);
  }

  /// One all-gather where the ranges follow one another and are equally long, else a broadcast of each.
  nccl_request gather(group_type& group, void* whole, std::span<byte_range const> of_rank) const {
    pushpull::detail::expects<invalid_argument>(of_rank.size() == static_cast<std::size_t>(size()), [&] {
      return "comm::nccl: gather: " + std::to_string(size()) + " ranges expected, got " +
             std::to_string(of_rank.size());
    });
    handle_type& h = group.handle();
    auto* const bytes = static_cast<std::byte*>(whole);
    if (follow_one_another(of_rank)) {
      byte_range const own = of_rank[static_cast<std::size_t>(rank())];
      if (own.size() > 0)
        h.check("ncclAllGather", ncclAllGather(bytes + own.begin, bytes + of_rank[0].begin, own.size(), ncclUint8,
                                               h.communicator(), device().stream()));
    } else {
      for (std::size_t root = 0; root < of_rank.size(); ++root) {
        std::byte* const part = bytes + of_rank[root].begin;
        if (of_rank[root].size() > 0)
          h.check("ncclBroadcast", ncclBroadcast(part, part, of_rank[root].size(), ncclUint8, static_cast<int>(root),
                                                 h.communicator(), device().stream()));
      }
    }
    return nccl_request(state_->handle);
  }

  nccl_request sum(group_type& group, double* numbers, std::size_t count) const {
    handle_type& h = group.handle();
    if (count > 0)
      h.check("ncclAllReduce",
              ncclAllReduce(numbers, numbers, count, ncclDouble, ncclSum, h.communicator(), device().stream()));
    return nccl_request(state_->handle);
  }

  /// What stores ask: their devices have to be the one whose stream orders the messages.
  /// @throws invalid_argument
  void expect_devices(std::vector<D> const& devices) const {
    pushpull::detail::expects<invalid_argument>(devices.size() == 1 && devices.front() == device(), [&] {
      return "comm::nccl: a store on the communicator's one device, " + std::string(device().name()) +
             ", expected, got " + std::to_string(devices.size()) + " devices" +
             (devices.size() == 1 ? ", another or with another stream" : "");
    });
  }

 private:
  struct state {
    D device;
    any_communicator host;
    std::shared_ptr<handle_type> handle;
    std::shared_ptr<watchdog_type> watchdog;  // ends first
  };

  /// @param given  Null: rank 0 makes an id, and the others get it.
  nccl(D const& device, any_communicator host, nccl_options const& options, ncclUniqueId const* given)
      : state_(std::make_shared<state>(state{device, std::move(host), nullptr, nullptr})) {
    pushpull::detail::expects<invalid_argument>(state_->host.size() == 1 || state_->host.exchanges(), [] {
      return std::string("comm::nccl: a communicator that exchanges memory of the host expected, as comm::mpi");
    });
    state_->handle = std::make_shared<handle_type>(state_->host.rank(), state_->host.size(), options);
    ncclUniqueId const id = given != nullptr ? *given : agreed_id(state_->host);
    {
      [[maybe_unused]] auto const current = device.activate();
      state_->handle->start(id);
    }
    state_->watchdog = std::make_shared<watchdog_type>(state_->handle, device);
  }

  static void expect_success(char const* function, ncclResult_t result) {
    if (result != ncclSuccess && result != ncclInProgress)
      throw comm_error(-1, "comm::nccl: " + handle_type::text_of(function, result));
  }
  static ncclUniqueId new_id() {
    ncclUniqueId id;
    expect_success("ncclGetUniqueId", ncclGetUniqueId(&id));
    return id;
  }
  /// Rank 0's; if it has none, all ranks know.
  static ncclUniqueId agreed_id(any_communicator const& host) {
    struct message {
      ncclUniqueId id;
      ncclResult_t result;
    } m{};
    if (host.rank() == 0) m.result = ncclGetUniqueId(&m.id);
    if (host.size() > 1) host.broadcast(std::as_writable_bytes(std::span(&m, 1)), 0);
    if (m.result != ncclSuccess)
      throw comm_error(0, "comm::nccl: " + handle_type::text_of("ncclGetUniqueId on rank 0", m.result));
    return m.id;
  }

  void expect_peer(int peer) const {
    pushpull::detail::expects<invalid_argument>(peer >= 0 && peer < size() && peer != rank(), [&] {
      return "comm::nccl: exchange: another rank of " + std::to_string(size()) + " expected, got " +
             std::to_string(peer) + " on rank " + std::to_string(rank());
    });
  }
  static bool follow_one_another(std::span<byte_range const> ranges) {
    for (std::size_t r = 1; r < ranges.size(); ++r)
      if (ranges[r].begin != ranges[r - 1].end || ranges[r].size() != ranges[0].size()) return false;
    return true;
  }

  std::shared_ptr<state> state_;
};

}  // namespace pushpull::comm
