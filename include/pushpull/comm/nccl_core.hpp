/// @file
/// One communicator of NCCL on a device's stream: the calls that take a group.
#pragma once

#include <nccl.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <pushpull/comm/nccl_group.hpp>
#include <pushpull/comm/nccl_handle.hpp>
#include <pushpull/comm/nccl_options.hpp>
#include <pushpull/comm/nccl_watchdog.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Throws a comm_error unless the result is that of a call that went well or goes on.
inline void expect_nccl_success(char const* function, ncclResult_t result) {
  if (result != ncclSuccess && result != ncclInProgress)
    throw comm_error(-1, "comm::nccl: " + nccl_handle::text_of(function, result));
}

/// @throws comm_error
inline ncclUniqueId new_nccl_id() {
  ncclUniqueId id;
  expect_nccl_success("ncclGetUniqueId", ncclGetUniqueId(&id));
  return id;
}

/// A rank's ncclComm_t with its device and its watchdog. Copies share them.
template <comm::StreamDevice D>
class nccl_core {
 public:
  using group_type = comm::nccl_group<D>;
  using request_type = comm::nccl_request;

  /// Nothing is started. @throws invalid_argument
  nccl_core(D const& device, int rank, int ranks, comm::nccl_options const& options)
      : state_(std::make_shared<state>(state{device, std::make_shared<nccl_handle>(rank, ranks, options), nullptr})) {}

  /// Begins the initialisation. @param blocks_of_threads  At most; 0: as NCCL likes. @throws comm_error
  void start(ncclUniqueId const& id, int blocks_of_threads = 0) const {
    {
      [[maybe_unused]] auto const current = device().activate();
      handle().start(id, blocks_of_threads);
    }
    state_->watchdog = std::make_shared<nccl_watchdog<D>>(state_->handle, device());
  }

  D const& device() const noexcept { return state_->device; }
  nccl_handle& handle() const noexcept { return *state_->handle; }
  int rank() const noexcept { return handle().rank(); }
  int size() const noexcept { return handle().size(); }

  group_type group() const { return group_type(state_->handle, state_->watchdog); }

  request_type exchange(group_type& group, std::span<comm::transfer const> out,
                        std::span<comm::transfer const> in) const {
    for (std::span<comm::transfer const> const transfers : {out, in})
      for (comm::transfer const& t : transfers) expect_peer(t.peer);
    nccl_handle& h = group.handle();
    for (comm::transfer const& t : in)
      h.check("ncclRecv", ncclRecv(t.memory, t.bytes, ncclUint8, t.peer, h.communicator(), device().stream()));
    for (comm::transfer const& t : out)
      h.check("ncclSend", ncclSend(t.memory, t.bytes, ncclUint8, t.peer, h.communicator(), device().stream()));
    return request_type(state_->handle);
  }

  /// One all-gather where the ranges follow one another and are equally long, else a broadcast of each.
  request_type gather(group_type& group, void* whole, std::span<comm::byte_range const> of_rank) const {
    expect_ranges("gather", of_rank);
    nccl_handle& h = group.handle();
    auto* const bytes = static_cast<std::byte*>(whole);
    if (follow_one_another(of_rank)) {
      comm::byte_range const own = of_rank[static_cast<std::size_t>(rank())];
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
    return request_type(state_->handle);
  }

  /// One reduce-scatter where the ranges follow one another and are equally long, else a reduction of each.
  request_type reduce_scatter(group_type& group, void const* whole, std::span<comm::byte_range const> of_rank,
                              void* sum, comm::number_type type) const {
    expect_ranges("reduce_scatter", of_rank);
    nccl_handle& h = group.handle();
    auto const* const bytes = static_cast<std::byte const*>(whole);
    auto const [of_nccl, size] = number_of(type);
    if (follow_one_another(of_rank)) {
      if (of_rank[0].size() > 0)
        h.check("ncclReduceScatter", ncclReduceScatter(bytes + of_rank[0].begin, sum, of_rank[0].size() / size, of_nccl,
                                                       ncclSum, h.communicator(), device().stream()));
    } else {
      for (std::size_t root = 0; root < of_rank.size(); ++root)
        if (of_rank[root].size() > 0)
          h.check("ncclReduce", ncclReduce(bytes + of_rank[root].begin, sum, of_rank[root].size() / size, of_nccl,
                                           ncclSum, static_cast<int>(root), h.communicator(), device().stream()));
    }
    return request_type(state_->handle);
  }

  request_type sum(group_type& group, double* numbers, std::size_t count) const {
    nccl_handle& h = group.handle();
    if (count > 0)
      h.check("ncclAllReduce",
              ncclAllReduce(numbers, numbers, count, ncclDouble, ncclSum, h.communicator(), device().stream()));
    return request_type(state_->handle);
  }

 private:
  struct state {
    D device;
    std::shared_ptr<nccl_handle> handle;
    std::shared_ptr<nccl_watchdog<D>> watchdog;  // ends first
  };

  void expect_peer(int peer) const {
    expects<invalid_argument>(peer >= 0 && peer < size() && peer != rank(), [&] {
      return "comm::nccl: exchange: another rank of " + std::to_string(size()) + " expected, got " +
             std::to_string(peer) + " on rank " + std::to_string(rank());
    });
  }
  void expect_ranges(char const* call, std::span<comm::byte_range const> of_rank) const {
    expects<invalid_argument>(of_rank.size() == static_cast<std::size_t>(size()), [&] {
      return "comm::nccl: " + std::string(call) + ": " + std::to_string(size()) + " ranges expected, got " +
             std::to_string(of_rank.size());
    });
  }
  static std::pair<ncclDataType_t, std::size_t> number_of(comm::number_type type) {
    switch (type) {
      case comm::number_type::float16: return {ncclFloat16, 2};
      case comm::number_type::bfloat16: return {ncclBfloat16, 2};
      case comm::number_type::float32: return {ncclFloat32, 4};
      default: return {ncclFloat64, 8};
    }
  }
  static bool follow_one_another(std::span<comm::byte_range const> ranges) {
    for (std::size_t r = 1; r < ranges.size(); ++r)
      if (ranges[r].begin != ranges[r - 1].end || ranges[r].size() != ranges[0].size()) return false;
    return true;
  }

  std::shared_ptr<state> state_;
};

}  // namespace pushpull::detail
