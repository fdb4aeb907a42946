/// @file
/// The communicator over NCCL, for ranks of GPUs.
#pragma once

#include <nccl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <pushpull/comm/any_communicator.hpp>
#include <pushpull/comm/nccl_core.hpp>
#include <pushpull/comm/nccl_devices.hpp>
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

/// Ranks with equally many devices each, whose numbers say which of them exchange memory. NCCL moves memory of a device on its
/// stream, in the order of its work; bytes of the host travel by the communicator that the ranks are introduced by. Copies
/// refer to the same rank. A call that fails, work that does not end before the deadline, and `fail` abort the rank's
/// communicators of NCCL: peers see an error of NCCL, or their deadline.
template <StreamDevice D>
class nccl {
  using all_devices = pushpull::detail::nccl_devices<D>;

 public:
  using policy_kind = communicator_tag;
  using group_type = nccl_group<D>;
  template <class Other>
  static constexpr bool moves_memory_of = std::same_as<Other, D>;

  /// Collective over `host`, whose ranks these are: comm::mpi for processes, comm::threads for threads. The call returns when
  /// all ranks are connected.
  /// @param devices  This rank's, of which each has one communicator of NCCL, with those of its number on the other ranks.
  /// @throws comm_error, comm_timeout; invalid_argument, on all ranks unless they have equally many different devices
  nccl(std::vector<D> const& devices, any_communicator host, nccl_options const& options = {})
      : state_(introduced(devices, std::move(host), options)) {}
  nccl(D const& device, any_communicator host, nccl_options const& options = {})
      : nccl(std::vector{device}, std::move(host), options) {}

  /// The ranks that meet at a file. Bytes of the host travel by NCCL too, through memory of the first device: two further
  /// communicators of one block of threads each. The call returns when all ranks are connected.
  /// @throws comm_error, also if a file cannot be written; comm_timeout; invalid_argument as above
  nccl(std::vector<D> const& devices, nccl_file const& file, nccl_options const& options = {})
    requires std::constructible_from<D, int>
      : state_(met(devices, file, options)) {}
  nccl(D const& device, nccl_file const& file, nccl_options const& options = {})
    requires std::constructible_from<D, int>
      : nccl(std::vector{device}, file, options) {}

