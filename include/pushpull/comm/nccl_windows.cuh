/// @file
/// Ranks of GPUs that reach each other's memory by pointers: NCCL's symmetric windows.
#pragma once

#include <nccl.h>
#include <nccl_device.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iterator>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/comm/nccl.hpp>
#include <pushpull/comm/nccl_core.hpp>
#include <pushpull/comm/nccl_options.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cuda_queue.cuh>
#include <pushpull/error.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// to[r]: where this GPU finds the window of rank number r of those whose memory it reaches.
static __global__ void window_pointers_kernel(ncclWindow_t window, int ranks, void** to) {
  for (int r = 0; r < ranks; ++r) to[r] = ncclGetLsaPointer(window, 0, r);
}

/// The symmetric windows of a rank of one device. Their calls have a communicator of NCCL of their own, because they come in
/// another order than the messages. NCCL forgets a window when all ranks say so, for which a destructor must not wait: a
/// dropped window is forgotten in a later call that all of them make.
template <comm::StreamDevice D>
class nccl_window_list {
 public:
  struct window {
    void* memory = nullptr;
    ncclWindow_t handle = nullptr;  ///< Null: the ranks reach nothing of each other's.
    std::uint64_t number = 0;
    bool dropped = false;
    std::vector<void*> of_rank = {};  ///< Of all ranks; null where this one does not reach them.
  };

  /// Collective. @param id  Of the communicator that it makes. @throws comm_error, comm_timeout, out_of_memory
  nccl_window_list(comm::nccl<D> const& ranks, comm::nccl_options const& options, ncclUniqueId const& id)
      : ranks_(ranks),
        core_(ranks.device(), ranks.rank(), ranks.size(), options, std::make_shared<nccl_failure>()),
        of_rank_(static_cast<std::size_t>(ranks.size())) {
    core_.start(id);
    core_.handle()->wait_until_settled();
    window& first = register_memory(place{}.alignment);
    int const reached = first.handle != nullptr ? ncclTeamLsa(core_.communicator()).nRanks : 1;
    reached_ = agreed(reached);
    find_ranks(first);
    arrivals_ = static_cast<double*>(first.memory);
  }
  nccl_window_list(nccl_window_list const&) = delete;
  nccl_window_list& operator=(nccl_window_list const&) = delete;
  ~nccl_window_list() {
    try {
      if (std::uncaught_exceptions() > 0) ranks_.fail("a rank ends because of an exception");
      core_.device().synchronize();  // its passes read and write memory of others
      ranks_.expect_alive();
      ranks_.barrier();
      for (auto& w : windows_) forget(*w);
    } catch (std::exception const&) {  // a communicator has failed: the memory stays until the process ends
    }
  }

  /// Ranks that follow one another and reach each other's memory.
  int reached() const noexcept { return reached_; }
  /// A number of the device that is 0.
  double* arrivals() const noexcept { return arrivals_; }

  /// Zeros, as many on each rank as the one that asks for the most. Collective. @throws comm_error, comm_timeout, out_of_memory
  window& allocate(std::size_t bytes) {
    std::vector<std::uint64_t> own = dropped();
    own.insert(own.begin(), place{bytes}.rounded());
    std::uint64_t most = 0;
    std::vector<std::uint64_t> gone(own.begin() + 1, own.end());
    for (auto const& message : ranks_.gather_all(std::as_bytes(std::span(own)))) {
      std::vector<std::uint64_t> numbers(message.size() / sizeof(std::uint64_t)), both;
      std::memcpy(numbers.data(), message.data(), message.size());
      most = std::max(most, numbers.front());
      std::set_intersection(gone.begin(), gone.end(), numbers.begin() + 1, numbers.end(), std::back_inserter(both));
      gone = std::move(both);
    }
    forget(gone);
    window& made = register_memory(static_cast<std::size_t>(most));
    find_ranks(made);
    return made;
  }
  void drop(window& gone) noexcept {
    std::lock_guard const lock(mutex_);
    gone.dropped = true;
  }

 private:
  /// Windows begin and end at such addresses.
  struct place {
    static constexpr std::size_t alignment = NCCL_WIN_REQUIRED_ALIGNMENT;
    std::size_t bytes = 0;
    std::uint64_t rounded() const { return (bytes / alignment + 1) * alignment; }
  };

