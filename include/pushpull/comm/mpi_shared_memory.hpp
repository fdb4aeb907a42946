/// @file
/// Memory that the MPI ranks of one node reach by pointers.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include <pushpull/comm/mpi_processes.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// The shared windows of a communicator. MPI frees a window when all ranks of the node call MPI_Win_free, which waits for
/// them. A destructor must not wait for other ranks, so a dropped window is freed in a later call that all of them make.
class mpi_windows {
 public:
  struct window {
    MPI_Win win = MPI_WIN_NULL;
    std::uint64_t number = 0;
    bool dropped = false;
    std::vector<void*> of_rank = {};  ///< null on other nodes
  };

  explicit mpi_windows(std::shared_ptr<mpi_processes> processes) : processes_(std::move(processes)) {}
  mpi_windows(mpi_windows const&) = delete;
  mpi_windows& operator=(mpi_windows const&) = delete;
  ~mpi_windows() {
    if (windows_.empty() || processes_->failed() || processes_->unwinds() || !processes_->library().usable()) return;
    try {
      processes_->of_mpi().meet(processes_->of_mpi().windows(), processes_->options());
      for (auto& w : windows_) processes_->check("MPI_Win_free", [&] { return MPI_Win_free(&w->win); });
    } catch (error const& e) {
      processes_->fail(e.what(), -1);
    }
  }

  mpi_processes& processes() const noexcept { return *processes_; }

  /// The numbers of the windows that this rank has dropped, ascending.
  std::vector<std::uint64_t> dropped() const {
    std::lock_guard const lock(mutex_);
    std::vector<std::uint64_t> numbers;
    for (auto const& w : windows_)
      if (w->dropped) numbers.push_back(w->number);
    return numbers;
  }
  /// Frees the windows of these numbers, which all ranks have dropped. Collective.
  void free(std::span<std::uint64_t const> numbers) {
    std::lock_guard const lock(mutex_);
    for (auto& w : windows_)
      if (std::ranges::find(numbers, w->number) != numbers.end())
        processes_->check("MPI_Win_free", [&] { return MPI_Win_free(&w->win); });
    std::erase_if(windows_, [](auto const& w) { return w->win == MPI_WIN_NULL; });
  }

  /// Collective over the node.
  window& allocate(std::size_t bytes) {
    auto made = std::make_unique<window>();
    // Each rank's part on pages of its own, and of one byte at least, so that every part has an address.
    std::size_t const rounded = (bytes / alignment + 2) * alignment;
    MPI_Info info = MPI_INFO_NULL;
    processes_->check("MPI_Info_create", [&] { return MPI_Info_create(&info); });
    processes_->check("MPI_Info_set", [&] { return MPI_Info_set(info, "alloc_shared_noncontig", "true"); });
    void* own = nullptr;
    processes_->check("MPI_Win_allocate_shared", [&] {
      return MPI_Win_allocate_shared(static_cast<MPI_Aint>(rounded), 1, info, processes_->of_mpi().windows(), &own,
                                     &made->win);
    });
    processes_->check("MPI_Info_free", [&] { return MPI_Info_free(&info); });
    std::memset(own, 0, rounded);
    find_parts(*made);
    std::lock_guard const lock(mutex_);
    made->number = next_++;
    windows_.push_back(std::move(made));
    return *windows_.back();
  }
  void drop(window& gone) noexcept {
    std::lock_guard const lock(mutex_);
    gone.dropped = true;
  }

 private:
  static constexpr std::size_t alignment = 64;

  void find_parts(window& made) {
    made.of_rank.assign(processes_->of_mpi().nodes().size(), nullptr);
    auto const& nodes = processes_->of_mpi().nodes();
    int on_node = 0;
    for (std::size_t r = 0; r < nodes.size(); ++r) {
      if (nodes[r] != nodes[static_cast<std::size_t>(processes_->rank())]) continue;
      MPI_Aint size = 0;
      int unit = 0;
      void* part = nullptr;
      processes_->check("MPI_Win_shared_query",
                        [&] { return MPI_Win_shared_query(made.win, on_node, &size, &unit, &part); });
      auto room = static_cast<std::size_t>(size);
      made.of_rank[r] = std::align(alignment, 1, part, room);  // pages: the same offset in every process
      ++on_node;
    }
  }

  std::shared_ptr<mpi_processes> processes_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<window>> windows_;
  std::uint64_t next_ = 0;
};

}  // namespace detail

namespace comm {

/// Memory of every rank on this node. Copies share it; after the last of them on every rank it is freed in the next
/// allocate_shared, or with the communicator.
class mpi_shared_memory {
 public:
  mpi_shared_memory(std::shared_ptr<pushpull::detail::mpi_windows> windows,
                    pushpull::detail::mpi_windows::window& window)
      : window_(&window, [windows = std::move(windows)](auto* gone) noexcept { windows->drop(*gone); }) {}

  /// The memory of the rank `rank`, aligned to 64 bytes; null if it is on another node.
  void* at(int rank) const { return window_->of_rank.at(static_cast<std::size_t>(rank)); }

 private:
  std::shared_ptr<pushpull::detail::mpi_windows::window const> window_;
};

}  // namespace comm
}  // namespace pushpull
