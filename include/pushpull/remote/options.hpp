/// @file
/// Options of servers and workers, and when a server applies the pushes of several workers.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/exchange/command.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

/// Each push is a step of its own, when it comes: MXNet's dist_async. The fastest; gradients are those of older weights.
struct asynchronous {};

/// Same as `asynchronous`, but a worker waits for slower ones: a pull of a worker that has pushed a key c times waits until all
/// living workers have pushed it c - `ahead` times. Stale synchronous parallel: Ho et al. 2013, "More Effective Distributed ML via
/// a Stale Synchronous Parallel Parameter Server".
struct bounded {
  std::uint64_t ahead = 0;
};

/// One step takes one push of each worker, in the order of their ranks; all are answered together: MXNet's dist_sync with
/// servers. Weights are those of a store of one process with these sources, bit for bit.
struct rounds {
  bool goes_on = false;  ///< without a worker that has died; else all pushes fail from then on
};

/// When a server applies pushes.
using consistency = std::variant<asynchronous, bounded, rounds>;

/// The keys of an encrypted connection: CURVE, in ZeroMQ's text form of 40 characters, as `new_curve_keys` makes them.
struct curve_keys {
  std::string public_key = {};
  std::string secret_key = {};
};

/// Options of a server.
struct server_options {
  std::string address = "tcp://127.0.0.1:*";  ///< to listen at; * is a free port
  std::uint32_t number = 0;                   ///< among the servers
  std::uint32_t workers = 1;                  ///< that the job has at least
  remote::consistency consistency = asynchronous{};
  std::uint64_t job = 0;                               ///< workers of another job are refused
  std::size_t largest_payload = std::size_t{1} << 26;  ///< in bytes; longer messages end their connection
  std::chrono::milliseconds dead_after{1000};          ///< a worker is dead that was silent so long
  std::chrono::milliseconds return_within{30'000};     ///< a server whose last worker died ends after this time
  curve_keys curve = {};                               ///< both keys: only workers with the public key connect
  command_handler on_command = {};                     ///< on the server's thread
};

/// Placement of pieces on servers.
enum class server_placement {
  in_turn,  ///< Pieces of at most `piece_bytes`, one server after the other.
  mxnet     ///< placement::mxnet with `bound`, each part in such pieces.
};

/// Options of a remote_store, the same on all workers of a job, but for the rank.
struct worker_options {
  std::int64_t rank = -1;  ///< -1: the first that is free
  std::uint64_t job = 0;   ///< Of its servers, which refuse workers of another job.
  server_placement placement = server_placement::in_turn;
  std::int64_t bound = 1'000'000;                  ///< of server_placement::mxnet, in elements
  std::size_t piece_bytes = std::size_t{1} << 20;  ///< a multiple of 4 KiB is best
  std::chrono::milliseconds heartbeat{250};
  std::chrono::milliseconds patience{30'000};  ///< for a lost server to come back; then calls throw server_lost
  curve_keys curve = {};                       ///< of this worker
  std::string server_key = {};                 ///< the servers' public key; empty: no encryption
};

}  // namespace pushpull::remote
