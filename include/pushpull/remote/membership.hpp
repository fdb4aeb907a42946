/// @file
/// The workers of a job as one server sees them: who came, who is alive, who has left or died.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/remote/message.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

using server_clock = std::chrono::steady_clock;

/// Where a worker is in its life.
enum class worker_state {
  absent,  ///< Its rank was not given to anybody yet.
  alive,
  left,  ///< It said goodbye.
  dead   ///< It was silent too long.
};

/// A worker.
struct member {
  worker_state state = worker_state::absent;
  std::uint64_t incarnation = 0;
  std::string connection;          ///< Where answers go.
  bool is_new_connection = false;  ///< Requests before it may be lost: the next heartbeat tells the worker so.
  server_clock::time_point heard = {};
  std::uint64_t last_control = 0;  ///< Sequence of its last barrier or command that is done.
};

/// Ranks beyond which a server numbers nobody.
inline constexpr std::uint32_t most_workers = 65536;

/// All workers, by rank. Belongs to the server's thread.
class membership {
 public:
  /// @param expected  Workers that the job has at least.
  membership(std::uint32_t expected, std::chrono::milliseconds dead_after)
      : members_(expected), expected_(expected), dead_after_(dead_after) {}

  std::size_t size() const { return members_.size(); }
  member& operator[](std::size_t rank) { return members_[rank]; }
  member const& operator[](std::size_t rank) const { return members_[rank]; }
  bool is_alive(std::size_t rank) const { return members_[rank].state == worker_state::alive; }
  std::size_t count(worker_state state) const {
    return static_cast<std::size_t>(
        std::count_if(members_.begin(), members_.end(), [&](member const& m) { return m.state == state; }));
  }
  /// Whether as many workers as the job has have come, even if some have left or died since.
  bool is_complete() const { return members_.size() - count(worker_state::absent) >= expected_; }
  /// Whether workers have come and all have left or died.
  bool has_ended() const { return is_complete() && count(worker_state::alive) == 0; }

  /// The worker that a message is from, if it has said hello. Notes that it was heard.
  member* find(message_header const& h, std::string const& connection, server_clock::time_point now) {
    if (h.worker >= members_.size()) return nullptr;
    member& m = members_[h.worker];
    if (m.state != worker_state::alive || m.incarnation != h.incarnation) return nullptr;
    m.heard = now;
    if (m.connection != connection) {
      m.connection = connection;
      m.is_new_connection = true;
    }
    return &m;
  }

  /// Takes a worker in. One of a rank that is alive in another process is refused; a worker that comes back has its rank again.
  /// @param rank  no_worker: the incarnation's old rank, or the first that is free. @returns its rank; none if it is refused
  std::optional<std::uint32_t> admit(std::uint32_t rank, std::uint64_t incarnation, std::string const& connection,
                                     server_clock::time_point now) {
    if (rank == no_worker) {
      auto const at = std::find_if(members_.begin(), members_.end(), [&](member const& m) {
        return m.state != worker_state::absent && m.incarnation == incarnation;
      });
      rank = static_cast<std::uint32_t>(at - members_.begin());
      if (at == members_.end()) rank = first_free();
    }
    if (rank >= most_workers) return std::nullopt;
    if (rank >= members_.size()) members_.resize(rank + std::size_t{1});
    member& m = members_[rank];
    if (m.state == worker_state::alive && m.incarnation != incarnation && now - m.heard < dead_after_)
      return std::nullopt;
    std::uint64_t const last_control = m.incarnation == incarnation ? m.last_control : 0;
    m = {worker_state::alive, incarnation, connection, false, now,
         last_control};  // it sends again what was not answered
    return rank;
  }

  /// Workers that have become dead by now.
  std::vector<std::uint32_t> bury(server_clock::time_point now) {
    std::vector<std::uint32_t> dead;
    for (std::size_t rank = 0; rank < members_.size(); ++rank) {
      member& m = members_[rank];
      if (m.state != worker_state::alive || now - m.heard < dead_after_) continue;
      m.state = worker_state::dead;
      dead.push_back(static_cast<std::uint32_t>(rank));
    }
    return dead;
  }

 private:
  std::uint32_t first_free() const {
    for (auto const state : {worker_state::absent, worker_state::dead, worker_state::left})
      for (std::size_t rank = 0; rank < members_.size(); ++rank)
        if (members_[rank].state == state && (state != worker_state::left || is_complete()))
          return static_cast<std::uint32_t>(rank);
    return static_cast<std::uint32_t>(members_.size());
  }

  std::vector<member> members_;
  std::uint32_t expected_;
  std::chrono::milliseconds dead_after_;
};

}  // namespace pushpull::remote::detail
