/// @file
/// Ranks of GPUs that reach each other's memory by pointers: NCCL's symmetric windows.
#pragma once

#include <nccl.h>
#include <nccl_device.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
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

/// The host that this process runs on, as NCCL tells hosts apart: NCCL_HOSTID, else its name and the number of its boot.
inline std::string host_identity() {
  if (char const* const given = std::getenv("NCCL_HOSTID"); given != nullptr && *given != '\0') return given;
  std::array<char, 256> name{};
  static_cast<void>(gethostname(name.data(), name.size() - 1));
  std::string boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
  return name.data() + (" " + boot);
}

/// The symmetric windows of a rank of one device. Their calls have a communicator of NCCL of their own, because they come in
/// another order than the messages. Small blocks share a window, since each takes whole pages of a GPU, and time of all ranks. A
/// destructor does not wait for other ranks, so a dropped block is forgotten in a later call that all of them make.
template <comm::StreamDevice D>
class nccl_window_list {
  /// Memory of all ranks that reach each other.
  struct window {
    void* memory = nullptr;
    ncclWindow_t handle = nullptr;  // stays where it is: NCCL writes it from a thread of its own
    std::size_t bytes = 0, used = 0, blocks = 0;
    std::vector<std::byte*> of_rank = {};  // of all ranks; null where this one does not reach them
  };

 public:
  /// A part of a window.
  struct block {
    window* in = nullptr;
    std::size_t offset = 0;
    std::uint64_t number = 0;
    bool dropped = false;

    void* at(std::size_t rank) const {
      std::byte* const first = in->of_rank.at(rank);
      return first != nullptr ? first + offset : nullptr;
    }
  };

  /// Collective. Asks for windows of all ranks, and if NCCL has none, of those on one host.
  /// @param host  Its identity. @throws comm_error, comm_timeout, out_of_memory
  nccl_window_list(comm::nccl<D> const& ranks, comm::nccl_options const& options, std::string const& host)
      : ranks_(ranks), options_(options) {
    try {
      connect(ranks_.size());
      if (reached_ > 1) return;
      int const on_host = ranks_per_host(host);
      if (on_host > 1 && on_host < ranks_.size()) connect(on_host);
    } catch (out_of_memory const&) {  // as on all ranks
      throw;
    } catch (error const& e) {
      ranks_.fail(e.what());
      throw;
    }
  }
  nccl_window_list(nccl_window_list const&) = delete;
  nccl_window_list& operator=(nccl_window_list const&) = delete;
  ~nccl_window_list() {
    if (std::uncaught_exceptions() > exceptions_) return;  // the memory stays until the process ends
    try {
      core_->device().synchronize();  // its passes read and write memory of others
      ranks_.expect_alive();
      ranks_.barrier();
      for (auto& w : windows_) forget(*w);
    } catch (std::exception const&) {  // a communicator has failed: so does it here
    }
  }

  /// Ranks that follow one another and reach each other's memory.
  int reached() const noexcept { return reached_; }
  /// A number of the device that is 0.
  double* arrivals() const noexcept { return arrivals_; }

  /// Zeros, as many on each rank as the one that asks for the most. Collective. @throws comm_error, comm_timeout, out_of_memory
  block& allocate(std::size_t bytes) {
    std::vector<std::uint64_t> own = dropped();
    own.insert(own.begin(), bytes / alignment * alignment + alignment);
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
    auto const size = static_cast<std::size_t>(most);
    window& in = size > shared_bytes / 4 ? registered(size) : shared(size);
    auto made = std::make_unique<block>(block{&in, in.used, next_++});
    in.used += size;
    std::lock_guard const lock(mutex_);
    ++in.blocks;
    blocks_.push_back(std::move(made));
    return *blocks_.back();
  }
  void drop(block& gone) noexcept {
    std::lock_guard const lock(mutex_);
    gone.dropped = true;
  }

 private:
  static constexpr std::size_t alignment = NCCL_WIN_REQUIRED_ALIGNMENT;
  static constexpr std::size_t shared_bytes = std::size_t{16} << 20;  // of windows for small blocks

  /// Of all ranks.
  template <class T>
  std::vector<T> gathered(T const& own) const {
    std::vector<T> all;
    for (auto const& message : ranks_.gather_all(std::as_bytes(std::span(&own, 1))))
      std::memcpy(&all.emplace_back(), message.data(), sizeof(T));
    return all;
  }

