/// @file
/// The communicators of MPI's that a comm::mpi makes, and the nodes of its ranks.
#pragma once

#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/comm/mpi_library.hpp>
#include <pushpull/comm/mpi_operation.hpp>
#include <pushpull/comm/mpi_options.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Owns a communicator of MPI's. Move-only.
class mpi_communicator {
 public:
  mpi_communicator() = default;
  /// Takes what `make` makes; its errors become return codes.
  template <class Make>
  mpi_communicator(mpi_library& library, char const* function, Make const& make) : library_(&library) {
    library.check(function, [&] { return make(&comm_); });
    library.check("MPI_Comm_set_errhandler", [&] { return MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN); });
  }
  mpi_communicator(mpi_communicator&& other) noexcept : library_(other.library_), comm_(other.comm_) {
    other.comm_ = MPI_COMM_NULL;
  }
  mpi_communicator& operator=(mpi_communicator&& other) noexcept {
    std::swap(library_, other.library_);
    std::swap(comm_, other.comm_);
    return *this;
  }
  ~mpi_communicator() {
    if (comm_ != MPI_COMM_NULL && library_->usable()) (*library_)([&] { return MPI_Comm_free(&comm_); });
  }

  MPI_Comm get() const noexcept { return comm_; }

 private:
  mpi_library* library_ = nullptr;
  MPI_Comm comm_ = MPI_COMM_NULL;
};

/// Duplicates of a communicator of MPI's, and its parts on nodes.
class mpi_communicators {
 public:
  /// Collective over `given`. @throws comm_error, comm_timeout
  mpi_communicators(mpi_library& library, MPI_Comm given, comm::mpi_options const& options) : library_(library) {
    library_.check("MPI_Comm_rank", [&] { return MPI_Comm_rank(given, &rank_); });
    library_.check("MPI_Comm_size", [&] { return MPI_Comm_size(given, &size_); });
    meet(given, options);
    auto const duplicate = [&](MPI_Comm* made) { return MPI_Comm_dup(given, made); };
    host_ = mpi_communicator(library_, "MPI_Comm_dup", duplicate);
    grouped_ = mpi_communicator(library_, "MPI_Comm_dup", duplicate);
    find_nodes(options);
  }

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }
  MPI_Comm grouped() const noexcept { return grouped_.get(); }       ///< of calls that take a group
  MPI_Comm host() const noexcept { return host_.get(); }             ///< of barrier, broadcast and gather_all
  MPI_Comm node() const noexcept { return node_.get(); }             ///< of arrivals of the ranks on this node
  MPI_Comm windows() const noexcept { return windows_.get(); }       ///< same ranks, whose windows another thread makes
  std::vector<int> const& nodes() const noexcept { return nodes_; }  ///< the node of each rank

  /// Returns when all ranks of `comm` have come, so that no blocking call that follows waits for a rank.
  /// @throws comm_error, comm_timeout
  void meet(MPI_Comm comm, comm::mpi_options const& options) const {
    MPI_Request request = MPI_REQUEST_NULL;
    library_.check("MPI_Ibarrier", [&] { return MPI_Ibarrier(comm, &request); });
    auto const end = std::chrono::steady_clock::now() + options.deadline;
    for (mpi_pause pause;; pause()) {
      int flag = 0;
      library_.check("MPI_Test", [&] { return MPI_Test(&request, &flag, MPI_STATUS_IGNORE); });
      if (flag != 0) return;
      if (std::chrono::steady_clock::now() < end) continue;
      if (options.aborts) library_.abort_at_exit();
      throw comm_timeout(-1, "comm::mpi: rank " + std::to_string(rank_) + " waited " +
                                 std::to_string(options.deadline.count()) +
                                 " ms for the other ranks to make or destroy their communicator");
    }
  }

 private:
  /// Numbers the nodes in the order of their first ranks.
  void find_nodes(comm::mpi_options const& options) {
    node_ = mpi_communicator(library_, "MPI_Comm_split_type", [&](MPI_Comm* made) {
      return MPI_Comm_split_type(host(), MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, made);
    });
    if (options.ranks_per_node > 0)
      node_ = mpi_communicator(library_, "MPI_Comm_split", [&](MPI_Comm* made) {
        return MPI_Comm_split(node(), rank_ / options.ranks_per_node, rank_, made);
      });
    windows_ = mpi_communicator(library_, "MPI_Comm_dup", [&](MPI_Comm* made) { return MPI_Comm_dup(node(), made); });
    int first = rank_;
    library_.check("MPI_Allreduce", [&] { return MPI_Allreduce(&rank_, &first, 1, MPI_INT, MPI_MIN, node()); });
    std::vector<int> first_of(static_cast<std::size_t>(size_));
    library_.check("MPI_Allgather",
                   [&] { return MPI_Allgather(&first, 1, MPI_INT, first_of.data(), 1, MPI_INT, host()); });
    int count = 0;
    for (std::size_t r = 0; r < first_of.size(); ++r) {
      auto const leader = static_cast<std::size_t>(first_of[r]);
      nodes_.push_back(leader == r ? count++ : nodes_[leader]);
    }
  }

  mpi_library& library_;
  int rank_ = 0, size_ = 1;
  mpi_communicator host_, grouped_, node_, windows_;
  std::vector<int> nodes_;
};

}  // namespace pushpull::detail
