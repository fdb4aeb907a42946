/// @file
/// The communicator over NCCL: ranks with a GPU each.
#pragma once

#include <nccl.h>

#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <pushpull/comm/any_communicator.hpp>
#include <pushpull/comm/nccl_core.hpp>
#include <pushpull/comm/nccl_group.hpp>
#include <pushpull/comm/nccl_host.hpp>
#include <pushpull/comm/nccl_meeting.hpp>
#include <pushpull/comm/nccl_options.hpp>
#include <pushpull/comm/threads.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// Ranks with a device each. NCCL moves memory of the device, on its stream and in the order of its work; bytes of the host
/// travel by the communicator that the ranks are introduced by. Copies refer to the same rank. A call that fails, work that
/// does not end before the deadline, and `fail` abort the communicator: peers see an error of NCCL, or their deadline.
template <StreamDevice D>
class nccl {
  using core_type = pushpull::detail::nccl_core<D>;

 public:
  using policy_kind = communicator_tag;
  using group_type = nccl_group<D>;
  template <class Other>
  static constexpr bool moves_memory_of = std::same_as<Other, D>;

  /// Collective over `host`, whose ranks these are: comm::mpi for processes, comm::threads for threads. The call returns when
  /// all ranks are connected. @throws comm_error, comm_timeout; invalid_argument
  nccl(D const& device, any_communicator host, nccl_options const& options = {})
      : nccl(device, std::move(host), options, nullptr) {
    core().handle().wait_until_settled();
  }

  /// The ranks that meet at a file. Bytes of the host travel by NCCL too, through memory of the device: two further
  /// communicators of one block of threads each. The call returns when all ranks are connected.
  /// @throws comm_error, also if a file cannot be written; comm_timeout; invalid_argument
  nccl(D const& device, nccl_file const& file, nccl_options const& options = {})
    requires std::constructible_from<D, int>
      : state_(met(device, file, options)) {}

  /// A communicator for each device, all in this process; each is to be used by a thread of its own.
  /// @throws comm_error, comm_timeout; invalid_argument
  static std::vector<nccl> make(std::vector<D> const& devices, nccl_options const& options = {}) {
    using pushpull::detail::expect_nccl_success;
    threads_options host_options;
    host_options.deadline = options.deadline;
    auto const hosts = threads::make(static_cast<int>(devices.size()), host_options);
    ncclUniqueId const id = pushpull::detail::new_nccl_id();
    std::vector<nccl> all;
    expect_nccl_success("ncclGroupStart", ncclGroupStart());
    try {
      for (std::size_t n = 0; n < devices.size(); ++n) all.push_back(nccl(devices[n], hosts[n], options, &id));
    } catch (...) {
      static_cast<void>(ncclGroupEnd());
      throw;
    }
    expect_nccl_success("ncclGroupEnd", ncclGroupEnd());
    for (nccl const& each : all) each.core().handle().wait_until_settled();
    return all;
  }

  int rank() const noexcept { return core().rank(); }
  int size() const noexcept { return core().size(); }
  D const& device() const noexcept { return core().device(); }
  /// The communicator that moves memory of the host.
  any_communicator const& host() const noexcept { return state_->host; }

  /// @throws comm_error, comm_timeout if a call or work on the device's stream has failed: what it should have written is undefined
  void expect_alive() const { core().handle().throw_if_failed(); }

  void barrier() const { state_->host.barrier(); }
  void broadcast(std::span<std::byte> bytes, int root) const { state_->host.broadcast(bytes, root); }
  std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const {
    return state_->host.gather_all(bytes);
  }

  group_type group() const { return core().group(); }
  void fail(std::string_view reason) const noexcept {
    core().handle().fail(rank(), reason);
    state_->host.fail(reason);
  }

  nccl_request exchange(group_type& group, std::span<transfer const> out, std::span<transfer const> in) const {
    return core().exchange(group, out, in);
  }
  nccl_request gather(group_type& group, void* whole, std::span<byte_range const> of_rank) const {
    return core().gather(group, whole, of_rank);
  }
  nccl_request reduce_scatter(group_type& group, void const* whole, std::span<byte_range const> of_rank, void* sum,
                              number_type type) const {
    return core().reduce_scatter(group, whole, of_rank, sum, type);
  }
  nccl_request sum(group_type& group, double* numbers, std::size_t count) const {
    return core().sum(group, numbers, count);
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
    any_communicator host;
    core_type core;
  };

  /// @param given  Null: rank 0 makes an id, and the others get it.
  nccl(D const& device, any_communicator host, nccl_options const& options, ncclUniqueId const* given)
      : state_(introduced(device, std::move(host), options, given)) {}

  static std::shared_ptr<state> introduced(D const& device, any_communicator host, nccl_options const& options,
                                           ncclUniqueId const* given) {
    pushpull::detail::expects<invalid_argument>(host.size() == 1 || host.exchanges(), [] {
      return std::string("comm::nccl: a communicator that exchanges memory of the host expected, as comm::mpi");
    });
    core_type const core(device, host.rank(), host.size(), options);
    core.start(given != nullptr ? *given : agreed_id(host));
    return std::make_shared<state>(state{std::move(host), core});
  }

  static std::shared_ptr<state> met(D const& device, nccl_file const& file, nccl_options const& options)
    requires std::constructible_from<D, int>
  {
    using host_type = pushpull::detail::nccl_host<D>;
    pushpull::detail::nccl_meeting meeting(file, pushpull::detail::checked_options(options).deadline);
    core_type const core(device, meeting.rank(), meeting.ranks(), options);
    std::array<ncclUniqueId, 3> ids{};
    auto const bytes = std::as_writable_bytes(std::span(ids));
    if (meeting.rank() == 0) {
      for (ncclUniqueId& id : ids) id = pushpull::detail::new_nccl_id();
      meeting.answer(bytes);
    } else {
      meeting.receive(bytes);
    }
    core.start(ids[0]);
    for (;; std::this_thread::sleep_for(std::chrono::milliseconds(2))) {
      if (meeting.rank() == 0) meeting.answer(bytes);  // knows best who is missing
      if (core.handle().settled()) break;
    }
    host_type const host(device.id(), meeting.rank(), meeting.ranks(), options, ids[1], ids[2]);
    return std::make_shared<state>(state{any_communicator(host), core});
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
      throw comm_error(0,
                       "comm::nccl: " + pushpull::detail::nccl_handle::text_of("ncclGetUniqueId on rank 0", m.result));
    return m.id;
  }

  core_type const& core() const noexcept { return state_->core; }

  std::shared_ptr<state> state_;
};

}  // namespace pushpull::comm
