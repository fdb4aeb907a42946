/// @file
/// A communicator over NCCL for memory of the host, which passes through memory of the device.
#pragma once

#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <pushpull/comm/nccl_devices.hpp>
#include <pushpull/comm/nccl_group.hpp>
#include <pushpull/comm/nccl_options.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A call's bytes in memory of the device. Copies between it and the host run on a stream of their own, so that they wait for
/// no message of another rank.
template <comm::StreamDevice D>
class nccl_staging {
 public:
  nccl_staging(nccl_devices<D> const& connected, D const& copies, std::size_t bytes)
      : connected_(connected),
        copies_(copies),
        bytes_(bytes),
        memory_(static_cast<std::byte*>(copies.allocate(bytes))) {}
  nccl_staging(nccl_staging const&) = delete;
  nccl_staging& operator=(nccl_staging const&) = delete;
  ~nccl_staging() { device().deallocate(memory_, bytes_); }  // after NCCL's work on it

  nccl_devices<D> const& connected() const noexcept { return connected_; }
  D const& device() const noexcept { return connected_[0].device(); }
  std::byte* data() const noexcept { return memory_; }
  void bring(std::size_t offset, void const* from, std::size_t bytes) { copies_.copy(memory_ + offset, from, bytes); }
  /// When the call is done these bytes go to the host.
  void take_back(void* to, std::size_t offset, std::size_t bytes) {
    if (bytes > 0) back_.push_back({to, offset, bytes});
  }
  void synchronize() const { copies_.synchronize(); }
  void finish() const {
    for (piece const& p : back_) copies_.copy(p.to, memory_ + p.offset, p.bytes);
    copies_.synchronize();
  }

 private:
  struct piece {
    void* to;
    std::size_t offset, bytes;
  };

  nccl_devices<D> connected_;
  D copies_;
  std::size_t bytes_;
  std::byte* memory_;
  std::vector<piece> back_;
};

/// A call of nccl_host. Ready when the bytes are in memory of the host. Dropped before it is ready, it waits.
template <comm::StreamDevice D>
class nccl_host_request {
 public:
  nccl_host_request(comm::nccl_request request, std::unique_ptr<nccl_staging<D>> staging)
      : request_(std::move(request)), staging_(std::move(staging)) {}
  nccl_host_request(nccl_host_request&&) noexcept = default;
  nccl_host_request& operator=(nccl_host_request&& other) noexcept {
    std::swap(request_, other.request_);
    std::swap(staging_, other.staging_);
    std::swap(event_, other.event_);
    return *this;
  }
  ~nccl_host_request() {
    try {
      wait();
    } catch (...) {  // noted, and the communicator is aborted
    }
  }

  /// @throws comm_error, comm_timeout
  bool ready() {
    if (!request_.ready()) return false;
    if (!staging_) return true;
    if (!event_) event_.emplace(staging_->device().record());
    if (!event_->ready()) {
      staging_->connected().throw_if_failed();
      return false;
    }
    staging_->connected().throw_if_failed();  // an abort ends NCCL's work too
    staging_->finish();
    staging_.reset();
    return true;
  }
  /// @throws comm_error, comm_timeout
  void wait() {
    while (!ready()) std::this_thread::sleep_for(std::chrono::microseconds(20));
  }

 private:
  comm::nccl_request request_;
  std::unique_ptr<nccl_staging<D>> staging_;  // null: there is nothing to do
  std::optional<decltype(std::declval<D const&>().record())> event_;
};

/// Moves memory of the host: what comm::nccl needs besides its device's, where no other communicator connects the ranks. Each
/// family of calls has a communicator of NCCL and streams of its own. Copies share them.
template <comm::StreamDevice D>
  requires std::constructible_from<D, int>
class nccl_host {
 public:
  using policy_kind = communicator_tag;
  using group_type = comm::nccl_group<D>;
  using request_type = nccl_host_request<D>;
  template <class Other>
  static constexpr bool moves_memory_of = HostDevice<Other>;

  /// Collective: returns when all ranks are connected. @param gpu  Of which streams are made.
  /// @param of_groups, of_calls  The ids of its communicators. @throws comm_error, comm_timeout
  nccl_host(int gpu, int own_rank, int ranks, comm::nccl_options const& options, ncclUniqueId const& of_groups,
            ncclUniqueId const& of_calls)
      : groups_({D(gpu)}, own_rank, ranks, options),
        calls_({D(gpu)}, own_rank, ranks, options),
        group_copies_(gpu),
        call_copies_(gpu) {
    groups_.start(0, std::span(&of_groups, 1), 1);
    groups_.wait_until_settled();
    calls_.start(0, std::span(&of_calls, 1), 1);
    calls_.wait_until_settled();
  }

  int rank() const noexcept { return groups_.rank(); }
  int size() const noexcept { return groups_.ranks(); }