  /// A communicator for each `size` ranks that follow one another, and its first window.
  void connect(int size) {
    struct message {
      ncclUniqueId id;
      ncclResult_t result;
    };
    message own{};
    if (ranks_.rank() % size == 0) own.result = ncclGetUniqueId(&own.id);
    auto const all = gathered(own);
    for (std::size_t rank = 0; rank < all.size(); ++rank)
      if (all[rank].result != ncclSuccess)
        throw comm_error(static_cast<int>(rank),
                         "comm::nccl_windows: " + nccl_handle::text_of("ncclGetUniqueId", all[rank].result) +
                             ", on rank " + std::to_string(rank));
    if (core_) {
      forget(*windows_.front());
      windows_.clear();
    }
    core_.emplace(ranks_.device(), ranks_.rank() % size, size, options_, std::make_shared<nccl_failure>());
    core_->start(all[static_cast<std::size_t>(ranks_.rank() / size * size)].id);
    wait();
    window& first = registered(alignment);
    int const reached = is_window(first) ? ncclTeamLsa(core_->communicator()).nRanks : 1;
    reached_ = agreed(reached, size);
    find_ranks(first);
    arrivals_ = static_cast<double*>(first.memory);
    first.blocks = 1;
    first.used = first.bytes;
  }
  /// Until NCCL has done what the list has asked for, or the ranks have failed.
  void wait() const {
    while (!core_->handle()->settled()) {
      ranks_.expect_alive();
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

  /// Where ranks reach nothing NCCL 2.28 gives a handle all the same, of the host's memory.
  static bool is_window(window const& w) {
    cudaPointerAttributes attributes{};
    if (w.handle == nullptr) return false;
    if (cudaPointerGetAttributes(&attributes, w.handle) == cudaSuccess) return attributes.type == cudaMemoryTypeDevice;
    static_cast<void>(cudaGetLastError());
    return false;
  }

  /// A window with room for `bytes`.
  window& shared(std::size_t bytes) {
    if (open_ == nullptr || open_->bytes - open_->used < bytes) open_ = &registered(shared_bytes);
    return *open_;
  }
  window& registered(std::size_t bytes) {
    windows_.push_back(std::make_unique<window>());
    window& made = *windows_.back();
    [[maybe_unused]] auto const current = core_->device().activate();
    ncclResult_t const result = ncclMemAlloc(&made.memory, bytes);
    auto const results = gathered(result);
    for (std::size_t rank = 0; rank < results.size(); ++rank) {
      if (results[rank] == ncclSuccess) continue;
      if (result == ncclSuccess) static_cast<void>(ncclMemFree(made.memory));
      windows_.pop_back();
      throw out_of_memory("comm::nccl_windows: rank " + std::to_string(rank) + " has no " + std::to_string(bytes) +
                          " bytes for a window: " + nccl_handle::text_of("ncclMemAlloc", results[rank]));
    }
    made.bytes = bytes;
    try {
      core_->device().fill_zero(made.memory, bytes);
      core_->device().synchronize();
      core_->register_window(made.memory, bytes, made.handle);
      wait();
      if (reached_ > 0) find_ranks(made);
    } catch (error const& e) {
      ranks_.fail(e.what());  // others may wait for this rank
      throw;
    }
    return made;
  }

  /// The number of ranks that reach each other, if it is the same everywhere and divides theirs.
  int agreed(int own, int size) const {
    auto const all = gathered(own);
    bool const is_same = std::ranges::all_of(all, [&](int other) { return other == own; });
    return is_same && own >= 1 && size % own == 0 ? own : 1;
  }
  /// Ranks on each host, if all hosts have as many, which follow one another; else 1.
  int ranks_per_host(std::string const& host) const {
    auto const all = ranks_.gather_all(std::as_bytes(std::span(host)));
    auto const is_same = [&](std::size_t a, std::size_t b) { return all[a] == all[b]; };
    std::size_t each = 1;
    while (each < all.size() && is_same(each, 0)) ++each;
    bool alike = all.size() % each == 0;
    for (std::size_t rank = 1; alike && rank < all.size(); ++rank)
      alike = is_same(rank, rank - 1) == (rank % each != 0);
    return alike ? static_cast<int>(each) : 1;
  }

  void find_ranks(window& made) {
    made.of_rank.assign(static_cast<std::size_t>(ranks_.size()), nullptr);
    auto const own = static_cast<std::size_t>(ranks_.rank()), reached = static_cast<std::size_t>(reached_);
    if (reached > 1) {
      D const& device = core_->device();
      std::vector<std::byte*> pointers(reached);
      buffer<D> const found(device, reached * sizeof(void*));
      [[maybe_unused]] auto const current = device.activate();
      window_pointers_kernel<<<1, 1, 0, device.stream()>>>(made.handle, reached_, static_cast<void**>(found.data()));
      cuda_check(cudaGetLastError(), "window_pointers_kernel");
      device.copy(pointers.data(), found.data(), found.bytes());
      device.synchronize();
      std::ranges::copy(pointers, made.of_rank.begin() + static_cast<std::ptrdiff_t>(own / reached * reached));
    }
    made.of_rank[own] = static_cast<std::byte*>(made.memory);  // which outlives the communicator
  }

  std::vector<std::uint64_t> dropped() const {
    std::lock_guard const lock(mutex_);
    std::vector<std::uint64_t> numbers;
    for (auto const& b : blocks_)
      if (b->dropped) numbers.push_back(b->number);
    return numbers;
  }
  void forget(std::span<std::uint64_t const> numbers) {
    if (numbers.empty()) return;
    core_->device().synchronize();
    ranks_.barrier();  // passes of all ranks that read or write them have ended
    {
      std::lock_guard const lock(mutex_);
      for (auto const& b : blocks_)
        if (std::ranges::binary_search(numbers, b->number)) --b->in->blocks;
      std::erase_if(blocks_, [&](auto const& b) { return std::ranges::binary_search(numbers, b->number); });
    }
    for (auto& w : windows_) {
      if (w->blocks > 0) continue;
      if (w.get() == open_) open_ = nullptr;
      forget(*w);
    }
    std::erase_if(windows_, [](auto const& w) { return w->memory == nullptr; });
  }
  void forget(window& gone) {
    [[maybe_unused]] auto const current = core_->device().activate();
    if (gone.handle != nullptr) core_->deregister_window(std::exchange(gone.handle, nullptr));
    expect_nccl_success("ncclMemFree", ncclMemFree(std::exchange(gone.memory, nullptr)));
  }

  comm::nccl<D> ranks_;
  comm::nccl_options options_;
  int exceptions_ = std::uncaught_exceptions();  // when it was made
  int reached_ = 0;                              // 0: not yet known
  double* arrivals_ = nullptr;
  std::vector<std::unique_ptr<window>> windows_;
  window* open_ = nullptr;  // has room for small blocks
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<block>> blocks_;  // in the order of their numbers
  std::uint64_t next_ = 0;
  std::optional<nccl_core<D>> core_;  // ends first: NCCL may still write handles
};

}  // namespace detail

namespace comm {

/// comm::nccl whose ranks, of one GPU each, reach each other's memory: the pass of a store reads the gradients of such ranks where
/// they are and writes new weights into their mirrors, in the place of messages. Which ranks do, NCCL says: those of its LSA team,
/// which NVLink or PCIe connects. Others, and ranks of several GPUs, exchange messages as over comm::nccl. The last copy on
/// each rank goes when those of the other ranks do, on a thread of its own: it waits for them, in the order of `barrier`.
/// Not yet run on several GPUs.
template <StreamDevice D>
class nccl_windows : public nccl<D> {
  using list_type = pushpull::detail::nccl_window_list<D>;
  using block_type = typename list_type::block;

