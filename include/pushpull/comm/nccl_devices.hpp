/// @file
/// The communicators of NCCL that a rank has, one for each of its devices.
#pragma once

#include <nccl.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/comm/nccl_core.hpp>
#include <pushpull/comm/nccl_group.hpp>
#include <pushpull/comm/nccl_handle.hpp>
#include <pushpull/comm/nccl_options.hpp>
#include <pushpull/comm/nccl_watchdog.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Device number n of each rank is a rank of communicator number n, so that messages of different devices take different
/// ways. Calls of all of them are submitted in one group, and all fail together. Copies share them.
template <comm::StreamDevice D>
class nccl_devices {
 public:
  using group_type = comm::nccl_group<D>;
  using request_type = comm::nccl_request;

  /// Nothing is started. @param devices  At least one. @throws invalid_argument
  nccl_devices(std::vector<D> const& devices, int rank, int ranks, comm::nccl_options const& options)
      : state_(std::make_shared<state>()) {
    auto const failure = std::make_shared<nccl_failure>();
    for (D const& device : devices) {
      state_->cores.emplace_back(device, rank, ranks, options, failure);
      state_->handles.push_back(state_->cores.back().handle());
      state_->watchdogs.push_back(std::make_shared<nccl_watchdog<D>>(state_->handles.back(), device));
    }
  }

  /// Begins the initialisation of communicators number `first` and the following ones, as many as there are ids.
  /// @param blocks_of_threads  At most; 0: as NCCL likes. @throws comm_error
  void start(std::size_t first, std::span<ncclUniqueId const> ids, int blocks_of_threads = 0) const {
    expect_nccl_success("ncclGroupStart", ncclGroupStart());
    try {
      for (std::size_t i = 0; i < ids.size(); ++i) state_->cores[first + i].start(ids[i], blocks_of_threads);
    } catch (...) {
      static_cast<void>(ncclGroupEnd());
      throw;
    }
    expect_nccl_success("ncclGroupEnd", ncclGroupEnd());
  }

  std::vector<D> devices() const {
    std::vector<D> result;
    for (auto const& core : state_->cores) result.push_back(core.device());
    return result;
  }
  std::size_t size() const noexcept { return state_->cores.size(); }
  nccl_core<D> const& operator[](std::size_t n) const noexcept { return state_->cores[n]; }
  int rank() const noexcept { return state_->cores.front().rank(); }
  int ranks() const noexcept { return state_->cores.front().size(); }

  /// Until all calls so far have been put on the streams. @throws comm_error, comm_timeout
  void wait_until_settled() const { request().wait(); }
  /// @throws comm_error, comm_timeout: the first failure
  void throw_if_failed() const {
    for (auto const& handle : state_->handles) handle->throw_if_failed();
  }
  void fail(std::string_view reason) const noexcept {
    for (auto const& handle : state_->handles) handle->fail(rank(), reason);
  }

  group_type group() const { return {{state_, &state_->handles}, {state_, &state_->watchdogs}}; }
  request_type exchange(group_type&, std::span<comm::transfer const> out, std::span<comm::transfer const> in) const {
    for (std::span<comm::transfer const> const transfers : {out, in})
      for (comm::transfer const& t : transfers) expect_ends(t);
    for (comm::transfer const& t : in) state_->cores[t.device].receive(t);
    for (comm::transfer const& t : out) state_->cores[t.device].send(t);
    return request();
  }
  request_type gather(group_type&, void* whole, std::span<comm::byte_range const> of_rank, std::size_t device) const {
    core("gather", device).gather(whole, of_rank);
    return request_of(device);
  }
  request_type reduce_scatter(group_type&, void const* whole, std::span<comm::byte_range const> of_rank, void* sum,
                              comm::number_type type, std::size_t device) const {
    core("reduce_scatter", device).reduce_scatter(whole, of_rank, sum, type);
    return request_of(device);
  }
  request_type sum(group_type&, double* numbers, std::size_t count) const {
    state_->cores.front().sum(numbers, count);
    return request_of(0);
  }

 private:
  struct state {
    std::vector<nccl_core<D>> cores;
    nccl_handles handles;
    std::vector<std::shared_ptr<nccl_watchdog<D>>> watchdogs;  // end first
  };

  request_type request() const { return request_type({state_, &state_->handles}); }
  request_type request_of(std::size_t device) const { return request_type({state_, &state_->handles}, device); }
  nccl_core<D> const& core(char const* call, std::size_t device) const {
    expects<invalid_argument>(device < size(), [&] {
      return "comm::nccl: " + std::string(call) + ": a device below " + std::to_string(size()) + " expected, got " +
             std::to_string(device);
    });
    return state_->cores[device];
  }
  void expect_ends(comm::transfer const& t) const {
    static_cast<void>(core("exchange", t.device));
    expects<invalid_argument>(t.peer >= 0 && t.peer < ranks() && t.peer != rank(), [&] {
      return "comm::nccl: exchange: another rank of " + std::to_string(ranks()) + " expected, got " +
             std::to_string(t.peer) + " on rank " + std::to_string(rank());
    });
  }

  std::shared_ptr<state> state_;
};

}  // namespace pushpull::detail