  window& register_memory(std::size_t bytes) {
    auto made = std::make_unique<window>();
    [[maybe_unused]] auto const current = core_.device().activate();
    ncclResult_t const result = ncclMemAlloc(&made->memory, bytes);
    std::int32_t const is_there = result == ncclSuccess ? 1 : 0;
    auto const all = ranks_.gather_all(std::as_bytes(std::span(&is_there, 1)));
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      std::int32_t has = 0;
      std::memcpy(&has, all[rank].data(), sizeof(has));
      if (has == 1) continue;
      if (is_there == 1) static_cast<void>(ncclMemFree(made->memory));
      throw out_of_memory("comm::nccl_windows: rank " + std::to_string(rank) + " has no " + std::to_string(bytes) +
                          " bytes for a window" +
                          (is_there == 1 ? std::string() : ": " + nccl_handle::text_of("ncclMemAlloc", result)));
    }
    core_.device().fill_zero(made->memory, bytes);
    core_.device().synchronize();
    made->handle = core_.register_window(made->memory, bytes);
    std::lock_guard const lock(mutex_);
    made->number = next_++;
    windows_.push_back(std::move(made));
    return *windows_.back();
  }

  /// The number of ranks that reach each other, if it is the same everywhere and divides theirs.
  int agreed(int own) const {
    for (auto const& message : ranks_.gather_all(std::as_bytes(std::span(&own, 1)))) {
      int other = 0;
      std::memcpy(&other, message.data(), sizeof(other));
      if (other != own) return 1;
    }
    return own >= 1 && ranks_.size() % own == 0 ? own : 1;
  }

  void find_ranks(window& made) {
    made.of_rank.assign(of_rank_, nullptr);
    auto const own = static_cast<std::size_t>(ranks_.rank()), reached = static_cast<std::size_t>(reached_);
    if (reached == 1) {
      made.of_rank[own] = made.memory;
      return;
    }
    D const& device = core_.device();
    std::vector<void*> pointers(reached);
    buffer<D> const found(device, reached * sizeof(void*));
    [[maybe_unused]] auto const current = device.activate();
    window_pointers_kernel<<<1, 1, 0, device.stream()>>>(made.handle, reached_, static_cast<void**>(found.data()));
    cuda_check(cudaGetLastError(), "window_pointers_kernel");
    device.copy(pointers.data(), found.data(), found.bytes());
    device.synchronize();
    std::ranges::copy(pointers, made.of_rank.begin() + static_cast<std::ptrdiff_t>(own / reached * reached));
  }

  std::vector<std::uint64_t> dropped() const {
    std::lock_guard const lock(mutex_);
    std::vector<std::uint64_t> numbers;
    for (auto const& w : windows_)
      if (w->dropped) numbers.push_back(w->number);
    return numbers;
  }
  void forget(std::span<std::uint64_t const> numbers) {
    if (numbers.empty()) return;
    core_.device().synchronize();
    ranks_.barrier();  // passes of all ranks that read or write them have ended
    std::lock_guard const lock(mutex_);
    for (auto& w : windows_)
      if (std::ranges::find(numbers, w->number) != numbers.end()) forget(*w);
    std::erase_if(windows_, [](auto const& w) { return w->memory == nullptr; });
  }
  void forget(window& gone) {
    [[maybe_unused]] auto const current = core_.device().activate();
    if (gone.handle != nullptr) core_.deregister_window(std::exchange(gone.handle, nullptr));
    expect_nccl_success("ncclMemFree", ncclMemFree(std::exchange(gone.memory, nullptr)));
  }

  comm::nccl<D> ranks_;
  nccl_core<D> core_;
  std::size_t of_rank_;
  int reached_ = 1;
  double* arrivals_ = nullptr;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<window>> windows_;  // in the order of their numbers
  std::uint64_t next_ = 0;
};

}  // namespace detail

namespace comm {

/// comm::nccl whose ranks, of one GPU each, reach each other's memory where NVLink or PCIe lets them: the pass of a store reads
/// the gradients of such ranks where they are and writes new weights into their mirrors, in the place of messages. Ranks that
/// do not reach each other, and ranks of several GPUs, exchange messages as over comm::nccl. Not yet run on several GPUs.
template <StreamDevice D>
class nccl_windows : public nccl<D> {
  using list_type = pushpull::detail::nccl_window_list<D>;
  using window_type = typename list_type::window;

 public:
  using group_type = typename nccl<D>::group_type;

  /// Memory of every rank that this one reaches. Copies share it; after the last of them on every rank it is freed in the next
  /// allocate_shared, or with the communicator.
  class shared_memory {
   public:
    /// The memory of the rank `rank`, aligned to 4096 bytes; null if this rank does not reach it.
    void* at(int rank) const { return window_->of_rank.at(static_cast<std::size_t>(rank)); }

   private:
    friend nccl_windows;
    shared_memory(std::shared_ptr<list_type> list, window_type& made)
        : window_(&made, [list = std::move(list)](auto* gone) noexcept { list->drop(*gone); }) {}

    std::shared_ptr<window_type> window_;
  };

  /// Collective: connects the ranks once more, for the windows. @throws comm_error, comm_timeout, out_of_memory
  explicit nccl_windows(nccl<D> const& ranks) : nccl<D>(ranks) {
    if (this->devices().size() == 1 && this->size() > 1)
      list_ = std::make_shared<list_type>(ranks, this->options(), nccl<D>::agreed_ids(this->host(), 1).front());
  }

  /// Ranks that reach each other's memory are one node.
  int node_of(int rank) const { return list_ ? rank / list_->reached() : rank; }
  /// Zeros on the rank's GPU, on each rank as many as the one that asks for the most. Collective, in the order of `barrier`.
  /// @throws comm_error, comm_timeout; out_of_memory on all ranks; invalid_argument of ranks of several GPUs
  shared_memory allocate_shared(std::size_t bytes) const {
    pushpull::detail::expects<invalid_argument>(list_ != nullptr, [] {
      return std::string("comm::nccl_windows: allocate_shared: several ranks of one GPU each expected");
    });
    return shared_memory(list_, list_->allocate(bytes));
  }
  /// Ready as nccl's calls: later work on the device's stream comes after earlier work on the streams of all ranks.
  nccl_request arrive(group_type& group) const {
    if (!list_) return this->sum(group, nullptr, 0);
    return this->sum(group, list_->arrivals(), 1);
  }

 private:
  std::shared_ptr<list_type> list_;  // null: no rank reaches another
};

}  // namespace comm
}  // namespace pushpull