 public:
  using group_type = typename nccl<D>::group_type;

  /// Memory of every rank that this one reaches. Copies share it; after the last of them on every rank it is freed in a later
  /// allocate_shared, or with the communicator.
  class shared_memory {
   public:
    /// The memory of the rank `rank`, aligned to 4096 bytes; null if this rank does not reach it.
    void* at(int rank) const { return block_->at(static_cast<std::size_t>(rank)); }

   private:
    friend nccl_windows;
    shared_memory(std::shared_ptr<list_type> list, block_type& made)
        : block_(&made, [list = std::move(list)](auto* gone) noexcept { list->drop(*gone); }) {}

    std::shared_ptr<block_type> block_;
  };

  /// Collective: connects the ranks once more, for the windows.
  /// @param host  The same on ranks of one host. @throws comm_error, comm_timeout, out_of_memory
  explicit nccl_windows(nccl<D> const& ranks, std::string const& host = pushpull::detail::host_identity())
      : nccl<D>(ranks) {
    if (this->devices().size() == 1 && this->size() > 1)
      list_ = std::make_shared<list_type>(ranks, this->options(), host);
  }

  /// Ranks that reach each other's memory are one node.
  int node_of(int rank) const { return list_ ? rank / list_->reached() : rank; }
  /// Zeros on the rank's GPU, on each rank as many as the one that asks for the most. Blocks above 4 MiB have a window of their own,
  /// which takes whole pages of the GPU; smaller ones share windows of 16 MiB. Collective, in the order of `barrier`.
  /// @throws comm_error, comm_timeout; out_of_memory on all ranks; invalid_argument of ranks of several GPUs
  shared_memory allocate_shared(std::size_t bytes) const {
    pushpull::detail::expects<invalid_argument>(list_ != nullptr, [] {
      return std::string("comm::nccl_windows: allocate_shared: several ranks of one GPU each expected");
    });
    return shared_memory(list_, list_->allocate(bytes));
  }
  /// Ready as nccl's calls: later work on the device's stream comes after earlier work on the streams of all ranks, also of those
  /// that this one does not reach.
  nccl_request arrive(group_type& group) const {
    if (!list_) return this->sum(group, nullptr, 0);
    return this->sum(group, list_->arrivals(), 1);
  }

 private:
  std::shared_ptr<list_type> list_;  // null: no rank reaches another
};

}  // namespace comm
}  // namespace pushpull
