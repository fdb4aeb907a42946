/// @file
/// One communicator of NCCL on a device's stream, and its calls.
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

/// One of a rank's devices with the ncclComm_t that moves its memory, and the watchdog. Its peers are the devices of the same
/// number of the other ranks. Copies share them.
template <comm::StreamDevice D>
class nccl_core {
 public:
  /// Nothing is started. @param failure  Of the rank. @throws invalid_argument
  nccl_core(D const& device, int rank, int ranks, comm::nccl_options const& options,
            std::shared_ptr<nccl_failure> failure)
      : device_(device), handle_(std::make_shared<nccl_handle>(rank, ranks, options, std::move(failure))) {}

  /// Begins the initialisation. @param blocks_of_threads  At most; 0: as NCCL likes. @throws comm_error
  void start(ncclUniqueId const& id, int blocks_of_threads = 0) const {
    [[maybe_unused]] auto const current = device_.activate();
    handle_->start(id, blocks_of_threads);
  }

  D const& device() const noexcept { return device_; }
  std::shared_ptr<nccl_handle> const& handle() const noexcept { return handle_; }
  int rank() const noexcept { return handle_->rank(); }
  int size() const noexcept { return handle_->size(); }

  /// With no call on its way.
  ncclComm_t communicator() const noexcept { return handle_->communicator(); }

  /// Collective: done when the handle has settled. @param memory  Of ncclMemAlloc, as many bytes on all ranks.
  /// @param window  NCCL writes it until then. @throws comm_error
  void register_window(void* memory, std::size_t bytes, ncclWindow_t& window) const {
    auto const held = handle_->lock("ncclCommWindowRegister");
    handle_->check("ncclCommWindowRegister",
                   ncclCommWindowRegister(communicator(), memory, bytes, &window, NCCL_WIN_COLL_SYMMETRIC));
    handle_->waits_for("ncclCommWindowRegister");
  }
  /// @throws comm_error
  void deregister_window(ncclWindow_t window) const {
    auto const held = handle_->lock("ncclCommWindowDeregister");
    handle_->check("ncclCommWindowDeregister", ncclCommWindowDeregister(communicator(), window));
  }

  void send(comm::transfer const& t) const {
    handle_->check("ncclSend", ncclSend(t.memory, t.bytes, ncclUint8, t.peer, communicator(), device_.stream()));
  }
  void receive(comm::transfer const& t) const {
    handle_->check("ncclRecv", ncclRecv(t.memory, t.bytes, ncclUint8, t.peer, communicator(), device_.stream()));
  }

  /// One all-gather where the ranges follow one another and are equally long, else a broadcast of each.
  void gather(void* whole, std::span<comm::byte_range const> of_rank) const {
    expect_ranges("gather", of_rank);
    auto* const bytes = static_cast<std::byte*>(whole);
    if (follow_one_another(of_rank)) {
      comm::byte_range const own = of_rank[static_cast<std::size_t>(rank())];
      if (own.size() > 0)
        handle_->check("ncclAllGather", ncclAllGather(bytes + own.begin, bytes + of_rank[0].begin, own.size(),
                                                      ncclUint8, communicator(), device_.stream()));
    } else {
      for (std::size_t root = 0; root < of_rank.size(); ++root) {
        std::byte* const part = bytes + of_rank[root].begin;
        if (of_rank[root].size() > 0)
          handle_->check("ncclBroadcast", ncclBroadcast(part, part, of_rank[root].size(), ncclUint8,
                                                        static_cast<int>(root), communicator(), device_.stream()));
      }
    }
  }

  /// One reduce-scatter where the ranges follow one another and are equally long, else a reduction of each.
  void reduce_scatter(void const* whole, std::span<comm::byte_range const> of_rank, void* sum,
                      comm::number_type type) const {
    expect_ranges("reduce_scatter", of_rank);
    auto const* const bytes = static_cast<std::byte const*>(whole);
    auto const [of_nccl, size] = number_of(type);
    if (follow_one_another(of_rank)) {
      if (of_rank[0].size() > 0)
        handle_->check("ncclReduceScatter", ncclReduceScatter(bytes + of_rank[0].begin, sum, of_rank[0].size() / size,
                                                              of_nccl, ncclSum, communicator(), device_.stream()));
    } else {
      for (std::size_t root = 0; root < of_rank.size(); ++root)
        if (of_rank[root].size() > 0)
          handle_->check("ncclReduce",
                         ncclReduce(bytes + of_rank[root].begin, sum, of_rank[root].size() / size, of_nccl, ncclSum,
                                    static_cast<int>(root), communicator(), device_.stream()));
    }
  }

  void sum(double* numbers, std::size_t count) const {
    if (count > 0)
      handle_->check("ncclAllReduce",
                     ncclAllReduce(numbers, numbers, count, ncclDouble, ncclSum, communicator(), device_.stream()));
  }

 private:
  /// With the lock of a group.
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

  D device_;
  std::shared_ptr<nccl_handle> handle_;
};

}  // namespace pushpull::detail