  /// A rank for each device, all in this process; each is to be used by a thread of its own.
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
      for (std::size_t n = 0; n < devices.size(); ++n) {
        all_devices const connected({devices[n]}, hosts[n].rank(), hosts[n].size(), options);
        connected.start(0, std::span(&id, 1));
        all.push_back(nccl(std::make_shared<state>(state{hosts[n], connected})));
      }
    } catch (...) {
      static_cast<void>(ncclGroupEnd());
      throw;
    }
    expect_nccl_success("ncclGroupEnd", ncclGroupEnd());
    for (nccl const& each : all) each.connected().wait_until_settled();
    return all;
  }

  int rank() const noexcept { return connected().rank(); }
  int size() const noexcept { return connected().ranks(); }
  /// This rank's devices.
  std::vector<D> devices() const { return connected().devices(); }
  /// The first of them.
  D const& device() const noexcept { return connected()[0].device(); }
  /// The communicator that moves memory of the host.
  any_communicator const& host() const noexcept { return state_->host; }

  /// @throws comm_error, comm_timeout if a call or work on a device's stream has failed: what it should have written is undefined
  void expect_alive() const { connected().throw_if_failed(); }

  void barrier() const { state_->host.barrier(); }
  void broadcast(std::span<std::byte> bytes, int root) const { state_->host.broadcast(bytes, root); }
  std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const {
    return state_->host.gather_all(bytes);
  }

  /// Calls of all devices.
  group_type group() const { return connected().group(); }
  void fail(std::string_view reason) const noexcept {
    connected().fail(reason);
    state_->host.fail(reason);
  }

  nccl_request exchange(group_type& group, std::span<transfer const> out, std::span<transfer const> in) const {
    return connected().exchange(group, out, in);
  }
  nccl_request gather(group_type& group, void* whole, std::span<byte_range const> of_rank,
                      std::size_t device = 0) const {
    return connected().gather(group, whole, of_rank, device);
  }
  nccl_request reduce_scatter(group_type& group, void const* whole, std::span<byte_range const> of_rank, void* sum,
                              number_type type, std::size_t device = 0) const {
    return connected().reduce_scatter(group, whole, of_rank, sum, type, device);
  }
  /// In memory of the first device.
  nccl_request sum(group_type& group, double* numbers, std::size_t count) const {
    return connected().sum(group, numbers, count);
  }

  /// What stores ask: their devices have to be those whose streams order the messages.
  /// @throws invalid_argument
  void expect_devices(std::vector<D> const& devices) const {
    auto const own = connected().devices();
    pushpull::detail::expects<invalid_argument>(devices == own, [&] {
      return "comm::nccl: a store on the communicator's " + text_of(own) + " expected, got " + text_of(devices) +
             (devices.size() == own.size() ? ", others, with other streams, or in another order" : "");
    });
  }

 protected:
  nccl_options const& options() const noexcept { return connected()[0].handle()->options(); }

 private:
  struct state {
    any_communicator host;
    all_devices connected;
  };

  explicit nccl(std::shared_ptr<state> made) : state_(std::move(made)) {}

  static std::shared_ptr<state> introduced(std::vector<D> const& devices, any_communicator host,
                                           nccl_options const& options) {
    pushpull::detail::expects<invalid_argument>(host.size() == 1 || host.exchanges(), [] {
      return std::string("comm::nccl: a communicator that exchanges memory of the host expected, as comm::mpi");
    });
    static_cast<void>(pushpull::detail::checked_options(options));
    expect_alike(devices, host);
    all_devices const connected(devices, host.rank(), host.size(), options);
    connected.start(0, agreed_ids(host, devices.size()));
    connected.wait_until_settled();
    return std::make_shared<state>(state{std::move(host), connected});
  }

  static std::shared_ptr<state> met(std::vector<D> const& devices, nccl_file const& file, nccl_options const& options)
    requires std::constructible_from<D, int>
  {
    using host_type = pushpull::detail::nccl_host<D>;
    pushpull::detail::expects<invalid_argument>(
        !devices.empty(), [] { return std::string("comm::nccl: at least one device expected, got none"); });
    pushpull::detail::nccl_meeting meeting(file, pushpull::detail::checked_options(options).deadline);
    all_devices const connected(devices, meeting.rank(), meeting.ranks(), options);
    std::array<ncclUniqueId, 3> ids{};
    auto const bytes = std::as_writable_bytes(std::span(ids));
    if (meeting.rank() == 0) {
      for (ncclUniqueId& id : ids) id = pushpull::detail::new_nccl_id();
      meeting.answer(bytes);
    } else {
      meeting.receive(bytes);
    }
    connected.start(0, std::span(ids).first(1));
    for (;; std::this_thread::sleep_for(std::chrono::milliseconds(2))) {
      if (meeting.rank() == 0) meeting.answer(bytes);  // knows best who is missing
      if (connected[0].handle()->settled()) break;
    }
    any_communicator const host(
        host_type(devices.front().id(), meeting.rank(), meeting.ranks(), options, ids[1], ids[2]));
    expect_alike(devices, host);
    connected.start(1, agreed_ids(host, devices.size() - 1));
    connected.wait_until_settled();
    return std::make_shared<state>(state{host, connected});
  }

  /// Compares the numbers of devices over all ranks.
  static void expect_alike(std::vector<D> const& devices, any_communicator const& host) {
    bool is_twice = false;
    for (std::size_t n = 1; n < devices.size(); ++n)
      is_twice = is_twice || std::find(devices.begin(), devices.begin() + static_cast<std::ptrdiff_t>(n), devices[n]) !=
                                 devices.begin() + static_cast<std::ptrdiff_t>(n);
    auto const own = is_twice ? std::int64_t{-1} : static_cast<std::int64_t>(devices.size());
    auto const all = host.gather_all(std::as_bytes(std::span(&own, 1)));
    std::int64_t first = 0;
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      std::int64_t count = 0;
      std::memcpy(&count, all[rank].data(), sizeof(count));
      if (rank == 0) first = count;
      pushpull::detail::expects<invalid_argument>(count > 0, [&] {
        return "comm::nccl: one or more different devices expected, rank " + std::to_string(rank) + " came with " +
               (count == 0 ? "none" : "one of them twice");
      });
      pushpull::detail::expects<invalid_argument>(count == first, [&] {
        return "comm::nccl: equally many devices expected on all ranks, rank 0 came with " + std::to_string(first) +
               ", rank " + std::to_string(rank) + " with " + std::to_string(count);
      });
    }
  }

  /// Rank 0's; if it has none, all ranks know.
  static std::vector<ncclUniqueId> agreed_ids(any_communicator const& host, std::size_t count) {
    struct message {
      ncclUniqueId id;
      ncclResult_t result;
    };
    std::vector<message> messages(count);
    if (host.rank() == 0)
      for (message& m : messages) m.result = ncclGetUniqueId(&m.id);
    if (host.size() > 1 && count > 0) host.broadcast(std::as_writable_bytes(std::span(messages)), 0);
    std::vector<ncclUniqueId> ids;
    for (message const& m : messages) {
      if (m.result != ncclSuccess)
        throw comm_error(
            0, "comm::nccl: " + pushpull::detail::nccl_handle::text_of("ncclGetUniqueId on rank 0", m.result));
      ids.push_back(m.id);
    }
    return ids;
  }

  /// "2 devices, cuda:0, cuda:1"
  static std::string text_of(std::vector<D> const& devices) {
    std::string text = std::to_string(devices.size()) + (devices.size() == 1 ? " device" : " devices");
    for (D const& device : devices) text += ", " + std::string(device.name());
    return text;
  }

  all_devices const& connected() const noexcept { return state_->connected; }

  std::shared_ptr<state> state_;
};

}  // namespace pushpull::comm
