/// @file
/// MPI's requests for one call of comm::mpi, and the memory that MPI uses until they are complete.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>
#include <thread>
#include <vector>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Lets other processes run between two questions: MPI makes progress only while it is asked. After a second it sleeps.
class mpi_pause {
 public:
  void operator()() {
    if (std::chrono::steady_clock::now() - begin_ < std::chrono::seconds(1))
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(100));
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// Calls whose order is the same on all ranks. One thread may be in a call of each family.
enum class mpi_family : unsigned char {
  grouped,  ///< those that take a group
  host,     ///< barrier, broadcast and gather_all
};

/// One call on its way. Must stay until MPI has completed all of its parts.
struct mpi_operation {
  /// One request of MPI's.
  struct part {
    MPI_Request request = MPI_REQUEST_NULL;
    int peer = -1;      ///< -1: all ranks
    int expected = -1;  ///< bytes that have to come from the peer; -1 if none are received
    bool complete = false;
  };

  char const* call;  ///< a literal
  mpi_family family;
  std::vector<part> parts = {};
  std::size_t first_incomplete = 0;
  std::optional<std::chrono::steady_clock::time_point> waits_since = {};

  // Memory of its own. A collective operation of MPI's cannot be cancelled, so it must not use the caller's.
  std::vector<std::byte> sent = {}, received = {};
  std::vector<double> numbers = {};
  std::vector<int> counts = {}, offsets = {};
  double* sums = nullptr;  ///< where `numbers` go in the end, unless null

  bool complete() const noexcept { return first_incomplete == parts.size(); }
  /// Whether MPI reads or writes memory of the caller.
  bool uses_memory_of_the_caller() const noexcept { return !parts.empty() && parts.front().peer >= 0; }

  /// The ranks that have not done their part, ascending. Empty if MPI does not tell.
  std::vector<int> missing_ranks() const {
    std::vector<int> ranks;
    for (part const& p : parts)
      if (!p.complete && p.peer >= 0) ranks.push_back(p.peer);
    std::ranges::sort(ranks);
    ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
    return ranks;
  }
};

}  // namespace pushpull::detail