  group_type group() const { return groups_.group(); }
  void fail(std::string_view reason) const noexcept {
    groups_.fail(reason);
    calls_.fail(reason);
  }
  request_type exchange(group_type& group, std::span<comm::transfer const> out,
                        std::span<comm::transfer const> in) const {
    std::size_t bytes = 0;
    for (auto const transfers : {out, in})
      for (comm::transfer const& t : transfers) bytes += aligned(t.bytes);
    if (bytes == 0) return {groups_.exchange(group, out, in), nullptr};
    auto staging = std::make_unique<nccl_staging<D>>(groups_, group_copies_, bytes);
    std::vector<comm::transfer> staged_out, staged_in;
    std::size_t offset = 0;
    for (comm::transfer const& t : out) {
      staging->bring(offset, t.memory, t.bytes);
      staged_out.push_back({staging->data() + offset, t.bytes, t.peer});
      offset += aligned(t.bytes);
    }
    for (comm::transfer const& t : in) {
      staging->take_back(t.memory, offset, t.bytes);
      staged_in.push_back({staging->data() + offset, t.bytes, t.peer});
      offset += aligned(t.bytes);
    }
    staging->synchronize();
    auto request = groups_.exchange(group, staged_out, staged_in);
    return {std::move(request), std::move(staging)};
  }
  request_type gather(group_type& group, void* whole, std::span<comm::byte_range const> of_rank) const {
    return gather(groups_, group_copies_, group, whole, of_rank);
  }
  request_type sum(group_type& group, double* numbers, std::size_t count) const {
    return sum(groups_, group_copies_, group, numbers, count);
  }

  void barrier() const {
    double nothing = 0;
    now([&](group_type& group) { return sum(calls_, call_copies_, group, &nothing, 1); });
  }
  void broadcast(std::span<std::byte> bytes, int root) const {
    expects<invalid_argument>(root >= 0 && root < size(), [&] {
      return "comm::nccl: broadcast: a root below " + std::to_string(size()) + " expected, got " + std::to_string(root);
    });
    if (bytes.empty()) return;
    std::vector<comm::byte_range> ranges(static_cast<std::size_t>(size()));
    ranges[static_cast<std::size_t>(root)] = {0, bytes.size()};
    now([&](group_type& group) { return gather(calls_, call_copies_, group, bytes.data(), ranges); });
  }
  std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const {
    auto const ranks = static_cast<std::size_t>(size()), own = static_cast<std::size_t>(rank());
    std::vector<std::uint64_t> sizes(ranks);
    sizes[own] = bytes.size();
    std::vector<comm::byte_range> ranges(ranks);
    for (std::size_t r = 0; r < ranks; ++r) ranges[r] = {r * sizeof(sizes[0]), (r + 1) * sizeof(sizes[0])};
    now([&](group_type& group) { return gather(calls_, call_copies_, group, sizes.data(), ranges); });
    std::size_t end = 0;
    for (std::size_t r = 0; r < ranks; ++r) {
      ranges[r] = {end, end + static_cast<std::size_t>(sizes[r])};
      end = ranges[r].end;
    }
    std::vector<std::byte> whole(end);
    std::copy(bytes.begin(), bytes.end(), whole.begin() + static_cast<std::ptrdiff_t>(ranges[own].begin));
    if (end > 0) now([&](group_type& group) { return gather(calls_, call_copies_, group, whole.data(), ranges); });
    std::vector<std::vector<std::byte>> result;
    for (comm::byte_range const& range : ranges)
      result.emplace_back(whole.begin() + static_cast<std::ptrdiff_t>(range.begin),
                          whole.begin() + static_cast<std::ptrdiff_t>(range.end));
    return result;
  }

 private:
  static std::size_t aligned(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

  request_type gather(nccl_devices<D> const& connected, D const& copies, group_type& group, void* whole,
                      std::span<comm::byte_range const> of_rank) const {
    std::size_t begin = 0, end = 0;
    for (comm::byte_range const& range : of_rank) {
      if (range.size() == 0) continue;
      begin = end == 0 ? range.begin : std::min(begin, range.begin);
      end = std::max(end, range.end);
    }
    if (end == begin || of_rank.size() != static_cast<std::size_t>(size()))
      return {connected.gather(group, whole, of_rank, 0), nullptr};
    auto staging = std::make_unique<nccl_staging<D>>(connected, copies, end - begin);
    auto* const bytes = static_cast<std::byte*>(whole);
    std::vector<comm::byte_range> staged;
    for (comm::byte_range const& range : of_rank) {
      bool const is_own = staged.size() == static_cast<std::size_t>(rank());
      comm::byte_range const place =
          range.size() == 0 ? comm::byte_range() : comm::byte_range{range.begin - begin, range.end - begin};
      if (is_own)
        staging->bring(place.begin, bytes + range.begin, place.size());
      else
        staging->take_back(bytes + range.begin, place.begin, place.size());
      staged.push_back(place);
    }
    staging->synchronize();
    auto request = connected.gather(group, staging->data(), staged, 0);
    return {std::move(request), std::move(staging)};
  }
  request_type sum(nccl_devices<D> const& connected, D const& copies, group_type& group, double* numbers,
                   std::size_t count) const {
    if (count == 0) return {connected.sum(group, numbers, count), nullptr};
    auto staging = std::make_unique<nccl_staging<D>>(connected, copies, count * sizeof(double));
    auto* const memory = reinterpret_cast<double*>(staging->data());
    staging->bring(0, numbers, count * sizeof(double));
    staging->take_back(numbers, 0, count * sizeof(double));
    staging->synchronize();
    auto request = connected.sum(group, memory, count);
    return {std::move(request), std::move(staging)};
  }
  /// A call of the family without groups.
  template <class F>
  void now(F const& f) const {
    group_type group = calls_.group();
    auto request = f(group);
    group.end();
    request.wait();
  }

  nccl_devices<D> groups_, calls_;
  D group_copies_, call_copies_;
};

}  // namespace pushpull::detail
