/// @file
/// The options of comm::mpi.
#pragma once

#include <chrono>
#include <climits>
#include <cstddef>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace comm {

/// Options of comm::mpi, the same on all ranks.
struct mpi_options {
  std::chrono::milliseconds deadline = std::chrono::minutes(5);  ///< how long a call waits for other ranks
  int ranks_per_node = 0;  ///< splits nodes into nodes of at most this many ranks, for tests; 0: real nodes
  std::size_t largest_message = std::size_t{1} << 30;  ///< in bytes; MPI counts them by int
  bool aborts = true;  ///< a failed communicator ends the job when its last handle goes, or at exit
};

}  // namespace comm

namespace detail {

/// @throws invalid_argument
inline comm::mpi_options const& checked_options(comm::mpi_options const& options) {
  expects<invalid_argument>(options.deadline.count() > 0, [&] {
    return "comm::mpi: a deadline above 0 ms expected, got " + std::to_string(options.deadline.count()) + " ms";
  });
  expects<invalid_argument>(options.ranks_per_node >= 0, [&] {
    return "comm::mpi: ranks_per_node of 0 or more expected, got " + std::to_string(options.ranks_per_node);
  });
  expects<invalid_argument>(options.largest_message >= 1 && options.largest_message < std::size_t{INT_MAX}, [&] {
    return "comm::mpi: largest_message in [1, 2147483646] expected, got " + std::to_string(options.largest_message);
  });
  return options;
}

}  // namespace detail
}  // namespace pushpull
